"""What is known of blobs, in SQLite."""

from __future__ import annotations

import json
from collections.abc import Sequence

import apsw

from curbside.ids import BlobId, ConversationId
from curbside.server.store.records import BlobRecord, PieceRecord

_BLOB = "blob_id, conversation_id, uploader, size, held, sha256, created_at, expires_at, completed_at"
_PIECE = "blob_id, first, size, name"


class SqliteBlobs:
    """Implements BlobChange (and so BlobView) on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._run = connection.execute

    def find_blob(self, blob_id: BlobId) -> BlobRecord | None:
        row = self._run(f"SELECT {_BLOB} FROM blobs WHERE blob_id = ?", (blob_id,)).fetchone()
        return BlobRecord(*row) if row else None

    def count_blob_bytes(self, conversation_id: ConversationId) -> int:
        query = "SELECT coalesce(sum(size), 0) FROM blobs WHERE conversation_id = ?"
        return int(self._run(query, (conversation_id,)).get)

    def list_pieces(self, blob_id: BlobId) -> list[PieceRecord]:
        rows = self._run(f"SELECT {_PIECE} FROM blob_pieces WHERE blob_id = ? ORDER BY first", (blob_id,))
        return [PieceRecord(*row) for row in rows]

    def list_expired_uploads(self, now: int, limit: int) -> list[BlobRecord]:
        rows = self._run(
            f"SELECT {_BLOB} FROM blobs WHERE completed_at = 0 AND expires_at <= ? ORDER BY expires_at LIMIT ?",
            (now, limit),
        )
        return [BlobRecord(*row) for row in rows]

    def list_blobs(self, after: str, through: str | None, limit: int) -> list[BlobRecord]:
        rows = self._run(
            f"""SELECT {_BLOB} FROM blobs WHERE blob_id > ?1 AND (?2 IS NULL OR blob_id <= ?2)
            ORDER BY blob_id LIMIT ?3""",
            (after, through, limit),
        )
        return [BlobRecord(*row) for row in rows]

    def list_piece_names(self, names: Sequence[str]) -> list[str]:
        query = "SELECT name FROM blob_pieces WHERE name IN (SELECT value FROM json_each(?))"
        return [name for (name,) in self._run(query, (json.dumps(list(names)),))]

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

    def add_piece(self, piece: PieceRecord, expires_at: int) -> bool:
        self._run(
            "UPDATE blobs SET held = held + ?, expires_at = ? WHERE blob_id = ? AND held = ? AND completed_at = 0",
            (piece.size, expires_at, piece.blob_id, piece.first),
        )
        if self._connection.changes() != 1:
            return False
        values = (piece.blob_id, piece.first, piece.size, piece.name)
        self._run(f"INSERT INTO blob_pieces ({_PIECE}) VALUES (?, ?, ?, ?)", values)
        return True

    def reset_upload(self, blob_id: BlobId, expires_at: int) -> None:
        self._run(
            "UPDATE blobs SET held = 0, expires_at = ? WHERE blob_id = ? AND completed_at = 0", (expires_at, blob_id)
        )
        if self._connection.changes() == 1:
            self._delete_pieces(blob_id)

    def complete_blob(self, blob_id: BlobId, completed_at: int) -> bool:
        self._run(
            "UPDATE blobs SET completed_at = ?, held = size WHERE blob_id = ? AND completed_at = 0",
            (completed_at, blob_id),
        )
        is_done = self._connection.changes() == 1
        if is_done:
            self._delete_pieces(blob_id)
        return is_done

    def end_upload(self, blob_id: BlobId, now: int) -> bool:
        self._run("DELETE FROM blobs WHERE blob_id = ? AND completed_at = 0 AND expires_at <= ?", (blob_id, now))
        is_done = self._connection.changes() == 1
        if is_done:
            self._delete_pieces(blob_id)
        return is_done

    def claim_sweep(self, now: int, next_at: int) -> str | None:
        row = self._run(
            "UPDATE blob_sweeps SET due_at = ? WHERE due_at <= ? RETURNING after", (next_at, now)
        ).fetchone()
        return str(row[0]) if row else None

    def advance_sweep(self, after: str, due_at: int) -> None:
        self._run("UPDATE blob_sweeps SET after = ?, due_at = ?", (after, due_at))

    def _delete_pieces(self, blob_id: BlobId) -> None:
        self._run("DELETE FROM blob_pieces WHERE blob_id = ?", (blob_id,))
