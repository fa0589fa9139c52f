"""The official MLS vectors: every case of every file must pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from curbside.mls.vectors import run_file

FOLDER = Path(__file__).parents[2] / "vectors" / "mls"
FILES = sorted(FOLDER.glob("*.json.xz"))
COUNTS = {
    "crypto-basics": 7,
    "deserialization": 14,
    "key-schedule": 7,
    "message-protection": 7,
    "messages": 300,
    "passive-client-handling-commit": 91,
    "passive-client-random": 1,
    "passive-client-welcome": 56,
    "psk_secret": 77,
    "secret-tree": 21,
    "transcript-hashes": 7,
    "tree-math": 10,
    "tree-operations": 5,
    "tree-validation": 98,
    "treekem": 77,
    "welcome": 7,
}


def test_all_official_files_are_here() -> None:
    assert {path.name.removesuffix(".json.xz") for path in FILES} == set(COUNTS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".json.xz"))
def test_every_case_of_the_file_passes(path: Path) -> None:
    result = run_file(str(path))
    assert result.failures == ()
    assert result.passed == result.total == COUNTS[path.name.removesuffix(".json.xz")]
