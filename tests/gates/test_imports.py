"""Each import contract refuses a seeded violation, and the gate refuses to pass on nothing."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from check_imports import check

# Modules of curbside.mls that a server may use: they hold no secret of a group.
PUBLIC_MLS = {
    "checks",
    "codec",
    "extensions",
    "group_info",
    "labels",
    "messages",
    "nodes",
    "proposals",
    "public",
    "transcript",
    "transition",
    "tree",
    "tree_math",
    "trust",
    "validation",
}


def add_import(root: Path, module: str, statement: str) -> None:
    path = root / "src" / "curbside" / module
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    path.write_text(before + f"\n{statement}\n")


def test_contracts_hold(root: Path) -> None:
    assert check(root) == []


@pytest.mark.parametrize(
    ("contract", "module", "statement"),
    [
        ("Layers", "wire/limits.py", "import curbside.mls.codec"),
        ("Layers", "client/seeded.py", "import curbside.server"),
        ("Layers", "errors.py", "import curbside.ids"),
        ("Server", "server/store/seeded.py", "import curbside.server.routes"),
        ("INV-01", "server/seeded.py", "import curbside.mls.group"),
        ("INV-02", "server/seeded.py", "import secrets"),
        ("INV-02", "client/seeded.py", "from cryptography.hazmat.primitives import hashes"),
        ("INV-02", "ids.py", "import hmac"),
        ("INV-03", "mls/codec.py", "import time"),
        ("INV-03", "policy/seeded.py", "from datetime import datetime"),
        ("INV-03", "audit/seeded.py", "import logging"),
        ("INV-03", "wire/limits.py", "import curbside.clock"),
        ("INV-04", "server/seeded.py", "import apsw"),
        ("INV-04", "client/seeded.py", "import sqlite3"),
    ],
)
def test_seeded_violation_is_found(package_copy: Path, contract: str, module: str, statement: str) -> None:
    add_import(package_copy, module, statement)
    broken = [line for problem in check(package_copy) for line in problem.splitlines() if "BROKEN" in line]
    assert any(line.startswith(contract) for line in broken), broken


def test_server_reaches_no_secret_side_through_another_module(package_copy: Path) -> None:
    add_import(package_copy, "mls/nodes.py", "import curbside.mls.secret_tree")
    add_import(package_copy, "server/seeded.py", "import curbside.mls.nodes")
    assert any("INV-01" in line and "BROKEN" in line for p in check(package_copy) for line in p.splitlines())


def test_looking_at_nothing_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "src" / "curbside").mkdir(parents=True)
    (tmp_path / "src" / "curbside" / "__init__.py").touch()
    (tmp_path / ".importlinter").write_text("[importlinter]\nroot_package = curbside\n")
    problems = check(tmp_path)
    assert any("analysed no file" in p for p in problems)
    assert any("INV-01 is missing" in p for p in problems)


def test_every_mls_module_has_a_side(root: Path) -> None:
    config = configparser.ConfigParser()
    config.read(root / ".importlinter")
    listed = config["importlinter:contract:INV-01"]["forbidden_modules"].split()
    secret = {name.removeprefix("curbside.mls.") for name in listed if name.startswith("curbside.mls.")}
    modules = {path.stem for path in (root / "src/curbside/mls").glob("*.py")} - {"__init__"}
    assert modules
    assert not PUBLIC_MLS & secret
    assert modules - PUBLIC_MLS - secret == set(), (
        "say which side these are on: INV-01 in .importlinter or PUBLIC_MLS here"
    )


def test_module_that_calls_itself_secret_is_listed(root: Path) -> None:
    config = configparser.ConfigParser()
    config.read(root / ".importlinter")
    listed = config["importlinter:contract:INV-01"]["forbidden_modules"].split()
    calling = [p.stem for p in (root / "src/curbside/mls").glob("*.py") if "Secret side." in p.read_text()[:2000]]
    assert calling
    assert [name for name in calling if f"curbside.mls.{name}" not in listed] == []
