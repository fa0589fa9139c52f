"""The runner counts what ran and never calls nothing a success."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import run_tests
from run_tests import Gate, Suite, run_gate, run_suite


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one suite, in which the runner works."""
    (tmp_path / "tests/unit").mkdir(parents=True)
    monkeypatch.setattr(run_tests, "ROOT", tmp_path)
    return tmp_path


def gate(code: str, counts: str = "") -> run_tests.Outcome:
    return run_gate(Gate("seeded", [sys.executable, "-c", code], counts))


def test_gate_passes() -> None:
    assert gate("print('looked at 3 files')", r"[1-9]\d* files").passed == 1


def test_gate_that_fails() -> None:
    assert gate("raise SystemExit(2)").failed == 1


def test_gate_that_looked_at_nothing() -> None:
    assert gate("print('looked at 0 files')", r"[1-9]\d* files").failed == 1


def test_suite_is_counted(checkout: Path) -> None:
    (checkout / "tests/unit/test_a.py").write_text(
        "import pytest\n\ndef test_a(): pass\ndef test_b(): assert 0\n@pytest.mark.skip\ndef test_c(): pass\n"
    )
    outcome = run_suite(Suite("unit", parallel=False))
    assert (outcome.passed, outcome.failed, outcome.skipped) == (1, 1, 1)


def test_suite_without_a_test_fails(checkout: Path) -> None:
    (checkout / "tests/unit/test_a.py").write_text("")
    assert run_suite(Suite("unit", parallel=False)).failed == 1


def test_suite_that_cannot_be_collected_fails(checkout: Path) -> None:
    (checkout / "tests/unit/test_a.py").write_text("import gone\n")
    assert run_suite(Suite("unit", parallel=False)).failed == 1


def test_unknown_folder_of_tests_is_run_too(checkout: Path) -> None:
    (checkout / "tests/unit/test_a.py").touch()
    (checkout / "tests/surprise").mkdir()
    (checkout / "tests/surprise/test_a.py").touch()
    assert [suite.name for suite in run_tests.suites_to_run(False, [])] == ["unit", "surprise"]
    assert [suite.name for suite in run_tests.suites_to_run(True, [])] == ["unit"]
