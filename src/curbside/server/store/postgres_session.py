"""One connection to PostgreSQL: statements, turns, the savepoint of a change, what an error means.

[Note: turns] Every writing transaction takes the writers' advisory lock when it begins. Alone (its turn), it may do
anything: what it looked at stays true until it commits. Together with others (alongside), it may only do what says
`alongside=True` here: statements whose effect does not depend on what other such statements do meanwhile, or which lock
the row they depend on. Anything else raises TurnNeededError, and the change runs again when its turn comes. So does a
change whose row is locked by another writer, if this transaction holds rows already: only the first rows that it locks,
in one order for all, are waited for, so that no two writers wait for each other.

[Note: savepoints] Each change of a group is undone alone. Its savepoint is set on the way to its first writing
statement, so that changes which only look cost nothing. The first change of a transaction needs none: nothing was done
before it, so the transaction begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NoReturn

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from curbside.errors import CurbsideError, IntegrityError, StorageFull, StoreUnavailable, UsageError
from curbside.server.store.postgres_arrays import ArrayDumper

Row = tuple[Any, ...]
LOCK_CLASS: Final = 0x43524253
"""First half of this program's advisory locks; they are the database's own, not the whole server's."""
WRITER_LOCK: Final = 1
"""Held by every writing transaction from its beginning, alone or shared: see [Note: turns]."""
SCHEMA_LOCK: Final = 2
SERVING_LOCK: Final = 3
AUDIT_LOCK: Final = 4
"""Held while audit events get their places: see postgres_audit."""
_BEGIN_ALONE: Final = f"BEGIN; SELECT pg_advisory_xact_lock({LOCK_CLASS}, {WRITER_LOCK})"
_BEGIN_ALONGSIDE: Final = f"BEGIN; SELECT pg_advisory_xact_lock_shared({LOCK_CLASS}, {WRITER_LOCK})"
_SET_SAVEPOINT: Final = ("SAVEPOINT change",)
_RENEW_SAVEPOINT: Final = ("RELEASE SAVEPOINT change", "SAVEPOINT change")
_BEGIN_READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class TurnNeededError(Exception):
    """The change has to run alone. is_always: any change of its kind has to."""

    def __init__(self, is_always: bool = False) -> None:
        super().__init__()
        self.is_always = is_always


