"""What a message costs the store as the store fills: sends into databases with ever more messages, in one process.

The server's delivery and its embedded store run here without sockets, so that nothing that does not depend on what is
stored dilutes the ratio. The databases are filled by SQL: conversations, log and both indexes are as sends would have
left them, but envelopes of old messages are short, because nothing reads them.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from bench.figures import Figure
from bench.plan import Plan
from bench.wire import make_envelope
from curbside.client.outbox import make_message_id
from curbside.clock import SystemClock
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import CurbsideError
from curbside.ids import ConversationId, DeviceId, UserId, decode_id, encode_id
from curbside.policy.access import Role, Subject
from curbside.server.delivery import DeliveryService
from curbside.server.fanout import Fanout, PublishedEntry
from curbside.server.groups import GroupCache, SendView, build_head
from curbside.server.metrics import Metrics
from curbside.server.store.sqlite import open_sqlite_store
from curbside.server.store.sqlite_open import migrate, open_connection
from curbside.wire.frames import Send, StoredItem

KEY = SecretBytes(bytes(range(32)))
EPOCH = 1
GROUP_STATE = bytes(1000)
OLD_ENVELOPE = 64
HOURS = 2 * 365 * 24
"""Over how long the stored messages were sent."""
GROWTH = 1.10
"""What the largest store may cost, as a multiple of the smallest one."""


@dataclass(frozen=True)
class Sizes:
    """stored: messages in each database at first. lanes: conversations that are written to, one message on its way in
    each. seconds: of a run; before the first round there is one that does not count."""

    stored: Sequence[int]
    lanes: int
    rounds: int
    seconds: float


FULL = Sizes(stored=(10_000, 100_000, 1_000_000, 10_000_000), lanes=100, rounds=7, seconds=1.0)
QUICK = Sizes(stored=(100, 400), lanes=4, rounds=1, seconds=0.1)


@dataclass(frozen=True)
class Shape:
    """How the stored messages lie. per_conversation: 0: all in the lanes' conversations; else each has so many."""

    name: str
    per_conversation: int


SHAPES = (Shape("in 100 conversations", 0), Shape("100 in each conversation", 100))


# --- a filled database ------------------------------------------------------------------------


def name_conversation(number: int) -> ConversationId:
    """The id of the conversation that the database knows by this number."""
    return ConversationId(encode_id(number.to_bytes(8, "big") + bytes(8)))


def fill(path: Path, conversations: int, messages: int) -> None:
    """A database with so many messages, taken in turns by its conversations."""
    database = open_connection(str(path), KEY)
    try:
        migrate(database)
        database.pragma("journal_mode", "OFF")
        database.pragma("synchronous", "OFF")
        with database:
            _fill(database, conversations, messages)
    finally:
        database.close()


