"""The server's delivery on every backend, each beside the bare relay: pairs, a group, a steady rate, catch-up."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.figures import Figure
from bench.load import Load, Rates
from bench.plan import LOAD_LIMIT_PERCENT, NOISY_SHARE, Plan, Sizes, sizes_of
from bench.target import EMBEDDED, RELAY, Target, open_targets
from curbside.wire import frames

STEADY_PER_SECOND = 200.0
Runs = dict[str, list[Rates]]


@asynccontextmanager
async def open_all(plan: Plan, count: int, groups: Sequence[Sequence[int]]) -> AsyncIterator[list[Target]]:
    """All backends of the plan, with the same people in the same conversations."""
    with tempfile.TemporaryDirectory(prefix="curbside-bench-") as folder:
        async with open_targets(plan.backends, Path(folder), count, groups) as targets:
            yield targets


# --- closed and open loops ----------------------------------------------------------------------


async def measure_sends(plan: Plan) -> list[Figure]:
    """w1: direct pairs in a closed loop, k messages in flight in each; acknowledged and delivered."""
    sizes, found = sizes_of(plan), list[Figure]()
    async with open_all(plan, 2 * sizes.pairs, list_pairs(sizes)) as targets:
        loads = [await Load.open(target, is_pinned=plan.is_pinned) for target in targets]
        for in_flight, budget in ((1, 5_000.0), (4, 8_000.0)):
            runs = await _alternate(loads, sizes.runs, lambda load, k=in_flight: load.run_closed(k, sizes.seconds))
            report = Report("sends", f"{sizes.pairs} pairs, k={in_flight}", plan, runs)
            found += report.rates("acknowledged and delivered", "msg/s", 1, budget)
            found += report.spans("p50", 0.5) + report.spans("p99", 0.99) + report.shares()
    return found


async def measure_group(plan: Plan) -> list[Figure]:
    """w2: one group whose members send in turn, k messages in flight; deliveries to all others."""
    sizes, found = sizes_of(plan), list[Figure]()
    async with open_all(plan, sizes.members, [range(sizes.members)]) as targets:
        loads = [await Load.open(target, is_pinned=plan.is_pinned, all_send=True) for target in targets]
        for in_flight, budget in ((1, None), (4, 35_000.0)):
            runs = await _alternate(loads, sizes.runs, lambda load, k=in_flight: load.run_closed(k, sizes.seconds))
            report = Report("group", f"group of {sizes.members}, k={in_flight}", plan, runs)
            found += report.rates("deliveries", "deliveries/s", sizes.members - 1, budget)
            found += report.spans("p99", 0.99) + report.shares()
    return found


async def measure_steady(plan: Plan) -> list[Figure]:
    """w3: direct pairs in an open loop, at a rate that does not depend on the answers."""
    sizes = sizes_of(plan)
    seconds = sizes.seconds if plan.is_quick else 2 * sizes.seconds
    async with open_all(plan, 2 * sizes.pairs, list_pairs(sizes)) as targets:
        loads = [await Load.open(target, is_pinned=plan.is_pinned) for target in targets]
        runs = await _alternate(loads, sizes.runs, lambda load: load.run_open(STEADY_PER_SECOND, seconds))
    report = Report("steady", f"{STEADY_PER_SECOND:.0f} msg/s", plan, runs)
    return report.spans("p50", 0.5, 2.0) + report.spans("p99", 0.99, 10.0) + report.shares()


def list_pairs(sizes: Sizes) -> list[tuple[int, int]]:
    """Who is in each conversation: two people, nobody in two."""
    return [(2 * number, 2 * number + 1) for number in range(sizes.pairs)]


async def _alternate(loads: Sequence[Load], wanted: int, run: Callable[[Load], Awaitable[Rates]]) -> Runs:
    """Runs of all backends in turn, so that what else the machine does meets all of them.

    Rounds go on, two more at most, until each backend has enough quiet runs; without enough of them, all count.
    """
    found: Runs = {load.target.name: [] for load in loads}
    for number in range(wanted + 2):
        short = [load for load in loads if len(_quiet(found[load.target.name])) < wanted]
        if not short or (wanted == 1 and number):
            break
        for load in short:
            found[load.target.name].append(await run(load))
    return {name: quiet if len(quiet := _quiet(runs)) >= wanted else runs for name, runs in found.items()}


def _quiet(runs: Sequence[Rates]) -> list[Rates]:
    return [each for each in runs if each.others_share <= NOISY_SHARE]


class Report:
    """Figures of one work under one condition, one of each kind for every backend of ours."""

    def __init__(self, work: str, name: str, plan: Plan, runs: Runs) -> None:
        self._work, self._name, self._plan, self._runs = work, name, plan, runs

    def _make(
        self, what: str, unit: str, of: Callable[[Rates], float], budget: float | None = None, is_ceiling: bool = True
    ) -> list[Figure]:
        reference = [of(each) for each in self._runs.get(RELAY, ())]
        found = []
        for backend in self._plan.ours:
            kept = budget if backend == EMBEDDED and not self._plan.is_quick else None
            values = [of(each) for each in self._runs[backend]]
            found.append(
                Figure(self._work, f"{self._name}: {what}", unit, values, reference, kept, is_ceiling, backend)
            )
        return found

    def rates(self, what: str, unit: str, copies: int, budget: float | None) -> list[Figure]:
        """So many a second; copies: deliveries of each message."""
        return self._make(what, unit, lambda each: each.per_second * copies, budget, is_ceiling=False)

    def spans(self, what: str, part: float, budget: float | None = None) -> list[Figure]:
        """A percentile of the times from send to acknowledged and delivered."""
        return self._make(what, "ms", lambda each: each.span(part), budget)

    def shares(self) -> list[Figure]:
        """Processor time of the backend, and what shows whether the measurement can be believed."""
        found = self._make("processor time of the server", "µs/msg", lambda each: each.server_us)
        limit = None if self._plan.is_quick or not self._plan.is_pinned else LOAD_LIMIT_PERCENT
        for backend in self._plan.ours:
            runs = self._runs[backend]
            busy, others = [100 * each.load_share for each in runs], [100 * each.others_share for each in runs]
            for what, values, budget in (("the load generator's core in use", busy, limit),
                                         ("the server's core used by others", others, None)):  # fmt: skip
                found.append(Figure(self._work, f"{self._name}: {what}", "%", values, (), budget, True, backend))
        return found


# --- catch-up -----------------------------------------------------------------------------------


async def measure_catch_up(plan: Plan) -> list[Figure]:
    """w4: a device that was away: from its connection to the last of the messages it missed."""
    sizes = sizes_of(plan)
    groups = [(number + 1, 0) for number in range(sizes.conversations)]
    spans: dict[str, list[float]] = {name: [] for name in plan.backends}
    filled: Runs = {}
    async with open_all(plan, sizes.conversations + 1, groups) as targets:
        for target in targets:
            load = await Load.open(target, is_pinned=plan.is_pinned, listening=False)
            filled[target.name] = [await load.fill(sizes.missed)]
        for _ in range(sizes.runs):
            for target in targets:
                spans[target.name].append(await _time_catch_up(target, sizes))
    total = sizes.conversations * sizes.missed
    name = f"{total:,} messages in {sizes.conversations} conversations"
    report = Report("catch-up", f"storing {total:,}, all at once", plan, filled)
    return [
        Figure(
            "catch-up",
            f"{name}: from connect to the last",
            "s",
            spans[backend],
            spans.get(RELAY, ()),
            0.4 if backend == EMBEDDED and not plan.is_quick else None,
            backend=backend,
        )
        for backend in plan.ours
    ] + report.rates("stored", "msg/s", 1, None)


async def _time_catch_up(target: Target, sizes: Sizes) -> float:
    start = time.perf_counter()
    stream = await target.connect(0)
    received = await stream.sync({each.id: each.begun for each in target.conversations})
    took = time.perf_counter() - start
    entries = sum(len(frame.items) for frame in received if isinstance(frame, frames.Entries))
    if entries != sizes.conversations * sizes.missed:
        raise RuntimeError(f"{entries} entries came")
    await stream.close()
    await asyncio.sleep(0.05)  # lets the server see the end of the stream before the next one begins
    return took
