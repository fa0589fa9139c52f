"""What many devices ask of nodes, PostgreSQL and NATS: from measured costs, by arithmetic and by simulation.

    python -m bench.scale [docs/budgets.json]       print the tables of docs/scale.md

Nothing here was measured at this scale. Inputs are figures of `python -m bench` on one small machine and the
assumptions below; a seed makes the simulations repeatable.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- scale: written by bench/scale.py -->", "<!-- /scale -->"
SEED: Final = 20261123
BATCH: Final = 512
"""Messages that a node puts into one transaction at most (server/delivery.py)."""


@dataclass(frozen=True)
class Assumptions:
    """How the devices behave. Rates that nobody has measured; change them and run it again.

    conversations_per_hour: that become active in an hour, on average. messages: in each, mean (log-normal, sigma 1.2).
    members: devices in each, mean. reports: delivery and read reports for each message, which are messages too.
    peak: the busiest minute by the average one. connected: part of the devices at the peak. years: that messages are
    kept. followed: conversations of a device. streams: of a node, at most (limits.streams). round_seconds: between two
    looks of a node at all that its devices follow (bus.sweep_seconds).
    """

    devices: int = 10_000_000
    conversations_per_hour: int = 50_000
    messages: float = 14.0
    members: float = 5.0
    reports: float = 2.0
    peak: float = 4.0
    connected: float = 0.3
    years: float = 1.0
    followed: int = 40
    streams: int = 20_000
    round_seconds: float = 3.0


@dataclass(frozen=True)
class Costs:
    """Measured, of the PostgreSQL and the two-node backends. us: microseconds of one core.

    lone_ms: from send to delivered at a light load, one node. full_per_second: messages of one node and its database on
    one core. nodes_us, database_us, bus_us: processor time of a message at full load. light_database_us: at a light
    load, where little shares a transaction. delivery_us: of one more receiver. look_us: the database's, for one
    conversation that a node's round compares. wal, kept: bytes of a message. news, news_bytes: on the bus. idle_kib: of
    a connection. connects: proved in a second by one core.
    """

    lone_ms: float
    full_per_second: float
    nodes_us: float
    database_us: float
    light_database_us: float
    bus_us: float
    delivery_us: float
    look_us: float
    wal: float
    kept: float
    news: float
    news_bytes: float
    idle_kib: float
    connects: float


def read_costs(figures: Sequence[Mapping[str, Any]]) -> Costs:
    """The costs out of a file of results. Raises: KeyError for a work that was not measured."""
    medians = {(each["work"], each["backend"], each["name"]): float(each["median"]) for each in figures}

    def ending(work: str, backend: str, end: str) -> float:
        for (has_work, has_backend, name), value in medians.items():
            if (has_work, has_backend) == (work, backend) and name.endswith(end):
                return value
        raise KeyError(f"{work}, {backend}: {end} was not measured")

    full, light = "as much as it takes: ", "100 msg/s: "
    group = [name for work, _, name in medians if work == "group" and name.endswith("processor time of the server")]
    members = int(group[0].split("group of ")[1].split(",")[0])
    return Costs(
        lone_ms=ending("steady", "postgres", "p50"),
        full_per_second=ending("sends", "postgres", "k=4: acknowledged and delivered"),
        nodes_us=ending("cost", "cluster", full + "processor time of the nodes"),
        database_us=ending("cost", "cluster", full + "processor time of the database"),
        light_database_us=ending("cost", "cluster", light + "processor time of the database"),
        bus_us=ending("cost", "cluster", full + "processor time of the bus"),
        delivery_us=ending("group", "embedded", "k=4: processor time of the server") / (members - 1),
        look_us=ending("watch", "postgres", "processor time of the database"),
        wal=ending("cost", "cluster", full + "write-ahead log"),
        kept=ending("cost", "cluster", full + "kept"),
        news=ending("cost", "cluster", full + "news on the bus"),
        news_bytes=ending("cost", "cluster", full + "bytes on the bus"),
        idle_kib=ending("idle", "embedded", "memory of each idle connection"),
        connects=ending("idle", "postgres", "streams opened and proved"),
    )


# --- arithmetic ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demand:
    """What is asked at the peak, and kept. nodes: for the streams alone. subscriptions: on the bus, if no two devices
    of a node share a conversation. looks: conversations compared with the database in a second, likewise. hellos: heard
    by all nodes in a second. transactions: one for each message at most.
    """

    messages: float
    deliveries: float
    connections: float
    nodes: int
    subscriptions: float
    looks: float
    look_cores: float
    hellos: float
    memory_gib: float
    node_cores: float
    database_cores: float
    light_database_cores: float
    transactions: float
    bus_cores: float
    wal_mb: float
    news: float
    bus_mb: float
    kept_tb: float
    reconnect_core_minutes: float


def compute_demand(costs: Costs, load: Assumptions) -> Demand:
    """Rates in the peak's second; cores as busy ones, without headroom."""
    each_hour = load.conversations_per_hour * load.messages * (1 + load.reports)
    messages = each_hour / 3600 * load.peak
    deliveries = messages * (load.members - 1) * load.connected
    connections = load.devices * load.connected
    nodes = math.ceil(connections / load.streams)
    looks = connections * load.followed / load.round_seconds
    return Demand(
        messages=messages,
        deliveries=deliveries,
        connections=connections,
        nodes=nodes,
        subscriptions=connections * load.followed,
        looks=looks,
        look_cores=looks * costs.look_us / 1e6,
        hellos=nodes * (nodes - 1.0),
        memory_gib=connections * costs.idle_kib / 2**20,
        node_cores=(messages * costs.nodes_us + deliveries * costs.delivery_us) / 1e6,
        database_cores=messages * costs.database_us / 1e6,
        light_database_cores=messages * costs.light_database_us / 1e6,
        transactions=max(messages / BATCH, min(messages, nodes * 1000 / costs.lone_ms)),
        bus_cores=messages * costs.bus_us / 1e6,
        wal_mb=messages * costs.wal / 1e6,
        news=messages * costs.news,
        bus_mb=messages * costs.news_bytes / 1e6,
        kept_tb=each_hour * 24 * 365 * load.years * costs.kept / 1e12,
        reconnect_core_minutes=connections / costs.connects / 60,
    )


