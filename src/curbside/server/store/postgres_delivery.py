"""Conversations, logs, memberships, queues and cursors in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from curbside.errors import CurbsideError, DuplicateRequest, EpochConflict, NotFound, PendingProposals
from curbside.ids import ConversationId, DeviceId, MessageId, UserId
from curbside.server.store.postgres_session import Row, Session, columns
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
_NUMBER = "(SELECT number FROM conversations WHERE conversation_id = %s)"
_APPEND = """
WITH locked AS (
    SELECT number FROM conversations WHERE conversation_id = %(name)s FOR NO KEY UPDATE{skip}
), place AS (
    UPDATE conversations SET last_sequence = last_sequence + %(count)s FROM locked
    WHERE conversations.number = locked.number AND epoch = %(epoch)s AND (waiting = 0 OR %(while_waiting)s)
    RETURNING conversations.number, last_sequence - %(count)s AS before
), stored AS (
    INSERT INTO entries (conversation, sequence, kind, message_id, received_at_ms, envelope)
    SELECT place.number, place.before + given.position, given.kind, given.message_id, given.at, given.envelope
    FROM place, unnest(%(kinds)s::bigint[], %(ids)s::bytea[], %(times)s::bigint[], %(envelopes)s::bytea[])
        WITH ORDINALITY AS given (kind, message_id, at, envelope, position)
    ON CONFLICT DO NOTHING
    RETURNING sequence
)
SELECT before + 1, (SELECT count(*) FROM stored) FROM place"""
"""One round trip: the conversation's row is locked, the places are taken, the entries stored."""
_LOCK = """
SELECT conversation_id, number, epoch, waiting, last_sequence FROM conversations
WHERE conversation_id = ANY(%s::text[]) ORDER BY number FOR NO KEY UPDATE{skip}"""
"""In one order for all, so that batches do not wait for each other in a circle."""
_FIND = """
SELECT conversation_id, message_id, sequence, received_at_ms, envelope
FROM unnest(%s::text[], %s::bytea[]) AS given (name, id)
    JOIN conversations ON conversation_id = given.name
    JOIN entries ON conversation = number AND message_id = given.id"""
_STORE = """
WITH moved AS (
    UPDATE conversations SET last_sequence = given.last
    FROM unnest(%s::bigint[], %s::bigint[]) AS given (number, last) WHERE conversations.number = given.number
)
INSERT INTO entries (conversation, sequence, kind, message_id, received_at_ms, envelope)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[], %s::bytea[])
ON CONFLICT DO NOTHING"""
_READ = f"""
SELECT sequence, kind, message_id, received_at_ms, envelope FROM (
    SELECT *, sum(octet_length(envelope)) OVER (ORDER BY sequence) - octet_length(envelope) AS bytes_before FROM (
        SELECT * FROM entries WHERE conversation = {_NUMBER} AND sequence > %s AND sequence <= %s
        ORDER BY sequence LIMIT %s
    ) AS wanted
) AS summed WHERE bytes_before < %s ORDER BY sequence"""

_Held = tuple[int, dict[ConversationId, list[int]]]
"""Conversations that a change has locked, as they are: the change's number, what `_hold` returns."""
_NOTHING: Final[_Held] = (0, {})


