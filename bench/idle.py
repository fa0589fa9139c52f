"""What the server costs before anybody says a word: start-up, and memory of connections that are merely open."""

from __future__ import annotations

import asyncio
import resource
import tempfile
from pathlib import Path

from bench.figures import Figure
from bench.target import Target, open_curbside, open_relay

SETTLE_SECONDS = 2.0
AT_ONCE = 50


async def measure_idle(quick: bool) -> list[Figure]:
    """Both servers, one after the other."""
    runs, count = (1, 20) if quick else (3, 1_000)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536), most))
    with tempfile.TemporaryDirectory(prefix="curbside-bench-") as folder:
        async with open_relay(Path(folder), count, []) as relay:
            reference = await _measure(relay, runs, count)
        async with open_curbside(Path(folder), count, []) as ours:
            measured = await _measure(ours, runs, count)
    budgets = (None, None, None) if quick else (1.0, None, 30.0)
    names = ("from start to the first answer", "memory at start", f"memory of each of {count:,} idle connections")
    return [
        Figure("idle", name, unit, mine, theirs, budget)
        for name, unit, mine, theirs, budget in zip(
            names, ("s", "MiB", "KiB"), measured, reference, budgets, strict=True
        )
    ]


async def _measure(target: Target, runs: int, count: int) -> tuple[list[float], list[float], list[float]]:
    starts, weights = [], []
    for _ in range(runs):
        target.server.stop()
        starts.append(target.server.start())
        weights.append(target.server.memory_kib() / 1024)
    await (await target.connect(0)).close()  # what the first connection of all costs is no other's
    before = target.server.memory_kib()
    streams = []
    for at in range(0, count, AT_ONCE):
        streams += await asyncio.gather(*(target.connect(place) for place in range(at, min(count, at + AT_ONCE))))
    for stream in streams:
        await stream.sync({})
    await asyncio.sleep(SETTLE_SECONDS if count > AT_ONCE else 0)
    after = target.server.memory_kib()
    for stream in streams:
        await stream.close()
    return starts, weights, [(after - before) / count]
