"""Size budget of the Python code: what is too long to be read in one sitting fails.

Files 600 lines (tests 800), functions 60 (docstring not counted), source folders at most two below src/curbside.
The web client has the same budget, measured by web/scripts/sizes.mjs.

    python tools/size_budget.py [ROOT]
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

FILE_LINES = 600
TEST_FILE_LINES = 800
FUNCTION_LINES = 60
FOLDER_DEPTH = 2
FOLDERS = ("src", "tests", "tools", "bench")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def function_lines(function: Function) -> int:
    """Lines from `def` to the last one, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def check_file(path: Path, root: Path) -> list[str]:
    name = path.relative_to(root)
    text = path.read_text(encoding="utf-8")
    limit = TEST_FILE_LINES if name.parts[0] == "tests" else FILE_LINES
    problems = []
    length = text.count("\n")
    if length > limit:
        problems.append(f"{name}: {length} lines, at most {limit}: look for the seam and make two files")
    problems += [
        f"{name}:{node.lineno}: {node.name} has {function_lines(node)} lines, at most {FUNCTION_LINES}"
        for node in ast.walk(ast.parse(text, filename=str(path)))
        if isinstance(node, Function) and function_lines(node) > FUNCTION_LINES
    ]
    inside = name.parts[2:-1] if name.parts[:2] == ("src", "curbside") else ()
    if len(inside) > FOLDER_DEPTH:
        problems.append(f"{name}: {len(inside)} folders below src/curbside, at most {FOLDER_DEPTH}")
    return problems


def check(root: Path) -> list[str]:
    """Problems found; looking at no file is one."""
    files = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    if not files:
        return ["sizes: no Python file found"]
    problems = [problem for path in files for problem in check_file(path, root)]
    if not problems:
        print(f"sizes: {len(files)} Python files within budget")
    return problems


if __name__ == "__main__":
    found = check(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    for problem in found:
        print(problem, file=sys.stderr)
    sys.exit(bool(found))
