"""What the server costs before anybody says a word: start-up, and memory of connections that are merely open."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Figure
from bench.plan import Plan, sizes_of
from bench.target import EMBEDDED, RELAY, Target, open_target
from bench.wire import RawStream

SETTLE_SECONDS = 2.0
AT_ONCE = 50


@dataclass
class _Weights:
    """starts: seconds. empty: MiB. each: KiB. growth: of the second half by the first. rates: connections a second."""

    starts: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    each: list[float] = field(default_factory=list)
    growth: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


async def measure_idle(plan: Plan) -> list[Figure]:
    """w5: from start to the first answer; then signed-in connections that say nothing."""
    sizes = sizes_of(plan)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536), most))
    found: dict[str, _Weights] = {}
    for name in plan.backends:
        with tempfile.TemporaryDirectory(prefix="curbside-bench-") as folder:
            count = sizes.connections if name in (RELAY, EMBEDDED) else sizes.fewer_connections
            async with open_target(name, Path(folder) / name, count, []) as target:
                found[name] = await _measure(target, sizes.runs, count)
    figures = []
    for what, unit, kind, budget in (
        ("from start to the first answer", "s", "starts", 1.0),
        ("memory at start", "MiB", "empty", None),
        ("memory of each idle connection", "KiB", "each", 30.0),
        ("the same, of the later half by the earlier", "times", "growth", None),
        ("streams opened and proved", "/s", "rates", None),
    ):
        reference = getattr(found[RELAY], kind) if RELAY in found else ()
        for backend in plan.ours:
            kept = budget if backend == EMBEDDED and not plan.is_quick else None
            runs = getattr(found[backend], kind)
            is_ceiling = kind != "rates"
            figures.append(Figure("idle", what, unit, runs, reference, kept, is_ceiling, backend))
    return figures


async def _measure(target: Target, runs: int, count: int) -> _Weights:
    found = _Weights()
    for _ in range(runs):
        target.stop()
        found.starts.append(target.start())
        found.empty.append(target.memory_kib() / 1024)
    await (await target.connect(0)).close()  # what the first connection of all costs is no other's
    weights, streams = [target.memory_kib()], list[RawStream]()
    seconds = 0.0
    for part in (range(count // 2), range(count // 2, count)):
        began = time.perf_counter()
        fresh: list[RawStream] = []
        for at in range(part.start, part.stop, AT_ONCE):
            places = range(at, min(part.stop, at + AT_ONCE))
            fresh += await asyncio.gather(*(target.connect(place) for place in places))
        seconds += time.perf_counter() - began
        for stream in fresh:
            await stream.sync({})
        streams += fresh
        await asyncio.sleep(SETTLE_SECONDS if count > AT_ONCE else 0)
        weights.append(target.memory_kib())
    found.rates.append(count / seconds)
    found.each.append((weights[2] - weights[0]) / count)
    earlier, later = weights[1] - weights[0], weights[2] - weights[1]
    found.growth.append(max(0.0, later / earlier) if earlier > 0 else 0.0)
    for stream in streams:
        await stream.close()
    return found
