"""One suite for every store, the part about sends and deliveries that share leaves, and where a log stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from test_store import ENGINES, KEY, append, begin, count_events, entry, event, sequences

from curbside.audit.batch import ROWS_PER_BATCH, DeliveredRow, MessageRow, SentRow, encode_row, parse_rows, read_batch
from curbside.audit.events import AuditEvent, EventName, parse_event
from curbside.audit.merkle import compute_root, hash_leaf
from curbside.errors import CurbsideError, DuplicateRequest, NotFound
from curbside.ids import ConversationId, DeviceId, UserId
from curbside.server.audit_service import parse_records
from curbside.server.store.ports import Change, Store
from curbside.server.store.records import AuditRecord, MemberRecord
from curbside.server.store.sqlite import open_sqlite_store
from curbside.server.store.sqlite_open import open_connection
from curbside.server.store.sqlite_tables import open_sqlite_snapshot

ROOM = "c" * 22
WHO = ("u" * 22, "d" * 22, "nurse")


@pytest_asyncio.fixture(params=sorted(ENGINES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = ENGINES[request.param].open(tmp_path)
    yield opened
    await opened.close()


def sent(number: int) -> SentRow:
    return SentRow(1_000 + number, *WHO, ROOM, number, 3, 1024)


def delivered(number: int) -> DeliveredRow:
    return DeliveredRow(1_000 + number, *WHO, ROOM, number, number)


async def read_all(store: Store) -> list[AuditRecord]:
    return await store.read(lambda view: view.audit.read_events(0, 1000))


async def add(store: Store, *rows: MessageRow) -> None:
    await store.write(lambda tx: tx.append_messages(rows))


async def test_messages_of_a_transaction_share_a_leaf_after_its_events(store: Store) -> None:
    rows = [sent(1), delivered(1), sent(2)]

    def change(tx: Change) -> None:
        tx.append_messages(rows[:2])
        tx.append_audit(event(7))
        tx.append_messages(iter(rows[2:]))

    await store.write(change)
    first, batch = await read_all(store)
    assert (parse_event(first.event), first.rows) == (event(7), b"")
    head = read_batch(parse_event(batch.event))
    assert head is not None
    assert (head.count, head.root) == (3, compute_root([hash_leaf(encode_row(row)) for row in rows]))
    assert parse_rows(batch.rows) == [encode_row(row) for row in rows]
    assert [record.leaf_hash for record in (first, batch)] == [hash_leaf(first.event), hash_leaf(batch.event)]
    assert [(each.index, each.row, each.event.name.value) for each in parse_records([first, batch])] == [
        (0, None, "message.sent"),
        (1, 0, "message.sent"),
        (1, 1, "message.delivered"),
        (1, 2, "message.sent"),
    ]


async def test_a_message_that_is_alone_is_an_entry_of_its_own(store: Store) -> None:
    await add(store, delivered(4))
    (record,) = await read_all(store)
    assert (record.event, record.rows) == (encode_row(delivered(4)), b"")
    await add(store)
    assert await count_events(store) == 1


async def test_more_than_fit_a_leaf_take_several(store: Store) -> None:
    rows = [sent(number) for number in range(ROWS_PER_BATCH + 2)]
    await add(store, *rows)
    records = await read_all(store)
    assert [len(parse_rows(record.rows)) for record in records] == [ROWS_PER_BATCH, 2]
    assert [each.event.encode() for each in parse_records(records)] == [encode_row(row) for row in rows]


async def test_messages_of_a_change_that_raises_are_gone_and_no_others(store: Store) -> None:
    def fail(tx: Change) -> None:
        tx.append_messages([sent(100), sent(101)])
        raise NotFound

    def refuse(error: CurbsideError) -> AuditEvent:
        return AuditEvent(at=1, name=EventName.MESSAGE_REFUSED, reason=error.code)

    results = await asyncio.gather(
        add(store, sent(1), sent(2)), store.write(fail, refuse), add(store, sent(3), sent(4)), return_exceptions=True
    )
    assert isinstance(results[1], NotFound)
    listed = [each.event for each in parse_records(await read_all(store))]
    assert [one.reason for one in listed if one.name is EventName.MESSAGE_REFUSED] == ["not_found"]
    messages = [one.extra["sequence"] for one in listed if one.name is EventName.MESSAGE_SENT]
    assert sorted(messages) == [1, 2, 3, 4]


async def test_batches_that_wait_together_leave_all_their_messages_and_gap_free_leaves(store: Store) -> None:
    await asyncio.gather(*(add(store, sent(2 * number), sent(2 * number + 1)) for number in range(40)))
    records = await read_all(store)
    assert [record.sequence for record in records] == list(range(len(records)))
    found = [each.event.extra["sequence"] for each in parse_records(records)]
    assert sorted(found) == list(range(80))


# --- where a log stands -----------------------------------------------------------------------------


async def test_everybody_is_told_where_a_log_stands(store: Store) -> None:
    name = await begin(store)
    device = DeviceId("d" * 22)
    member = MemberRecord(device, UserId("u" * 22), 0, 1)
    await store.write(lambda tx: tx.delivery.add_members(name, [member]))
    await append(store, name, entry(), entry(), entry())
    await store.write(lambda tx: tx.delivery.advance_cursors(device, {name: 99}))

    def question(tx: Change) -> list[int]:
        record = tx.delivery.find_conversation(name)
        assert record is not None
        listed = tx.delivery.list_conversations(device)
        watched = tx.watch.find_conversations([name])
        return [
            record.last_sequence,
            listed[0].last_sequence,
            watched[name].last_sequence,
            tx.delivery.list_cursors(device)[name],
        ]

    assert await store.write(question) == [3, 3, 3, 3]


async def test_a_log_goes_on_where_it_stood_after_something_was_undone(store: Store) -> None:
    name, other = await begin(store), await begin(store)
    twice = entry()
    assert await append(store, name, entry()) == 1

    def fail(tx: Change) -> None:
        tx.delivery.append_entries(name, 0, [entry(), entry()])
        raise NotFound

    for _ in range(2):
        with pytest.raises(NotFound):
            await store.write(fail)
        assert await append(store, other, entry()) > 0
    await append(store, name, twice)
    with pytest.raises(DuplicateRequest):
        await append(store, name, twice)
    assert await append(store, name, entry()) == 3
    assert await sequences(store, name) == [1, 2, 3]


async def test_an_epoch_that_was_undone_is_not_remembered(store: Store) -> None:
    name = await begin(store)
    await append(store, name, entry())

    def fail(tx: Change) -> None:
        tx.delivery.advance_epoch(name, 1, b"next")
        tx.delivery.append_entries(name, 1, [entry()])
        raise NotFound

    with pytest.raises(NotFound):
        await store.write(fail)
    assert await append(store, name, entry(), epoch=0) == 2
    await store.write(lambda tx: tx.delivery.advance_epoch(name, 1, b"next"))
    assert await append(store, name, entry(), epoch=1) == 3


async def test_a_log_that_somebody_else_wrote_to_goes_on_behind_it(tmp_path: Path) -> None:
    """Two processes with one file: not how a server runs, and no reason to overwrite anything."""
    path = str(tmp_path / "store.db")
    one, two = open_sqlite_store(path, KEY), open_sqlite_store(path, KEY)
    name = await begin(one)
    places = []
    for _ in range(3):
        places += [await append(one, name, entry()), await append(two, name, entry(), entry())]
    assert places == [1, 2, 4, 5, 7, 8]
    await two.write(lambda tx: tx.delivery.advance_epoch(name, 1, b"next"))
    assert await append(one, name, entry(), epoch=1) == 10
    assert await sequences(one, name) == list(range(1, 11))
    await one.close()
    await two.close()


async def test_a_table_that_is_read_whole_says_where_its_logs_stand(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_sqlite_store(str(path), KEY)
    name = await begin(store)
    await append(store, name, entry(), entry())
    snapshot = open_sqlite_snapshot(path, KEY)
    (table,) = [each for each in snapshot.tables if each.name == "conversations"]
    (row,) = snapshot.read_rows(table)
    assert row[table.columns.index("last_sequence")] == 2
    snapshot.close()
    await store.close()
    database = open_connection(str(path), KEY)
    kept = database.execute("SELECT last_sequence FROM conversations").get
    database.close()
    assert kept <= 2, "a lower bound (schema 0007)"


async def test_many_questions_and_many_entries_at_once(store: Store) -> None:
    """More than fit one statement of any engine."""
    name = await begin(store)
    given = [entry(b"%d" % number) for number in range(700)]
    assert await append(store, name, *given) == 1
    asked = [(name, each.message_id, each.envelope) for each in given]
    asked.append((ConversationId("x" * 22), given[0].message_id, b"0"))
    found = await store.read(lambda view: view.delivery.find_places(asked))
    assert found.pop() is None
    assert [place.sequence for place in found if place is not None] == list(range(1, 701))
    assert all(place is not None and place.is_same for place in found)
