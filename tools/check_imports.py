"""Import rules of the Python package (.importlinter). Fails as well when nothing was analysed or a contract is missing.

python tools/check_imports.py [ROOT]
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

REQUIRED = ("layers", "server-inside", "INV-01", "INV-02", "INV-03", "INV-04")


def check(root: Path) -> list[str]:
    """Problems found; an empty list means that every contract holds and that files were looked at."""
    config = configparser.ConfigParser()
    config.read(root / ".importlinter")
    contracts = [
        section.removeprefix("importlinter:contract:") for section in config.sections() if "contract" in section
    ]
    problems = [f"contract {name} is missing from .importlinter" for name in REQUIRED if name not in contracts]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--config", ".importlinter", "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src"), "NO_COLOR": "1", "COLUMNS": "200"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    analysed = re.search(r"Analyzed (\d+) files, (\d+) dependencies", done.stdout)
    kept = re.search(r"Contracts: (\d+) kept, (\d+) broken", done.stdout)
    if done.returncode != 0:
        problems.append(re.sub(r"\A[^A-Za-z]*", "", done.stdout).strip())
    if not analysed or int(analysed.group(1)) == 0 or int(analysed.group(2)) == 0:
        problems.append("import-linter analysed no file")
    if not kept or int(kept.group(1)) + int(kept.group(2)) != len(contracts):
        problems.append("import-linter did not run every contract")
    if not problems and analysed:
        print(f"imports: {analysed.group(1)} files, {analysed.group(2)} imports, {len(contracts)} contracts kept")
    return problems


if __name__ == "__main__":
    found = check(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    for problem in found:
        print(problem, file=sys.stderr)
    sys.exit(bool(found))
