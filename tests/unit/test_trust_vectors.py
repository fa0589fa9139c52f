"""The files in vectors/trust are what the tool writes today: code that changes what they say must say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_vectors_are_what_the_tool_writes() -> None:
    tool = ROOT / "tools" / "make_trust_vectors.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
