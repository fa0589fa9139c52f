"""One suite for every store: what the port promises (src/curbside/server/store/ports.py)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest
import pytest_asyncio
from postgres import database_of

from curbside.audit.events import AuditEvent, EventName
from curbside.audit.merkle import hash_leaf
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import (
    ConfigError,
    CurbsideError,
    DuplicateRequest,
    EpochConflict,
    NotFound,
    PendingProposals,
    StorageFull,
    StoreUnavailable,
    UsageError,
)
from curbside.ids import ConversationId, DeviceId, MessageId, UserId, encode_id
from curbside.server.store.ports import Change, Store
from curbside.server.store.postgres import open_postgres_store
from curbside.server.store.postgres_open import PostgresSettings
from curbside.server.store.records import ConversationRecord, MemberRecord, NewEntry, NewQueueItem
from curbside.server.store.sqlite import SqliteStore, open_sqlite_store
from curbside.server.store.sqlite_open import list_migrations, open_connection, rotate_key

KEY = SecretBytes(bytes(range(32)))
PAGE = 4096


@dataclass
class Engine:
    """How a store is opened. is_kept: its contents outlive the process."""

    open: Callable[[Path], Store]
    is_kept: bool


ENGINES = {
    "sqlite": Engine(lambda folder: open_sqlite_store(str(folder / "store.db"), KEY, busy_ms=50), True),
    "sqlite-memory": Engine(lambda folder: open_sqlite_store(":memory:", KEY), False),
    "postgres": Engine(lambda folder: open_postgres_store(PostgresSettings(database_of(folder)), KEY), True),
}
"""Every store of the server; a new one joins here and passes all of this."""


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]


@pytest_asyncio.fixture
async def store(engine: Engine, tmp_path: Path) -> AsyncIterator[Store]:
    opened = engine.open(tmp_path)
    yield opened
    await opened.close()


def new_id() -> str:
    return encode_id(random_bytes(16))


def entry(envelope: bytes = b"sealed", message_id: bytes | None = None) -> NewEntry:
    return NewEntry(0, MessageId(message_id or random_bytes(16)), 1_000, envelope)


def event(number: int = 0) -> AuditEvent:
    return AuditEvent(at=number, name=EventName.MESSAGE_SENT)


def read_files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and mode of each file in a folder."""
    return {path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.iterdir()}


async def begin(store: Store, epoch: int = 0) -> ConversationId:
    """A conversation in the store."""
    name = ConversationId(new_id())
    await store.write(lambda tx: tx.delivery.create_conversation(ConversationRecord(name, epoch, 0, 7), b"group"))
    return name


async def append(store: Store, name: ConversationId, *entries: NewEntry, epoch: int = 0) -> int:
    return await store.write(lambda tx: tx.delivery.append_entries(name, epoch, entries))


async def sequences(store: Store, name: ConversationId) -> list[int]:
    rows = await store.read(lambda view: view.delivery.read_entries(name, 0, 10**9, 10**6))
    return [row.sequence for row in rows]


async def count_events(store: Store) -> int:
    return await store.read(lambda view: view.audit.count_events())


def fail_after(action: Callable[[Change], object], error: Exception) -> Callable[[Change], None]:
    """A change that does something and then raises."""

    def change(tx: Change) -> None:
        action(tx)
        raise error

    return change


# --- logs ---------------------------------------------------------------------------------------


async def test_entries_come_back_as_they_were(store: Store) -> None:
    name = await begin(store)
    given = [entry(b"one"), entry(b"two" * 50_000), entry(b"\x00\xff")]
    assert await append(store, name, *given) == 1
    rows = await store.read(lambda view: view.delivery.read_entries(name, 0, 10, 10))
    assert [(r.sequence, r.kind, r.message_id, r.received_at, r.envelope) for r in rows] == [
        (i + 1, e.kind, e.message_id, e.received_at, e.envelope) for i, e in enumerate(given)
    ]


async def test_concurrent_appends_leave_no_gap(store: Store) -> None:
    names = [await begin(store) for _ in range(3)]
    firsts = await asyncio.gather(*(append(store, names[i % 3], entry(), entry()) for i in range(90)))
    for index, name in enumerate(names):
        assert await sequences(store, name) == list(range(1, 61))
        assert sorted(firsts[index::3]) == list(range(1, 61, 2))


