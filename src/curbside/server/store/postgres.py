"""The store in PostgreSQL: one writing thread with group commit, a few reading threads, over psycopg.

[Note: writers of several processes] Changes that only append to logs, keep audit events, move cursors and the like run
alongside those of other processes (postgres_session, [Note: turns]); all others take turns, as they do on the embedded
engine. Which it is shows when a change runs: one that turns out to need a turn is undone and runs again in the group
that takes it, and from then on its kind goes there at once.

[Note: a connection lost at COMMIT] Each transaction writes its number into this store's row of `writers`. When the
connection is lost while the answer to COMMIT is awaited, the writer connects again, takes its turn (the lost
transaction is over then) and looks. Is the number there, the callers hear their results; is it not, the group runs
again. Until it knows, new changes are refused and these callers wait. Before COMMIT was sent nothing can have been
applied, and the group simply runs again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import CodeType
from typing import Any, Final, TypeVar, cast

import psycopg

from curbside.audit.batch import MessageRow
from curbside.audit.events import AuditEvent
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import CurbsideError, StoreUnavailable
from curbside.ids import encode_id
from curbside.server.store.group_commit import Job, PendingAudit, WriteQueue, tell_callers
from curbside.server.store.ports import Change, View
from curbside.server.store.postgres_audit import PLACED_AT_ONCE, PostgresAudit, keep_leaves
from curbside.server.store.postgres_blobs import PostgresBlobs
from curbside.server.store.postgres_delivery import PostgresDelivery
from curbside.server.store.postgres_identity import PostgresIdentity
from curbside.server.store.postgres_open import PostgresSettings, claim_database, connect, migrate_postgres
from curbside.server.store.postgres_readers import PostgresReaders
from curbside.server.store.postgres_sealing import Sealer, check_key
from curbside.server.store.postgres_session import Session, TurnNeededError, map_failure, map_postgres_error
from curbside.server.store.postgres_watch import PostgresWatch

T = TypeVar("T")

GROUP_CHANGES: Final = 64
"""Changes in one transaction. PostgreSQL keeps up to 64 savepoints of a transaction in fast memory."""
RUNS: Final = 2
"""How often a group runs when its connection is lost before it commits."""
RECONNECT_SECONDS: Final = 2.0
"""How long a group waits for a database that was there a moment ago (a restart)."""
_COUNT_COMMIT: Final = """
INSERT INTO writers (writer, commits, committed_at) VALUES (%s, %s, now())
ON CONFLICT (writer) DO UPDATE SET commits = excluded.commits, committed_at = excluded.committed_at"""
_ENDS: Final = "57P"
"""What the states begin with by which a server ends a connection, whatever that was about to do."""
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.4)


class PostgresChange:
    """Implements Change and View on one connection."""

    def __init__(self, session: Session, sealer: Sealer) -> None:
        self.delivery = PostgresDelivery(session)
        self.blobs = PostgresBlobs(session)
        self.identity = PostgresIdentity(session, sealer)
        self.watch = PostgresWatch(session)
        self.audit = PostgresAudit(session)
        self.pending = PendingAudit()

    def append_audit(self, event: AuditEvent) -> None:
        self.pending.append_event(event)

    def append_messages(self, rows: Iterable[MessageRow]) -> None:
        self.pending.append_messages(rows)


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
        self._kinds_with_turn: set[CodeType] = set()
        self._unplaced = 0
        self._is_settling = False
        self._was_down = False
        self._queue = WriteQueue(GROUP_CHANGES)
        self._readers = PostgresReaders(settings, lambda session: PostgresChange(session, sealer), readers)
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

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def check(self) -> None:
        await self.write(lambda tx: tx.identity.put_setting("store.checked", b""))

    async def close(self) -> None:
        self._queue.close()
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._readers.close)

    # --- in the writer thread -----------------------------------------------------------------

    def _run_writer(self) -> None:
        while group := self._queue.take():
            turn: list[Job] = []
            alongside: list[Job] = []
            for job in group:
                (turn if _find_kind(job) in self._kinds_with_turn else alongside).append(job)
            if alongside:
                deferred = self._commit_group(alongside, alone=False)
                late = set(map(id, deferred))
                tell_callers([job for job in alongside if id(job) not in late])
                turn += deferred
            if turn:
                self._commit_group(turn, alone=True)
                tell_callers(turn)
            self._place_events()
        if self._session is not None:
            with contextlib.suppress(psycopg.Error):
                self._session.script(
                    f"DELETE FROM writers WHERE writer = '{self._name}'; SELECT pg_advisory_unlock_all()"
                )
            self._session.close()

    def _commit_group(self, group: Sequence[Job], alone: bool) -> list[Job]:
        """Run these changes in one transaction; those that need a turn and were left out."""
        failure: BaseException | None = StoreUnavailable()
        deferred: list[Job] = []
        for _ in range(RUNS):
            deferred.clear()
            try:
                self._run_transaction(group, alone, deferred)
                return deferred
            except _UnknownEndError:
                if self._settle(group):
                    return deferred
            except Exception as error:  # noqa: BLE001 - it belongs to the callers, and the writer must live
                if self._end_failed():
                    continue
                if len(group) > 1 and not isinstance(error, CurbsideError | psycopg.errors.LockNotAvailable):
                    return [late for job in group for late in self._commit_group([job], alone)]
                failure = map_failure(error.__cause__ if isinstance(error, _TransactionLostError) else error)
                break
        for job in group:
            job.failure = failure
        return []

    def _run_transaction(self, group: Sequence[Job], alone: bool, deferred: list[Job]) -> None:
        session = self._get_session()
        session.begin(alone)
        deferred += [job for job in group if not self._run_job(session, job)]
        if len(deferred) == len(group):
            session.rollback()
            return
        leaves = self._change.pending.take()
        self._commit(session, [keep_leaves(leaves)] if leaves else [])
        self._unplaced += len(leaves)

    def _run_job(self, session: Session, job: Job) -> bool:
        """Whether it was run, however it ended; not when it needs a turn that the transaction does not have."""
        pending = self._change.pending
        mark = pending.mark()
        job.outcome = job.failure = None
        session.begin_change()
        try:
            job.outcome = job.change(self._change)
            if session.asked_for_turn is None:
                return True
            error: Exception = session.asked_for_turn
        except Exception as raised:  # noqa: BLE001 - whatever it is belongs to the caller
            error = raised
        pending.undo(mark)
        if session.is_lost or not session.undo_change():
            raise _TransactionLostError from error
        if session.asked_for_turn is not None or (
            isinstance(error, psycopg.errors.DeadlockDetected) and not session.has_turn
        ):
            self._remember(job, session.asked_for_turn)
            return False
        job.failure = map_failure(error)
        if (event := job.make_refusal()) is not None:
            pending.append_event(event)
        return True

    def _remember(self, job: Job, asked: TurnNeededError | None) -> None:
        kind = _find_kind(job)
        if asked is not None and asked.is_always and kind is not None:
            self._kinds_with_turn.add(kind)

    def _commit(self, session: Session, statements: list[tuple[str, Any]]) -> None:
        number = self._commits + 1
        try:
            session.finish(*statements, (_COUNT_COMMIT, (self._name, number)))
        except psycopg.Error as error:
            # Without a state it is not the server that says no; with one of these it ends, and says nothing of COMMIT.
            if session.is_lost or (error.sqlstate or _ENDS)[:3] == _ENDS:
                session.close()
                raise _UnknownEndError from error
            raise
        self._commits = number

    def _place_events(self) -> None:
        """Do a part of what the next look at the audit log would have to do."""
        if self._unplaced < PLACED_AT_ONCE or self._session is None:
            return
        self._unplaced = 0
        try:
            self._change.audit.place_events()
        except psycopg.Error:
            self._end_failed()

    def _end_failed(self) -> bool:
        """Leave the failed transaction; whether its connection was lost, so that running it again may help."""
        self._change.pending.clear()
        session = self._session
        if session is None:
            return False
        if session.recover():
            return False
        self._session = None
        return True

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
        self._change.pending.clear()
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


def _find_kind(job: Job) -> CodeType | None:
    """Changes of one kind run the same code. None: a callable that is no function."""
    return getattr(job.change, "__code__", None)


def _open_writing(settings: PostgresSettings) -> Session:
    session = connect(settings)
    try:
        if settings.is_alone or settings.is_shared:
            claim_database(session, settings.is_alone)
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
