"""What is known of blobs, in PostgreSQL."""

from __future__ import annotations

from curbside.ids import BlobId, ConversationId
from curbside.server.store.postgres_session import Session
from curbside.server.store.records import BlobRecord

_BLOB = "blob_id, conversation_id, uploader, size, held, sha256, created_at, expires_at, completed_at"


class PostgresBlobs:
    """Implements BlobChange (and so BlobView) on one connection."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find_blob(self, blob_id: BlobId) -> BlobRecord | None:
        row = self._session.one(f"SELECT {_BLOB} FROM blobs WHERE blob_id = %s", (blob_id,))
        return BlobRecord(*row) if row else None

    def count_blob_bytes(self, conversation_id: ConversationId) -> int:
        query = "SELECT coalesce(sum(size), 0)::bigint FROM blobs WHERE conversation_id = %s"
        row = self._session.one(query, (conversation_id,))
        return int(row[0]) if row else 0

    def list_expired_uploads(self, now: int, limit: int) -> list[BlobRecord]:
        rows = self._session.all(
            f"SELECT {_BLOB} FROM blobs WHERE completed_at = 0 AND expires_at <= %s ORDER BY expires_at LIMIT %s",
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
        self._session.change(f"INSERT INTO blobs ({_BLOB}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)", values)

    def set_blob_offset(self, blob_id: BlobId, offset: int, expires_at: int) -> None:
        self._session.change(
            "UPDATE blobs SET held = %s, expires_at = %s WHERE blob_id = %s", (offset, expires_at, blob_id)
        )

    def complete_blob(self, blob_id: BlobId, completed_at: int) -> None:
        self._session.change(
            "UPDATE blobs SET completed_at = %s, held = size WHERE blob_id = %s", (completed_at, blob_id)
        )

    def delete_blob(self, blob_id: BlobId) -> None:
        self._session.change("DELETE FROM blobs WHERE blob_id = %s", (blob_id,))