async def test_a_failed_append_leaves_no_gap_and_spoils_no_other(store: Store) -> None:
    name = await begin(store)
    good = [store.write(lambda tx: tx.delivery.append_entries(name, 0, [entry()])) for _ in range(20)]
    bad = [
        store.write(fail_after(lambda tx: tx.delivery.append_entries(name, 0, [entry()]), NotFound()))
        for _ in range(20)
    ]
    mixed = [job for pair in zip(good, bad, strict=True) for job in pair]
    results = await asyncio.gather(*mixed, return_exceptions=True)
    assert sorted(r for r in results if isinstance(r, int)) == list(range(1, 21))
    assert sum(isinstance(r, NotFound) for r in results) == 20
    assert await sequences(store, name) == list(range(1, 21))


async def test_a_message_id_is_in_a_log_once(store: Store) -> None:
    name, other = await begin(store), await begin(store)
    first = entry(b"first")
    await append(store, name, first)
    with pytest.raises(DuplicateRequest):
        await append(store, name, entry(), entry(b"again", first.message_id))
    assert await sequences(store, name) == [1]
    assert await append(store, other, entry(b"elsewhere", first.message_id)) == 1


async def test_a_place_tells_a_retry_from_a_misuse(store: Store) -> None:
    name = await begin(store)
    first = entry(b"first")
    await append(store, name, entry(), first)
    same = await store.read(lambda view: view.delivery.find_place(name, first.message_id, b"first"))
    assert same is not None
    assert (same.sequence, same.received_at, same.is_same) == (2, 1_000, True)
    other = await store.read(lambda view: view.delivery.find_place(name, first.message_id, b"firsT"))
    assert other is not None
    assert not other.is_same
    assert await store.read(lambda view: view.delivery.find_place(name, MessageId(bytes(16)), b"first")) is None


async def test_an_append_of_another_epoch_is_told_the_current_one(store: Store) -> None:
    name = await begin(store, epoch=4)
    with pytest.raises(EpochConflict) as conflict:
        await append(store, name, entry(), epoch=3)
    assert conflict.value.members["current_epoch"] == 4
    with pytest.raises(NotFound):
        await append(store, ConversationId(new_id()), entry())


async def test_waiting_proposals_hold_messages_back_and_let_handshakes_pass(store: Store) -> None:
    name = await begin(store)
    await store.write(lambda tx: tx.delivery.advance_epoch(name, 0, b"with proposal", waiting=1))
    with pytest.raises(PendingProposals):
        await append(store, name, entry())
    assert await store.write(lambda tx: tx.delivery.append_entries(name, 0, [entry()], while_waiting=True)) == 1
    await store.write(lambda tx: tx.delivery.advance_epoch(name, 1, b"next"))
    assert await append(store, name, entry(), epoch=1) == 2


async def test_reading_keeps_to_its_range_and_limit(store: Store) -> None:
    name = await begin(store)
    await append(store, name, *(entry() for _ in range(10)))
    read = lambda after, through, limit: store.read(  # noqa: E731
        lambda view: [row.sequence for row in view.delivery.read_entries(name, after, through, limit)]
    )
    assert await read(2, 5, 100) == [3, 4, 5]
    assert await read(2, 100, 2) == [3, 4]
    assert await read(10, 100, 5) == []
    by_size = await store.read(lambda view: view.delivery.read_entries(name, 0, 100, 100, 2 * len(b"sealed")))
    assert [row.sequence for row in by_size] == [1, 2]
    assert len(await store.read(lambda view: view.delivery.read_entries(name, 0, 100, 100, 1))) == 1


async def test_a_conversation_begins_once(store: Store) -> None:
    name = await begin(store)
    with pytest.raises(DuplicateRequest):
        await store.write(lambda tx: tx.delivery.create_conversation(ConversationRecord(name, 0, 0, 8), b"other"))
    assert await store.read(lambda view: view.delivery.find_group_state(name)) == b"group"


# --- members, queues, cursors -------------------------------------------------------------------


async def test_conversations_of_a_device_are_counted_up_to_a_limit(store: Store) -> None:
    names, device, user = [await begin(store) for _ in range(3)], DeviceId(new_id()), UserId(new_id())
    for name in names:
        await store.write(lambda tx, name=name: tx.delivery.add_members(name, [MemberRecord(device, user, 1, 1)]))
    await store.write(lambda tx: tx.delivery.end_members(names[0], [device], 5))
    counts = [await store.read(lambda v, n=n: v.delivery.count_conversations(device, n)) for n in (1, 2, 3)]
    assert counts == [1, 2, 2]
    assert await store.read(lambda v: v.delivery.count_conversations(DeviceId(new_id()), 3)) == 0


