"""What is known of blobs, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from curbside.ids import BlobId, ConversationId
from curbside.server.store.postgres_session import Session
from curbside.server.store.records import BlobRecord, PieceRecord

_BLOB = "blob_id, conversation_id, uploader, size, held, sha256, created_at, expires_at, completed_at"
_PIECE = "blob_id, first, size, name"


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

    def list_pieces(self, blob_id: BlobId) -> list[PieceRecord]:
        rows = self._session.all(f"SELECT {_PIECE} FROM blob_pieces WHERE blob_id = %s ORDER BY first", (blob_id,))
        return [PieceRecord(*row) for row in rows]

    def list_expired_uploads(self, now: int, limit: int) -> list[BlobRecord]:
        rows = self._session.all(
            f"SELECT {_BLOB} FROM blobs WHERE completed_at = 0 AND expires_at <= %s ORDER BY expires_at LIMIT %s",
            (now, limit),
        )
        return [BlobRecord(*row) for row in rows]

    def list_blobs(self, after: str, through: str | None, limit: int) -> list[BlobRecord]:
        rows = self._session.all(
            f"""SELECT {_BLOB} FROM blobs WHERE blob_id > %(after)s
            AND (%(through)s::text IS NULL OR blob_id <= %(through)s::text)
            ORDER BY blob_id LIMIT %(limit)s""",
            {"after": after, "through": through, "limit": limit},
        )
        return [BlobRecord(*row) for row in rows]

    def list_piece_names(self, names: Sequence[str]) -> list[str]:
        rows = self._session.all("SELECT name FROM blob_pieces WHERE name = ANY(%s)", (list(names),))
        return [name for (name,) in rows]

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

    def add_piece(self, piece: PieceRecord, expires_at: int) -> bool:
        moved = self._session.change(
            "UPDATE blobs SET held = held + %s, expires_at = %s WHERE blob_id = %s AND held = %s AND completed_at = 0",
            (piece.size, expires_at, piece.blob_id, piece.first),
            alongside=True,
        )
        if moved != 1:
            return False
        values = (piece.blob_id, piece.first, piece.size, piece.name)
        self._session.change(f"INSERT INTO blob_pieces ({_PIECE}) VALUES (%s, %s, %s, %s)", values, alongside=True)
        return True

    def reset_upload(self, blob_id: BlobId, expires_at: int) -> None:
        statement = "UPDATE blobs SET held = 0, expires_at = %s WHERE blob_id = %s AND completed_at = 0"
        if self._session.change(statement, (expires_at, blob_id)) == 1:
            self._delete_pieces(blob_id)

    def complete_blob(self, blob_id: BlobId, completed_at: int) -> bool:
        statement = "UPDATE blobs SET completed_at = %s, held = size WHERE blob_id = %s AND completed_at = 0"
        is_done = self._session.change(statement, (completed_at, blob_id)) == 1
        if is_done:
            self._delete_pieces(blob_id)
        return is_done

    def end_upload(self, blob_id: BlobId, now: int) -> bool:
        statement = "DELETE FROM blobs WHERE blob_id = %s AND completed_at = 0 AND expires_at <= %s"
        is_done = self._session.change(statement, (blob_id, now)) == 1
        if is_done:
            self._delete_pieces(blob_id)
        return is_done

    def claim_sweep(self, now: int, next_at: int) -> str | None:
        statement = "UPDATE blob_sweeps SET due_at = %s WHERE due_at <= %s RETURNING after"
        rows = self._session.change_all(statement, (next_at, now))
        return str(rows[0][0]) if rows else None

    def advance_sweep(self, after: str, due_at: int) -> None:
        self._session.change("UPDATE blob_sweeps SET after = %s, due_at = %s", (after, due_at))

    def _delete_pieces(self, blob_id: BlobId) -> None:
        self._session.change("DELETE FROM blob_pieces WHERE blob_id = %s", (blob_id,))
