"""Moving an organisation from the embedded database to PostgreSQL while its server runs.

    1  copy      the logs (entries, audit events) row by row in the order they were written, in batches; all other
                 tables by comparing them; again and again, until little is new
    2  check     read back what arrived of the logs, and compare sums
    3  stop      the operator stops the server; this program waits for the data folder's lock and keeps it
    4  finish    copy what is new since, compare every table, let servers open the new database

Only 4 is downtime. The old database is never written to. A move that was cut short goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from curbside.clock import Clock
from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, IntegrityError, StoreUnavailable
from curbside.server.backup.create import LAST_BACKUP
from curbside.server.config import Config
from curbside.server.database_key import load_database_key, lock_data_folder
from curbside.server.keys import AUTHORITY
from curbside.server.store.postgres_move import LogProgress, PostgresMove, open_move
from curbside.server.store.postgres_open import PostgresSettings
from curbside.server.store.sqlite_tables import SqliteSnapshot, open_sqlite_snapshot
from curbside.server.store.tables import Row, RowSum, Table, encode_row, match_tables, reorder, sum_rows

LOGS: Final = ("entries", "audit_events")
"""Tables whose rows never change: what is new in them is found by its place."""
BATCH_ROWS: Final = 2000
PASSES: Final = 5
FEW_ROWS: Final = 1000
"""New rows in a pass after which the rest is left to the moment when the server stands."""
LOCK_SECONDS: Final = 0.2

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """url: of an empty PostgreSQL database, or one that a move was begun to. wait_seconds: for the server to be stopped
    once everything else is done. most_backup_age: seconds; None: do not ask for a backup."""

    url: SecretBytes
    wait_seconds: float = 3600.0
    most_backup_age: int | None = 24 * 3600


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What was moved. tables: rows of each; counts and sums were compared. downtime: seconds from the moment the server
    stood until the new database was ready. late_rows: copied in that time."""

    tables: dict[str, int]
    rows: int
    is_resumed: bool
    passes: int
    late_rows: int
    downtime: float
    seconds: float


async def migrate_to_postgres(
    config: Config, request: MoveRequest, clock: Clock, progress: Progress, on_ready: Callable[[], None]
) -> MoveResult:
    """Move everything. on_ready: called when nothing is left but to stop the server.

    Raises: ConfigError when there is nothing to move, no fresh backup, or the target is not empty; StoreUnavailable
    when the server was not stopped in time; IntegrityError when what arrived is not what was sent.
    """
    if config.database_url is not None:
        raise ConfigError("the configuration names a PostgreSQL database already: there is nothing to move")
    began = time.monotonic()
    key = load_database_key(config.database_key)
    with contextlib.closing(open_sqlite_snapshot(config.database_path, key)) as snapshot:
        source = _identify(snapshot)
        _check_backup(snapshot, request, clock)
    move = open_move(PostgresSettings(request.url), key, source)
    try:
        run = _Run(config, key, move, progress)
        passes = run.copy_while_running()
        run.check_logs()
        on_ready()
        async with _wait_for_lock(config, request.wait_seconds):
            stood = time.monotonic()
            late, tables = run.finish()
            downtime = time.monotonic() - stood
    finally:
        move.close()
    return MoveResult(
        tables=tables,
        rows=sum(tables.values()),
        is_resumed=move.is_resumed,
        passes=passes,
        late_rows=late,
        downtime=round(downtime, 3),
        seconds=round(time.monotonic() - began, 3),
    )


