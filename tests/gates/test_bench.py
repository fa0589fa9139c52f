"""The measurements run, every one of them, and say what they found; nothing here looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))
from bench.figures import Figure, draw_table


def run_bench(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.parametrize(
    ("backend", "works"),
    [
        ("embedded", {"mls", "client", "cost", "growth"}),
        ("embedded", {"sends", "group", "steady", "catch-up", "idle", "crash"}),
        ("postgres", {"sends", "restore", "watch"}),
        ("cluster", {"group", "crash", "cost"}),
    ],
)
def test_works_run_and_are_in_table_and_file(root: Path, tmp_path: Path, backend: str, works: set[str]) -> None:
    path, backends = tmp_path / "figures.json", ["relay", backend] if backend == "embedded" else [backend]
    done = run_bench(root, *works, "--quick", "--json", str(path), "--backends", *backends)
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text("utf-8"))["figures"]
    assert {each["work"] for each in figures} == works
    assert {each["backend"] for each in figures} <= {backend, ""}
    for each in figures:
        assert each["runs"], each
        assert all(value >= 0 for value in each["runs"]), each
        assert each["name"] in done.stdout
        is_a_count = each["unit"] == "messages"
        assert is_a_count or each["kept"] is None, "a quick run measures nothing, so it judges nothing"
    compared = {each["work"] for each in figures if each["ratio"] is not None}
    assert compared == (works - {"mls", "crash", "cost", "growth"} if "relay" in backends else set())


def test_the_tables_of_scale_are_those_of_the_figures(root: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "bench.scale"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (root / "docs/scale.md").read_text("utf-8")


def test_help_has_examples_and_every_work(root: Path) -> None:
    shown = run_bench(root, "--help").stdout
    for expected in ("examples:", "python -m bench client --json", "catch-up", "idle"):
        assert expected in shown


def test_an_unknown_work_is_refused_by_name(root: Path) -> None:
    done = run_bench(root, "sendz")
    assert done.returncode == 2
    assert "no such work: sendz" in done.stderr


def test_a_budget_is_kept_or_missed_on_its_own_side() -> None:
    ceiling = Figure("w", "n", "ms", [3.0, 1.0, 2.0], (), 2.0)
    floor = Figure("w", "n", "/s", [2.0], (), 2.5, is_ceiling=False)
    assert (ceiling.median, ceiling.is_kept) == (2.0, True)
    assert Figure("w", "n", "ms", [3.0], (), 2.0).is_kept is False
    assert floor.is_kept is False
    assert Figure("w", "n", "ms", [3.0], [1.5]).ratio == 2.0
    table = draw_table([ceiling, floor])
    assert "≤ 2.00 kept" in table
    assert "≥ 2.50 MISSED" in table
