"""What only the PostgreSQL engine promises, on a real server: lost connections, several processes, sealing, start."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from postgres import PASSWORD, database_of, postgres_server
from test_store import KEY, append, begin, count_events, entry, event, new_id, sequences

from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, IntegrityError, StorageFull, StoreUnavailable, UsageError
from curbside.ids import ConversationId, MessageId, UserId
from curbside.server.store.ports import Change, View
from curbside.server.store.postgres import PostgresStore, open_postgres_store
from curbside.server.store.postgres_open import PostgresSettings, list_postgres_migrations, parse_database_url
from curbside.server.store.postgres_sealing import fits_key, rotate_sealing_key
from curbside.server.store.postgres_session import LOCK_CLASS, WRITER_LOCK
from curbside.server.store.records import NewEntry, UserRecord
from curbside.server.store.sqlite_open import list_migrations

OTHER_KEY = SecretBytes(bytes(32))


@pytest.fixture
def settings(tmp_path: Path) -> PostgresSettings:
    """A schema of its own."""
    return PostgresSettings(database_of(tmp_path))


@pytest_asyncio.fixture
async def store(settings: PostgresSettings) -> AsyncIterator[PostgresStore]:
    opened = open_postgres_store(settings, KEY)
    yield opened
    await opened.close()


def ask(settings: PostgresSettings, statement: str) -> list[tuple[Any, ...]]:
    """A statement on a connection of the test's own."""
    with psycopg.connect(settings.url.reveal().decode(), autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


END_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'curbside'"


# --- connections that end ------------------------------------------------------------------------


class Wiretap:
    """A TCP relay that can cut the line at a COMMIT: before the server has it, or before its answer is through."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut_at = ""
        """"before" or "after"; the next COMMIT uses it up."""
        self.cuts = 0
        self.is_down = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.is_down.is_set():
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._relay, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._relay, args=(far, near, False), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, is_asking: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if is_asking and self.cut_at and b"COMMIT\0" in data:
                    self._cut(data, source, target)
                    return
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            _shut(end)

    def _cut(self, data: bytes, near: socket.socket, far: socket.socket) -> None:
        when, self.cut_at = self.cut_at, ""
        self.cuts += 1
        self.is_down.set()
        _shut(near)
        if when == "after":
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_connection_lost_at_commit_applies_a_change_once(settings: PostgresSettings, when: str) -> None:
    tap = Wiretap(postgres_server().port)
    url = settings.url.reveal().replace(b":%d/" % postgres_server().port, b":%d/" % tap.port)
    store = open_postgres_store(PostgresSettings(SecretBytes(url)), KEY)
    name = await begin(store)
    runs: list[int] = []

    def change(tx: Change) -> int:
        runs.append(tx.delivery.append_entries(name, 0, [entry()]))
        return runs[-1]

    tap.cut_at = when
    waiting = [asyncio.create_task(store.write(change)) for _ in range(5)]
    await asyncio.to_thread(tap.is_down.wait)
    while not store._is_settling:  # noqa: ASYNC110 - its own thread sets it
        await asyncio.sleep(0.001)
    with pytest.raises(StoreUnavailable):  # until it knows, nothing new is taken
        await append(store, name, entry())
    assert not any(task.done() for task in waiting)
    tap.is_down.clear()
    assert sorted(await asyncio.gather(*waiting)) == [1, 2, 3, 4, 5]
    assert tap.cuts == 1
    assert (len(runs) == 5) == (when == "after"), "what was durable did not run again"
    assert await sequences(store, name) == [1, 2, 3, 4, 5]
    assert await append(store, name, entry()) == 6
    await store.close()
    tap.close()


async def test_closing_while_an_end_is_unknown_says_so(settings: PostgresSettings) -> None:
    tap = Wiretap(postgres_server().port)
    url = settings.url.reveal().replace(b":%d/" % postgres_server().port, b":%d/" % tap.port)
    store = open_postgres_store(PostgresSettings(SecretBytes(url)), KEY)
    name = await begin(store)
    tap.cut_at = "after"
    waiting = asyncio.create_task(append(store, name, entry()))
    await asyncio.to_thread(tap.is_down.wait)
    await store.close()
    with pytest.raises(StoreUnavailable, match="not known"):
        await waiting
    tap.close()


async def test_ended_connections_are_made_anew(store: PostgresStore, settings: PostgresSettings) -> None:
    name = await begin(store)
    assert await append(store, name, entry()) == 1
    assert await sequences(store, name) == [1]
    assert len(ask(settings, END_ALL)) >= 2, "the writer and a reader"
    assert await append(store, name, entry()) == 2
    assert await sequences(store, name) == [1, 2]


async def test_a_change_cut_off_in_the_middle_runs_again(store: PostgresStore, settings: PostgresSettings) -> None:
    name = await begin(store)
    runs: list[int] = []

    def change(tx: Change) -> int:
        first = tx.delivery.append_entries(name, 0, [entry()])
        runs.append(first)
        if len(runs) == 1:
            ask(settings, END_ALL)
        tx.append_audit(event())
        return tx.delivery.append_entries(name, 0, [entry()])

    assert await store.write(change) == 2
    assert runs == [1, 1]
    assert await sequences(store, name) == [1, 2]
    assert await count_events(store) == 1


async def test_a_connection_left_in_the_middle_of_an_exchange_is_given_up(store: PostgresStore) -> None:
    """Open as far as the library knows, and good for nothing."""
    name = await begin(store)
    assert await sequences(store, name) == []

    def break_reader(view: View) -> None:
        view.delivery._session.connection.pgconn.enter_pipeline_mode()  # type: ignore[attr-defined]
        raise psycopg.OperationalError

    assert store._session is not None
    store._session.connection.pgconn.enter_pipeline_mode()
    assert await append(store, name, entry()) == 1
    for _ in range(2):  # there are two readers
        with pytest.raises(StoreUnavailable):
            await store.read(break_reader)
    assert await sequences(store, name) == [1]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_under_load_loses_nothing_acknowledged(store: PostgresStore, mode: str) -> None:
    names = [await begin(store) for _ in range(3)]
    kept: dict[ConversationId, list[bytes]] = {name: [] for name in names}
    is_back = asyncio.Event()

    async def write(name: ConversationId) -> None:
        """Write until ten were acknowledged after the restart."""
        left = 10
        while left:
            message_id = random_bytes(16)
            try:
                await append(store, name, entry(message_id=message_id))
            except StoreUnavailable:
                await asyncio.sleep(0.01)  # a client's back-off
                continue
            kept[name].append(message_id)
            left -= is_back.is_set()

    writers = [asyncio.create_task(write(names[i % 3])) for i in range(12)]
    await asyncio.to_thread(postgres_server().restart, mode)
    is_back.set()
    await asyncio.gather(*writers)
    for name in names:
        rows = await store.read(lambda view, name=name: view.delivery.read_entries(name, 0, 10**9, 10**6))  # type: ignore[misc]
        assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
        assert sorted(row.message_id for row in rows) == sorted(kept[name])


# --- several processes ----------------------------------------------------------------------------

_APPEND = """
import asyncio, sys
sys.path[:0] = sys.argv[3:]
from test_store import KEY, append, entry, event
from curbside.crypto.secret import SecretBytes
from curbside.server.store.postgres import open_postgres_store
from curbside.server.store.postgres_open import PostgresSettings
async def main():
    store = open_postgres_store(PostgresSettings(SecretBytes(sys.argv[1].encode())), KEY)
    def change(tx):
        tx.append_audit(event())
        return tx.delivery.append_entries(sys.argv[2], 0, [entry(), entry()])
    print("ready", flush=True)
    sys.stdin.readline()
    places = []
    for _ in range(20):
        places += await asyncio.gather(*(store.write(change) for _ in range(10)))
        await store.write(lambda tx: tx.append_audit(event()))  # no conversation's row orders this one
    print(*places, flush=True)
    await store.close()
asyncio.run(main())
"""


async def test_two_processes_leave_no_gap(store: PostgresStore, settings: PostgresSettings) -> None:
    name, here = await begin(store), Path(__file__).parent
    command = [sys.executable, "-c", _APPEND, settings.url.reveal().decode(), name, str(here)]
    command.append(str(here.parent / "support"))
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate, "go\n") for process in processes))
    places = [[int(word) for word in output.split()] for output, _ in outputs]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(places[0] + places[1]) == list(range(1, 801, 2))
    assert max(places[0]) > min(places[1]), "they took turns"
    assert max(places[1]) > min(places[0]), "they took turns"
    assert await sequences(store, name) == list(range(1, 801))
    records = await store.read(lambda view: view.audit.read_events(0, 10**6))
    assert [record.sequence for record in records] == list(range(440))


async def test_two_stores_in_one_process_leave_no_gap(store: PostgresStore, settings: PostgresSettings) -> None:
    other = open_postgres_store(settings, KEY)
    name = await begin(store)
    firsts = await asyncio.gather(*(append((store, other)[i % 2], name, entry(), entry()) for i in range(200)))
    assert sorted(firsts) == list(range(1, 401, 2))
    await other.close()


async def test_a_writer_that_holds_the_lock_makes_others_say_so(settings: PostgresSettings) -> None:
    store = open_postgres_store(PostgresSettings(settings.url, lock_ms=100), KEY)
    name = await begin(store)
    with psycopg.connect(settings.url.reveal().decode(), autocommit=True) as other:
        other.execute(f"BEGIN; SELECT pg_advisory_xact_lock({LOCK_CLASS}, {WRITER_LOCK})")  # type: ignore[arg-type]
        results = await asyncio.gather(*(append(store, name, entry()) for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [StoreUnavailable] * 5
        with pytest.raises(StoreUnavailable):
            await store.check()
        assert await sequences(store, name) == []
        other.execute("ROLLBACK")
    await store.check()
    assert await append(store, name, entry()) == 1
    await store.close()


async def test_one_server_a_database_and_tools_beside_it(settings: PostgresSettings) -> None:
    alone = PostgresSettings(settings.url, is_alone=True)
    store = open_postgres_store(alone, KEY)
    with pytest.raises(StoreUnavailable, match="another server"):
        open_postgres_store(alone, KEY)
    with pytest.raises(StoreUnavailable, match="another server"):
        rotate_sealing_key(alone, KEY, OTHER_KEY)
    await open_postgres_store(settings, KEY).close()
    ask(settings, END_ALL)
    await store.check()  # on a new connection it is alone again
    with pytest.raises(StoreUnavailable, match="another server"):
        open_postgres_store(alone, KEY)
    await store.close()
    await open_postgres_store(alone, KEY).close()


async def test_servers_share_a_database_that_none_has_alone(settings: PostgresSettings) -> None:
    alone, shared = PostgresSettings(settings.url, is_alone=True), PostgresSettings(settings.url, is_shared=True)
    stores = [open_postgres_store(shared, KEY) for _ in range(3)]
    for refused in (lambda: open_postgres_store(alone, KEY), lambda: rotate_sealing_key(settings, KEY, OTHER_KEY)):
        with pytest.raises(StoreUnavailable, match="another server"):
            refused()
    for store in stores:
        await store.close()
    store = open_postgres_store(alone, KEY)
    with pytest.raises(StoreUnavailable, match="another server"):
        open_postgres_store(shared, KEY)
    await store.close()


# --- errors ---------------------------------------------------------------------------------------


async def test_a_full_disk_refuses_and_gives_way_to_what_fits(store: PostgresStore, settings: PostgresSettings) -> None:
    """The database's own error, raised by the database where a large row would not fit."""
    ask(
        settings,
        """CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER no_room BEFORE INSERT ON entries FOR EACH ROW
        WHEN (octet_length(NEW.envelope) > 10000) EXECUTE FUNCTION no_room()""",
    )
    name = await begin(store)
    big = [asyncio.create_task(append(store, name, entry(bytes(20_000)))) for _ in range(5)]
    small = [asyncio.create_task(append(store, name, entry())) for _ in range(5)]
    results = await asyncio.gather(*big, *small, return_exceptions=True)
    assert [type(r) for r in results[:5]] == [StorageFull] * 5
    assert results[5:] == [1, 2, 3, 4, 5]
    ask(settings, "DROP TRIGGER no_room ON entries")
    assert await append(store, name, entry(bytes(20_000))) == 6


async def test_a_statement_that_takes_too_long_spoils_no_other(tmp_path: Path) -> None:
    settings = PostgresSettings(database_of(tmp_path), statement_ms=300)
    store = open_postgres_store(settings, KEY)
    name = await begin(store)

    def sleep(tx: Change) -> None:
        tx.delivery.append_entries(name, 0, [entry()])
        tx.delivery._session.change("SELECT pg_sleep(5)")  # type: ignore[attr-defined]

    results = await asyncio.gather(
        append(store, name, entry()), store.write(sleep), append(store, name, entry()), return_exceptions=True
    )
    assert [type(results[1]), results[0], results[2]] == [StoreUnavailable, 1, 2]
    await store.close()


async def test_values_that_do_not_fit_are_refused_and_leave_the_store_usable(store: PostgresStore) -> None:
    name = await begin(store)
    user = UserRecord(UserId(new_id()), "A\0B", "nurse", b"", b"", 1)
    with pytest.raises(UsageError):
        await store.write(lambda tx: tx.identity.add_user(user, b""))
    assert await store.read(lambda view: view.identity.list_users("A\0", None, 5)) == []
    with pytest.raises((UsageError, OverflowError)):
        await store.write(
            lambda tx: tx.delivery.append_entries(name, 0, [NewEntry(0, MessageId(bytes(16)), 1 << 70, b"")])
        )
    big = NewEntry(2, MessageId(bytes(16)), (1 << 62) + 1, b"x")
    assert await append(store, name, big) == 1
    rows = await store.read(lambda view: view.delivery.read_entries(name, 0, 1 << 62, 1 << 40))
    assert [(row.kind, row.received_at) for row in rows] == [(2, (1 << 62) + 1)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bigint", [1, -2, 2**63 - 1, -(2**63)]),
        ("bytea", [b"", b"\x00\xff" * 1000, b"x"]),
        ("text", ["", "ä", "x" * 300]),
        ("text", []),
        ("bigint", [None, 3]),
        ("bigint", [None, None]),
        ("boolean", [True, False]),
    ],
)
async def test_arrays_arrive_as_they_were(store: PostgresStore, kind: str, values: list[Any]) -> None:
    def change(tx: Change) -> tuple[Any, ...] | None:
        ask_one: Callable[..., tuple[Any, ...] | None] = tx.delivery._session.one  # type: ignore[attr-defined]
        parts = f"unnest(%s::{kind}[]) WITH ORDINALITY AS parts (part, place)"
        return ask_one(f"SELECT %s::{kind}[], array_agg(part ORDER BY place) FROM {parts}", (values, values))

    assert await store.write(change) == (values, values or None)