async def test_a_stay_ends_and_a_device_may_come_back(store: Store) -> None:
    name, device, user = await begin(store), DeviceId(new_id()), UserId(new_id())
    stays = [MemberRecord(device, user, 1, 1), MemberRecord(device, user, 2, 9)]
    await store.write(lambda tx: tx.delivery.add_members(name, stays[:1]))
    assert [c.conversation_id for c in await store.read(lambda v: v.delivery.list_conversations(device))] == [name]
    await store.write(lambda tx: tx.delivery.end_members(name, [device], 5))
    assert await store.read(lambda v: v.delivery.list_conversations(device)) == []
    assert await store.read(lambda v: v.delivery.list_members(name)) == []
    await store.write(lambda tx: tx.delivery.add_members(name, stays[1:]))
    found = await store.read(lambda v: v.delivery.list_stays(device, [name, ConversationId(new_id())]))
    assert {key: [(s.first_sequence, s.last_sequence) for s in value] for key, value in found.items()} == {
        name: [(1, 5), (9, None)]
    }


async def test_queue_items_wait_in_order_for_their_device_alone(store: Store) -> None:
    name, alice, bob = await begin(store), DeviceId(new_id()), DeviceId(new_id())
    items = [NewQueueItem(device, 0, name, 3, b"welcome %d" % i) for i, device in enumerate([alice, bob, alice])]
    positions = await store.write(lambda tx: tx.delivery.add_queue_items(items))
    assert positions == sorted(set(positions))
    found = await store.read(lambda view: view.delivery.read_queue(alice, 0, 10))
    assert [(item.position, item.payload) for item in found] == [
        (positions[0], b"welcome 0"),
        (positions[2], b"welcome 2"),
    ]
    await store.write(lambda tx: tx.delivery.delete_queue(alice, positions[0]))
    left = await store.read(lambda view: view.delivery.read_queue(alice, 0, 10))
    assert [item.position for item in left] == [positions[2]]
    assert len(await store.read(lambda view: view.delivery.read_queue(bob, 0, 10))) == 1


async def test_cursors_only_rise_and_never_pass_the_log(store: Store) -> None:
    name, other, device = await begin(store), await begin(store), DeviceId(new_id())
    await append(store, name, *(entry() for _ in range(5)))
    await store.write(lambda tx: tx.delivery.add_members(name, [MemberRecord(device, UserId(new_id()), 0, 1)]))
    for given, held in ((3, 3), (2, 3), (99, 5)):
        await store.write(lambda tx, at=given: tx.delivery.advance_cursors(device, {name: at, other: 1}))  # type: ignore[misc]
        assert await store.read(lambda view: view.delivery.list_cursors(device)) == {name: held}


# --- transactions and audit ---------------------------------------------------------------------


async def test_a_change_that_raises_leaves_nothing_behind(store: Store) -> None:
    name = ConversationId(new_id())

    def act(tx: Change) -> None:
        tx.delivery.create_conversation(ConversationRecord(name, 0, 0, 7), b"group")
        tx.delivery.append_entries(name, 0, [entry()])
        tx.append_audit(event())

    with pytest.raises(ZeroDivisionError):
        await store.write(fail_after(act, ZeroDivisionError()))
    assert await store.read(lambda view: view.delivery.find_conversation(name)) is None
    assert await count_events(store) == 0


async def test_a_change_sees_what_it_wrote(store: Store) -> None:
    name = await begin(store)

    def change(tx: Change) -> int:
        tx.delivery.append_entries(name, 0, [entry()])
        return len(tx.delivery.read_entries(name, 0, 9, 9))

    assert await store.write(change) == 1


async def test_a_refusal_leaves_its_event_and_nothing_else(store: Store) -> None:
    name = await begin(store)

    def refused(error: CurbsideError) -> AuditEvent:
        return AuditEvent(at=1, name=EventName.MESSAGE_REFUSED, reason=error.code)

    with pytest.raises(NotFound):
        await store.write(fail_after(lambda tx: tx.delivery.append_entries(name, 0, [entry()]), NotFound()), refused)
    assert await sequences(store, name) == []
    records = await store.read(lambda view: view.audit.read_events(0, 10))
    assert [b"message.refused" in record.event and b"not_found" in record.event for record in records] == [True]


