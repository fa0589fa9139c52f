"""Conversations, logs, memberships, queues and cursors in SQLite."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apsw

from curbside.errors import CurbsideError, DuplicateRequest, EpochConflict, NotFound, PendingProposals
from curbside.ids import ConversationId, DeviceId, MessageId, UserId
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
from curbside.server.store.sqlite_rows import split_rows, write_values

HEADS_IN_MEMORY: Final = 50_000

LAST_SEQUENCE = (
    "max(conversations.last_sequence,"
    " coalesce((SELECT max(sequence) FROM entries WHERE conversation = conversations.number), 0))"
)
"""The last place taken in a conversation's log: see schema/0007."""
_CONVERSATION = f"conversation_id, epoch, {LAST_SEQUENCE}, created_at, waiting"
_STAY = "device_id, user_id, leaf, first_sequence, last_sequence"


@dataclass(slots=True)
class _Head:
    """What appending asks of a conversation. last: the last place taken."""

    number: int
    epoch: int
    waiting: int
    last: int


class SqliteDelivery:
    """Implements DeliveryChange (and so DeliveryView) on one connection.

    [Note: heads] A connection remembers where the conversations stand that it appended to. What it remembers ends with
    a change that is undone, and with a transaction of any other connection. One that only reads takes from it nothing
    but a conversation's number, which never changes.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._run = connection.execute
        self._run_many = connection.executemany
        self._connection = connection
        self._heads: OrderedDict[ConversationId, _Head] = OrderedDict()
        self._version = -1

    def begin(self) -> None:
        """A writing transaction began."""
        version = self._connection.pragma("data_version")  # other connections' commits change it, our own do not
        if version != self._version:
            self._heads.clear()
            self._version = version

    def forget(self) -> None:
        """Something was undone."""
        self._heads.clear()

    def _find_head(self, conversation_id: ConversationId) -> _Head | None:
        head = self._heads.get(conversation_id)
        if head is not None:
            self._heads.move_to_end(conversation_id)
            return head
        row = self._run(
            f"SELECT number, epoch, waiting, {LAST_SEQUENCE} FROM conversations WHERE conversation_id = ?",
            (conversation_id,),
        ).fetchone()
        if row is None:
            return None
        head = self._heads[conversation_id] = _Head(*row)
        if len(self._heads) > HEADS_IN_MEMORY:
            self._heads.popitem(last=False)
        return head

    # --- conversations ------------------------------------------------------------------------

    def find_conversation(self, conversation_id: ConversationId) -> ConversationRecord | None:
        row = self._run(
            f"SELECT {_CONVERSATION} FROM conversations WHERE conversation_id = ?", (conversation_id,)
        ).fetchone()
        return ConversationRecord(*row) if row else None

    def list_conversations(self, device_id: DeviceId) -> list[ConversationRecord]:
        rows = self._run(
            f"""SELECT {_CONVERSATION}
            FROM stays JOIN conversations ON number = conversation
            WHERE device_id = ? AND stays.last_sequence IS NULL ORDER BY number""",
            (device_id,),
        )
        return [ConversationRecord(*row) for row in rows]

    def count_conversations(self, device_id: DeviceId, limit: int) -> int:
        counted = "SELECT 1 FROM stays WHERE device_id = ? AND last_sequence IS NULL LIMIT ?"
        return int(self._run(f"SELECT count(*) FROM ({counted})", (device_id, limit)).get)

    def list_left_behind(self, after: DeviceId, limit: int) -> list[tuple[DeviceId, UserId]]:
        rows = self._run(
            """SELECT device_id, user_id FROM devices WHERE revoked_at > 0 AND device_id > ?
            AND EXISTS (SELECT 1 FROM stays WHERE stays.device_id = devices.device_id AND last_sequence IS NULL)
            ORDER BY device_id LIMIT ?""",
            (after, limit),
        )
        return [(DeviceId(device), UserId(user)) for device, user in rows]

    def find_group_state(self, conversation_id: ConversationId) -> bytes | None:
        state = self._run("SELECT group_state FROM conversations WHERE conversation_id = ?", (conversation_id,)).get
        return bytes(state) if state is not None else None

    def create_conversation(self, record: ConversationRecord, group_state: bytes) -> None:
        self._run(
            """INSERT OR IGNORE INTO conversations
                (conversation_id, epoch, last_sequence, created_at, waiting, group_state)
            VALUES (?, ?, ?, ?, ?, ?)""",
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
        self._heads.pop(conversation_id, None)
        if self._connection.changes() != 1:
            raise NotFound

    # --- the log ------------------------------------------------------------------------------

    def append_entries(
        self, conversation_id: ConversationId, epoch: int, entries: Sequence[NewEntry], while_waiting: bool = False
    ) -> int:
        place = self._append([EntryBatch(conversation_id, epoch, entries)], while_waiting)[0]
        if isinstance(place, CurbsideError):
            raise place
        return place

    def append_batches(self, batches: Sequence[EntryBatch]) -> list[int | CurbsideError]:
        return self._append(batches, False)

    def _append(self, batches: Sequence[EntryBatch], while_waiting: bool) -> list[int | CurbsideError]:
        places: list[int | CurbsideError] = []
        rows: list[tuple[Any, ...]] = []
        for conversation_id, epoch, entries in batches:
            head = self._find_head(conversation_id)
            if head is None:
                places.append(NotFound())
            elif head.epoch != epoch:
                places.append(EpochConflict(current_epoch=head.epoch))
            elif head.waiting and not while_waiting:
                places.append(PendingProposals())
            else:
                number, first = head.number, head.last + 1
                places.append(first)
                rows += [(number, place, *entry) for place, entry in enumerate(entries, first)]
                head.last += len(entries)
        try:
            for count, values in split_rows(rows):
                self._run(f"INSERT INTO entries VALUES {write_values(count, 6)}", values)
        except apsw.ConstraintError as error:
            raise DuplicateRequest from error
        return places

    def find_places(self, asked: Sequence[tuple[ConversationId, MessageId, bytes]]) -> list[PlaceRecord | None]:
        heads = [self._find_head(name) for name, _, _ in asked]
        keys = [(head.number, ask[1]) for head, ask in zip(heads, asked, strict=True) if head is not None]
        found: dict[tuple[int, bytes], tuple[int, int, bytes]] = {}
        for count, values in split_rows(keys):
            rows = self._run(
                f"""WITH asked (number, id) AS (VALUES {write_values(count, 2)})
                SELECT number, id, sequence, received_at_ms, envelope
                FROM asked CROSS JOIN entries ON conversation = number AND message_id = id""",
                values,
            )
            found.update({(row[0], row[1]): row[2:] for row in rows})
        if not found:
            return [None] * len(asked)
        places: list[PlaceRecord | None] = []
        for head, (_, message_id, envelope) in zip(heads, asked, strict=True):
            place = found.get((head.number, message_id)) if head is not None else None
            places.append(PlaceRecord(place[0], place[1], place[2] == envelope) if place is not None else None)
        return places

    def find_place(self, conversation_id: ConversationId, message_id: MessageId, envelope: bytes) -> PlaceRecord | None:
        return self.find_places([(conversation_id, message_id, envelope)])[0]

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
            f"""INSERT INTO cursors (device_id, conversation, sequence)
            SELECT ?1, number, min(?3, {LAST_SEQUENCE}) FROM conversations WHERE conversation_id = ?2
              AND EXISTS (SELECT 1 FROM stays WHERE device_id = ?1 AND conversation = number)
            ON CONFLICT DO UPDATE SET sequence = max(sequence, excluded.sequence)""",
            [(device_id, conversation_id, sequence) for conversation_id, sequence in cursors.items()],
        )

    def _get_number(self, conversation_id: ConversationId) -> int:
        number = self._run("SELECT number FROM conversations WHERE conversation_id = ?", (conversation_id,)).get
        if number is None:
            raise NotFound
        return int(number)
