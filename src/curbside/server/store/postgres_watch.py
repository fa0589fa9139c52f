"""What other servers did meanwhile, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable

from curbside.ids import ConversationId, DeviceId
from curbside.server.store.postgres_session import Session
from curbside.server.store.records import ConversationRecord


class PostgresWatch:
    """Implements WatchChange (and so WatchView) on one connection."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find_conversations(
        self, conversation_ids: Iterable[ConversationId]
    ) -> dict[ConversationId, ConversationRecord]:
        rows = self._session.all(
            """SELECT conversation_id, epoch, last_sequence, created_at, waiting FROM conversations
            WHERE conversation_id = ANY(%s::text[])""",
            (list(conversation_ids),),
        )
        return {row[0]: ConversationRecord(*row) for row in rows}

    def find_queue_ends(self, device_ids: Iterable[DeviceId]) -> dict[DeviceId, int]:
        rows = self._session.all(
            "SELECT device_id, max(position) FROM queue_items WHERE device_id = ANY(%s::text[]) GROUP BY device_id",
            (list(device_ids),),
        )
        return {row[0]: row[1] for row in rows}

    def find_streams(self, token_hashes: Iterable[bytes]) -> dict[bytes, int]:
        rows = self._session.all(
            """SELECT token_hash, coalesce(number, 0)
            FROM sessions JOIN devices USING (device_id) LEFT JOIN streams USING (device_id)
            WHERE token_hash = ANY(%s::bytea[]) AND revoked_at = 0""",
            (list(token_hashes),),
        )
        return {bytes(row[0]): row[1] for row in rows}

    def count_stream(self, device_id: DeviceId) -> int:
        rows = self._session.change_all(
            """INSERT INTO streams (device_id, number) VALUES (%s, 1)
            ON CONFLICT (device_id) DO UPDATE SET number = streams.number + 1 RETURNING number""",
            (device_id,),
            alongside=True,
        )
        return int(rows[0][0])