async def test_a_refusal_that_cannot_be_written_down_fails_its_caller_alone(store: Store) -> None:
    def refused(error: CurbsideError) -> AuditEvent:
        return AuditEvent(at=1, name=EventName.MESSAGE_REFUSED, reason=f"free text: {error.detail}")

    async with asyncio.timeout(20):
        with pytest.raises(UsageError):
            await store.write(fail_after(lambda tx: tx.append_audit(event()), NotFound()), refused)
        assert await count_events(store) == 0
        await begin(store)


async def test_events_get_places_without_gaps_and_leaf_hashes(store: Store) -> None:
    def log(tx: Change, number: int) -> None:
        tx.append_audit(event(number))
        if number % 3 == 0:
            raise NotFound

    jobs = [store.write(lambda tx, number=i: log(tx, number)) for i in range(30)]  # type: ignore[misc]
    await asyncio.gather(*jobs, return_exceptions=True)
    records = await store.read(lambda view: view.audit.read_events(0, 100))
    assert [record.sequence for record in records] == list(range(20))
    assert all(record.leaf_hash == hash_leaf(record.event) for record in records)
    assert await store.read(lambda view: view.audit.read_leaf_hashes(5, 3)) == [r.leaf_hash for r in records[5:8]]


async def test_reading_cannot_write(store: Store, engine: Engine) -> None:
    if not engine.is_kept:
        return  # its questions go through the writer by design
    with pytest.raises((UsageError, StoreUnavailable)):
        await store.read(lambda view: view.identity.put_setting("x", b""))  # type: ignore[attr-defined]


