"""The server's delivery, each work beside the bare relay: pairs, a group, a steady rate, catch-up."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure
from bench.load import Load, Rates
from bench.target import Target, open_curbside, open_relay
from curbside.wire import frames

STEADY_PER_SECOND = 200.0


@dataclass(frozen=True)
class Sizes:
    """pairs: direct conversations. members: of the group. seconds: of each run. conversations, missed: of the catch-up:
    how many, and messages in each."""

    runs: int
    seconds: float
    pairs: int
    members: int
    conversations: int
    missed: int


FULL = Sizes(runs=3, seconds=3.0, pairs=100, members=50, conversations=100, missed=100)
QUICK = Sizes(runs=1, seconds=0.2, pairs=2, members=3, conversations=2, missed=3)


@dataclass(frozen=True)
class Pair:
    """Curbside and the relay, each with its people connected."""

    ours: Target
    relay: Target


@asynccontextmanager
async def open_both(count: int, groups: Sequence[Sequence[int]]) -> AsyncIterator[Pair]:
    """Both with the same people in the same conversations."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="curbside-bench-")))
        relay = await stack.enter_async_context(open_relay(folder, count, groups))
        ours = await stack.enter_async_context(open_curbside(folder, count, groups))
        yield Pair(ours, relay)


def _budget(value: float, quick: bool) -> float | None:
    return None if quick else value


# --- closed loop ------------------------------------------------------------------------------


async def measure_sends(quick: bool) -> list[Figure]:
    """Direct pairs in a closed loop: messages acknowledged and delivered."""
    sizes = QUICK if quick else FULL
    groups = [(2 * number, 2 * number + 1) for number in range(sizes.pairs)]
    found: list[Figure] = []
    async with open_both(2 * sizes.pairs, groups) as both:
        loads = await Load.open(both.ours), await Load.open(both.relay)
        for in_flight, budget in ((1, 5_000.0), (4, 8_000.0)):
            ours, theirs = await _alternate(both, loads, sizes, in_flight)
            name = f"{sizes.pairs} pairs, k={in_flight}"
            found += [
                _rate("sends", f"{name}: acked and delivered", ours, theirs, 1, _budget(budget, quick)),
                _percentile("sends", f"{name}: p50", ours, theirs, 0.5),
                _percentile("sends", f"{name}: p99", ours, theirs, 0.99),
                _processor("sends", f"{name}: server's processor time", ours, theirs),
            ]
    return found


async def measure_group(quick: bool) -> list[Figure]:
    """One group; one member sends, all others receive."""
    sizes = QUICK if quick else FULL
    found: list[Figure] = []
    async with open_both(sizes.members, [range(sizes.members)]) as both:
        loads = await Load.open(both.ours), await Load.open(both.relay)
        for in_flight, budget in ((1, None), (4, _budget(35_000.0, quick))):
            ours, theirs = await _alternate(both, loads, sizes, in_flight)
            name = f"group of {sizes.members}, k={in_flight}"
            found += [
                _rate("group", f"{name}: deliveries", ours, theirs, sizes.members - 1, budget),
                _percentile("group", f"{name}: p99", ours, theirs, 0.99),
                _processor("group", f"{name}: server's processor time", ours, theirs),
            ]
    return found


async def measure_steady(quick: bool) -> list[Figure]:
    """Direct pairs at a rate that does not depend on the answers."""
    sizes = QUICK if quick else FULL
    groups = [(2 * number, 2 * number + 1) for number in range(sizes.pairs)]
    ours, theirs = [], []
    async with open_both(2 * sizes.pairs, groups) as both:
        mine, other = await Load.open(both.ours), await Load.open(both.relay)
        for _ in range(sizes.runs):
            theirs.append(await other.run_open(both.relay, STEADY_PER_SECOND, sizes.seconds))
            ours.append(await mine.run_open(both.ours, STEADY_PER_SECOND, sizes.seconds))
    name = f"{STEADY_PER_SECOND:.0f} msg/s"
    return [
        _percentile("steady", f"{name}: p50", ours, theirs, 0.5, _budget(2.0, quick)),
        _percentile("steady", f"{name}: p99", ours, theirs, 0.99, _budget(10.0, quick)),
        _processor("steady", f"{name}: server's processor time", ours, theirs),
    ]


async def _alternate(
    both: Pair, loads: tuple[Load, Load], sizes: Sizes, in_flight: int
) -> tuple[list[Rates], list[Rates]]:
    """Runs of both in turn, so that what else the machine does meets both."""
    ours, theirs = [], []
    mine, other = loads
    for _ in range(sizes.runs):
        theirs.append(await other.run_closed(both.relay, in_flight, sizes.seconds))
        ours.append(await mine.run_closed(both.ours, in_flight, sizes.seconds))
    return ours, theirs


def _rate(
    work: str, name: str, ours: Sequence[Rates], theirs: Sequence[Rates], each: int, budget: float | None
) -> Figure:
    unit = "msg/s" if each == 1 else "deliveries/s"
    runs, reference = ([rates.per_second * each for rates in which] for which in (ours, theirs))
    return Figure(work, name, unit, runs, reference, budget, is_ceiling=False)


def _percentile(
    work: str,
    name: str,
    ours: Sequence[Rates],
    theirs: Sequence[Rates],
    part: float,
    budget: float | None = None,
) -> Figure:
    runs, reference = ([rates.span(part) for rates in which] for which in (ours, theirs))
    return Figure(work, name, "ms", runs, reference, budget)


def _processor(work: str, name: str, ours: Sequence[Rates], theirs: Sequence[Rates]) -> Figure:
    runs, reference = ([rates.cpu_us for rates in which] for which in (ours, theirs))
    return Figure(work, name, "µs/msg", runs, reference)


# --- catch-up ---------------------------------------------------------------------------------


async def measure_catch_up(quick: bool) -> list[Figure]:
    """A device that was away: from its connection to the last of the messages it missed."""
    sizes = QUICK if quick else FULL
    groups = [(number + 1, 0) for number in range(sizes.conversations)]
    ours, theirs = [], []
    async with open_both(sizes.conversations + 1, groups) as both:
        for target in (both.relay, both.ours):
            await (await Load.open(target, listening=False)).fill(sizes.missed)
        for _ in range(sizes.runs):
            theirs.append(await _time_catch_up(both.relay, sizes))
            ours.append(await _time_catch_up(both.ours, sizes))
    total = sizes.conversations * sizes.missed
    name = f"{total:,} messages in {sizes.conversations} conversations"
    return [Figure("catch-up", name, "s", ours, theirs, _budget(0.4, quick))]


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