async def test_numbers_that_do_not_fit_an_array_are_refused(store: PostgresStore) -> None:
    with pytest.raises(UsageError):
        await store.write(lambda tx: tx.delivery._session.one("SELECT %s::bigint[]", ([1 << 63],)))  # type: ignore[attr-defined]


# --- sealing --------------------------------------------------------------------------------------


async def test_secrets_of_the_server_are_sealed_to_their_rows(store: PostgresStore, settings: PostgresSettings) -> None:
    user = UserRecord(UserId(new_id()), "Alice", "nurse", b"", b"", 1)

    def change(tx: Change) -> None:
        tx.identity.put_setting("one", b"CANARY one")
        tx.identity.put_setting("two", b"CANARY two")
        tx.identity.add_user(user, b"CANARY record")

    await store.write(change)
    raw = ask(settings, "SELECT value FROM settings UNION ALL SELECT opaque_record FROM users")
    assert len(raw) == 4
    assert not any(b"CANARY" in value for (value,) in raw)
    assert await store.read(lambda view: view.identity.find_setting("one")) == b"CANARY one"
    ask(settings, "UPDATE settings SET value = (SELECT value FROM settings WHERE name = 'one') WHERE name = 'two'")
    with pytest.raises(IntegrityError):
        await store.read(lambda view: view.identity.find_setting("two"))