def _fill(database: apsw.Connection, conversations: int, messages: int) -> None:
    rows = ((number, name_conversation(number), EPOCH, GROUP_STATE) for number in range(1, conversations + 1))
    database.executemany(
        """INSERT INTO conversations (number, conversation_id, epoch, last_sequence, created_at, group_state)
        VALUES (?, ?, ?, 0, 0, ?)""",
        rows,
    )
    statement = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'entries'"
    indexes = database.execute(statement).fetchall()
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}")
    database.execute(
        """INSERT INTO entries (conversation, sequence, kind, message_id, received_at_ms, envelope)
        WITH RECURSIVE
        counted (number) AS (VALUES (0) UNION ALL SELECT number + 1 FROM counted WHERE number + 1 < ?1),
        timed AS (SELECT number, ?4 - (?1 - number) * ?5 / ?1 AS hour FROM counted)
        SELECT 1 + number % ?2, 1 + number / ?2, 0, CAST(unhex(printf('%08x', hour)) || randomblob(12) AS BLOB),
            hour * 3600000, zeroblob(?3) FROM timed""",
        (messages, conversations, OLD_ENVELOPE, SystemClock().now() // 3600, HOURS),
    )
    for _, text in indexes:
        database.execute(str(text))


# --- the load ---------------------------------------------------------------------------------


class Lane:
    """A conversation of two, and the one who sends: a Listener and SendSink that puts the next message on its way."""

    token_hash = b""
    stream = 0

    def __init__(self, conversation_id: ConversationId, load: Load) -> None:
        self.subject = Subject(UserId(encode_id(random_bytes(16))), DeviceId(encode_id(random_bytes(16))), Role.NURSE)
        self.conversation_id = conversation_id
        self._load = load
        self._request = 0
        pattern = make_envelope(decode_id(conversation_id), b"\xff" * 16, EPOCH)
        self._before, _, self._after = pattern.partition(b"\xff" * 16)

    def send(self) -> None:
        """One more message."""
        self._request += 1
        message_id = decode_id(make_message_id(self._load.clock.now_ms()))
        envelope = b"".join((self._before, message_id, self._after))
        frame = Send(self._request, self.conversation_id, message_id, EPOCH, envelope)
        self._load.service.submit(self.subject, frame, self)

    def stored(self, item: StoredItem, conversation_id: ConversationId) -> None:
        """The message is durable."""
        self._load.count(self)

    def refused(self, request: int, error: CurbsideError) -> None:
        """Nothing here is refused."""
        raise error

    def is_live(self, conversation_id: ConversationId) -> bool:
        """It takes entries as they come."""
        return True

    def find_sent(self, conversation_id: ConversationId) -> int | None:
        """Nobody asks."""
        return None

    def offer(self, entry: PublishedEntry, is_live: bool) -> None:
        """Entries of others are thrown away."""

    def end_stay(self, conversation_id: ConversationId, last_sequence: int) -> None:
        """Nobody leaves."""

    def offer_queue(self) -> None:
        """There is no queue."""

    def offer_signal(self, signal: bytes) -> None:
        """There are no signals."""

    def end(self, error: CurbsideError) -> None:
        """Nothing ends it."""

    def replace(self) -> None:
        """Nothing replaces it."""


class Load:
    """Lanes into one database."""

    def __init__(self, service: DeliveryService, conversations: Sequence[ConversationId]) -> None:
        self.service = service
        self.clock = SystemClock()
        self.lanes = [Lane(each, self) for each in conversations]
        self._stored = 0
        self._is_on = False

    def count(self, lane: Lane) -> None:
        """A lane's message was stored."""
        self._stored += 1
        if self._is_on:
            lane.send()

    async def run(self, seconds: float) -> float:
        """One message on its way in each lane for this long; the process's processor time for each, microseconds."""
        self._is_on = True
        for lane in self.lanes:
            lane.send()
        await asyncio.sleep(seconds / 4)
        stored, used = self._stored, time.process_time()
        await asyncio.sleep(seconds)
        stored, used = self._stored - stored, time.process_time() - used
        self._is_on = False
        await asyncio.sleep(seconds / 4)
        if not stored:
            raise RuntimeError("nothing was stored")
        return used * 1e6 / stored


class Views(GroupCache):
    """What delivery compares the lanes' sends with, without the groups that it is otherwise built from."""

    def __init__(self) -> None:
        self._fixed: dict[ConversationId, SendView] = {}

    def add(self, lane: Lane, other: Lane) -> None:
        """A conversation of these two."""
        name = lane.conversation_id
        leaves = {lane.subject.device_id: 0, other.subject.device_id: 1}
        self._fixed[name] = SendView(name, EPOCH, leaves, (), build_head(decode_id(name), EPOCH))

    def find_view(self, conversation_id: ConversationId) -> SendView | None:
        """All are there."""
        return self._fixed.get(conversation_id)


@contextlib.asynccontextmanager
async def open_load(path: Path, conversations: Sequence[ConversationId]) -> AsyncIterator[Load]:
    """Delivery over a filled database, with two devices in each of these conversations."""
    store = open_sqlite_store(str(path), KEY)
    views, fanout = Views(), Fanout()
    service = DeliveryService(store, views, fanout, SystemClock(), Metrics())
    load = Load(service, conversations)
    for lane in load.lanes:
        pair = lane, Lane(lane.conversation_id, load)
        views.add(*pair)
        for each in pair:
            fanout.subscribe(each, lane.conversation_id)
    service.start()
    try:
        yield load
    finally:
        await service.close()
        await store.close()


async def measure_growth(plan: Plan) -> list[Figure]:
    """Sends into the embedded store while it holds ever more messages."""
    sizes, figures = QUICK if plan.is_quick else FULL, []
    for shape in SHAPES:
        with tempfile.TemporaryDirectory(prefix="curbside-growth-") as folder:
            figures += await _measure_shape(Path(folder), shape, sizes, plan.is_quick)
    return figures


async def _measure_shape(folder: Path, shape: Shape, sizes: Sizes, is_quick: bool) -> list[Figure]:
    async with contextlib.AsyncExitStack() as stack:
        loads = []
        for messages in sizes.stored:
            count = max(sizes.lanes, messages // shape.per_conversation if shape.per_conversation else 0)
            path = folder / f"{messages}.db"
            await asyncio.to_thread(fill, path, count, messages)
            names = [name_conversation(1 + lane * count // sizes.lanes) for lane in range(sizes.lanes)]
            loads.append(await stack.enter_async_context(open_load(path, names)))
        runs: list[list[float]] = [[] for _ in loads]
        for load in loads:
            await load.run(sizes.seconds)
        for _ in range(sizes.rounds):  # in turns, so that what else the machine does meets all alike
            for load, costs in zip(loads, runs, strict=True):
                costs.append(await load.run(sizes.seconds))
    figures = [
        Figure("growth", f"{stored:,} messages {shape.name}", "µs/msg", costs, runs[0])
        for stored, costs in zip(sizes.stored, runs, strict=True)
    ]
    ratios = [last / first for first, last in zip(runs[0], runs[-1], strict=True)]
    name = f"{sizes.stored[-1]:,} by {sizes.stored[0]:,}, {shape.name}"
    return [*figures, Figure("growth", name, "times", ratios, (), None if is_quick else GROWTH)]
