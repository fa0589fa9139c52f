"""What other servers did meanwhile, in SQLite. One process has the file, so that nobody did; the port is the same."""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from curbside.ids import ConversationId, DeviceId
from curbside.server.store.records import ConversationRecord
from curbside.server.store.sqlite_delivery import LAST_SEQUENCE


class SqliteWatch:
    """Implements WatchChange (and so WatchView) on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._run = connection.execute

    def find_conversations(
        self, conversation_ids: Iterable[ConversationId]
    ) -> dict[ConversationId, ConversationRecord]:
        found: dict[ConversationId, ConversationRecord] = {}
        for conversation_id in conversation_ids:
            row = self._run(
                f"""SELECT conversation_id, epoch, {LAST_SEQUENCE}, created_at, waiting FROM conversations
                WHERE conversation_id = ?""",
                (conversation_id,),
            ).fetchone()
            if row is not None:
                found[conversation_id] = ConversationRecord(*row)
        return found

    def find_queue_ends(self, device_ids: Iterable[DeviceId]) -> dict[DeviceId, int]:
        asked = list(device_ids)
        ends = [self._run("SELECT max(position) FROM queue_items WHERE device_id = ?", (each,)).get for each in asked]
        return {device_id: end for device_id, end in zip(asked, ends, strict=True) if end is not None}

    def find_streams(self, token_hashes: Iterable[bytes]) -> dict[bytes, int]:
        asked = list(token_hashes)
        numbers = [
            self._run(
                """SELECT coalesce(number, 0)
                FROM sessions JOIN devices USING (device_id) LEFT JOIN streams USING (device_id)
                WHERE token_hash = ? AND revoked_at = 0""",
                (token_hash,),
            ).get
            for token_hash in asked
        ]
        return {token_hash: number for token_hash, number in zip(asked, numbers, strict=True) if number is not None}

    def count_stream(self, device_id: DeviceId) -> int:
        number = self._run(
            """INSERT INTO streams (device_id, number) VALUES (?, 1)
            ON CONFLICT (device_id) DO UPDATE SET number = number + 1 RETURNING number""",
            (device_id,),
        ).get
        return int(number)
