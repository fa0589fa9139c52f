"""Each import contract refuses a seeded violation, and the gate refuses to pass on nothing."""

from __future__ import annotations

import configparser
import re
import shutil
from pathlib import Path

import pytest

from check_imports import check

# Modules of curbside.mls that a server may use: they hold no secret of a group.
PUBLIC_MLS = {
    "checks",
    "codec",
    "extensions",
    "group_info",
    "inspect",
    "labels",
    "messages",
    "nodes",
    "proposals",
    "public",
    "results",
    "transcript",
    "transition",
    "tree",
    "tree_math",
    "trust",
    "validation",
}


# One violation each: contract, module that gets the import, what it imports. All are seeded into one copy and looked
# for in one run, because each run analyses the whole package.
SEEDS = [
    ("Layers", "wire.seeded_layer", "curbside.mls.codec"),
    ("Layers", "client.seeded_layer", "curbside.server"),
    ("Layers", "crypto.seeded_layer", "curbside.policy"),
    ("Server", "server.store.seeded_layer", "curbside.server.routes"),
    ("INV-01", "server.seeded_secret", "curbside.mls.group"),
    ("INV-02", "server.seeded_crypto", "secrets"),
    ("INV-02", "client.seeded_crypto", "cryptography"),
    ("INV-02", "ids", "hmac"),
    ("INV-03", "mls.seeded_pure", "time"),
    ("INV-03", "policy.seeded_pure", "datetime"),
    ("INV-03", "audit.seeded_pure", "logging"),
    ("INV-03", "wire.seeded_pure", "curbside.clock"),
    ("INV-04", "server.seeded_sql", "apsw"),
    ("INV-04", "client.seeded_sql", "sqlite3"),
    ("INV-04", "server.seeded_sql", "psycopg"),
]


def add_import(root: Path, module: str, imported: str) -> None:
    path = root / "src" / "curbside" / (module.replace(".", "/") + ".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    path.write_text(f"{before}\nimport {imported}\n")


def copy_package(root: Path, target: Path) -> Path:
    """A copy of the Python package and of its contracts."""
    shutil.copytree(root / "src", target / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / ".importlinter", target)
    return target


def broken_contracts(problems: list[str]) -> dict[str, str]:
    """Each broken contract with what was reported about it."""
    report = "\n".join(problems).partition("Broken contracts")[2]
    parts = re.split(r"^(Layers|Server|INV-\d\d): ", report, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module")
def seeded(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    package = copy_package(root, tmp_path_factory.mktemp("seeded"))
    for _, module, imported in SEEDS:
        add_import(package, module, imported)
    return broken_contracts(check(package))


def test_contracts_hold(root: Path) -> None:
    assert check(root) == []


@pytest.mark.parametrize(("contract", "module", "imported"), SEEDS)
def test_seeded_violation_is_found(seeded: dict[str, str], contract: str, module: str, imported: str) -> None:
    assert f"curbside.{module} -> {imported} (l." in seeded[contract]


def test_server_reaches_no_secret_side_through_another_module(root: Path, tmp_path: Path) -> None:
    package = copy_package(root, tmp_path)
    add_import(package, "mls.seeded_bridge", "curbside.mls.secret_tree")
    add_import(package, "server.seeded", "curbside.mls.seeded_bridge")
    assert "curbside.mls.seeded_bridge -> curbside.mls.secret_tree" in broken_contracts(check(package))["INV-01"]


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
