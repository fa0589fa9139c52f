"""The size budget refuses long files, long functions and deep folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from size_budget import check


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def function_of(lines: int, docstring: str = "") -> str:
    return "def f():\n" + docstring + "    x = 1\n" * (lines - 1)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("src/curbside/a.py", "x = 1\n" * 601, "601 lines, at most 600"),
        ("tests/unit/test_a.py", "x = 1\n" * 801, "801 lines, at most 800"),
        ("src/curbside/a.py", function_of(61), "f has 61 lines, at most 60"),
        ("src/curbside/a/b/c/d.py", "x = 1\n", "3 folders below"),
    ],
)
def test_over_budget(tmp_path: Path, name: str, text: str, expected: str) -> None:
    write(tmp_path, name, text)
    assert any(expected in problem for problem in check(tmp_path))


def test_within_budget(tmp_path: Path) -> None:
    write(tmp_path, "src/curbside/a/b/c.py", "x = 1\n" * 600)
    write(tmp_path, "tests/test_a.py", "x = 1\n" * 800)
    write(tmp_path, "src/curbside/b.py", function_of(60, '    """One.\n\n    Two.\n    """\n'))
    assert check(tmp_path) == []


def test_no_file_is_a_failure(tmp_path: Path) -> None:
    assert check(tmp_path) == ["sizes: no Python file found"]
