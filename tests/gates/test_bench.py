"""The benchmarks run; how fast is not for a test to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("work", ["mls", "client"])
def test_a_work_runs_and_writes_its_figures(work: str, tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", work, "--quick", "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert work in done.stdout
    assert len(json.dumps(json.loads(target.read_text("utf-8")))) > 200
