"""docs/roles.md is what routes and rules say, and the check can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def check(copy: Path) -> subprocess.CompletedProcess[str]:
    """Run the tool's check in a copy."""
    return subprocess.run(
        [sys.executable, str(copy / "tools" / "roles_table.py"), "--check"], capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("tools/roles_table.py", "docs/roles.md"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return tmp_path


def test_the_table_is_up_to_date(copy: Path) -> None:
    done = check(copy)
    assert done.returncode == 0, done.stderr
    assert "routes" in done.stdout


def test_a_table_that_says_more_than_the_rules_is_found(copy: Path) -> None:
    table = copy / "docs" / "roles.md"
    table.write_text(table.read_text("utf-8").replace("| no |", "| yes |", 1), "utf-8")
    assert check(copy).returncode == 1
    table.unlink()
    assert check(copy).returncode == 1
