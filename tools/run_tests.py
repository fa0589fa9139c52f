"""Runs the quality gates and the test suites, quickest first, and ends with one table.

    python tools/run_tests.py             everything
    python tools/run_tests.py --check     gates and unit tests: the minute before a commit
    python tools/run_tests.py sim e2e     only what is named
    TEST_SEED=7 python tools/run_tests.py   the tests of each file in another order (and other random values)

The last line counts what ran. A gate that looked at nothing, a suite without a test: failures, never silent successes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTHON_FOLDERS = [name for name in ("src", "tests", "tools", "bench") if (ROOT / name).is_dir()]
WORKERS = 3
"""One more than the cores of a small machine: tests also wait, for servers to start and for others to notice."""
BESIDE = 2
"""Suites without workers of their own that run side by side."""
SEED = int(os.environ.get("TEST_SEED", "1"))
"""Of the tests' order: what fails once fails again; another seed finds what leans on the order."""


@dataclass(frozen=True)
class Outcome:
    name: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    output: str = ""


@dataclass(frozen=True)
class Gate:
    """A command that must end with 0. `counts` must match its output when the gate has to prove what it looked at."""

    name: str
    command: list[str]
    counts: str = ""


@dataclass(frozen=True)
class Suite:
    """One folder below tests/. `parallel` is False where its tests share a browser, ports or a load generator; such
    suites run side by side."""

    name: str
    parallel: bool = True


GATES = [
    Gate("types", [f"{BIN}/mypy"], r"no issues found in [1-9]\d* source files"),
    Gate("web-types", ["tools/npm", "run", "--silent", "check"], r"types: [1-9]"),
    Gate("web-imports", ["tools/npm", "run", "--silent", "deps"], r"imports: [1-9]"),
    Gate("imports", [sys.executable, "tools/check_imports.py"], r"imports: [1-9]"),
    Gate("lint", [f"{BIN}/ruff", "check", *PYTHON_FOLDERS]),
    Gate("format", [f"{BIN}/ruff", "format", "--check", *PYTHON_FOLDERS], r"[1-9]\d* files? already formatted"),
    Gate("sizes", [sys.executable, "tools/size_budget.py"], r"sizes: [1-9]"),
    Gate("web-sizes", ["tools/npm", "run", "--silent", "sizes"], r"sizes: [1-9]"),
    Gate("docs", [sys.executable, "tools/check_docs.py"], r"docs: [1-9]"),
    Gate("repository", [sys.executable, "tools/check_repo.py"], r"repository: [1-9]"),
]
# Gates that look at what was built; `make check` builds nothing.
BUILT_GATES = [Gate("web-budget", ["tools/npm", "run", "--silent", "budget"], r"budget: \d")]
SUITES = [
    Suite("gates"),
    Suite("unit"),
    Suite("vectors"),
    Suite("contracts"),
    Suite("sim"),
    Suite("security"),
    Suite("e2e", parallel=False),
    Suite("deploy", parallel=False),
    Suite("interop", parallel=False),
]


