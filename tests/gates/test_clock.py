"""CLOCK: nothing but clock.py asks for the time. All else is given it, so that tests and replays can give another.

Measuring how long something took is no such question (perf_counter, monotonic), and is allowed where it is listed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = "src/curbside"
ALLOWED = {
    ("clock.py", "time.time"),  # the one place
    ("server/logs.py", "TimeStamper"),  # when a line was logged; nothing decides by it
    ("server/gateway.py", "time.perf_counter"),  # how long a request took
    ("server/delivery.py", "time.perf_counter"),  # how long a write took
    ("server/otlp.py", "time.time_ns"),  # when counts were sent; nothing decides by it
    ("server/store/postgres.py", "time.monotonic"),  # how long to try again
    ("server/nodes.py", "time.monotonic"),  # how long another node has been silent
    ("server/watch.py", "loop.time"),  # how long since it looked
    ("server/doctor/network.py", "time.monotonic"),  # how long an answer took
    ("server/migration.py", "time.monotonic"),  # how long it took, and how long to try again
    ("server/backup/create.py", "time.monotonic"),  # how long it took
    ("server/backup/restore.py", "time.monotonic"),
    ("server/backup/verify.py", "time.monotonic"),
    ("cli/progress.py", "time.monotonic"),  # how long it will take
    ("server/store/postgres.py", "SQL"),  # which writing processes ended a month ago, by the engine's own clock
    ("server/store/schema/postgres/0001_engine.sql", "SQL"),  # when a schema was applied; nothing reads it
}
CONVERSIONS = {"strftime": 2, "localtime": 1, "gmtime": 1, "ctime": 1, "asctime": 1}
"""Functions of `time` that only convert when they get so many arguments."""
CONSTRUCTORS = {"now", "utcnow", "today"}
LOOPS = {"get_running_loop", "get_event_loop", "new_event_loop"}
SQL = re.compile(r"current_(?:timestamp|time|date)|unixepoch|julianday|'now'|\bnow\(\)|clock_timestamp", re.IGNORECASE)
WEB_ALLOWED = {
    ("worker.ts", "Date.now"),  # makes the clock that all others are given
    ("stream.ts", "performance.now"),  # how long the line has been silent
    ("connection.ts", "performance.now"),
}
WEB = re.compile(r"\b(Date\.now|performance\.now|new Date)\b(?!\((?:[^)\s]))")


def _docstrings(tree: ast.AST) -> set[int]:
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, nodes) and node.body]
    return {id(each.value) for each in first if isinstance(each, ast.Expr)}


def find_reads(text: str) -> Iterator[str]:
    """What in a module asks for the time, by name."""
    tree = ast.parse(text)
    docstrings = _docstrings(tree)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="time"):
                yield "from time import"
            case ast.Attribute(value=ast.Name(id="time"), attr=name):
                call = calls.get(id(node))
                if name not in CONVERSIONS or call is None or len(call.args) < CONVERSIONS[name]:
                    yield f"time.{name}"
            case ast.Attribute(attr=name) if name in CONSTRUCTORS and _is_datetime(node.value):
                yield f"datetime.{name}"
            case ast.Attribute(attr="time", value=value) if _is_loop(value):
                yield "loop.time"
            case ast.Attribute(attr="TimeStamper") | ast.Name(id="TimeStamper"):
                yield "TimeStamper"
            case ast.Constant(value=str() as words) if id(node) not in docstrings and SQL.search(words):
                yield "SQL"


def _is_datetime(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in ("datetime", "date")


def _is_loop(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        made = node.func
        name = made.attr if isinstance(made, ast.Attribute) else made.id if isinstance(made, ast.Name) else ""
        return name in LOOPS
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name.strip("_") == "loop"


def find_violations(root: Path) -> tuple[int, set[tuple[str, str]]]:
    """How many files were looked at, and what asks for the time though it may not."""
    top = root / SOURCE
    modules, scripts = sorted(top.rglob("*.py")), sorted(top.rglob("*.sql"))
    found = {(str(each.relative_to(top)), name) for each in modules for name in find_reads(each.read_text("utf-8"))}
    found |= {(str(each.relative_to(top)), "SQL") for each in scripts if SQL.search(each.read_text("utf-8"))}
    return len(modules) + len(scripts), found - ALLOWED


def find_web_violations(root: Path) -> tuple[int, set[tuple[str, str]]]:
    """The same for the core in the browser."""
    top = root / "web/src/core"
    files = [each for each in sorted(top.rglob("*.ts")) if ".test." not in each.name and "testing" not in each.parts]
    found = set()
    for each in files:
        code = "\n".join(line.partition("//")[0] for line in each.read_text("utf-8").splitlines())
        found |= {(str(each.relative_to(top)), name) for name in WEB.findall(code)}
    return len(files), found - WEB_ALLOWED


def test_only_the_clock_asks_for_the_time(root: Path) -> None:
    looked, found = find_violations(root)
    assert looked > 80
    assert found == set()


def test_only_the_worker_of_the_web_core_asks_for_the_time(root: Path) -> None:
    looked, found = find_web_violations(root)
    assert looked > 40
    assert found == set()


SEEDS = [
    ("import time\nstart = time.time()\n", "time.time"),
    ("import time\nread = time.time_ns\n", "time.time_ns"),
    ("import time\nstart = time.monotonic()\n", "time.monotonic"),
    ("import time\nnow = time.localtime()\n", "time.localtime"),
    ("from time import time\n", "from time import"),
    ("from datetime import datetime\nnow = datetime.now()\n", "datetime.now"),
    ("import datetime\nnow = datetime.datetime.utcnow()\n", "datetime.utcnow"),
    ("from datetime import date\nnow = date.today()\n", "datetime.today"),
    ("import asyncio\nnow = asyncio.get_running_loop().time()\n", "loop.time"),
    ("def f(self):\n    return self._loop.time()\n", "loop.time"),
    ("sql = \"INSERT INTO t VALUES (datetime('now'))\"\n", "SQL"),
    ("import structlog\np = structlog.processors.TimeStamper()\n", "TimeStamper"),
]


@pytest.mark.parametrize(("text", "name"), SEEDS)
def test_a_question_for_the_time_is_found(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / SOURCE / "policy/seeded.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert find_violations(tmp_path) == (1, {("policy/seeded.py", name)})


def test_a_question_in_a_schema_is_found(tmp_path: Path) -> None:
    path = tmp_path / SOURCE / "server/store/0001_x.sql"
    path.parent.mkdir(parents=True)
    path.write_text("CREATE TABLE t (at INTEGER DEFAULT CURRENT_TIMESTAMP);")
    assert find_violations(tmp_path) == (1, {("server/store/0001_x.sql", "SQL")})


@pytest.mark.parametrize("code", ["const now = Date.now();", "x(performance.now())", "const d = new Date();"])
def test_a_question_in_the_web_core_is_found(tmp_path: Path, code: str) -> None:
    path = tmp_path / "web/src/core/seeded.ts"
    path.parent.mkdir(parents=True)
    path.write_text(f"// Date.now\n{code}\n")
    looked, found = find_web_violations(tmp_path)
    assert (looked, len(found)) == (1, 1)


@pytest.mark.parametrize("text", ["import time\nshown = time.localtime(0)\n", '"""The time now() is given."""\n'])
def test_what_asks_nothing_is_let_through(text: str) -> None:
    assert list(find_reads(text)) == []
