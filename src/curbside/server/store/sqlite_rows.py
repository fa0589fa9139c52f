"""Statements over many rows at once, in SQLite.

[Note: one step for many rows] The engine gives the interpreter up for each step of a statement and asks for it again
afterwards; on a busy server that asking is what a small statement costs. A statement over 64 rows is one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

_SIZES: Final = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows of one statement: few texts, so that all stay prepared; 256 rows of 6 values are below the engine's limit."""


def split_rows(rows: Sequence[Sequence[Any]]) -> Iterator[tuple[int, list[Any]]]:
    """Rows in parts that a statement takes at once: how many, and their values one after the other."""
    at, left = 0, len(rows)
    for size in _SIZES:
        while left >= size:
            yield size, [value for row in rows[at : at + size] for value in row]
            at, left = at + size, left - size


@cache
def write_values(rows: int, columns: int) -> str:
    """The part of a statement that stands for the values: `(?,?),(?,?)`."""
    row = "(" + ",".join("?" * columns) + ")"
    return ",".join([row] * rows)