async def test_rotation_changes_the_key_and_nothing_else(settings: PostgresSettings) -> None:
    store = open_postgres_store(settings, KEY)
    await store.write(lambda tx: tx.identity.put_setting("one", b"value"))
    await store.close()
    with pytest.raises(ConfigError, match="does not fit"):
        open_postgres_store(settings, OTHER_KEY)
    with pytest.raises(ConfigError, match="does not fit"):
        rotate_sealing_key(settings, OTHER_KEY, KEY)
    rotate_sealing_key(settings, KEY, OTHER_KEY)
    assert [fits_key(settings, key) for key in (KEY, OTHER_KEY)] == [False, True]
    with pytest.raises(ConfigError, match="does not fit"):
        open_postgres_store(settings, KEY)
    store = open_postgres_store(settings, OTHER_KEY)
    assert await store.read(lambda view: view.identity.find_setting("one")) == b"value"
    await store.close()


# --- start-up -------------------------------------------------------------------------------------


async def test_a_newer_schema_and_a_foreign_database_are_refused(settings: PostgresSettings, tmp_path: Path) -> None:
    await open_postgres_store(settings, KEY).close()
    ask(settings, f"INSERT INTO schema_versions (version) VALUES ({len(list_postgres_migrations()) + 1})")
    with pytest.raises(ConfigError, match="newer"):
        open_postgres_store(settings, KEY)
    foreign = PostgresSettings(database_of(tmp_path / "foreign"))
    ask(foreign, "CREATE TABLE theirs ()")
    with pytest.raises(ConfigError, match="another program"):
        open_postgres_store(foreign, KEY)


