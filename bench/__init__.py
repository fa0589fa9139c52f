"""Measurements of Curbside: `python -m bench --help`. What each figure means and where its limits are: README.md."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "support"))  # people who can sign up
