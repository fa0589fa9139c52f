"""python -m bench: measure against the budgets, print a table, keep the figures as JSON."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench import client, mls
from bench.figures import Figure, draw_table, write_json

EXAMPLES: Final = """examples:
  python -m bench                      everything, a few minutes
  python -m bench mls --quick          one work, small
  python -m bench --json figures.json  where the figures go
"""
RESULTS: Final = Path(__file__).resolve().parent / "results" / "latest.json"
MLS_BUDGETS: Final = {
    (100, "process_worst_commit"): 10.0,
    (1000, "process_worst_commit"): 60.0,
    (100, "join"): 60.0,
    **{(size, "message_encrypt_and_decrypt"): 0.8 for size in (10, 100, 1000)},
}


def measure_mls(quick: bool) -> list[Figure]:
    """The MLS core, in milliseconds, by group size."""
    found = []
    for size in (10,) if quick else (10, 100, 1000):
        for name, value in mls.measure(size, 1 if quick else 5).items():
            budget = MLS_BUDGETS.get((size, name))
            words, unit = name.replace("_kilobytes", "").replace("_", " "), "KiB" if "kilobytes" in name else "ms"
            found.append(Figure("mls", f"{words}, {size} members", unit, [value], budget=budget))
    return found


def measure_client(quick: bool) -> list[Figure]:
    """The SDK against a real server."""
    return asyncio.run(client.measure(quick))


WORKS: Final[dict[str, Callable[[bool], list[Figure]]]] = {"mls": measure_mls, "client": measure_client}


def main(arguments: Sequence[str]) -> int:
    """Measure the named works, all of them without a name; 0 when all budgets are kept."""
    parser = argparse.ArgumentParser(
        "python -m bench", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*", choices=[*WORKS, []], help="what to measure; everything without a name")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file for the figures")
    options = parser.parse_args(arguments)
    figures = [figure for name in options.works or WORKS for figure in WORKS[name](options.quick)]
    print(draw_table(figures))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.json, figures)
    print(f"figures: {options.json.name}")
    return 0 if options.quick or all(figure.is_kept is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
