"""Conversations, logs, memberships, queues and cursors in SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import apsw

from curbside.errors import CurbsideError, DuplicateRequest, EpochConflict, NotFound, PendingProposals
from curbside.ids import ConversationId, DeviceId, MessageId
from curbside.server.store.records import (
    ConversationRecord,
    EntryBatch,
    EntryRecord,
    MemberRecord,
    NewEntry,
    NewQueueItem,
    PlaceRecord,
    QueueRecord,
)

_CONVERSATION = "conversation_id, epoch, last_sequence, created_at, waiting"
_STAY = "device_id, user_id, leaf, first_sequence, last_sequence"


class SqliteDelivery:
    """Implements DeliveryChange (and so DeliveryView) on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._run = connection.execute
        self._run_many = connection.executemany
        self._connection = connection

    # --- conversations ------------------------------------------------------------------------

    def find_conversation(self, conversation_id: ConversationId) -> ConversationRecord | None:
        row = self._run(
            f"SELECT {_CONVERSATION} FROM conversations WHERE conversation_id = ?", (conversation_id,)
        ).fetchone()
        return ConversationRecord(*row) if row else None

    def list_conversations(self, device_id: DeviceId) -> list[ConversationRecord]:
        rows = self._run(
            """SELECT conversation_id, epoch, conversations.last_sequence, created_at, waiting
            FROM stays JOIN conversations ON number = conversation
            WHERE device_id = ? AND stays.last_sequence IS NULL ORDER BY number""",
            (device_id,),
        )
        return [ConversationRecord(*row) for row in rows]

    def count_conversations(self, device_id: DeviceId, limit: int) -> int:
        counted = "SELECT 1 FROM stays WHERE device_id = ? AND last_sequence IS NULL LIMIT ?"
        return int(self._run(f"SELECT count(*) FROM ({counted})", (device_id, limit)).get)

    def find_group_state(self, conversation_id: ConversationId) -> bytes | None:
        state = self._run("SELECT group_state FROM conversations WHERE conversation_id = ?", (conversation_id,)).get
        return bytes(state) if state is not None else None

    def create_conversation(self, record: ConversationRecord, group_state: bytes) -> None:
        self._run(
            f"INSERT OR IGNORE INTO conversations ({_CONVERSATION}, group_state) VALUES (?, ?, ?, ?, ?, ?)",
            (
                record.conversation_id,
                record.epoch,
                record.last_sequence,
                record.created_at,
                record.waiting,
                group_state,
            ),
        )
        if self._connection.changes() != 1:
            raise DuplicateRequest

    def advance_epoch(self, conversation_id: ConversationId, epoch: int, group_state: bytes, waiting: int = 0) -> None:
        self._run(
            "UPDATE conversations SET epoch = ?, group_state = ?, waiting = ? WHERE conversation_id = ?",
            (epoch, group_state, waiting, conversation_id),
        )
        if self._connection.changes() != 1:
            raise NotFound

    # --- the log ------------------------------------------------------------------------------

    def append_entries(
        self, conversation_id: ConversationId, epoch: int, entries: Sequence[NewEntry], while_waiting: bool = False
    ) -> int:
        row = self._run(
            """UPDATE conversations SET last_sequence = last_sequence + ?
            WHERE conversation_id = ? AND epoch = ? AND (waiting = 0 OR ?) RETURNING number, last_sequence""",
            (len(entries), conversation_id, epoch, while_waiting),
        ).fetchone()
        if row is None:
            record = self.find_conversation(conversation_id)
            if record is None:
                raise NotFound
            if record.epoch != epoch:
                raise EpochConflict(current_epoch=record.epoch)
            raise PendingProposals
        number, last = row
        first = last - len(entries) + 1
        rows = [
            (number, first + i, entry.kind, entry.message_id, entry.received_at, entry.envelope)
            for i, entry in enumerate(entries)
        ]
        try:
            self._run_many("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", rows)
        except apsw.ConstraintError as error:
            raise DuplicateRequest from error
        return int(first)

    def append_batches(self, batches: Sequence[EntryBatch]) -> list[int | CurbsideError]:
        places: list[int | CurbsideError] = []
        for batch in batches:
            try:
                places.append(self.append_entries(batch.conversation_id, batch.epoch, batch.entries))
            except (EpochConflict, PendingProposals, NotFound) as error:
                places.append(error)
        return places

    def find_places(self, asked: Sequence[tuple[ConversationId, MessageId, bytes]]) -> list[PlaceRecord | None]:
        return [self.find_place(*each) for each in asked]

    def find_place(self, conversation_id: ConversationId, message_id: MessageId, envelope: bytes) -> PlaceRecord | None:
        row = self._run(
            """SELECT sequence, received_at_ms, envelope = ? FROM entries
            WHERE conversation = (SELECT number FROM conversations WHERE conversation_id = ?) AND message_id = ?""",
            (envelope, conversation_id, message_id),
        ).fetchone()
        return PlaceRecord(row[0], row[1], bool(row[2])) if row else None

    def read_entries(
        self, conversation_id: ConversationId, after: int, through: int, limit: int, most_bytes: int = 1 << 30
    ) -> list[EntryRecord]:
        rows = self._run(
            """SELECT sequence, kind, message_id, received_at_ms, envelope FROM entries
            WHERE conversation = (SELECT number FROM conversations WHERE conversation_id = ?)
              AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?""",
            (conversation_id, after, through, limit),
        )
        found: list[EntryRecord] = []
        size = 0
        for row in rows:
            record = EntryRecord(conversation_id, *row)
            found.append(record)
            size += len(record.envelope)
            if size >= most_bytes:
                rows.close()
                break
        return found

    # --- memberships --------------------------------------------------------------------------

    def list_members(self, conversation_id: ConversationId) -> list[MemberRecord]:
        rows = self._run(
            f"""SELECT {_STAY} FROM stays
            WHERE conversation = (SELECT number FROM conversations WHERE conversation_id = ?)
              AND last_sequence IS NULL ORDER BY leaf""",
            (conversation_id,),
        )
        return [MemberRecord(*row) for row in rows]

    def list_stays(
        self, device_id: DeviceId, conversation_ids: Iterable[ConversationId]
    ) -> dict[ConversationId, list[MemberRecord]]:
        found: dict[ConversationId, list[MemberRecord]] = {}
        for conversation_id in conversation_ids:
            rows = self._run(
                f"""SELECT {_STAY} FROM stays WHERE device_id = ?
                AND conversation = (SELECT number FROM conversations WHERE conversation_id = ?)
                ORDER BY first_sequence""",
                (device_id, conversation_id),
            )
            if stays := [MemberRecord(*row) for row in rows]:
                found[conversation_id] = stays
        return found

    def add_members(self, conversation_id: ConversationId, members: Sequence[MemberRecord]) -> None:
        number = self._get_number(conversation_id)
        self._run_many(
            f"INSERT INTO stays (conversation, {_STAY}) VALUES (?, ?, ?, ?, ?, ?)",
            [(number, m.device_id, m.user_id, m.leaf, m.first_sequence, m.last_sequence) for m in members],
        )

    def end_members(self, conversation_id: ConversationId, device_ids: Iterable[DeviceId], last_sequence: int) -> None:
        number = self._get_number(conversation_id)
        self._run_many(
            "UPDATE stays SET last_sequence = ? WHERE conversation = ? AND device_id = ? AND last_sequence IS NULL",
            [(last_sequence, number, device_id) for device_id in device_ids],
        )

    # --- queues and cursors -------------------------------------------------------------------

    def read_queue(self, device_id: DeviceId, after: int, limit: int) -> list[QueueRecord]:
        rows = self._run(
            """SELECT position, kind, conversation_id, sequence, payload FROM queue_items
            WHERE device_id = ? AND position > ? ORDER BY position LIMIT ?""",
            (device_id, after, limit),
        )
        return [QueueRecord(*row) for row in rows]

    def add_queue_items(self, items: Sequence[NewQueueItem]) -> list[int]:
        return [
            int(
                self._run(
                    """INSERT INTO queue_items (device_id, kind, conversation_id, sequence, payload)
                    VALUES (?, ?, ?, ?, ?) RETURNING position""",
                    (item.device_id, item.kind, item.conversation_id, item.sequence, item.payload),
                ).get
            )
            for item in items
        ]

    def delete_queue(self, device_id: DeviceId, through: int) -> None:
        self._run("DELETE FROM queue_items WHERE device_id = ? AND position <= ?", (device_id, through))

    def list_cursors(self, device_id: DeviceId) -> dict[ConversationId, int]:
        rows = self._run(
            """SELECT conversation_id, sequence FROM cursors JOIN conversations ON number = conversation
            WHERE device_id = ?""",
            (device_id,),
        )
        return {row[0]: row[1] for row in rows}

    def advance_cursors(self, device_id: DeviceId, cursors: Mapping[ConversationId, int]) -> None:
        self._run_many(
            """INSERT INTO cursors (device_id, conversation, sequence)
            SELECT ?1, number, min(?3, last_sequence) FROM conversations WHERE conversation_id = ?2
              AND EXISTS (SELECT 1 FROM stays WHERE device_id = ?1 AND conversation = number)
            ON CONFLICT DO UPDATE SET sequence = max(sequence, excluded.sequence)""",
            [(device_id, conversation_id, sequence) for conversation_id, sequence in cursors.items()],
        )

    def _get_number(self, conversation_id: ConversationId) -> int:
        number = self._run("SELECT number FROM conversations WHERE conversation_id = ?", (conversation_id,)).get
        if number is None:
            raise NotFound
        return int(number)