async def test_migrations_bring_an_old_database_up_to_date(settings: PostgresSettings) -> None:
    ask(settings, list_postgres_migrations()[0] + "INSERT INTO schema_versions (version) VALUES (1)")
    stores = await asyncio.gather(*(asyncio.to_thread(open_postgres_store, settings, KEY) for _ in range(3)))
    name = await begin(stores[0])
    assert await append(stores[1], name, entry()) == 1
    for store in stores:
        await store.close()
    found = ask(settings, "SELECT version FROM schema_versions ORDER BY version")
    assert [row[0] for row in found] == list(range(1, len(list_postgres_migrations()) + 1))


async def test_a_server_that_would_lose_messages_is_refused_or_overruled(settings: PostgresSettings) -> None:
    ask(settings, "ALTER ROLE curbside SET synchronous_commit = off")
    store = open_postgres_store(settings, KEY)
    row = await store.read(lambda view: view.audit._session.one("SHOW synchronous_commit"))  # type: ignore[attr-defined]
    assert row == ("on",)
    await store.close()
    ask(settings, "ALTER ROLE curbside RESET synchronous_commit")
    ask(settings, "ALTER SYSTEM SET fsync = off")
    try:
        ask(settings, "SELECT pg_reload_conf()")
        while ask(settings, "SHOW fsync") != [("off",)]:
            pass
        with pytest.raises(ConfigError, match="fsync"):
            open_postgres_store(settings, KEY)
    finally:
        ask(settings, "ALTER SYSTEM RESET fsync")
        ask(settings, "SELECT pg_reload_conf()")