class PostgresDelivery:
    """Implements DeliveryChange (and so DeliveryView) on one connection."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._held = _NOTHING

    # --- conversations ------------------------------------------------------------------------

    def find_conversation(self, conversation_id: ConversationId) -> ConversationRecord | None:
        row = self._session.one(
            f"SELECT {_CONVERSATION} FROM conversations WHERE conversation_id = %s", (conversation_id,)
        )
        return ConversationRecord(*row) if row else None

    def list_conversations(self, device_id: DeviceId) -> list[ConversationRecord]:
        rows = self._session.all(
            """SELECT conversation_id, epoch, conversations.last_sequence, created_at, waiting
            FROM stays JOIN conversations ON number = conversation
            WHERE device_id = %s AND stays.last_sequence IS NULL ORDER BY number""",
            (device_id,),
        )
        return [ConversationRecord(*row) for row in rows]

    def count_conversations(self, device_id: DeviceId, limit: int) -> int:
        counted = "SELECT 1 FROM stays WHERE device_id = %s AND last_sequence IS NULL LIMIT %s"
        row = self._session.one(f"SELECT count(*) FROM ({counted}) AS present", (device_id, limit))
        return int(row[0]) if row else 0

    def list_left_behind(self, after: DeviceId, limit: int) -> list[tuple[DeviceId, UserId]]:
        rows = self._session.all(
            """SELECT device_id, user_id FROM devices WHERE revoked_at > 0 AND device_id > %s
            AND EXISTS (SELECT 1 FROM stays WHERE stays.device_id = devices.device_id AND last_sequence IS NULL)
            ORDER BY device_id LIMIT %s""",
            (after, limit),
        )
        return [(DeviceId(device), UserId(user)) for device, user in rows]

    def find_group_state(self, conversation_id: ConversationId) -> bytes | None:
        row = self._session.one("SELECT group_state FROM conversations WHERE conversation_id = %s", (conversation_id,))
        return row[0] if row else None

    def create_conversation(self, record: ConversationRecord, group_state: bytes) -> None:
        values = (
            record.conversation_id,
            record.epoch,
            record.last_sequence,
            record.created_at,
            record.waiting,
            group_state,
        )
        statement = f"""INSERT INTO conversations ({_CONVERSATION}, group_state)
            VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""
        if self._session.change(statement, values) != 1:
            raise DuplicateRequest

    def advance_epoch(self, conversation_id: ConversationId, epoch: int, group_state: bytes, waiting: int = 0) -> None:
        self._held = _NOTHING
        changed = self._session.change(
            "UPDATE conversations SET epoch = %s, group_state = %s, waiting = %s WHERE conversation_id = %s",
            (epoch, group_state, waiting, conversation_id),
        )
        if changed != 1:
            raise NotFound

    # --- the log ------------------------------------------------------------------------------

    def append_entries(
        self, conversation_id: ConversationId, epoch: int, entries: Sequence[NewEntry], while_waiting: bool = False
    ) -> int:
        values = {
            "name": conversation_id,
            "epoch": epoch,
            "while_waiting": while_waiting,
            "count": len(entries),
            "kinds": [entry.kind for entry in entries],
            "ids": [entry.message_id for entry in entries],
            "times": [entry.received_at for entry in entries],
            "envelopes": [entry.envelope for entry in entries],
        }
        self._held = _NOTHING
        statement = _APPEND.format(skip=self._choose_skip())
        rows = self._session.change_all(statement, values, alongside=True)
        if not rows:
            record = self.find_conversation(conversation_id)
            if record is None:
                raise NotFound
            if record.epoch != epoch:
                raise EpochConflict(current_epoch=record.epoch)
            if record.waiting and not while_waiting:
                raise PendingProposals
            self._session.ask_for_turn()  # another writer has it
        first, stored = rows[0]
        if stored != len(entries):
            raise DuplicateRequest
        return int(first)

    def append_batches(self, batches: Sequence[EntryBatch]) -> list[int | CurbsideError]:
        conversations = self._hold([batch.conversation_id for batch in batches])
        places: list[int | CurbsideError] = []
        moved: list[tuple[int, int]] = []
        rows: list[tuple[object, ...]] = []
        for batch in batches:
            number, epoch, waiting, last = conversations.get(batch.conversation_id, (0, 0, 0, 0))
            if not number:
                places.append(NotFound())
            elif epoch != batch.epoch:
                places.append(EpochConflict(current_epoch=epoch))
            elif waiting:
                places.append(PendingProposals())
            else:
                places.append(last + 1)
                moved.append((number, last + len(batch.entries)))
                rows += [
                    (number, place, entry.kind, entry.message_id, entry.received_at, entry.envelope)
                    for place, entry in enumerate(batch.entries, last + 1)
                ]
        self._held = _NOTHING
        if rows and self._session.change(_STORE, (*columns(moved, 2), *columns(rows, 6)), alongside=True) != len(rows):
            raise DuplicateRequest
        return places

    def find_places(self, asked: Sequence[tuple[ConversationId, MessageId, bytes]]) -> list[PlaceRecord | None]:
        if not asked:
            return []
        values = columns(asked, 3)[:2]
        found = self._session.all(_FIND, values) if self._session.is_reading else self._hold_and_find(values)
        places = {(name, message_id): place for name, message_id, *place in found}
        return [
            PlaceRecord(place[0], place[1], place[2] == envelope) if (place := places.get((name, message_id))) else None
            for name, message_id, envelope in asked
        ]

    def find_place(self, conversation_id: ConversationId, message_id: MessageId, envelope: bytes) -> PlaceRecord | None:
        row = self._session.one(
            f"""SELECT sequence, received_at_ms, envelope = %s::bytea FROM entries
            WHERE conversation = {_NUMBER} AND message_id = %s""",
            (envelope, conversation_id, message_id),
        )
        return PlaceRecord(*row) if row else None

    def read_entries(
        self, conversation_id: ConversationId, after: int, through: int, limit: int, most_bytes: int = 1 << 30
    ) -> list[EntryRecord]:
        rows = self._session.all(_READ, (conversation_id, after, through, limit, most_bytes))
        return [EntryRecord(conversation_id, *row) for row in rows]

    # --- memberships --------------------------------------------------------------------------

    def list_members(self, conversation_id: ConversationId) -> list[MemberRecord]:
        rows = self._session.all(
            f"SELECT {_STAY} FROM stays WHERE conversation = {_NUMBER} AND last_sequence IS NULL ORDER BY leaf",
            (conversation_id,),
        )
        return [MemberRecord(*row) for row in rows]

    def list_stays(
        self, device_id: DeviceId, conversation_ids: Iterable[ConversationId]
    ) -> dict[ConversationId, list[MemberRecord]]:
        asked = list(conversation_ids)
        rows = self._session.all(
            """SELECT conversation_id, device_id, user_id, leaf, first_sequence, stays.last_sequence
            FROM stays JOIN conversations ON number = conversation
            WHERE device_id = %s AND conversation_id = ANY(%s::text[]) ORDER BY first_sequence""",
            (device_id, asked),
        )
        found: dict[ConversationId, list[MemberRecord]] = {}
        for name, *stay in rows:
            found.setdefault(name, []).append(MemberRecord(*stay))
        return {name: found[name] for name in asked if name in found}

    def add_members(self, conversation_id: ConversationId, members: Sequence[MemberRecord]) -> None:
        number = self._get_number(conversation_id)
        rows = [(m.device_id, m.user_id, m.leaf, m.first_sequence, m.last_sequence) for m in members]
        self._session.change(
            f"""INSERT INTO stays (conversation, {_STAY})
            SELECT %s, given.*
            FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[]) AS given""",
            (number, *columns(rows, 5)),
        )

    def end_members(self, conversation_id: ConversationId, device_ids: Iterable[DeviceId], last_sequence: int) -> None:
        number = self._get_number(conversation_id)
        self._session.change(
            """UPDATE stays SET last_sequence = %s
            WHERE conversation = %s AND device_id = ANY(%s::text[]) AND last_sequence IS NULL""",
            (last_sequence, number, list(device_ids)),
        )

    # --- queues and cursors -------------------------------------------------------------------

    def read_queue(self, device_id: DeviceId, after: int, limit: int) -> list[QueueRecord]:
        rows = self._session.all(
            """SELECT position, kind, conversation_id, sequence, payload FROM queue_items
            WHERE device_id = %s AND position > %s ORDER BY position LIMIT %s""",
            (device_id, after, limit),
        )
        return [QueueRecord(*row) for row in rows]

    def add_queue_items(self, items: Sequence[NewQueueItem]) -> list[int]:
        rows = [(item.device_id, item.kind, item.conversation_id, item.sequence, item.payload) for item in items]
        positions = self._session.change_all(
            """INSERT INTO queue_items (device_id, kind, conversation_id, sequence, payload)
            SELECT given.device_id, given.kind, given.name, given.sequence, given.payload
            FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bigint[], %s::bytea[])
                WITH ORDINALITY AS given (device_id, kind, name, sequence, payload, number)
            ORDER BY given.number RETURNING position""",
            columns(rows, 5),
        )
        return sorted(row[0] for row in positions)

    def delete_queue(self, device_id: DeviceId, through: int) -> None:
        self._session.change(
            "DELETE FROM queue_items WHERE device_id = %s AND position <= %s", (device_id, through), alongside=True
        )

    def list_cursors(self, device_id: DeviceId) -> dict[ConversationId, int]:
        rows = self._session.all(
            """SELECT conversation_id, sequence FROM cursors JOIN conversations ON number = conversation
            WHERE device_id = %s""",
            (device_id,),
        )
        return {row[0]: row[1] for row in rows}

    def advance_cursors(self, device_id: DeviceId, cursors: Mapping[ConversationId, int]) -> None:
        self._session.change(
            """INSERT INTO cursors (device_id, conversation, sequence)
            SELECT %(device)s, number, least(given.sequence, last_sequence)
            FROM unnest(%(names)s::text[], %(sequences)s::bigint[]) AS given (name, sequence)
                JOIN conversations ON conversation_id = given.name
            WHERE EXISTS (SELECT 1 FROM stays WHERE device_id = %(device)s AND conversation = number)
            ORDER BY number
            ON CONFLICT (device_id, conversation)
                DO UPDATE SET sequence = greatest(cursors.sequence, excluded.sequence)""",
            {"device": device_id, "names": list(cursors), "sequences": list(cursors.values())},
            alongside=True,
        )

    def _hold(self, names: list[ConversationId]) -> dict[ConversationId, list[int]]:
        """Lock these conversations: number, epoch, waiting and last sequence of those that are there."""
        change, held = self._held
        if change == self._session.change_number and all(name in held for name in names):
            return held
        found = self._session.change_all(_LOCK.format(skip=self._choose_skip()), (names,), alongside=True)
        return self._keep(names, found)

    def _hold_and_find(self, values: list[list[Any]]) -> list[Row]:
        """Lock the conversations, so that what is not there now is not there when it is appended."""
        names = list(set(values[0]))
        held, found = self._session.lock_and_look(_LOCK.format(skip=self._choose_skip()), (names,), _FIND, values)
        self._held = self._session.change_number, self._keep(names, held)
        return found

    def _keep(self, names: list[ConversationId], found: list[Row]) -> dict[ConversationId, list[int]]:
        if len(found) < len(names):
            there = self._session.one(
                "SELECT count(*) FROM conversations WHERE conversation_id = ANY(%s::text[])", (names,)
            )
            if there is not None and there[0] > len(found):
                self._session.ask_for_turn()  # another writer has one of them
        return {name: rest for name, *rest in found}

    def _choose_skip(self) -> str:
        return "" if self._session.may_wait_for_rows() else " SKIP LOCKED"

    def _get_number(self, conversation_id: ConversationId) -> int:
        row = self._session.one("SELECT number FROM conversations WHERE conversation_id = %s", (conversation_id,))
        if row is None:
            raise NotFound
        return int(row[0])