class _Run:
    """The copying of one move."""

    def __init__(self, config: Config, key: SecretBytes, move: PostgresMove, progress: Progress) -> None:
        self._config, self._key, self._move, self._progress = config, key, move, progress
        self._done = self._whole = 0

    def copy_while_running(self) -> int:
        """How many passes it took until little was new."""
        for number in range(1, PASSES + 1):
            if self._copy() <= FEW_ROWS:
                return number
        return PASSES

    def check_logs(self) -> None:
        """Read back what arrived of the logs. Raises: IntegrityError."""
        for table in self._move.tables:
            if table.name in LOGS:
                self._progress(f"checking {table.name}", 0, 1)
                count, total = self._move.find_progress(table).total
                if not sum_rows(self._move.read_rows(table)).is_same(RowSum(count, total)):
                    raise IntegrityError(f"what arrived of {table.name} is not what was sent; empty the database")
                self._progress(f"checking {table.name}", 1, 1)

    def finish(self) -> tuple[int, dict[str, int]]:
        """Copy what is new, check every table, open the new database. How many rows were new; rows of all tables."""
        with self._open() as snapshot:
            pairs = match_tables(snapshot.tables, self._move.tables)
            late = self._copy_from(snapshot, is_last=True)
            found = {source.name: self._compare(snapshot, source, target) for source, target in pairs}
            self._move.finish(snapshot.read_counters())
        return late, found

    # --- copying ------------------------------------------------------------------------------

    def _copy(self) -> int:
        with self._open() as snapshot:
            return self._copy_from(snapshot, is_last=False)

    def _copy_from(self, snapshot: SqliteSnapshot, *, is_last: bool) -> int:
        """Make the target equal to one state of the source; how many rows were written or removed."""
        pairs = match_tables(snapshot.tables, self._move.tables)
        self._whole = sum(snapshot.count_rows(source) for source, _ in pairs)
        self._done = written = 0
        leftovers: list[tuple[Table, list[Row]]] = []
        for source, target in pairs:
            if source.name in LOGS:
                written += self._copy_log(snapshot, source, target, is_last=is_last)
            else:
                count, gone = self._copy_table(snapshot, source, target)
                leftovers.append((target, gone))
                written += count + len(gone)
        for target, gone in reversed(leftovers):  # children before their parents
            if gone:
                self._move.delete_rows(target, gone)
        return written

    def _copy_log(self, snapshot: SqliteSnapshot, source: Table, target: Table, *, is_last: bool) -> int:
        at = self._resume(snapshot, source, target)
        written = 0
        self._done += at.total[0]
        while batch := snapshot.read_rows_above(source, at.place, BATCH_ROWS):
            rows = list(reorder(source, target, [row for _, row in batch]))
            at = at.after(batch[-1][0], rows)
            self._move.append(target, rows, at)
            if is_last:
                self._check_arrived(target, source.key, rows)
            written += len(rows)
            self._count(source.name, len(rows))
        return written

    def _resume(self, snapshot: SqliteSnapshot, source: Table, target: Table) -> LogProgress:
        """How far a log is; from the beginning when the source is not the same up to there any more."""
        at = self._move.find_progress(target)
        if at.place < 0:
            return at
        last = list(reorder(source, target, [row for _, row in snapshot.read_rows_above(source, at.place - 1, 1)]))
        is_same = len(last) == 1 and hashlib.sha256(encode_row(last[0])).digest() == at.last
        if is_same and snapshot.count_rows_through(source, at.place) == at.total[0]:
            return at
        self._move.begin_again(target)
        return LogProgress()

    def _check_arrived(self, target: Table, key: tuple[str, ...], rows: list[Row]) -> None:
        if not sum_rows(self._move.find_rows(target, key, rows)).is_same(sum_rows(rows)):
            raise IntegrityError(f"what arrived of {target.name} is not what was sent; empty the database")

    def _copy_table(self, snapshot: SqliteSnapshot, source: Table, target: Table) -> tuple[int, list[Row]]:
        """Compare by key; how many rows were written, and the target's rows that are gone from the source."""
        new: list[Row] = []
        changed: list[Row] = []
        gone: list[Row] = []
        written = 0
        theirs = reorder(source, target, snapshot.read_rows_by_key(source))
        for here, there in _pair(theirs, self._move.read_rows_by_key(target, source.key), target.places(source.key)):
            if here is None:
                assert there is not None
                gone.append(there)
            else:
                self._count(source.name, 1)
                if there is None:
                    new.append(here)
                elif here != there:
                    changed.append(here)
        for at in range(0, max(len(new), len(changed)), BATCH_ROWS):
            batch, anew = new[at : at + BATCH_ROWS], changed[at : at + BATCH_ROWS]
            self._move.change_rows(target, batch, anew)
            written += len(batch) + len(anew)
        return written, gone

    # --- checking -----------------------------------------------------------------------------

    def _compare(self, snapshot: SqliteSnapshot, source: Table, target: Table) -> int:
        """Rows of a table, which are the same on both sides. Raises: IntegrityError."""
        if source.name in LOGS:
            count, _ = self._move.find_progress(target).total
            is_same = snapshot.count_rows(source) == self._move.count_rows(target) == count
        else:
            here = sum_rows(reorder(source, target, snapshot.read_rows(source)))
            is_same, count = here.is_same(sum_rows(self._move.read_rows(target))), here.count
        if not is_same:
            raise IntegrityError(f"{source.name} is not the same on both sides; empty the new database")
        return count

    def _count(self, name: str, rows: int) -> None:
        self._done += rows
        self._progress(f"copying {name}", min(self._done, self._whole), self._whole)

    @contextlib.contextmanager
    def _open(self) -> Iterator[SqliteSnapshot]:
        snapshot = open_sqlite_snapshot(self._config.database_path, self._key)
        try:
            yield snapshot
        finally:
            snapshot.close()


