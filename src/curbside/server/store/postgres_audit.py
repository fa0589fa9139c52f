"""The audit log in PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from curbside.server.store.postgres_session import Session
from curbside.server.store.records import AuditRecord, CheckpointRecord

_CHECKPOINT = "size, root_hash, created_at, body"
_NEXT = "SELECT coalesce(max(sequence) + 1, 0) FROM audit_events"


class PostgresAudit:
    """Implements AuditChange (and so AuditView) on one connection."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def count_events(self) -> int:
        row = self._session.one(_NEXT)
        return int(row[0]) if row else 0

    def read_events(self, start: int, limit: int) -> list[AuditRecord]:
        rows = self._session.all(
            "SELECT sequence, event, leaf_hash FROM audit_events WHERE sequence >= %s ORDER BY sequence LIMIT %s",
            (start, limit),
        )
        return [AuditRecord(*row) for row in rows]

    def read_leaf_hashes(self, start: int, limit: int) -> list[bytes]:
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

    def append_events(self, events: Sequence[bytes]) -> None:
        """Give the events their places; called by the writer once for each transaction, before it commits.

        The transaction holds the writer lock, so nobody else takes these places.
        """
        hashes = [hashlib.sha256(b"\x00" + event).digest() for event in events]
        self._session.change(
            f"""INSERT INTO audit_events (sequence, event, leaf_hash)
            SELECT ({_NEXT}) + given.number - 1, given.event, given.leaf_hash
            FROM unnest(%s::bytea[], %s::bytea[]) WITH ORDINALITY AS given (event, leaf_hash, number)""",
            (list(events), hashes),
        )