async def test_a_closed_store_refuses_and_has_kept_what_it_accepted(engine: Engine, tmp_path: Path) -> None:
    store = engine.open(tmp_path)
    name = await begin(store)
    jobs = [asyncio.create_task(append(store, name, entry())) for _ in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert sorted(await asyncio.gather(*jobs)) == list(range(1, 51))
    with pytest.raises(StoreUnavailable):
        await append(store, name, entry())
    with pytest.raises(StoreUnavailable):
        await store.read(lambda view: view.audit.count_events())


# --- what only a store on disk can promise --------------------------------------------------------

KEPT = sorted(name for name, engine in ENGINES.items() if engine.is_kept)


@pytest.mark.parametrize("name", KEPT)
async def test_what_was_acknowledged_is_there_after_a_reopen(name: str, tmp_path: Path) -> None:
    store = ENGINES[name].open(tmp_path)
    conversation = await begin(store)
    await append(store, conversation, entry(), entry())
    await store.close()
    store = ENGINES[name].open(tmp_path)
    assert await append(store, conversation, entry()) == 3
    assert await sequences(store, conversation) == [1, 2, 3]
    await store.close()


_WRITE_AND_DIE = """
import asyncio, os, sys
sys.path[:0] = sys.argv[2:]
from test_store import KEY, append, begin, entry
from curbside.server.store.sqlite import open_sqlite_store
async def main():
    store = open_sqlite_store(sys.argv[1], KEY)
    conversation = await begin(store)
    for _ in range(20):
        await append(store, conversation, entry())
    print(conversation, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_process_that_dies(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    here = Path(__file__).parent
    command = [sys.executable, "-c", _WRITE_AND_DIE, str(path), str(here), str(here.parent / "support")]
    died = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=False)
    assert died.returncode == -9
    store = open_sqlite_store(str(path), KEY)
    assert await sequences(store, ConversationId(died.stdout.decode().strip())) == list(range(1, 21))
    await store.close()


async def test_another_key_opens_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    await open_sqlite_store(path, KEY).close()
    with pytest.raises(ConfigError):
        open_sqlite_store(path, SecretBytes(bytes(32)))
    with pytest.raises(ConfigError):
        open_sqlite_store(path, SecretBytes(b"short"))


async def test_nothing_is_readable_on_disk(tmp_path: Path) -> None:
    canary = b"CANARY-7f2c1a"
    store = open_sqlite_store(str(tmp_path / "store.db"), KEY)
    name = await begin(store)
    await append(store, name, entry(canary * 40))
    found = read_files(tmp_path)
    assert {"store.db", "store.db-wal"} <= set(found)
    signs = (canary, b"SQLite format", b"entries")
    assert not [name for name, (raw, _) in found.items() if any(sign in raw for sign in signs)]
    assert all(mode & 0o077 == 0 for _, mode in found.values())
    await store.close()


async def test_a_full_disk_refuses_and_gives_way_to_what_fits(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    store = open_sqlite_store(path, KEY)
    assert isinstance(store, SqliteStore)
    name = await begin(store)
    await append(store, name, entry())
    await store.write(lambda tx: limit_pages(tx, 8))
    big = [asyncio.create_task(append(store, name, entry(bytes(40 * PAGE)))) for _ in range(5)]
    small = [asyncio.create_task(append(store, name, entry())) for _ in range(5)]
    results = await asyncio.gather(*big, *small, return_exceptions=True)
    assert [type(r) for r in results[:5]] == [StorageFull] * 5
    assert sorted(r for r in results[5:] if isinstance(r, int)) == [2, 3, 4, 5, 6]
    await store.write(lambda tx: limit_pages(tx, 1 << 20))
    assert await append(store, name, entry(bytes(40 * PAGE))) == 7
    await store.close()


def limit_pages(tx: Change, more: int) -> None:
    """Let the database grow by this many pages and no further, as a full disk would."""
    run = tx.delivery._run  # type: ignore[attr-defined]
    pages = run("PRAGMA page_count").get
    run(f"PRAGMA max_page_count = {pages + more}")


async def test_a_database_locked_by_another_process_is_unavailable_for_a_while(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    store = open_sqlite_store(path, KEY, busy_ms=50)
    name = await begin(store)
    await append(store, name, entry())
    other = open_connection(path, KEY)
    other.execute("BEGIN IMMEDIATE")
    results = await asyncio.gather(*(append(store, name, entry()) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 5
    with pytest.raises(StoreUnavailable):
        await store.check()
    assert await sequences(store, name) == [1]
    other.execute("ROLLBACK")
    other.close()
    await store.check()
    assert await append(store, name, entry()) == 2
    await store.close()


async def test_a_newer_schema_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    await open_sqlite_store(path, KEY).close()
    connection = open_connection(path, KEY)
    connection.pragma("user_version", len(list_migrations()) + 1)
    connection.close()
    with pytest.raises(ConfigError, match="newer"):
        open_sqlite_store(path, KEY)
    foreign = str(tmp_path / "foreign.db")
    connection = open_connection(foreign, KEY)
    connection.pragma("application_id", 1)
    connection.close()
    with pytest.raises(ConfigError, match="another program"):
        open_sqlite_store(foreign, KEY)


async def test_migrations_bring_an_old_file_up_to_date(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    connection = open_connection(path, KEY)
    with connection:
        connection.execute(list_migrations()[0])
        connection.pragma("user_version", 1)
        connection.pragma("application_id", 0x43524253)
    connection.close()
    store = open_sqlite_store(path, KEY)
    name = await begin(store)
    assert await append(store, name, entry()) == 1
    assert await count_events(store) == 0
    await store.close()


async def test_rotation_changes_the_key_and_nothing_else(tmp_path: Path) -> None:
    path, new = tmp_path / "store.db", SecretBytes(random_bytes(32))
    store = open_sqlite_store(str(path), KEY)
    name = await begin(store)
    await append(store, name, entry(), entry())
    with pytest.raises(StoreUnavailable):
        rotate_key(path, KEY, new)
    await store.close()
    with pytest.raises(ConfigError):
        rotate_key(path, new, KEY)
    rotate_key(path, KEY, new)
    assert list(read_files(tmp_path)) == ["store.db"]
    with pytest.raises(ConfigError):
        open_sqlite_store(str(path), KEY)
    store = open_sqlite_store(str(path), new)
    assert await append(store, name, entry()) == 3
    await store.close()


async def test_every_column_is_explained() -> None:
    """STRICT tables, and a comment after each column."""
    for text in list_migrations():
        columns = 0
        for line in text.splitlines():
            words = line.split()
            if len(words) > 1 and words[1].rstrip(",") in ("INTEGER", "TEXT", "BLOB"):
                columns += 1
                assert "--" in line, line
        assert columns
        assert text.count("CREATE TABLE") == text.count("STRICT")


def test_the_engine_is_the_encrypting_one() -> None:
    assert apsw.mc_version.startswith("SQLite3 Multiple Ciphers")
