"""The audit log in SQLite."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from curbside.server.store.records import AuditLeaf, AuditRecord, CheckpointRecord

_CHECKPOINT = "size, root_hash, created_at, body"


class SqliteAudit:
    """Implements AuditChange (and so AuditView) on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._run = connection.execute
        self._connection = connection

    def count_events(self) -> int:
        return int(self._run("SELECT coalesce(max(sequence) + 1, 0) FROM audit_events").get)

    def read_events(self, start: int, limit: int) -> list[AuditRecord]:
        rows = self._run(
            "SELECT sequence, event, leaf_hash, rows FROM audit_events WHERE sequence >= ? ORDER BY sequence LIMIT ?",
            (start, limit),
        )
        return [AuditRecord(*row) for row in rows]

    def read_leaf_hashes(self, start: int, limit: int) -> list[bytes]:
        rows = self._run(
            "SELECT leaf_hash FROM audit_events WHERE sequence >= ? ORDER BY sequence LIMIT ?", (start, limit)
        )
        return [row[0] for row in rows]

    def list_checkpoints(self, after_size: int, limit: int) -> list[CheckpointRecord]:
        rows = self._run(
            f"SELECT {_CHECKPOINT} FROM audit_checkpoints WHERE size > ? ORDER BY size LIMIT ?", (after_size, limit)
        )
        return [CheckpointRecord(*row) for row in rows]

    def find_latest_checkpoint(self) -> CheckpointRecord | None:
        row = self._run(f"SELECT {_CHECKPOINT} FROM audit_checkpoints ORDER BY size DESC LIMIT 1").fetchone()
        return CheckpointRecord(*row) if row else None

    def add_checkpoint(self, record: CheckpointRecord) -> None:
        self._run(
            f"INSERT INTO audit_checkpoints ({_CHECKPOINT}) VALUES (?, ?, ?, ?)",
            (record.size, record.root_hash, record.created_at, record.body),
        )

    def append_leaves(self, leaves: Sequence[AuditLeaf]) -> None:
        """Give the events their places; called by the writer once for each transaction, before it commits."""
        first = self.count_events()
        self._connection.executemany(
            "INSERT INTO audit_events (sequence, event, leaf_hash, rows) VALUES (?, ?, ?, ?)",
            [(first + number, leaf.event, leaf.leaf_hash, leaf.rows) for number, leaf in enumerate(leaves)],
        )
