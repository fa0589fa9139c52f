"""The PostgreSQL side of a move from the embedded engine: filled in batches, resumable, closed to servers till its end.

[Note: a half-moved database] From its first transaction on the schema claims a version that no program has, so that
every server refuses to open it; the last transaction takes the claim back. How far each log got, and the sum of what
was copied, stands in a table of its own and is committed with each batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, CurbsideError, IntegrityError
from curbside.server.store.postgres_open import PostgresSettings, claim_database, list_postgres_migrations
from curbside.server.store.postgres_sealing import Sealer, check_key
from curbside.server.store.postgres_session import LOCK_CLASS, SCHEMA_LOCK, Session, map_postgres_error
from curbside.server.store.postgres_tables import (
    MOVE_TABLE,
    PostgresTables,
    apply_steps,
    check_empty,
    open_patient_session,
)
from curbside.server.store.tables import Row, RowSum, Table, encode_row

UNFINISHED: Final = 2**31 - 1
"""The version that a half-moved schema claims."""
_SOURCE: Final = ""
_MAKE: Final = f"""CREATE TABLE {MOVE_TABLE} (
    name    TEXT   NOT NULL PRIMARY KEY, -- table; '' for the move itself
    place   BIGINT NOT NULL,             -- last row that was copied, as the source counts
    rows    BIGINT NOT NULL,             -- rows copied
    sum     TEXT   NOT NULL,             -- their sum, hex
    last    BYTEA  NOT NULL              -- hash of the last one; of the move itself: which organisation it is
)"""


@dataclass(frozen=True, slots=True)
class LogProgress:
    """How far a log is copied. place: the source's number of the last row; -1: none. last: that row's hash."""

    place: int = -1
    total: tuple[int, int] = (0, 0)
    last: bytes = b""

    def after(self, place: int, rows: Iterable[Row]) -> LogProgress:
        """How far it is with these rows, the last of which has this place."""
        total = RowSum(*self.total)
        last = self.last
        for row in rows:
            last = total.add(encode_row(row))
        return LogProgress(place, (total.count, total.total % (1 << 256)), last)


class PostgresMove:
    """Made by `open_move`. Every method that writes is one transaction."""

    def __init__(self, session: Session, sealer: Sealer, is_resumed: bool) -> None:
        self._session = session
        self._sealer = sealer
        self._content = PostgresTables(session, sealer)
        self.tables = self._content.tables
        self.is_resumed = is_resumed

    def find_progress(self, table: Table) -> LogProgress:
        """How far this log is copied."""
        row = self._session.one(f"SELECT place, rows, sum, last FROM {MOVE_TABLE} WHERE name = %s", (table.name,))
        if row is None:
            return LogProgress()
        return LogProgress(int(row[0]), (int(row[1]), int(row[2], 16)), bytes(row[3]))

    def append(self, table: Table, rows: Sequence[Row], progress: LogProgress) -> None:
        """Add rows to a log, and note how far it is."""
        with self._transaction():
            self._content.write_rows(table, rows)
            _note(self._session, table.name, progress)

    def begin_again(self, table: Table) -> None:
        """Forget what was copied of a log."""
        with self._transaction():
            self._session.connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table.name)))
            self._session.connection.execute(f"DELETE FROM {MOVE_TABLE} WHERE name = %s".encode(), (table.name,))

    def read_rows(self, table: Table) -> Iterator[Row]:
        """All rows that arrived."""
        return self._content.read_rows(table)

    def read_rows_by_key(self, table: Table, key: Sequence[str]) -> Iterator[Row]:
        """All rows that arrived, by the bytes of these columns."""
        return self._content.read_rows(table, key)

    def find_rows(self, table: Table, key: Sequence[str], rows: Sequence[Row]) -> list[Row]:
        """Those that arrived of rows with these keys."""
        return self._content.find_rows(table, key, rows)

    def count_rows(self, table: Table) -> int:
        """Rows that arrived."""
        return self._content.count_rows(table)

    def change_rows(self, table: Table, new: Sequence[Row], changed: Sequence[Row]) -> None:
        """Add rows and write others anew."""
        with self._transaction():
            if new:
                self._content.write_rows(table, new)
            for row in changed:
                self._content.update_row(table, row)

    def delete_rows(self, table: Table, gone: Sequence[Row]) -> None:
        """Remove rows."""
        with self._transaction():
            for row in gone:
                self._content.delete_row(table, row)

    def finish(self, counters: Mapping[str, int]) -> None:
        """Open the database to servers."""
        with self._transaction():
            self._content.set_counters(counters)
            check_key(self._session, self._sealer)
            self._session.script(f"DELETE FROM schema_versions WHERE version = {UNFINISHED}; DROP TABLE {MOVE_TABLE}")

    def close(self) -> None:
        """Give it up; what was committed stays for a later `open_move`."""
        self._session.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._session.begin()
            self._session.begin_change()
            yield
            self._session.script("COMMIT")
        except psycopg.errors.IntegrityError as error:
            raise IntegrityError("rows do not fit their table") from error
        except psycopg.Error as error:
            raise map_postgres_error(error) from error
        finally:
            with contextlib.suppress(psycopg.Error):
                self._session.rollback()


def open_move(settings: PostgresSettings, key: SecretBytes, source: bytes) -> PostgresMove:
    """Begin a move into an empty database, or go on with one. source: tells organisations apart, 32 bytes.

    Raises: ConfigError when the database holds anything else; StoreUnavailable while another program moves there.
    """
    session = open_patient_session(settings)
    try:
        claim_database(session)
        session.begin()
        session.script(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {SCHEMA_LOCK})")
        sealer = Sealer(key)
        row = session.one(f"SELECT to_regclass('{MOVE_TABLE}') IS NOT NULL")
        is_resumed = row is not None and bool(row[0])
        if is_resumed:
            _check_source(session, source)
            session.rollback()
        else:
            check_empty(session)
            _make(session, sealer, source)
        return PostgresMove(session, sealer, is_resumed)
    except psycopg.Error as error:
        session.close()
        raise map_postgres_error(error) from error
    except CurbsideError:
        session.close()
        raise


def _make(session: Session, sealer: Sealer, source: bytes) -> None:
    apply_steps(session, 0, len(list_postgres_migrations()))
    session.script(f"INSERT INTO schema_versions (version) VALUES ({UNFINISHED})")
    PostgresTables(session, sealer).clear()
    session.script(_MAKE)
    session.begin_change()
    _note(session, _SOURCE, LogProgress(last=source))
    session.script("COMMIT")


def _check_source(session: Session, source: bytes) -> None:
    row = session.one(f"SELECT last FROM {MOVE_TABLE} WHERE name = %s", (_SOURCE,))
    if row is None or bytes(row[0]) != source:
        raise ConfigError("another organisation's move to this database was begun; give an empty one")
    found = session.one(f"SELECT count(*) FROM schema_versions WHERE version < {UNFINISHED}")
    if found is None or found[0] != len(list_postgres_migrations()):
        raise ConfigError("the move was begun by another version of this program; finish it with that one")


def _note(session: Session, name: str, progress: LogProgress) -> None:
    count, total = progress.total
    session.change(
        f"""INSERT INTO {MOVE_TABLE} (name, place, rows, sum, last) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (name) DO UPDATE SET place = excluded.place, rows = excluded.rows, sum = excluded.sum,
        last = excluded.last""",
        (name, progress.place, count, f"{total:x}", progress.last),
    )