# --- one database: its transactions in turn -------------------------------------------------------


@dataclass(frozen=True)
class Waits:
    """Of messages in the simulation. p50, p99: milliseconds from arrival to commit. busy: part of the time.

    batch: messages in a transaction, mean.
    """

    p50_ms: float
    p99_ms: float
    busy: float
    batch: float


def simulate_commits(begin_ms: float, each_ms: float, per_second: float, seconds: float, seed: int = SEED) -> Waits:
    """Group commit as a queue: all that waits, at most BATCH, goes into one transaction that takes begin + n · each.

    Arrivals are Poisson. One transaction at a time, as a node's writer does it.
    """
    draw = random.Random(seed)
    free, busy, arrived = 0.0, 0.0, draw.expovariate(per_second)
    waits: list[float] = []
    batches = 0
    while arrived < seconds:
        began = max(free, arrived)
        batch: list[float] = []
        while arrived <= began and len(batch) < BATCH:
            batch.append(arrived)
            arrived += draw.expovariate(per_second)
        took = (begin_ms + len(batch) * each_ms) / 1000
        free, busy, batches = began + took, busy + took, batches + 1
        waits += [free - at for at in batch]
    waits.sort()
    length = max(seconds, free)
    return Waits(
        1000 * waits[len(waits) // 2], 1000 * waits[int(len(waits) * 0.99)], busy / length, len(waits) / batches
    )


def find_limit(begin_ms: float, each_ms: float, p99_ms: float = 100.0, seed: int = SEED) -> float:
    """The highest rate at which 99 % commit within `p99_ms`, to a tenth."""
    low, high = 1.0, 1e3 / each_ms
    while high / low > 1.05:
        middle = math.sqrt(low * high)
        if simulate_commits(begin_ms, each_ms, middle, min(20.0, 20_000 / middle), seed).p99_ms <= p99_ms:
            low = middle
        else:
            high = middle
    return low


# --- several databases ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Conversations over shards by hash. busiest: messages of the busiest shard by the mean of all, median and worst of
    the hours. hottest: part of a shard's messages that its hottest conversation has. fan: shards a device touches."""

    shards: int
    busiest: float
    worst: float
    hottest: float
    fan: float


def simulate_shards(load: Assumptions, shards: int, hours: int = 5, seed: int = SEED) -> Spread:
    """Hours of conversations with log-normal sizes, each on the shard that its id hashes to. All conversations of a
    device want to be caught up when it connects."""
    draw = random.Random(seed + shards)
    sigma = 1.2
    middle = math.log(load.messages) - sigma**2 / 2
    ratios, hottest = [], []
    for _ in range(hours):
        totals, most = [0.0] * shards, [0.0] * shards
        for _ in range(load.conversations_per_hour):
            place, size = draw.randrange(shards), draw.lognormvariate(middle, sigma)
            totals[place] += size
            most[place] = max(most[place], size)
        ratios.append(max(totals) * shards / sum(totals))
        hottest.append(max(top / total for top, total in zip(most, totals, strict=True) if total))
    ratios.sort()
    return Spread(
        shards, ratios[hours // 2], ratios[-1], max(hottest), shards * (1 - (1 - 1 / shards) ** load.followed)
    )


# --- the page -------------------------------------------------------------------------------------


def render(figures: Sequence[Mapping[str, Any]], load: Assumptions | None = None) -> str:
    """The tables."""
    load, costs = load or Assumptions(), read_costs(figures)
    return "\n".join([*_list_inputs(costs, load), "", *_list_demand(costs, load), "", *_list_waits(costs), "",
                      *_list_shards(load)])  # fmt: skip


def _list_inputs(costs: Costs, load: Assumptions) -> Iterator[str]:
    yield "| measured here, two nodes on PostgreSQL with NATS | | assumed | |"
    yield "|---|--:|---|--:|"
    measured = (
        ("node, µs of a core a message, full load", costs.nodes_us),
        ("PostgreSQL, µs a message, full load", costs.database_us),
        ("PostgreSQL, µs a message at 100/s", costs.light_database_us),
        ("NATS, µs a message", costs.bus_us),
        ("node, µs for each further receiver", costs.delivery_us),
        ("PostgreSQL, µs a conversation looked at", costs.look_us),
        ("write-ahead log, bytes a message", costs.wal),
        ("kept, bytes a message", costs.kept),
        ("news on the bus a message", costs.news),
        ("KiB of an idle connection", costs.idle_kib),
        ("streams proved by a core, a second", costs.connects),
    )
    assumed = (
        ("devices", load.devices),
        ("conversations active in an hour", load.conversations_per_hour),
        ("messages in each", load.messages),
        ("reports for each message", load.reports),
        ("devices in a conversation", load.members),
        ("peak by average", load.peak),
        ("connected at the peak", load.connected),
        ("years kept", load.years),
        ("conversations of a device", load.followed),
        ("streams of a node", load.streams),
        ("seconds between two looks at everything", load.round_seconds),
    )
    for at, (what, value) in enumerate(measured):
        other = assumed[at] if at < len(assumed) else ("", None)
        yield f"| {what} | {_write(value)} | {other[0]} | {'' if other[1] is None else _write(other[1])} |"


def _list_demand(costs: Costs, load: Assumptions) -> Iterator[str]:
    found = compute_demand(costs, load)
    yield "| asked at the peak | |"
    yield "|---|--:|"
    for what, value, unit in (
        ("messages, reports among them", found.messages, "/s"),
        ("deliveries to connected devices", found.deliveries, "/s"),
        ("open streams", found.connections, ""),
        ("nodes for them", found.nodes, ""),
        ("memory for them in the nodes", found.memory_gib, "GiB"),
        ("nodes' cores busy with messages", found.node_cores, ""),
        ("PostgreSQL's cores busy, if transactions are full", found.database_cores, ""),
        ("PostgreSQL's cores busy, if each message is alone", found.light_database_cores, ""),
        ("transactions with an fsync, nodes never waiting for more", found.transactions, "/s"),
        ("conversations that nodes look at", found.looks, "/s"),
        ("PostgreSQL's cores busy with these looks", found.look_cores, ""),
        ("NATS's cores busy", found.bus_cores, ""),
        ("write-ahead log", found.wal_mb, "MB/s"),
        ("news on the bus", found.news, "/s"),
        ("bytes into the bus", found.bus_mb, "MB/s"),
        ("subscriptions on the bus, at most", found.subscriptions, ""),
        ("hellos heard by all nodes together", found.hellos, "/s"),
        ("kept after that time", found.kept_tb, "TB"),
        ("core-minutes until all are connected again", found.reconnect_core_minutes, ""),
    ):
        yield f"| {what} | {_write(value)} {unit} |".replace("  ", " ")


def _list_waits(costs: Costs) -> Iterator[str]:
    each = 1000 / costs.full_per_second
    begin = max(0.1, costs.lone_ms - each)
    limit = find_limit(begin, each)
    yield f"One node and its database on one core, one transaction at a time: {begin:.2f} ms + {each:.3f} ms a message."
    yield f"99 % commit within 100 ms up to **{_write(limit)} messages/s**."
    yield ""
    yield "| messages/s | p50, ms | p99, ms | busy | in a transaction |"
    yield "|--:|--:|--:|--:|--:|"
    for part in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        rate = limit * part
        waits = simulate_commits(begin, each, rate, min(20.0, 40_000 / rate))
        yield f"| {_write(rate)} | {waits.p50_ms:.1f} | {waits.p99_ms:.1f} | {waits.busy:.0%} | {waits.batch:.1f} |"


def _list_shards(load: Assumptions) -> Iterator[str]:
    yield "| shards | busiest by mean, median hour | worst hour | hottest conversation in a shard | a device's shards |"
    yield "|--:|--:|--:|--:|--:|"
    for shards in (2, 4, 8, 16, 32):
        found = simulate_shards(load, shards)
        ratios = f"{found.busiest:.2f} | {found.worst:.2f} | {found.hottest:.1%}"
        yield f"| {shards} | {ratios} | {found.fan:.1f} of {shards} |"


def _write(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def replace(page: str, figures: Sequence[Mapping[str, Any]]) -> str:
    """The page with the tables between its marks. Raises: ValueError when a mark is missing."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError("the page has lost a mark of the tables")
    return f"{before}{BEGIN}\n\n{render(figures)}\n\n{END}{after}"


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "budgets.json"
    print(render(json.loads(source.read_text("utf-8"))["figures"]))
