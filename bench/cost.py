"""What one message costs, part by part: processor time, bytes to disk, write-ahead log, news between nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.delivery import list_pairs, open_all
from bench.figures import Figure
from bench.load import Load
from bench.plan import Plan, sizes_of
from bench.process import cpu_seconds
from bench.target import RELAY, Target

LIGHT_PER_SECOND = 100.0


@dataclass(frozen=True)
class _Mark:
    """Totals at one moment. Seconds and bytes."""

    nodes: float
    database: float
    bus: float
    written: float
    wal: float
    kept: float
    news: float
    news_bytes: float


async def measure_cost(plan: Plan) -> list[Figure]:
    """Costs of a message at a light load and at a full one."""
    sizes, found = sizes_of(plan), list[Figure]()
    ours = Plan(plan.is_quick, tuple(name for name in plan.backends if name != RELAY), plan.is_pinned)
    async with open_all(ours, 2 * sizes.pairs, list_pairs(sizes)) as targets:
        for target in targets:
            load = await Load.open(target, is_pinned=plan.is_pinned)
            seconds = sizes.seconds if plan.is_quick else 2 * sizes.seconds
            before = _look(target)
            rates = await load.run_open(LIGHT_PER_SECOND, seconds)
            found += _report(target, f"{LIGHT_PER_SECOND:.0f} msg/s", rates.messages, before, _look(target))
            before, sent = _look(target), load.count
            await load.run_closed(4, sizes.seconds)
            found += _report(target, "as much as it takes", load.count - sent, before, _look(target))
    return found


def _look(target: Target) -> _Mark:
    database, bus = target.database, target.bus
    news, news_bytes = bus.count_messages() if bus is not None else (0, 0)
    return _Mark(
        nodes=cpu_seconds(target.list_node_pids()),
        database=cpu_seconds(database.list_pids()) if database is not None else 0.0,
        bus=cpu_seconds(bus.list_pids()) if bus is not None else 0.0,
        written=target.written_bytes(),
        wal=database.wal_bytes() if database is not None else 0,
        kept=database.table_bytes() if database is not None else target.stored_bytes(),
        news=news,
        news_bytes=news_bytes,
    )


def _report(target: Target, name: str, messages: int, before: _Mark, after: _Mark) -> list[Figure]:
    def each(unit: str, what: str, of: Callable[[_Mark], float], scale: float = 1.0) -> Figure:
        value = (of(after) - of(before)) * scale / messages
        return Figure("cost", f"{name}: {what}", unit, [max(0.0, value)], backend=target.name)

    found = [
        each("µs/msg", "processor time of the nodes", lambda mark: mark.nodes, 1e6),
        each("B/msg", "kept", lambda mark: mark.kept),
    ]
    if target.database is None:  # PostgreSQL writes in the background whatever it was busy with before
        found.append(each("B/msg", "handed to storage", lambda mark: mark.written))
    else:
        found += [
            each("µs/msg", "processor time of the database", lambda mark: mark.database, 1e6),
            each("B/msg", "write-ahead log", lambda mark: mark.wal),
        ]
    if target.bus is not None:
        found += [
            each("µs/msg", "processor time of the bus", lambda mark: mark.bus, 1e6),
            each("/msg", "news on the bus", lambda mark: mark.news),
            each("B/msg", "bytes on the bus", lambda mark: mark.news_bytes),
        ]
    return found