def test_an_unreachable_server_and_a_wrong_password_do_not_show_it(settings: PostgresSettings) -> None:
    port = postgres_server().port
    good = settings.url.reveal().decode()
    for url in (good.replace(PASSWORD, "CANARY-wrong"), good.replace(f":{port}", ":1"), good.replace("@", "@[")):
        with pytest.raises((StoreUnavailable, ConfigError)) as refused:
            open_postgres_store(PostgresSettings(SecretBytes(url.encode())), KEY)
        error: BaseException | None = refused.value
        while error is not None:
            assert "CANARY" not in str(error)
            error = error.__cause__ or error.__context__ if not error.__suppress_context__ else error.__cause__
    assert "CANARY" not in repr(settings)


def test_another_machine_is_reached_with_verified_tls_unless_told_otherwise() -> None:
    def parse(url: str) -> dict[str, Any]:
        return parse_database_url(SecretBytes(url.encode()))

    assert parse("postgres://a:b@database.example/c")["sslmode"] == "verify-full"
    assert parse("postgres://a:b@database.example/c")["sslrootcert"]
    assert parse("postgres://a:b@127.0.0.1,database.example/c")["sslmode"] == "verify-full"
    assert parse("postgres://a:b@database.example/c?sslmode=require")["sslmode"] == "require"
    for near in ("127.0.0.1", "localhost", "[::1]", "%2Fvar%2Frun%2Fpostgresql"):
        assert "sslmode" not in parse(f"postgres://a:b@{near}/c")


# --- schema ---------------------------------------------------------------------------------------


def read_columns(texts: list[str], types: tuple[str, ...]) -> dict[str, list[str]]:
    """The columns of each table in schema files, each of which has its comment."""
    found: dict[str, list[str]] = {}
    table = ""
    for line in "\n".join(texts).splitlines():
        words = line.replace(",", " ").split()
        if words[:2] == ["CREATE", "TABLE"]:
            table = words[2]
            found[table] = []
        elif words[:2] == ["ALTER", "TABLE"]:
            table = words[2]
        elif len(words) > 1 and words[1] in types:
            assert " -- " in line, line
            found[table].append(words[0])
    return found


COLUMN_TYPES = ("BIGINT", "TEXT", "BYTEA", "BOOLEAN", "TIMESTAMPTZ", "XID8")


def test_every_column_is_explained_and_both_engines_have_the_same() -> None:
    here = read_columns(list_postgres_migrations(), COLUMN_TYPES)
    assert [here.pop(table) for table in ("schema_versions", "writers", "audit_waiting")]
    assert here == read_columns(list_migrations(), ("INTEGER", "TEXT", "BLOB"))


async def test_the_files_make_the_columns_that_they_explain(store: PostgresStore, settings: PostgresSettings) -> None:
    rows = ask(
        settings, "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
    )
    explained = read_columns(list_postgres_migrations(), COLUMN_TYPES)
    assert sorted(rows) == sorted((table, column) for table, columns in explained.items() for column in columns)
