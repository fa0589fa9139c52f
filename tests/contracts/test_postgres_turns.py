"""Who writes beside whom in PostgreSQL, and when audit events get their places."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from postgres import database_of
from test_store import KEY, append, begin, count_events, entry, event, sequences
from test_store_identity import enrol

from curbside.errors import StoreUnavailable
from curbside.server.store.ports import Change
from curbside.server.store.postgres import PostgresStore, open_postgres_store
from curbside.server.store.postgres_audit import PLACED_AT_ONCE
from curbside.server.store.postgres_open import PostgresSettings
from curbside.server.store.postgres_session import AUDIT_LOCK, LOCK_CLASS, WRITER_LOCK
from curbside.server.store.postgres_tables import open_postgres_snapshot
from curbside.server.store.records import EntryBatch, NewEntry

LOCK = f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {WRITER_LOCK})"
LOCK_SHARED = f"SELECT pg_advisory_xact_lock_shared({LOCK_CLASS}, {WRITER_LOCK})"


@pytest.fixture
def settings(tmp_path: Path) -> PostgresSettings:
    """Others are not waited for long."""
    return PostgresSettings(database_of(tmp_path), lock_ms=200)


@pytest_asyncio.fixture
async def store(settings: PostgresSettings) -> AsyncIterator[PostgresStore]:
    opened = open_postgres_store(settings, KEY)
    yield opened
    await opened.close()


@pytest.fixture
def other(settings: PostgresSettings, store: PostgresStore) -> Iterator[psycopg.Connection[Any]]:
    """Another writer, in a transaction of its own."""
    with psycopg.connect(settings.url.reveal().decode()) as connection:
        yield connection
        connection.rollback()


async def test_plain_changes_run_beside_another_writer_and_others_wait_for_it(
    store: PostgresStore, other: psycopg.Connection[Any]
) -> None:
    name = await begin(store)
    other.execute(LOCK_SHARED)
    assert await append(store, name, entry()) == 1
    await store.write(lambda tx: tx.append_audit(event()))
    with pytest.raises(StoreUnavailable):
        await store.write(lambda tx: tx.identity.put_setting("name", b"value"))
    other.rollback()
    await store.write(lambda tx: tx.identity.put_setting("name", b"value"))
    other.execute(LOCK)
    with pytest.raises(StoreUnavailable):
        await append(store, name, entry())


async def test_a_change_that_needs_its_turn_starts_over_when_it_has_it(store: PostgresStore) -> None:
    name = await begin(store)
    runs: list[int] = []

    def change(tx: Change) -> None:
        runs.append(tx.delivery.append_entries(name, 0, [entry()]))
        tx.append_audit(event(len(runs)))
        try:
            tx.identity.put_setting("name", b"value")
        except Exception:  # noqa: BLE001 - a change that goes on regardless is started over all the same
            runs.append(-1)

    await asyncio.gather(*(store.write(change) for _ in range(3)))
    assert runs == [1, -1, 1, -1, 1, -1, 1, 2, 3], "and of the second kind nothing is left"
    runs.clear()
    await store.write(change)
    assert runs == [4], "from then on it goes there at once"
    assert await sequences(store, name) == [1, 2, 3, 4]
    assert await count_events(store) == 4


async def test_a_row_that_somebody_has_is_waited_for_once_and_keeps_no_other_back(
    store: PostgresStore, other: psycopg.Connection[Any]
) -> None:
    taken, free, last = [await begin(store) for _ in range(3)]
    other.execute(LOCK_SHARED)
    other.execute("SELECT 1 FROM conversations WHERE conversation_id = %s FOR UPDATE", (taken,))
    results = await asyncio.gather(
        append(store, free, entry()),
        append(store, taken, entry()),
        append(store, last, entry()),
        return_exceptions=True,
    )
    assert results[0] == results[2] == 1
    assert isinstance(results[1], StoreUnavailable)
    other.rollback()
    assert await append(store, taken, entry()) == 1


async def test_the_same_sends_through_two_servers_are_stored_once(
    store: PostgresStore, settings: PostgresSettings
) -> None:
    """A client that lost its connection sends again elsewhere, while the first send is on its way."""
    patient = PostgresSettings(settings.url, lock_ms=60_000)
    servers = [open_postgres_store(patient, KEY) for _ in range(2)]
    names = [await begin(store) for _ in range(4)]

    def send(tx: Change, entries: list[NewEntry]) -> list[int]:
        """Find what is there, and append the rest: nothing comes between the two."""
        asked = [(name, each.message_id, each.envelope) for name, each in zip(names, entries, strict=True)]
        found = tx.delivery.find_places(asked)
        fresh = [EntryBatch(asked[i][0], 0, [entries[i]]) for i in range(4) if found[i] is None]
        placed = iter(tx.delivery.append_batches(fresh))
        places = [place.sequence if place is not None else next(placed) for place in found]
        return [place for place in places if isinstance(place, int)]

    for number in range(1, 31):
        entries = [entry() for _ in names]
        places = await asyncio.gather(*(server.write(lambda tx, e=entries: send(tx, e)) for server in servers))  # type: ignore[misc]
        assert places == [[number] * 4] * 2
    for server in servers:
        await server.close()


async def test_two_writers_that_wait_for_each_other_both_end_well(tmp_path: Path) -> None:
    settings = PostgresSettings(database_of(tmp_path), lock_ms=60_000)
    store = open_postgres_store(settings, KEY)
    _, one = await enrol(store)
    _, two = await enrol(store)
    touch = "UPDATE devices SET last_seen_at = 5 WHERE device_id = %s"

    def change(tx: Change) -> None:
        tx.identity.touch_device(one.device_id, 9)
        tx.identity.touch_device(two.device_id, 9)

    with psycopg.connect(settings.url.reveal().decode()) as other:
        other.execute("SET deadlock_timeout = 5000")  # the store finds out first
        other.execute(LOCK_SHARED)
        other.execute(touch, (two.device_id,))
        waiting = asyncio.create_task(store.write(change))
        with psycopg.connect(settings.url.reveal().decode(), autocommit=True) as watching:
            while watching.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with contextlib.suppress(psycopg.errors.DeadlockDetected):
            await asyncio.to_thread(other.execute, touch, (one.device_id,))
        other.rollback()
    await waiting
    for each in (one, two):
        found = await store.read(lambda view, each=each: view.identity.find_device(each.device_id))  # type: ignore[misc]
        assert found.last_seen_at == 9
    await store.close()


async def test_events_get_their_places_when_somebody_looks(
    store: PostgresStore, other: psycopg.Connection[Any]
) -> None:
    def count(table: str) -> int:
        other.rollback()
        row = other.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        return int(row[0]) if row else 0

    for number in range(5):
        await store.write(lambda tx, number=number: tx.append_audit(event(number)))  # type: ignore[misc]
    assert (count("audit_waiting"), count("audit_events")) == (5, 0)
    records = await store.read(lambda view: view.audit.read_events(0, 10))
    assert [json.loads(record.event)["at"] for record in records] == list(range(5))
    assert (count("audit_waiting"), count("audit_events")) == (0, 5)
    await store.write(lambda tx: tx.append_audit(event()))
    assert await store.write(lambda tx: tx.audit.count_events()) == 6, "also for a look inside a change"
    await store.write(lambda tx: [tx.append_audit(event(n)) for n in range(2 * PLACED_AT_ONCE + 6)])
    records = await store.read(lambda view: view.audit.read_events(6, 10**6))
    assert [json.loads(record.event)["at"] for record in records] == list(range(2 * PLACED_AT_ONCE + 6))


async def test_an_event_that_was_committed_late_comes_after_those_that_were_seen(
    store: PostgresStore, other: psycopg.Connection[Any]
) -> None:
    late = event(1).encode()
    statement = """INSERT INTO audit_waiting (in_transaction, position, event, leaf_hash)
        VALUES (pg_current_xact_id(), 1, %s, '')"""
    for seen in (1, 3, 5):
        other.execute(statement, (late,))
        await store.write(lambda tx: tx.append_audit(event(2)))
        assert await count_events(store) == seen
        other.commit()
        assert await count_events(store) == seen + 1
    records = await store.read(lambda view: view.audit.read_events(0, 10))
    assert [json.loads(record.event)["at"] for record in records] == [2, 1] * 3


async def test_a_look_waits_for_whoever_gives_places(store: PostgresStore, other: psycopg.Connection[Any]) -> None:
    await store.write(lambda tx: tx.append_audit(event()))
    other.execute(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {AUDIT_LOCK})".encode())
    with pytest.raises(StoreUnavailable):
        await count_events(store)
    await store.write(lambda tx: tx.append_audit(event()))
    other.rollback()
    assert await count_events(store) == 2


async def test_in_a_snapshot_no_event_waits(tmp_path: Path) -> None:
    settings = PostgresSettings(database_of(tmp_path), lock_ms=60_000)
    store = open_postgres_store(settings, KEY)
    name = await begin(store)

    def change(tx: Change) -> None:
        tx.delivery.append_entries(name, 0, [entry()])
        tx.append_audit(event())

    writing = [asyncio.create_task(store.write(change)) for _ in range(100)]
    for _ in range(3):
        snapshot = await asyncio.to_thread(open_postgres_snapshot, settings, KEY)
        counts = {table.name: snapshot.count_rows(table) for table in snapshot.tables}
        assert counts["audit_events"] == counts["entries"]
        assert "audit_waiting" not in counts
        snapshot.close()
    await asyncio.gather(*writing)
    await store.close()
