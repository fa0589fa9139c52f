"""The embedded store: one encrypted SQLite file, one writer thread with group commit, a few reading threads.

[Note: group commit] A durable commit costs one fsync, whatever it holds. The writer takes every change that waits, runs
each inside a savepoint of one transaction, commits, and only then tells the callers. While it commits, the next group
gathers. When the engine gives the whole transaction up (disk full, for one), each change runs again in a
transaction of its own, so that one that does not fit spoils no other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar, cast

import apsw

from curbside.audit.batch import MessageRow
from curbside.audit.events import AuditEvent
from curbside.crypto.secret import SecretBytes
from curbside.errors import CurbsideError, StoreUnavailable
from curbside.server.store.group_commit import Job, PendingAudit, WriteQueue, tell_callers
from curbside.server.store.ports import Change, View
from curbside.server.store.sqlite_audit import SqliteAudit
from curbside.server.store.sqlite_blobs import SqliteBlobs
from curbside.server.store.sqlite_delivery import SqliteDelivery
from curbside.server.store.sqlite_identity import SqliteIdentity
from curbside.server.store.sqlite_open import MEMORY, map_engine_error, migrate, open_connection
from curbside.server.store.sqlite_watch import SqliteWatch

T = TypeVar("T")

GROUP_CHANGES: Final = 256
"""Changes in one transaction; bounds how long the first of them waits."""


READER_CACHE_KIB: Final = 8192
"""Of each reading thread. Every commit empties it, so that more would only be memory."""


class SqliteChange:
    """Implements Change and View on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.delivery = SqliteDelivery(connection)
        self.blobs = SqliteBlobs(connection)
        self.identity = SqliteIdentity(connection)
        self.watch = SqliteWatch(connection)
        self.audit = SqliteAudit(connection)
        self.pending = PendingAudit()

    def append_audit(self, event: AuditEvent) -> None:
        self.pending.append_event(event)

    def append_messages(self, rows: Iterable[MessageRow]) -> None:
        self.pending.append_messages(rows)


class _TransactionLostError(Exception):
    """The engine rolled the whole transaction back; __cause__ says why."""


class SqliteStore:
    """Implements Store. Made by `open_sqlite_store`."""

    def __init__(
        self, writing: apsw.Connection, open_reader: Callable[[], apsw.Connection] | None, readers: int
    ) -> None:
        self._connection = writing
        self._change = SqliteChange(writing)
        self._queue = WriteQueue(GROUP_CHANGES)
        self._readers = _Readers(open_reader, readers) if open_reader is not None else None
        self._thread = threading.Thread(target=self._run_writer, name="store-writer", daemon=True)
        self._thread.start()

    async def write(
        self, change: Callable[[Change], T], refusal: Callable[[CurbsideError], AuditEvent | None] | None = None
    ) -> T:
        job = Job(change, refusal, asyncio.get_running_loop().create_future())
        self._queue.submit(job)
        return cast("T", await job.future)

    async def read(self, question: Callable[[View], T]) -> T:
        if self._readers is None:
            return await self.write(question)
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
        if self._readers is not None:
            await asyncio.to_thread(self._readers.close)
        self._connection.close()

    # --- in the writer thread -----------------------------------------------------------------

    def _run_writer(self) -> None:
        while group := self._queue.take():
            self._commit_group(group)
            tell_callers(group)

    def _commit_group(self, group: Sequence[Job]) -> None:
        try:
            self._run_transaction(group)
        except (apsw.Error, _TransactionLostError) as error:
            self._forget_transaction()
            if len(group) > 1 and not isinstance(error, apsw.BusyError):
                for job in group:
                    self._commit_group([job])
                return
            cause = error.__cause__ if isinstance(error, _TransactionLostError) else error
            for job in group:
                job.failure = _map_failure(cause)

    def _run_transaction(self, group: Sequence[Job]) -> None:
        run, change = self._connection.execute, self._change
        run("BEGIN IMMEDIATE")
        change.delivery.begin()
        for job in group:
            self._run_job(job)
        if leaves := change.pending.take():
            change.audit.append_leaves(leaves)
        run("COMMIT")

    def _run_job(self, job: Job) -> None:
        run, pending = self._connection.execute, self._change.pending
        mark = pending.mark()
        job.outcome = job.failure = None
        run("SAVEPOINT change")
        try:
            job.outcome = job.change(self._change)
        except Exception as error:  # whatever it is belongs to the caller, and the writer must live
            pending.undo(mark)
            self._change.delivery.forget()
            if not self._connection.in_transaction:
                raise _TransactionLostError from error
            run("ROLLBACK TO change")
            job.failure = _map_failure(error)
            if (event := job.make_refusal()) is not None:
                pending.append_event(event)
        run("RELEASE change")

    def _forget_transaction(self) -> None:
        self._change.pending.clear()
        self._change.delivery.forget()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _map_failure(error: BaseException | None) -> BaseException | None:
    if not isinstance(error, apsw.Error):
        return error
    mapped = map_engine_error(error)
    mapped.__cause__ = error
    return mapped


class _Readers:
    """Threads that answer questions, each with a connection of its own."""

    def __init__(self, open_reader: Callable[[], apsw.Connection], count: int) -> None:
        self._open_reader = open_reader
        self._local = threading.local()
        self._opened: list[apsw.Connection] = []
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="store-reader")

    async def ask(self, question: Callable[[Any], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, question)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        for connection in self._opened:
            connection.close()

    def _answer(self, question: Callable[[Any], T]) -> T:
        view: SqliteChange | None = getattr(self._local, "view", None)
        try:
            if view is None:
                connection = self._open_reader()
                connection.pragma("query_only", True)
                connection.pragma("cache_size", -READER_CACHE_KIB)
                self._opened.append(connection)
                self._local.connection, self._local.view = connection, SqliteChange(connection)
                view = cast("SqliteChange", self._local.view)
            with self._local.connection:  # one consistent state for all statements of the question
                return question(view)
        except apsw.Error as error:
            raise map_engine_error(error) from error


def open_sqlite_store(path: str, key: SecretBytes, readers: int = 2, busy_ms: int = 2000) -> SqliteStore:
    """Open (or make) the store at `path`, and bring its schema up to date.

    path: a file, or ":memory:" (then questions go through the writer). busy_ms: wait for another process's lock.

    Raises: ConfigError when the key does not fit or the schema is newer; StoreUnavailable; StorageFull.
    """
    writing = open_connection(path, key, busy_ms)
    try:
        migrate(writing)
    except CurbsideError:
        writing.close()
        raise
    if path == MEMORY:
        return SqliteStore(writing, None, 0)
    return SqliteStore(writing, lambda: open_connection(path, key, busy_ms), readers)
