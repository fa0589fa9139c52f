"""Gates are proven by breaking what they guard: each test seeds one violation in a copy and expects the refusal."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository that every check of tools/check_repo.py accepts."""
    files = {
        "pyproject.toml": '[project]\ndependencies = ["click>=8"]\n',
        "requirements/run.in": "click>=8\n",
        "requirements/run.txt": "click==8.5.1 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via -r run.in\n",
        "src/curbside/cli.py": "import json\n\nimport click\n\nprint(json, click)\n",
        "web/src/main.ts": '// localStorage is never used\ndocument.title = "Curbside";\n',
        "web/package-lock.json": '{"packages": {"": {}, "node_modules/a": {"integrity": "sha512-x"}}}\n',
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path
