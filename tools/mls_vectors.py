"""Run MLS test vectors: `python tools/mls_vectors.py FILE...` prints `passed/total` for each file.

Files are .json or .json.xz of any kind of the official vectors, under any name; the kind is told from the content.
The exit code is 1 when a case failed or a file held none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from curbside.mls.vectors import run_file


def main() -> int:
    """Run the files that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--failures", type=int, default=3, help="how many failures of a file to explain (default 3)")
    options = parser.parse_args()
    good = True
    for path in options.files:
        result = run_file(str(path))
        print(f"{result.passed}/{result.total} {path.name}", flush=True)
        for failure in result.failures[: options.failures]:
            print(f"  {failure}", file=sys.stderr)
        good = good and result.passed == result.total > 0
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
