"""What a node's rounds cost, in which it compares every conversation that somebody here hears of with the store."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench.database import Database
from bench.figures import Figure
from bench.plan import Plan
from bench.process import cpu_seconds
from bench.target import POSTGRES
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.ids import ConversationId, encode_id
from curbside.server.store.ports import Change, Store, View
from curbside.server.store.postgres import open_postgres_store
from curbside.server.store.postgres_open import PostgresSettings
from curbside.server.store.records import ConversationRecord
from curbside.server.watch import ASKED_AT_ONCE

GROUP_STATE: Final = bytes(1000)


@dataclass(frozen=True)
class _Amount:
    """conversations that a node follows; rounds over all of them."""

    conversations: int
    rounds: int


FULL: Final = _Amount(50_000, 6)
QUICK: Final = _Amount(2_000, 1)


async def measure_watch(plan: Plan) -> list[Figure]:
    """A round over the conversations of a node: processor time for each, in the database and in the node."""
    if POSTGRES not in plan.backends:
        return []
    amount = QUICK if plan.is_quick else FULL
    database = Database()
    database.start()
    try:
        store = open_postgres_store(PostgresSettings(SecretBytes(database.url.encode())), SecretBytes(random_bytes(32)))
        try:
            return await _measure(store, database, amount)
        finally:
            await store.close()
    finally:
        database.remove()


async def _measure(store: Store, database: Database, amount: _Amount) -> list[Figure]:
    names = [ConversationId(encode_id(random_bytes(16))) for _ in range(amount.conversations)]
    parts = [names[start : start + ASKED_AT_ONCE] for start in range(0, len(names), ASKED_AT_ONCE)]
    for part in parts:
        await store.write(partial(_create, part))
    theirs, ours = list[float](), list[float]()
    for _ in range(amount.rounds):
        before, began = cpu_seconds(database.list_pids()), _own_seconds()
        for part in parts:
            assert await store.read(partial(_look, part)) == len(part)
        theirs.append(1e6 * (cpu_seconds(database.list_pids()) - before) / len(names))
        ours.append(1e6 * (_own_seconds() - began) / len(names))
    return [
        Figure("watch", f"a conversation looked at: {who}", "µs", runs, (), None, True, POSTGRES)
        for who, runs in (("processor time of the database", theirs), ("processor time of the node", ours))
    ]


def _create(names: Sequence[ConversationId], tx: Change) -> None:
    for name in names:
        tx.delivery.create_conversation(ConversationRecord(name, 0, 0, 1), GROUP_STATE)


def _look(names: Sequence[ConversationId], view: View) -> int:
    return len(view.watch.find_conversations(names))


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