def _pair(left: Iterable[Row], right: Iterable[Row], key: tuple[int, ...]) -> Iterator[tuple[Row | None, Row | None]]:
    """Rows of both sides with the same key, each side by rising key; None where one side has none."""

    def key_of(row: Row) -> tuple[object, ...]:
        return tuple(value.encode() if isinstance(value := row[place], str) else value for place in key)

    ours, theirs = iter(left), iter(right)
    here, there = next(ours, None), next(theirs, None)
    while here is not None or there is not None:
        if there is None or (here is not None and key_of(here) < key_of(there)):
            yield here, None
            here = next(ours, None)
        elif here is None or key_of(there) < key_of(here):
            yield None, there
            there = next(theirs, None)
        else:
            yield here, there
            here, there = next(ours, None), next(theirs, None)


def _identify(snapshot: SqliteSnapshot) -> bytes:
    """Which organisation this is: 32 bytes."""
    authority = _find_setting(snapshot, AUTHORITY)
    if authority is None:
        raise ConfigError("there is nothing to move: the server has not run")
    return hashlib.sha256(authority).digest()


def _check_backup(snapshot: SqliteSnapshot, request: MoveRequest, clock: Clock) -> None:
    """Raises: ConfigError when there is no fresh backup (45 CFR 164.310(d)(2)(iv))."""
    if request.most_backup_age is None:
        return
    last = _find_setting(snapshot, LAST_BACKUP)
    if last is None:
        raise ConfigError("there is no backup yet; make one with `curbside backup create` before anything is moved")
    if clock.now() - int.from_bytes(last[:8], "big") > request.most_backup_age:
        raise ConfigError("the last backup is too old to move anything; make one with `curbside backup create`")


def _find_setting(snapshot: SqliteSnapshot, wanted: str) -> bytes | None:
    settings = next(table for table in snapshot.tables if table.name == "settings")
    name, value = settings.places(("name", "value"))
    for row in snapshot.read_rows(settings):
        if row[name] == wanted and isinstance(found := row[value], bytes):
            return found
    return None


@contextlib.asynccontextmanager
async def _wait_for_lock(config: Config, seconds: float) -> AsyncIterator[None]:
    """Hold the data folder, once the server gave it up. Raises: StoreUnavailable when it does not in time."""
    latest = time.monotonic() + seconds
    while True:
        lock = lock_data_folder(config.data_folder)
        try:
            lock.__enter__()
            break
        except StoreUnavailable:
            if time.monotonic() >= latest:
                raise StoreUnavailable(
                    "the server was not stopped in time; the move goes on when it is begun again"
                ) from None
        await asyncio.sleep(LOCK_SECONDS)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
