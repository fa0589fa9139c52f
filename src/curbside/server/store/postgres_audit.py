"""The audit log in PostgreSQL.

[Note: places of audit events] An event is stored in the transaction of its access, in `audit_waiting`, where writers
of all processes put theirs without waiting for one another. It gets its place in the log, from then on for good, in a
short transaction of its own, under a lock: whoever looks at the log first gives all events that were committed before
then their places (a look in a reading transaction is made again afterwards). So a look misses nothing, and an order
that was seen is durable before it is seen. Waiting events are ordered by their transaction's number: what was committed
before a transaction began stands before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import psycopg

from curbside.server.store.postgres_session import AUDIT_LOCK, LOCK_CLASS, WRITER_LOCK, Session
from curbside.server.store.records import AuditLeaf, AuditRecord, CheckpointRecord

PLACED_AT_ONCE: Final = 1000
"""Events in one step; bounds how long others wait for the lock."""
_CHECKPOINT = "size, root_hash, created_at, body"
_NEXT = "SELECT coalesce(max(sequence) + 1, 0) FROM audit_events"
_LOCK = f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {AUDIT_LOCK})"
_WAITING = "FROM audit_waiting WHERE in_transaction >= %s::text::xid8"
_PLACE = f"""
WITH first AS (
    SELECT in_transaction, position {_WAITING} ORDER BY in_transaction, position LIMIT {PLACED_AT_ONCE}
), taken AS (
    DELETE FROM audit_waiting USING first
    WHERE audit_waiting.in_transaction = first.in_transaction AND audit_waiting.position = first.position
    RETURNING audit_waiting.*
), placed AS (
    INSERT INTO audit_events (sequence, event, leaf_hash, rows)
    SELECT ({_NEXT}) + row_number() OVER (ORDER BY in_transaction, position) - 1, event, leaf_hash, rows FROM taken
)
SELECT count(*), pg_snapshot_xmin(pg_current_snapshot())::text FROM taken"""


class PostgresAudit:
    """Implements AuditChange (and so AuditView) on one connection."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._all_placed_before = "0"
        """No event of a transaction with a smaller number waits any more. A hint: rows that are deleted cost the search
        as long as somebody's old snapshot may see them. It ends with the connection, as it must when the database went
        back to an earlier state (a failover)."""

    def count_events(self) -> int:
        self._see_all()
        row = self._session.one(_NEXT)
        return int(row[0]) if row else 0

    def read_events(self, start: int, limit: int) -> list[AuditRecord]:
        self._see_all()
        rows = self._session.all(
            "SELECT sequence, event, leaf_hash, rows FROM audit_events WHERE sequence >= %s ORDER BY sequence LIMIT %s",
            (start, limit),
        )
        return [AuditRecord(*row) for row in rows]

    def read_leaf_hashes(self, start: int, limit: int) -> list[bytes]:
        self._see_all()
        rows = self._session.all(
            "SELECT leaf_hash FROM audit_events WHERE sequence >= %s ORDER BY sequence LIMIT %s", (start, limit)
        )
        return [row[0] for row in rows]

    def list_checkpoints(self, after_size: int, limit: int) -> list[CheckpointRecord]:
        rows = self._session.all(
            f"SELECT {_CHECKPOINT} FROM audit_checkpoints WHERE size > %s ORDER BY size LIMIT %s", (after_size, limit)
        )
        return [CheckpointRecord(*row) for row in rows]

    def find_latest_checkpoint(self) -> CheckpointRecord | None:
        row = self._session.one(f"SELECT {_CHECKPOINT} FROM audit_checkpoints ORDER BY size DESC LIMIT 1")
        return CheckpointRecord(*row) if row else None

    def add_checkpoint(self, record: CheckpointRecord) -> None:
        self._session.change(
            f"INSERT INTO audit_checkpoints ({_CHECKPOINT}) VALUES (%s, %s, %s, %s)",
            (record.size, record.root_hash, record.created_at, record.body),
        )

    def place_events(self) -> None:
        """Give all events that wait now their places. Called outside a transaction."""
        while True:
            self._session.script(f"BEGIN; {_LOCK}")
            placed, oldest_open = self._place_step()
            self._session.script("COMMIT")
            if placed < PLACED_AT_ONCE:
                self._all_placed_before = oldest_open
                return

    def _see_all(self) -> None:
        """Make sure that events committed before this transaction have their places.

        Raises: EventsWaitError in a reading transaction; TurnNeededError.
        """
        if self._session.has_placed_events:
            return
        if self._session.is_reading:
            row = self._session.one(f"SELECT EXISTS (SELECT {_WAITING})", (self._all_placed_before,))
            if row is not None and row[0]:
                raise EventsWaitError
        else:
            self._session.change(_LOCK)
            while self._place_step()[0] == PLACED_AT_ONCE:
                pass
        self._session.has_placed_events = True

    def _place_step(self) -> tuple[int, str]:
        """How many were placed, and the oldest transaction that may still bring events. The caller holds the lock."""
        row = self._session.one(_PLACE, (self._all_placed_before,))
        return row if row is not None else (0, self._all_placed_before)


def begin_complete_reading(session: Session) -> None:
    """Begin to look at a state in which no event waits for its place; for that moment nobody writes."""
    session.script(f"SELECT pg_advisory_lock({LOCK_CLASS}, {WRITER_LOCK})")
    try:
        PostgresAudit(session).place_events()
        session.begin_reading()
        session.one("SELECT 1")  # with its first statement the state is chosen
    finally:
        with contextlib.suppress(psycopg.Error):  # a connection that failed is closed, and the lock goes with it
            session.script(f"SELECT pg_advisory_unlock({LOCK_CLASS}, {WRITER_LOCK})")
    session.has_placed_events = True


class EventsWaitError(Exception):
    """There are events without a place; the question must be asked again after `place_events`."""


def keep_leaves(leaves: Sequence[AuditLeaf]) -> tuple[str, Any]:
    """The statement with which a transaction stores its events."""
    return (
        """INSERT INTO audit_waiting (in_transaction, position, event, leaf_hash, rows)
        SELECT pg_current_xact_id(), given.number, given.event, given.leaf_hash, given.rows
        FROM unnest(%s::bytea[], %s::bytea[], %s::bytea[]) WITH ORDINALITY AS given (event, leaf_hash, rows, number)""",
        ([leaf.event for leaf in leaves], [leaf.leaf_hash for leaf in leaves], [leaf.rows for leaf in leaves]),
    )
