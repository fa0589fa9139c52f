"""What is known of blobs, in SQLite."""

from __future__ import annotations

import apsw

from curbside.ids import BlobId, ConversationId
from curbside.server.store.records import BlobRecord

_BLOB = "blob_id, conversation_id, uploader, size, held, sha256, created_at, expires_at, completed_at"


class SqliteBlobs:
    """Implements BlobChange (and so BlobView) on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._run = connection.execute

    def find_blob(self, blob_id: BlobId) -> BlobRecord | None:
        row = self._run(f"SELECT {_BLOB} FROM blobs WHERE blob_id = ?", (blob_id,)).fetchone()
        return BlobRecord(*row) if row else None

    def count_blob_bytes(self, conversation_id: ConversationId) -> int:
        query = "SELECT coalesce(sum(size), 0) FROM blobs WHERE conversation_id = ?"
        return int(self._run(query, (conversation_id,)).get)

    def list_expired_uploads(self, now: int, limit: int) -> list[BlobRecord]:
        rows = self._run(
            f"SELECT {_BLOB} FROM blobs WHERE completed_at = 0 AND expires_at <= ? ORDER BY expires_at LIMIT ?",
            (now, limit),
        )
        return [BlobRecord(*row) for row in rows]

    def add_blob(self, record: BlobRecord) -> None:
        values = (
            record.blob_id,
            record.conversation_id,
            record.uploader,
            record.size,
            record.offset,
            record.sha256,
            record.created_at,
            record.expires_at,
            record.completed_at,
        )
        self._run(f"INSERT INTO blobs ({_BLOB}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def set_blob_offset(self, blob_id: BlobId, offset: int, expires_at: int) -> None:
        self._run("UPDATE blobs SET held = ?, expires_at = ? WHERE blob_id = ?", (offset, expires_at, blob_id))

    def complete_blob(self, blob_id: BlobId, completed_at: int) -> None:
        self._run("UPDATE blobs SET completed_at = ?, held = size WHERE blob_id = ?", (completed_at, blob_id))

    def delete_blob(self, blob_id: BlobId) -> None:
        self._run("DELETE FROM blobs WHERE blob_id = ?", (blob_id,))
