"""One connection to PostgreSQL: statements, the savepoint of a change, what an error means.

[Note: savepoints] Each change of a group is undone alone. Its savepoint is set before its first writing statement, and
the one of the change before is released in the same round trip, so that changes which only look cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from curbside.errors import CurbsideError, IntegrityError, StorageFull, StoreUnavailable, UsageError

Row = tuple[Any, ...]
LOCK_CLASS: Final = 0x43524253
"""First half of this program's advisory locks; they are the database's own, not the whole server's."""
WRITER_LOCK: Final = 1
"""Held by every writing transaction from its beginning: see docs/adr, the page on PostgreSQL."""
SCHEMA_LOCK: Final = 2
SERVING_LOCK: Final = 3
_BEGIN: Final = f"BEGIN; SELECT pg_advisory_xact_lock({LOCK_CLASS}, {WRITER_LOCK})"
_BEGIN_READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class Session:
    """A connection in use by one thread at a time."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self.connection = connection
        self._cursor = connection.cursor(binary=True)
        self._plain = connection.cursor()
        self._has_savepoint = False
        self._is_marked = False

    # --- statements ---------------------------------------------------------------------------

    def all(self, statement: str, values: Any = ()) -> list[Row]:
        """All rows of a statement that only looks."""
        return self._cursor.execute(statement, values, prepare=True).fetchall()

    def one(self, statement: str, values: Any = ()) -> Row | None:
        """The first row of a statement that only looks."""
        return self._cursor.execute(statement, values, prepare=True).fetchone()

    def change(self, statement: str, values: Any = ()) -> int:
        """Run a statement that writes; how many rows it met."""
        self._mark()
        return self._cursor.execute(statement, values, prepare=True).rowcount

    def change_all(self, statement: str, values: Any = ()) -> list[Row]:
        """Run a statement that writes; the rows it returns."""
        self._mark()
        return self._cursor.execute(statement, values, prepare=True).fetchall()

    def script(self, text: str) -> None:
        """Run statements without values, in one round trip."""
        self._plain.execute(text, prepare=False)

    # --- transactions -------------------------------------------------------------------------

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone."""
        return bool(self.connection.closed)

    @property
    def is_failed(self) -> bool:
        """Whether the transaction can only be rolled back, wholly or to the savepoint."""
        return self.connection.info.transaction_status == TransactionStatus.INERROR

    def begin(self) -> None:
        """Begin to write; waits for writers of other processes."""
        self._has_savepoint = self._is_marked = False
        self.script(_BEGIN)

    def begin_reading(self) -> None:
        """Begin to look at one consistent state."""
        self.script(_BEGIN_READING)

    def begin_change(self) -> None:
        """What follows is of another change."""
        self._is_marked = False

    def undo_change(self) -> bool:
        """Undo what the present change wrote; False when the transaction failed and there is nothing to go back to."""
        if self._is_marked:
            self.script("ROLLBACK TO SAVEPOINT change")
            return True
        return not self.is_failed

    def rollback(self) -> None:
        """End the transaction, if there is one, without a trace."""
        if not self.is_lost and self.connection.info.transaction_status != TransactionStatus.IDLE:
            self.script("ROLLBACK")

    def close(self) -> None:
        """Give the connection up, whatever its state."""
        self.connection.close()

    def _mark(self) -> None:
        if not self._is_marked:
            self.script("RELEASE SAVEPOINT change; SAVEPOINT change" if self._has_savepoint else "SAVEPOINT change")
            self._has_savepoint = self._is_marked = True


_OUR_MISTAKE: Final = ("22", "23", "42", "0A", "25", "21", "3B")
"""SQLSTATE classes: values, constraints, syntax, what is not supported, state of the transaction."""


def map_postgres_error(error: psycopg.Error) -> CurbsideError:
    """What an error of PostgreSQL means to a caller."""
    state = error.sqlstate or ""
    if state == "53100":
        return StorageFull()
    if state in ("XX001", "XX002"):
        return IntegrityError("the database is damaged")
    if state == "25P03":  # idle_in_transaction_session_timeout ended the connection
        return StoreUnavailable()
    if state[:2] in _OUR_MISTAKE or (not state and isinstance(error, psycopg.DataError | psycopg.ProgrammingError)):
        return UsageError(f"the store refused a statement: {type(error).__name__}")
    return StoreUnavailable()


def map_failure(error: BaseException | None) -> BaseException | None:
    """An error of a change, as its caller hears it."""
    if not isinstance(error, psycopg.Error):
        return error
    mapped = map_postgres_error(error)
    mapped.__cause__ = error
    return mapped


def columns(rows: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    """Rows turned into `count` lists, for unnest()."""
    return [[row[index] for row in rows] for index in range(count)]
