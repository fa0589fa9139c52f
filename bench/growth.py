"""What a message costs as the store fills: servers whose databases hold ever more messages, side by side.

The old messages are put into the embedded database by SQL while its server is down: log and indexes are as sends would
have left them, but their envelopes are short, because nobody reads them. Then pairs send as in `sends`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from bench.figures import Figure
from bench.load import Load
from bench.plan import Plan
from bench.target import EMBEDDED, Target, open_target
from curbside.clock import SystemClock
from curbside.crypto.random import random_bytes
from curbside.ids import encode_id
from curbside.server.config import load_config
from curbside.server.database_key import load_database_key
from curbside.server.organization import find_organization
from curbside.server.store.sqlite_open import open_connection

OLD_ENVELOPE = 64
GROUP_STATE = bytes(1000)
HOURS = 2 * 365 * 24
"""Over how long the stored messages were sent."""
GROWTH = 1.10
"""What a message may cost at most in the fullest store, as a multiple of the emptiest."""


@dataclass(frozen=True)
class Sizes:
    """stored: messages in the databases at first, the fewest first. pairs: that send, one message on its way in each.

    seconds: of a run; before the first round there is one that does not count."""

    stored: Sequence[int]
    pairs: int
    rounds: int
    seconds: float


FULL = Sizes(stored=(10_000, 1_000_000, 10_000_000), pairs=100, rounds=7, seconds=2.0)
QUICK = Sizes(stored=(100, 400), pairs=2, rounds=1, seconds=0.1)


@dataclass(frozen=True)
class Shape:
    """How the stored messages lie. per_conversation: so many in each; 0: all in the pairs' own conversations."""

    name: str
    per_conversation: int


SHAPES = (Shape("in the pairs' conversations", 0), Shape("100 in each conversation", 100))


async def measure_growth(plan: Plan) -> list[Figure]:
    """w1 at k=1, embedded, while the store holds ever more messages."""
    sizes, figures = QUICK if plan.is_quick else FULL, list[Figure]()
    for shape in SHAPES:
        with tempfile.TemporaryDirectory(prefix="curbside-growth-") as folder:
            runs = await _run(Path(folder), shape, sizes, plan.is_pinned)
        figures += [
            Figure("growth", f"{stored:,} messages {shape.name}", "µs/msg", costs, (), None, True, EMBEDDED)
            for stored, costs in zip(sizes.stored, runs, strict=True)
        ]
        for stored, costs in list(zip(sizes.stored, runs, strict=True))[1:]:
            name = f"{stored:,} by {sizes.stored[0]:,}, {shape.name}"
            ratios = [last / first for first, last in zip(runs[0], costs, strict=True)]
            budget = None if plan.is_quick else GROWTH
            figures.append(Figure("growth", name, "times", ratios, (), budget, True, EMBEDDED))
    return figures


async def _run(folder: Path, shape: Shape, sizes: Sizes, is_pinned: bool) -> list[list[float]]:
    """The server's processor time for a message, microseconds: for each size, of each round."""
    groups = [(2 * number, 2 * number + 1) for number in range(sizes.pairs)]
    async with contextlib.AsyncExitStack() as stack:
        loads = []
        for stored in sizes.stored:
            opened = open_target(EMBEDDED, folder / str(stored), 2 * sizes.pairs, groups)
            target = await stack.enter_async_context(opened)
            target.stop()
            await asyncio.to_thread(fill, target, shape, stored)
            target.start()
            loads.append(await Load.open(target, is_pinned=is_pinned))
        runs: list[list[float]] = [[] for _ in loads]
        for load in loads:
            await load.run_closed(1, sizes.seconds)
        for _ in range(sizes.rounds):  # in turns, so that what else the machine does meets all alike
            for load, costs in zip(loads, runs, strict=True):
                costs.append((await load.run_closed(1, sizes.seconds)).server_us)
    return runs


# --- old messages -------------------------------------------------------------------------------


def fill(target: Target, shape: Shape, messages: int) -> None:
    """Put old messages into the database of a target that is down, and tell it where the pairs' logs end now."""
    config = load_config(find_organization(target.folder).config_file, {})
    database = open_connection(str(config.database_path), load_database_key(config.database_key))
    try:
        with database:
            count = max(len(target.conversations), messages // shape.per_conversation if shape.per_conversation else 0)
            _spread(database, count)
            _add_messages(database, count, messages)
            target.conversations[:] = [
                dataclasses.replace(each, begun=_find_last(database, each.id)) for each in target.conversations
            ]
    finally:
        database.close()


def _spread(database: apsw.Connection, count: int) -> None:
    """Make it `count` conversations, with those that were there evenly among the others."""
    there = int(database.execute("SELECT count(*) FROM conversations").get)
    step = count // there
    database.execute("PRAGMA defer_foreign_keys = ON")
    for table, column in (("conversations", "number"), ("entries", "conversation"), ("stays", "conversation")):
        database.execute(f"UPDATE {table} SET {column} = -{column} * ?", (step,))
        database.execute(f"UPDATE {table} SET {column} = -{column}")
    taken = {number for (number,) in database.execute("SELECT number FROM conversations")}
    database.executemany(
        """INSERT INTO conversations (number, conversation_id, epoch, last_sequence, created_at, group_state)
        VALUES (?, ?, 1, 1, 0, ?)""",
        (
            (number, encode_id(random_bytes(16)), GROUP_STATE)
            for number in range(1, step * there + 1)
            if number not in taken
        ),
    )


def _add_messages(database: apsw.Connection, count: int, messages: int) -> None:
    """In turns to all conversations, behind the first entry."""
    statement = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'entries'"
    indexes = database.execute(statement).fetchall()
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}")
    database.execute(
        """INSERT INTO entries (conversation, sequence, kind, message_id, received_at_ms, envelope)
        WITH RECURSIVE
        counted (number) AS (VALUES (0) UNION ALL SELECT number + 1 FROM counted WHERE number + 1 < ?1),
        timed AS (SELECT number, ?4 - (?1 - number) * ?5 / ?1 AS hour FROM counted)
        SELECT 1 + number % ?2, 2 + number / ?2, 0, CAST(unhex(printf('%08x', hour)) || randomblob(12) AS BLOB),
            hour * 3600000, zeroblob(?3) FROM timed""",
        (messages, count, OLD_ENVELOPE, SystemClock().now() // 3600, HOURS),
    )
    for _, text in indexes:
        database.execute(str(text))


def _find_last(database: apsw.Connection, conversation_id: str) -> int:
    return int(
        database.execute(
            """SELECT max(sequence) FROM entries JOIN conversations ON number = conversation
            WHERE conversation_id = ?""",
            (conversation_id,),
        ).get
    )
