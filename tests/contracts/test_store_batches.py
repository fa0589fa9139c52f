"""One suite for every store, the part about batches: many conversations and many questions in one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from test_store import ENGINES, append, begin, entry, new_id, sequences

from curbside.crypto.random import random_bytes
from curbside.errors import CurbsideError, DuplicateRequest, EpochConflict, NotFound, PendingProposals
from curbside.ids import ConversationId, MessageId
from curbside.server.store.ports import Change, Store
from curbside.server.store.records import EntryBatch, PlaceRecord


@pytest_asyncio.fixture(params=sorted(ENGINES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = ENGINES[request.param].open(tmp_path)
    yield opened
    await opened.close()


async def append_all(store: Store, *batches: EntryBatch) -> list[int | CurbsideError]:
    return await store.write(lambda tx: tx.delivery.append_batches(batches))


async def test_a_batch_goes_to_the_end_of_each_log(store: Store) -> None:
    names = [await begin(store) for _ in range(3)]
    await append(store, names[1], entry(), entry())
    given = [entry(b"%d" % i) for i in range(6)]
    batches = [EntryBatch(names[i], 0, given[2 * i : 2 * i + 2]) for i in (2, 0, 1)]
    assert await append_all(store, *batches) == [1, 1, 3]
    rows = await store.read(lambda view: view.delivery.read_entries(names[1], 2, 10, 10))
    assert [(r.sequence, r.message_id, r.received_at, r.envelope) for r in rows] == [
        (3 + i, e.message_id, e.received_at, e.envelope) for i, e in enumerate(given[2:4])
    ]
    assert [await sequences(store, name) for name in names] == [[1, 2], [1, 2, 3, 4], [1, 2]]
    assert await append_all(store) == []


async def test_what_cannot_be_appended_keeps_no_other_out(store: Store) -> None:
    good, late, waits = await begin(store), await begin(store, epoch=4), await begin(store)
    await store.write(lambda tx: tx.delivery.advance_epoch(waits, 0, b"", waiting=1))
    nowhere = ConversationId(new_id())
    found = await append_all(store, *(EntryBatch(name, 0, [entry()]) for name in (late, waits, good, nowhere)))
    conflict, pending, place, missing = found
    assert isinstance(conflict, EpochConflict)
    assert conflict.members["current_epoch"] == 4
    assert isinstance(pending, PendingProposals)
    assert isinstance(missing, NotFound)
    assert place == 1
    assert [await sequences(store, name) for name in (good, late, waits)] == [[1], [], []]


async def test_a_duplicate_undoes_the_whole_change(store: Store) -> None:
    one, two = await begin(store), await begin(store)
    known = entry()
    await append(store, two, known)
    with pytest.raises(DuplicateRequest):
        await append_all(store, EntryBatch(one, 0, [entry()]), EntryBatch(two, 0, [entry(), known]))
    assert [await sequences(store, name) for name in (one, two)] == [[], [1]]
    assert await append_all(store, EntryBatch(one, 0, [known]), EntryBatch(two, 0, [entry()])) == [1, 2]


async def test_places_are_found_in_the_order_asked(store: Store) -> None:
    one, two = await begin(store), await begin(store)
    first, second = entry(b"first"), entry(b"second")
    await append(store, one, entry(), first)
    await append(store, two, second)
    asked = [
        (two, second.message_id, b"second"),
        (one, second.message_id, b"second"),
        (one, first.message_id, b"other"),
        (ConversationId(new_id()), first.message_id, b"first"),
        (one, first.message_id, b"first"),
        (one, MessageId(random_bytes(16)), b""),
    ]
    wanted = [PlaceRecord(1, 1_000, True), None, PlaceRecord(2, 1_000, False), None, PlaceRecord(2, 1_000, True), None]
    assert await store.read(lambda view: view.delivery.find_places(asked)) == wanted
    assert await store.read(lambda view: view.delivery.find_places([])) == []


async def test_concurrent_batches_over_the_same_conversations_leave_no_gap(store: Store) -> None:
    names = [await begin(store) for _ in range(8)]

    async def send(number: int) -> None:
        order = names[number % 8 :] + names[: number % 8]
        batches = [EntryBatch(name, 0, [entry(), entry()]) for name in (order if number % 2 else reversed(order))]

        def append_two(tx: Change) -> list[int | CurbsideError]:
            return tx.delivery.append_batches(batches[:4]) + tx.delivery.append_batches(batches[4:])

        assert all(isinstance(place, int) for place in await store.write(append_two))

    await asyncio.gather(*(send(number) for number in range(40)))
    for name in names:
        assert await sequences(store, name) == list(range(1, 81))
