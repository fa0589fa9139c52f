"""Measures Curbside on this machine, prints a table, and writes the figures as JSON."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import budgets, client, cost, crash, delivery, growth, idle, mls, restore, watch
from bench.figures import Figure, draw_table, write_json
from bench.plan import Plan
from bench.process import load_pinned
from bench.target import BACKENDS

Work = Callable[[Plan], Awaitable[list[Figure]]]
WORKS: dict[str, Work] = {
    "mls": mls.measure_figures,
    "client": client.measure,
    "sends": delivery.measure_sends,
    "group": delivery.measure_group,
    "steady": delivery.measure_steady,
    "catch-up": delivery.measure_catch_up,
    "idle": idle.measure_idle,
    "crash": crash.measure_crash,
    "cost": cost.measure_cost,
    "watch": watch.measure_watch,
    "restore": restore.measure_restore,
    "growth": growth.measure_growth,
}
UNPINNED = {"mls", "client", "restore", "growth"}
"""Works whose load is itself what is measured, or that see to it themselves."""
LONG = {"restore", "growth"}
"""Works that take longer than all others together: only when they are named."""
RESULTS = Path(__file__).resolve().parent / "results" / "latest.json"
EXAMPLES = """examples:
  python -m bench                             everything: about fifteen minutes
  python -m bench --publish                   the same, and docs/budgets.* from it
  python -m bench sends group                 two works, all backends
  python -m bench sends --backends embedded   one work, one backend, no reference
  python -m bench client --json client.json
  python -m bench --quick                     tiny sizes: shows that everything runs, measures nothing

works:
"""


def main(arguments: list[str] | None = None) -> int:
    """Measure what is named; 0 when everything ran, and all budgets that were looked at are kept."""
    options = _parse(arguments)
    figures: list[Figure] = []
    failed = False
    for name in options.names or [each for each in WORKS if each not in LONG]:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        with load_pinned(not options.unpinned and name not in UNPINNED) as is_pinned:
            try:
                figures += asyncio.run(_measure(name, Plan(options.quick, tuple(options.backends), is_pinned)))
            except Exception:  # noqa: BLE001  the other works are worth their minutes all the same
                failed = True
                traceback.print_exc()
        write_json(options.json, figures)
        gc.collect()
    print(draw_table(figures))
    print(budgets.write_table(options.json))
    print(f"figures: {options.json}", file=sys.stderr)
    if options.publish and not failed:
        budgets.publish(options.json)
    return int(failed or any(figure.is_kept is False for figure in figures))


async def _measure(name: str, plan: Plan) -> list[Figure]:
    return await WORKS[name](plan)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    works = "\n".join(f"  {name:10} {(work.__doc__ or '').splitlines()[0]}" for name, work in WORKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=EXAMPLES + works + "\n\nWhat the figures mean and where their limits are: bench/README.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="WORK",
        help="what to measure; by default all but restore, growth",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one run, no budgets")
    parser.add_argument(
        "--backends", nargs="+", choices=BACKENDS, default=BACKENDS, metavar="NAME", help=f"of {', '.join(BACKENDS)}"
    )
    parser.add_argument("--unpinned", action="store_true", help="let server and load generator use any core")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS, help="where to write the figures")
    parser.add_argument("--publish", action="store_true", help="write docs/budgets.* and docs/scale.md too")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in WORKS]:
        parser.error(f"no such work: {', '.join(unknown)}; there are {', '.join(WORKS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