def run_command(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


def run_gate(gate: Gate) -> Outcome:
    start = time.monotonic()
    status, output = run_command(gate.command)
    if status == 0 and gate.counts and not re.search(gate.counts, output):
        status, output = 1, f"{output}\n{gate.name}: the gate did not say that it looked at anything"
    return Outcome(gate.name, int(status == 0), int(status != 0), 0, time.monotonic() - start, output)


def run_suite(suite: Suite, is_shown: bool = True) -> Outcome:
    """Runs one folder of tests, with its output shown as it comes or kept; counts are read from pytest's own report."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"tests/{suite.name}", f"--junitxml={report}", "--no-header"]
        command += [f"--randomly-seed={SEED}"]
        if suite.parallel:
            command += ["-n", str(WORKERS)]
        if is_shown:
            status, output = subprocess.run(command, cwd=ROOT, check=False).returncode, ""
        else:
            status, output = run_command(command)
        passed, failed, skipped = read_counts(report)
    if status != 0 and failed == 0:
        failed = 1
    if passed == 0 and failed == 0:
        print(f"{suite.name}: no test ran")
        failed = 1
    return Outcome(suite.name, passed, failed, skipped, time.monotonic() - start, output)


def run_beside(suites: list[Suite]) -> list[Outcome]:
    """Runs suites without workers of their own side by side; what each of several printed is shown when it ends."""
    outcomes = []
    with ThreadPoolExecutor(BESIDE) as pool:
        for outcome in pool.map(partial(run_suite, is_shown=len(suites) == 1), suites):
            print(f"\n=== {outcome.name}\n{outcome.output}", end="", flush=True)
            outcomes.append(outcome)
    return outcomes


def read_counts(report: Path) -> tuple[int, int, int]:
    if not report.exists():
        return 0, 0, 0
    passed = failed = skipped = 0
    for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - pytest wrote it a moment ago
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skip = int(suite.get("skipped", 0))
        passed += int(suite.get("tests", 0)) - bad - skip
        failed += bad
        skipped += skip
    return passed, failed, skipped


def run_web_tests() -> Outcome:
    start = time.monotonic()
    status, output = run_command(["tools/npm", "run", "--silent", "test"])
    print(output, end="")
    count = re.search(r"web tests: (\d+) passed", output)
    passed = int(count.group(1)) if count else 0
    broken = re.search(r"Tests\s+(\d+) failed", re.sub(r"\x1b\[[0-9;]*m", "", output))
    failed = int(broken.group(1)) if broken else int(status != 0 or passed == 0)
    return Outcome("web", passed, failed, 0, time.monotonic() - start)


def has_tests(folder: Path) -> bool:
    return any(folder.rglob("test_*.py"))


def suites_to_run(only_check: bool, named: list[str]) -> list[Suite]:
    """The suites in their order, then any folder of tests that this file does not know yet."""
    tests = ROOT / "tests"
    known = {suite.name for suite in SUITES}
    others = sorted(f.name for f in tests.iterdir() if f.is_dir() and f.name not in known and has_tests(f))
    suites = [s for s in SUITES if has_tests(tests / s.name)] + [Suite(name) for name in others]
    if named:
        return [suite for suite in suites if suite.name in named]
    return [suite for suite in suites if suite.name == "unit"] if only_check else suites


def run_gates(only_check: bool, named: list[str]) -> list[Outcome]:
    gates = GATES if only_check else GATES + BUILT_GATES
    chosen = [gate for gate in gates if not named or gate.name in named]
    outcomes = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for outcome in pool.map(run_gate, chosen):
            mark = "FAILED" if outcome.failed else "ok"
            print(f"gate {outcome.name:<12} {mark:<7}{outcome.seconds:6.1f} s", flush=True)
            if outcome.failed:
                print("    " + "\n    ".join(outcome.output.strip().splitlines()[-60:]), flush=True)
            outcomes.append(outcome)
    return outcomes


def run_all(only_check: bool, named: list[str]) -> list[Outcome]:
    outcomes = run_gates(only_check, named)
    suites = suites_to_run(only_check, named)
    steps: list[tuple[str, Callable[[], Outcome]]] = [
        (suite.name, partial(run_suite, suite)) for suite in suites if suite.parallel
    ]
    if (not named and not only_check) or "web" in named:
        after = next((i + 1 for i, (name, _) in enumerate(steps) if name == "vectors"), len(steps))
        steps.insert(after, ("web", run_web_tests))
    for name, step in steps:
        print(f"\n=== {name}", flush=True)
        outcomes.append(step())
    return outcomes + run_beside([suite for suite in suites if not suite.parallel])


def main(arguments: list[str]) -> int:
    only_check = "--check" in arguments
    named = [name for name in arguments if not name.startswith("-")]
    start = time.monotonic()
    if not sys.stdout.isatty():
        os.environ.setdefault("NO_COLOR", "1")
    outcomes = run_all(only_check, named)
    print(f"\n{'what':<14}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for o in outcomes:
        print(
            f"{o.name:<14}{o.passed:>8}{o.failed:>8}{o.skipped:>9}{o.seconds:>9.1f}{'   <- FAILED' if o.failed else ''}"
        )
    missing = [s.name for s in SUITES if not has_tests(ROOT / "tests" / s.name)]
    if missing and not named and not only_check:
        print(f"suites without a test: {', '.join(missing)}")
    passed, failed = sum(o.passed for o in outcomes), sum(o.failed for o in outcomes)
    print(f"in {time.monotonic() - start:.0f} s")
    print(f"{passed} passed, {failed} failed, {sum(o.skipped for o in outcomes)} skipped")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