class Session:
    """A connection in use by one thread at a time."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self.connection = connection
        connection.adapters.register_dumper(list, ArrayDumper)
        self.has_turn = False
        """Whether the transaction is the only one that writes."""
        self.asked_for_turn: TurnNeededError | None = None
        """That the present change wanted to do what needs one."""
        self.is_reading = False
        self.has_placed_events = False
        """Whether the audit events that the transaction must see have their places."""
        self._cursor = connection.cursor(binary=True)
        self._locking = connection.cursor(binary=True)
        self._plain = connection.cursor()
        self._changes = 0
        self.change_number = 0
        """Of the present change, or of the state that is read; never the same again."""
        self._has_savepoint = self._is_marked = self._holds_rows = False

    # --- statements ---------------------------------------------------------------------------

    def all(self, statement: str, values: Any = ()) -> list[Row]:
        """All rows of a statement that only looks."""
        return self._cursor.execute(statement, values, prepare=True).fetchall()

    def one(self, statement: str, values: Any = ()) -> Row | None:
        """The first row of a statement that only looks."""
        return self._cursor.execute(statement, values, prepare=True).fetchone()

    def change(self, statement: str, values: Any = (), alongside: bool = False) -> int:
        """Run a statement that writes; how many rows it met. Raises: TurnNeededError."""
        self._write(statement, values, alongside)
        return self._cursor.rowcount

    def change_all(self, statement: str, values: Any = (), alongside: bool = False) -> list[Row]:
        """Run a statement that writes; the rows it returns. Raises: TurnNeededError."""
        self._write(statement, values, alongside)
        return self._cursor.fetchall()

    def lock_and_look(self, lock: str, lock_values: Any, question: str, values: Any) -> tuple[list[Row], list[Row]]:
        """Lock rows, then look, in one round trip: the rows of both. What is locked cannot change before it is seen."""
        marks = self._list_marks()
        with self.connection.pipeline():
            for mark in marks:
                self._plain.execute(mark, prepare=True)
            self._locking.execute(lock, lock_values, prepare=True)
            self._cursor.execute(question, values, prepare=True)
        return self._locking.fetchall(), self._cursor.fetchall()

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

    def begin(self, alone: bool = True) -> None:
        """Begin to write; waits for the writers, here or in other processes, that this one cannot be beside."""
        self._changes = 0
        self.change_number += 1
        self._has_savepoint = self._is_marked = self._holds_rows = False
        self.is_reading = self.has_placed_events = False
        self.has_turn = alone
        self.script(_BEGIN_ALONE if alone else _BEGIN_ALONGSIDE)

    def begin_reading(self) -> None:
        """Begin to look at one consistent state."""
        self.is_reading, self.has_turn, self.has_placed_events = True, False, False
        self.script(_BEGIN_READING)

    def begin_change(self) -> None:
        """What follows is of another change."""
        self._changes += 1
        self.change_number += 1
        self._is_marked = False
        self.asked_for_turn = None

    def may_wait_for_rows(self) -> bool:
        """Whether rows that are about to be locked may be waited for."""
        held_rows, self._holds_rows = self._holds_rows, True
        return self.has_turn or not held_rows

    def ask_for_turn(self, is_always: bool = False) -> NoReturn:
        """The present change cannot go on beside others. Raises: TurnNeededError."""
        self.asked_for_turn = TurnNeededError(is_always)
        raise self.asked_for_turn

    def undo_change(self) -> bool:
        """Undo what the present change wrote; False when the transaction failed and there is nothing to go back to."""
        if not self._is_marked:
            return not self.is_failed
        if self._has_savepoint:
            self.script("ROLLBACK TO SAVEPOINT change")
        else:
            self.script("ROLLBACK")
            self.begin(self.has_turn)
            self._changes = 1
        return True

    def finish(self, *statements: tuple[str, Any]) -> None:
        """Run what every transaction writes at its end, and commit, in one round trip."""
        with self.connection.pipeline():
            for statement, values in statements:
                self._cursor.execute(statement, values, prepare=True)
            self._plain.execute("COMMIT", prepare=False)

    def rollback(self) -> None:
        """End the transaction, if there is one, without a trace."""
        if not self.is_lost and self.connection.info.transaction_status != TransactionStatus.IDLE:
            self.script("ROLLBACK")

    def recover(self) -> bool:
        """Leave a failed transaction; whether the connection is still good. One that cannot be left is given up: the
        server may have ended it in the middle of an exchange, and nobody has read so far that it is gone."""
        try:
            self.rollback()
        except psycopg.Error:
            self.close()
        if not self.is_lost and not self._is_at_rest:
            self.close()
        return not self.is_lost

    @property
    def _is_at_rest(self) -> bool:
        is_idle = self.connection.info.transaction_status == TransactionStatus.IDLE
        return is_idle and self.connection.pgconn.pipeline_status == PipelineStatus.OFF

    def close(self) -> None:
        """Give the connection up, whatever its state."""
        self.connection.close()

    def _write(self, statement: str, values: Any, alongside: bool) -> None:
        if not (alongside or self.has_turn or self.is_reading):  # the database itself refuses a reader
            self.ask_for_turn(is_always=True)
        marks = self._list_marks()
        if not marks:
            self._cursor.execute(statement, values, prepare=True)
            return
        with self.connection.pipeline():
            for mark in marks:
                self._plain.execute(mark, prepare=True)
            self._cursor.execute(statement, values, prepare=True)

    def _list_marks(self) -> tuple[str, ...]:
        """The statements that set the change's savepoint, once."""
        if self._is_marked:
            return ()
        self._is_marked = True
        if self._changes <= 1:
            return ()
        had_savepoint, self._has_savepoint = self._has_savepoint, True
        return _RENEW_SAVEPOINT if had_savepoint else _SET_SAVEPOINT


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
