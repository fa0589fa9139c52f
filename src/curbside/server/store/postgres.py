"""The store in PostgreSQL: one writing thread with group commit, a few reading threads, over psycopg.

[Note: one writer at a time] Every writing transaction takes one advisory lock when it begins, so that writers of all
processes take turns, as they do on the embedded engine: what a change looked at stays true until it commits, the audit
log is one ordered tree, and two writers cannot wait for each other in a circle. Group commit makes a turn worth it.

[Note: a connection lost at COMMIT] Each transaction writes its number into this store's row of `writers`. When the
connection is lost while the answer to COMMIT is awaited, the writer connects again, takes the lock (the lost
transaction is over then) and looks. Is the number there, the callers hear their results; is it not, the group runs
again. Until it knows, new changes are refused and these callers wait. Before COMMIT was sent nothing can have been
applied, and the group simply runs again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar, cast

import psycopg

from curbside.audit.events import AuditEvent
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import CurbsideError, StoreUnavailable
from curbside.ids import encode_id
from curbside.server.store.group_commit import Job, WriteQueue, tell_callers
from curbside.server.store.ports import Change, View
from curbside.server.store.postgres_audit import PostgresAudit
from curbside.server.store.postgres_blobs import PostgresBlobs
from curbside.server.store.postgres_delivery import PostgresDelivery
from curbside.server.store.postgres_identity import PostgresIdentity
from curbside.server.store.postgres_open import PostgresSettings, claim_database, connect, migrate_postgres
from curbside.server.store.postgres_sealing import Sealer, check_key
from curbside.server.store.postgres_session import Session, map_failure, map_postgres_error
from curbside.server.store.postgres_watch import PostgresWatch

T = TypeVar("T")

GROUP_CHANGES: Final = 64
"""Changes in one transaction. PostgreSQL keeps up to 64 savepoints of a transaction in fast memory."""
RUNS: Final = 2
"""How often a group runs when its connection is lost before it commits."""
RECONNECT_SECONDS: Final = 2.0
"""How long a group waits for a database that was there a moment ago (a restart)."""
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.4)


class PostgresChange:
    """Implements Change and View on one connection."""

    def __init__(self, session: Session, sealer: Sealer) -> None:
        self.delivery = PostgresDelivery(session)
        self.blobs = PostgresBlobs(session)
        self.identity = PostgresIdentity(session, sealer)
        self.watch = PostgresWatch(session)
        self.audit = PostgresAudit(session)
        self.events: list[bytes] = []

    def append_audit(self, event: AuditEvent) -> None:
        self.events.append(event.encode())


class _TransactionLostError(Exception):
    """The whole transaction has to be rolled back; __cause__ says why."""


class _UnknownEndError(Exception):
    """The connection was lost while the answer to COMMIT was awaited."""


class PostgresStore:
    """Implements Store. Made by `open_postgres_store`."""

    def __init__(self, settings: PostgresSettings, sealer: Sealer, session: Session, readers: int) -> None:
        self._settings = settings
        self._sealer = sealer
        self._name = encode_id(random_bytes(16))
        self._commits = 0
        self._session: Session | None = session
        self._change = PostgresChange(session, sealer)
        self._is_settling = False
        self._was_down = False
        self._queue = WriteQueue(GROUP_CHANGES)
        self._readers = _Readers(settings, sealer, readers)
        self._thread = threading.Thread(target=self._run_writer, name="store-writer", daemon=True)
        self._thread.start()

    async def write(
        self, change: Callable[[Change], T], refusal: Callable[[CurbsideError], AuditEvent | None] | None = None
    ) -> T:
        if self._is_settling:
            raise StoreUnavailable
        job = Job(change, refusal, asyncio.get_running_loop().create_future())
        self._queue.submit(job)
        return cast("T", await job.future)

    async def read(self, question: Callable[[View], T]) -> T:
        if self._queue.is_closed:
            raise StoreUnavailable
        return await self._readers.ask(question)

    async def check(self) -> None:
        await self.write(lambda tx: tx.identity.put_setting("store.checked", b""))

    async def close(self) -> None:
        self._queue.close()
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._readers.close)

    # --- in the writer thread -----------------------------------------------------------------

    def _run_writer(self) -> None:
        while group := self._queue.take():
            self._commit_group(group)
            tell_callers(group)
        if self._session is not None:
            with contextlib.suppress(psycopg.Error):
                self._session.script(f"DELETE FROM writers WHERE writer = '{self._name}'")  # an id of ours
            self._session.close()

    def _commit_group(self, group: Sequence[Job]) -> None:
        failure: BaseException | None = StoreUnavailable()
        for _ in range(RUNS):
            try:
                self._run_transaction(self._get_session(), group)
                return
            except _UnknownEndError:
                if self._settle(group):
                    return
            except Exception as error:  # noqa: BLE001 - it belongs to the callers, and the writer must live
                if self._end_failed():
                    continue
                if len(group) > 1 and not isinstance(error, CurbsideError | psycopg.errors.LockNotAvailable):
                    for job in group:
                        self._commit_group([job])
                    return
                failure = map_failure(error.__cause__ if isinstance(error, _TransactionLostError) else error)
                break
        for job in group:
            job.failure = failure

    def _run_transaction(self, session: Session, group: Sequence[Job]) -> None:
        events = self._change.events
        session.begin()
        for job in group:
            self._run_job(session, job)
        if events:
            session.begin_change()
            self._change.audit.append_events(events)
            events.clear()
        self._commit(session)

    def _run_job(self, session: Session, job: Job) -> None:
        events = self._change.events
        mark = len(events)
        job.outcome = job.failure = None
        session.begin_change()
        try:
            job.outcome = job.change(self._change)
        except Exception as error:  # whatever it is belongs to the caller
            del events[mark:]
            if session.is_lost or not session.undo_change():
                raise _TransactionLostError from error
            job.failure = map_failure(error)
            if (event := job.make_refusal()) is not None:
                events.append(event)

    def _commit(self, session: Session) -> None:
        number = self._commits + 1
        try:
            session.script(
                f"""INSERT INTO writers (writer, commits, committed_at) VALUES ('{self._name}', {number}, now())
                ON CONFLICT (writer) DO UPDATE SET commits = excluded.commits, committed_at = excluded.committed_at;
                COMMIT"""
            )
        except psycopg.Error as error:
            if session.is_lost:
                raise _UnknownEndError from error
            raise
        self._commits = number

    def _end_failed(self) -> bool:
        """Leave the failed transaction; whether its connection was lost, so that running it again may help."""
        self._change.events.clear()
        session = self._session
        if session is None:
            return False
        with contextlib.suppress(psycopg.Error):
            session.rollback()
        if session.is_lost:
            self._session = None
            return True
        return False

    # --- connections --------------------------------------------------------------------------

    def _get_session(self) -> Session:
        """The connection, made anew when it was lost. Raises: StoreUnavailable."""
        if self._session is None:
            self._session = self._reconnect(0.0 if self._was_down else RECONNECT_SECONDS)
            self._change = PostgresChange(self._session, self._sealer)
        self._was_down = False
        return self._session

    def _reconnect(self, patience: float) -> Session:
        latest = time.monotonic() + patience
        tries = 0
        while True:
            try:
                return _open_writing(self._settings)
            except CurbsideError as error:
                if time.monotonic() >= latest or self._queue.pause(_PAUSES[min(tries, len(_PAUSES) - 1)]):
                    self._was_down = True
                    raise StoreUnavailable from error
                tries += 1

    def _settle(self, group: Sequence[Job]) -> bool:
        """Find out whether a transaction whose COMMIT was not answered is durable. Waits until the database is back.

        Raises nothing: when the store is closed meanwhile, the callers hear StoreUnavailable, and only then it is open
        what became of their changes.
        """
        self._is_settling = True
        self._change.events.clear()
        self._session = None
        tries = 0
        try:
            while True:
                try:
                    session = self._get_session()
                    session.begin()
                    row = session.one("SELECT commits FROM writers WHERE writer = %s", (self._name,))
                    session.rollback()
                except (CurbsideError, psycopg.Error):
                    self._end_failed()
                else:
                    is_durable = row is not None and row[0] == self._commits + 1
                    self._commits += is_durable
                    return is_durable
                if self._queue.pause(_PAUSES[min(tries, len(_PAUSES) - 1)]):
                    for job in group:
                        job.failure = StoreUnavailable("the database went away; whether this was stored is not known")
                    return True
                tries += 1
        finally:
            self._is_settling = False


class _Readers:
    """Threads that answer questions, each with a connection of its own."""

    def __init__(self, settings: PostgresSettings, sealer: Sealer, count: int) -> None:
        self._settings = settings
        self._sealer = sealer
        self._local = threading.local()
        self._opened: set[Session] = set()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="store-reader")

    async def ask(self, question: Callable[[Any], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, question)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        for session in self._opened:
            session.close()

    def _answer(self, question: Callable[[Any], T]) -> T:
        try:
            try:
                return self._ask_once(question)
            except psycopg.Error:
                if not self._forget_lost():
                    raise
            return self._ask_once(question)  # looking twice does no harm
        except psycopg.Error as error:
            self._forget_lost()
            raise map_postgres_error(error) from error

    def _ask_once(self, question: Callable[[Any], T]) -> T:
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            session = connect(self._settings)
            self._opened.add(session)
            self._local.session, self._local.view = session, PostgresChange(session, self._sealer)
        session.begin_reading()
        try:
            return question(self._local.view)
        finally:
            session.rollback()

    def _forget_lost(self) -> bool:
        session: Session | None = getattr(self._local, "session", None)
        if session is None or not session.is_lost:
            return False
        self._opened.discard(session)
        self._local.session = self._local.view = None
        return True


def _open_writing(settings: PostgresSettings) -> Session:
    session = connect(settings)
    try:
        if settings.is_alone:
            claim_database(session)
    except psycopg.Error as error:
        session.close()
        raise map_postgres_error(error) from error
    except CurbsideError:
        session.close()
        raise
    return session


def open_postgres_store(settings: PostgresSettings, key: SecretBytes, readers: int = 2) -> PostgresStore:
    """Open the store in a database that exists, and bring its schema up to date.

    key: seals what would let a thief of the database act as the server.

    Raises: ConfigError when the URL, the key or the server is not usable, or the schema is newer; StoreUnavailable.
    """
    sealer = Sealer(key)
    session = _open_writing(settings)
    try:
        migrate_postgres(session)
        session.begin()
        check_key(session, sealer)
        session.script("DELETE FROM writers WHERE committed_at < now() - interval '30 days'; COMMIT")
    except psycopg.Error as error:
        session.close()
        raise map_postgres_error(error) from error
    except CurbsideError:
        session.close()
        raise
    return PostgresStore(settings, sealer, session, readers)
