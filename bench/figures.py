"""Figures: what a work measured, its runs and their median, as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured quantity. runs: one value each. reference: what the same runs gave beside it, [] where a number
    means something by itself. budget: the value to keep; is_ceiling: whether more than that is bad. backend: the one
    of ours that was measured, "" where there is no choice."""

    work: str
    name: str
    unit: str
    runs: Sequence[float]
    reference: Sequence[float] = ()
    budget: float | None = None
    is_ceiling: bool = True
    backend: str = ""

    @property
    def median(self) -> float:
        """The lower median: a value that was measured."""
        return statistics.median_low(self.runs)

    @property
    def ratio(self) -> float | None:
        """Median of ours by median of the reference."""
        return self.median / statistics.median_low(self.reference) if self.reference else None

    @property
    def is_kept(self) -> bool | None:
        """Whether the budget is kept; None without one."""
        if self.budget is None:
            return None
        return self.median <= self.budget if self.is_ceiling else self.median >= self.budget

    def to_json(self) -> dict[str, Any]:
        """For the file of results."""
        return {
            "work": self.work,
            "backend": self.backend,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "runs": list(self.runs),
            "reference": list(self.reference),
            "ratio": self.ratio,
            "budget": self.budget,
            "kept": self.is_kept,
        }


def draw_table(figures: Iterable[Figure]) -> str:
    """Figures as lines of text: median, spread, reference and ratio, budget."""
    rows = [("work", "backend", "figure", "median", "min–max", "unit", "reference", "ratio", "budget")]
    for each in figures:
        reference = _write(statistics.median_low(each.reference)) if each.reference else ""
        ratio = f"{each.ratio:.2f}" if each.ratio is not None else ""
        rows.append(
            (
                each.work,
                each.backend,
                each.name,
                _write(each.median),
                f"{_write(min(each.runs))}–{_write(max(each.runs))}" if len(each.runs) > 1 else "",
                each.unit,
                reference,
                ratio,
                _write_budget(each),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {3, 4, 6, 7}
    lines = [
        "  ".join(cell.rjust(width) if at in right else cell.ljust(width) for at, (cell, width) in enumerate(parts))
        for parts in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def write_json(path: Path, figures: Iterable[Figure]) -> None:
    """Write results with the machine they came from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _find_commit(),
    }
    body = {"machine": machine, "figures": [each.to_json() for each in figures]}
    path.write_text(json.dumps(body, indent=1) + "\n", "utf-8")


def _find_commit() -> str:
    """The commit that was measured; a plus when files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    asked = (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    done = [subprocess.run([*git, *rest], capture_output=True, text=True, check=False) for rest in asked]
    return (done[0].stdout.strip() or "unknown") + ("+" if done[1].stdout.strip() else "")


def _write(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _write_budget(figure: Figure) -> str:
    if figure.budget is None:
        return ""
    sign = "≤" if figure.is_ceiling else "≥"
    return f"{sign} {_write(figure.budget)} {'kept' if figure.is_kept else 'MISSED'}"
