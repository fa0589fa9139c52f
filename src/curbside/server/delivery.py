"""Delivery: sends into logs, catch-up out of them, queues and cursors.

[Note: where the time goes] Sends of all connections gather while the last batch is being made durable; each batch is
one write: duplicates are found, each conversation's entries are appended together, the events are added, one fsync.
Then the senders hear Stored and the listeners get the entry, encoded once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from curbside.audit.events import AuditEvent, EventName, ObjectType, size_bucket
from curbside.clock import Clock
from curbside.errors import (
    ConflictError,
    CurbsideError,
    DuplicateRequest,
    EpochConflict,
    NotFound,
    PendingProposals,
    StaleEpoch,
    StoreUnavailable,
    UsageError,
)
from curbside.ids import ConversationId, DeviceId, MessageId, decode_id
from curbside.policy.access import Relation, Subject, check_access
from curbside.server.fanout import Fanout, Listener, PublishedEntry, encode_entry
from curbside.server.groups import GroupCache, SendView, check_envelope, check_epoch, is_id
from curbside.server.metrics import Metrics
from curbside.server.recording import About, Actor, Recorder
from curbside.server.restored import RestoredLogs
from curbside.server.store.ports import Change, Store, View
from curbside.server.store.records import EntryRecord, NewEntry, QueueRecord
from curbside.wire.frames import KIND_APPLICATION, Send, StoredItem
from curbside.wire.limits import FRAME_BYTES

BATCH_SENDS: Final = 512
CONVERSATIONS_PER_READ: Final = 256
READ_BYTES: Final = FRAME_BYTES // 2
"""Envelopes of one read of the log, the last one over it; with it an Entries frame stays within FRAME_BYTES."""


class SendSink(Listener, Protocol):
    """The connection that a send came on: it hears of it as Stored or Refused instead of as an entry."""

    def stored(self, item: StoredItem, conversation_id: ConversationId) -> None: ...

    def refused(self, request: int, error: CurbsideError) -> None: ...


@dataclass(slots=True)
class _Sending:
    """A send on its way. error: why it may not be stored, unless it was stored before (a retry)."""

    subject: Subject
    frame: Send
    sink: SendSink
    error: CurbsideError | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """sequence, received_at: of the stored entry, new or not; or why there is none."""

    sequence: int = 0
    received_at: int = 0
    is_new: bool = False
    error: CurbsideError | None = None


@dataclass(frozen=True, slots=True)
class Handed:
    """Entries of another node that a device here is about to get: first to last, both included."""

    subject: Subject
    conversation_id: ConversationId
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where a device stands in a conversation: all up to `after` was sent to it."""

    conversation_id: ConversationId
    after: int


@dataclass(frozen=True, slots=True)
class CatchUp:
    """An answer to positions. entries: in order of each conversation. sent: first and last of them, by conversation.

    reached: the new `after`. complete: nothing more was there. ended: no member now, and all was read.
    refused: conversations that the device never was in. ahead: those whose log, restored from a backup, ended before
    what the device has, and where.
    """

    entries: list[PublishedEntry] = field(default_factory=list)
    sent: dict[ConversationId, tuple[int, int]] = field(default_factory=dict)
    reached: dict[ConversationId, int] = field(default_factory=dict)
    complete: set[ConversationId] = field(default_factory=set)
    ended: set[ConversationId] = field(default_factory=set)
    refused: set[ConversationId] = field(default_factory=set)
    ahead: dict[ConversationId, int] = field(default_factory=dict)


class DeliveryService:
    """Called by the stream."""

    def __init__(self, store: Store, cache: GroupCache, fanout: Fanout, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._cache = cache
        self._fanout = fanout
        self._clock = clock
        self._metrics = metrics
        self._recorder = Recorder(clock)
        self._restored = RestoredLogs(store)
        self._waiting: list[_Sending] = []
        self._wake = asyncio.Event()
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work off sends; needs a running loop."""
        self._task = asyncio.create_task(self._run(), name="delivery")

    async def close(self) -> None:
        """Finish the sends that were accepted."""
        self._is_closed = True
        self._wake.set()
        if self._task is not None:
            await self._task

    @property
    def waiting(self) -> int:
        """Sends that wait for the next batch."""
        return len(self._waiting)

    # --- sends --------------------------------------------------------------------------------

    def submit(self, subject: Subject, frame: Send, sink: SendSink) -> None:
        """Take a send; the sink hears how it ended, after it is durable.

        Raises: StoreUnavailable once the service closes.
        """
        if self._is_closed:
            raise StoreUnavailable
        self._waiting.append(_Sending(subject, frame, sink))
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = self._waiting[:BATCH_SENDS]
                del self._waiting[:BATCH_SENDS]
                await self._settle(batch)
            if self._is_closed:
                return

    async def _settle(self, batch: list[_Sending]) -> None:
        """Decide, store and answer one batch; nothing it meets stops the next one."""
        try:
            for sending in batch:
                await self._check(sending)
            named = {ConversationId(sending.frame.conversation) for sending in batch}
            live = {name: self._fanout.list_live(name) for name in named}
            began = time.perf_counter()
            outcomes = await self._store.write(lambda tx: self._write_batch(tx, batch, live))
            self._metrics.write_seconds.observe(time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001  a mistake of ours must not end all sending
            shown = error if isinstance(error, CurbsideError) else UsageError()
            outcomes, live = [_Outcome(error=shown)] * len(batch), {}
        self._metrics.batch.observe(len(batch))
        for sending, outcome in zip(batch, outcomes, strict=True):
            self._answer(sending, outcome, live)

    async def _check(self, sending: _Sending) -> None:
        frame = sending.frame
        try:
            conversation_id = ConversationId(frame.conversation)
            view = self._cache.find_view(conversation_id) or await self._cache.get_view(conversation_id)
            if frame.epoch > view.epoch:  # another process moved the conversation on, or the sender is wrong
                self._cache.drop(conversation_id)
                view = await self._cache.get_view(conversation_id)
            self._check_with(sending, view)
        except CurbsideError as error:
            sending.error = error

    def _check_with(self, sending: _Sending, view: SendView) -> None:
        frame, subject = sending.frame, sending.subject
        relation = Relation.MEMBER if subject.device_id in view.leaves else Relation.NONE
        check_access("R-message-send", subject, relation)
        sending.epoch = view.epoch
        check_envelope(frame, decode_id(frame.conversation))
        check_epoch(frame, view)

    def _write_batch(
        self, tx: Change, batch: Sequence[_Sending], live: Mapping[ConversationId, frozenset[Listener]]
    ) -> list[_Outcome]:
        outcomes: list[_Outcome | None] = [None] * len(batch)
        fresh: dict[ConversationId, list[int]] = {}
        for index, sending in enumerate(batch):
            conversation_id = ConversationId(sending.frame.conversation)
            outcomes[index] = self._find_former(tx, sending)
            if outcomes[index] is None:
                fresh.setdefault(conversation_id, []).append(index)
        for conversation_id, indexes in fresh.items():
            self._append(tx, conversation_id, [(index, batch[index]) for index in indexes], outcomes)
        settled = [outcome for outcome in outcomes if outcome is not None]
        for sending, outcome in zip(batch, settled, strict=True):
            event = self._build_event(sending, outcome)
            if event is not None:
                tx.append_audit(event)
        for conversation_id, indexes in fresh.items():
            stored = [(batch[index].sink, settled[index].sequence) for index in indexes if settled[index].is_new]
            self._record_deliveries(tx, conversation_id, stored, live.get(conversation_id, frozenset()))
        return settled

    def _find_former(self, tx: Change, sending: _Sending) -> _Outcome | None:
        """How a retry ends, or a send that is refused; None for one that may be appended."""
        error = sending.error
        if error is None or isinstance(error, ConflictError | StaleEpoch):
            frame = sending.frame
            place = tx.delivery.find_place(
                ConversationId(frame.conversation), MessageId(frame.message_id), frame.envelope
            )
            if place is not None and not place.is_same:
                return _Outcome(error=DuplicateRequest())
            if place is not None:
                return _Outcome(place.sequence, place.received_at)
        return _Outcome(error=error) if error is not None else None

    def _append(
        self,
        tx: Change,
        conversation_id: ConversationId,
        sendings: Sequence[tuple[int, _Sending]],
        outcomes: list[_Outcome | None],
    ) -> None:
        now = self._clock.now_ms()
        first_of: dict[bytes, int] = {}
        entries: list[NewEntry] = []
        for index, sending in sendings:
            frame = sending.frame
            if frame.message_id not in first_of:
                first_of[frame.message_id] = index
                entries.append(NewEntry(KIND_APPLICATION, MessageId(frame.message_id), now, frame.envelope))
        epoch = sendings[0][1].epoch
        try:
            sequence = tx.delivery.append_entries(conversation_id, epoch, entries)
        except EpochConflict as conflict:
            error: CurbsideError = StaleEpoch(current_epoch=conflict.members["current_epoch"])
            outcomes_all = _Outcome(error=error)
        except PendingProposals as error:
            outcomes_all = _Outcome(error=error)
        else:
            for offset, index in enumerate(first_of.values()):
                outcomes[index] = _Outcome(sequence + offset, now, is_new=True)
            self._answer_twins(sendings, first_of, outcomes)
            return
        for index, _ in sendings:
            outcomes[index] = outcomes_all

    def _answer_twins(
        self, sendings: Sequence[tuple[int, _Sending]], first_of: Mapping[bytes, int], outcomes: list[_Outcome | None]
    ) -> None:
        """The same message id twice in one batch: the second is a retry of the first, or a misuse."""
        envelopes = {index: sending.frame.envelope for index, sending in sendings}
        for index, sending in sendings:
            first = first_of[sending.frame.message_id]
            stored = outcomes[first]
            if index != first and stored is not None:
                is_same = sending.frame.envelope == envelopes[first]
                outcomes[index] = (
                    _Outcome(stored.sequence, stored.received_at) if is_same else _Outcome(error=DuplicateRequest())
                )

    def _answer(self, sending: _Sending, outcome: _Outcome, live: Mapping[ConversationId, frozenset[Listener]]) -> None:
        frame, sink = sending.frame, sending.sink
        conversation_id = ConversationId(frame.conversation)
        if outcome.error is not None:
            if isinstance(outcome.error, StaleEpoch | PendingProposals) and sending.error is None:
                self._cache.drop(conversation_id)  # another process moved the conversation on
            self._metrics.refused.labels(outcome.error.code).inc()
            sink.refused(frame.request, outcome.error)
            return
        self._metrics.stored.inc()
        sink.stored(StoredItem(frame.request, outcome.sequence, outcome.received_at), conversation_id)
        if outcome.is_new:
            record = EntryRecord(
                conversation_id,
                outcome.sequence,
                KIND_APPLICATION,
                MessageId(frame.message_id),
                outcome.received_at,
                frame.envelope,
            )
            entry = PublishedEntry(conversation_id, outcome.sequence, encode_entry(record))
            self._fanout.publish(entry, live.get(conversation_id, frozenset()), sink)

    # --- audit --------------------------------------------------------------------------------

    def _build_event(self, sending: _Sending, outcome: _Outcome) -> AuditEvent | None:
        subject, frame = sending.subject, sending.frame
        if outcome.error is not None:
            return self._refuse(EventName.MESSAGE_REFUSED, "R-message-send", subject, frame.conversation, outcome.error)
        if not outcome.is_new:
            return None  # a retry is no second access
        return AuditEvent(
            at=outcome.received_at,
            name=EventName.MESSAGE_SENT,
            actor_user=subject.user_id,
            actor_device=subject.device_id,
            actor_role=subject.role,
            object_type=ObjectType.CONVERSATION,
            object_id=frame.conversation,
            extra={
                "epoch": sending.epoch,
                "sequence": outcome.sequence,
                "size_bucket": size_bucket(len(frame.envelope)),
            },
            rule="R-message-send",
        )

    def _refuse(
        self, name: EventName, rule: str, subject: Subject, conversation_id: str, error: CurbsideError
    ) -> AuditEvent:
        known = conversation_id if is_id(conversation_id) else ""
        about = About(name, rule, ObjectType.CONVERSATION if known else ObjectType.NONE, known)
        return self._recorder.refused(about, Actor.of(subject))(error)

    def _record_deliveries(
        self,
        tx: Change,
        conversation_id: ConversationId,
        stored: Sequence[tuple[Listener, int]],
        live: frozenset[Listener],
    ) -> None:
        """One event for each connected device that gets these entries, in the transaction that stores them.

        stored: who sent, and the sequence. A sender gets the others' entries only.
        """
        for listener in live:
            got = [sequence for sender, sequence in stored if sender is not listener]
            if got:
                tx.append_audit(self._build_delivery(listener.subject, conversation_id, got[0], got[-1]))

    def _build_delivery(self, subject: Subject, conversation_id: ConversationId, first: int, last: int) -> AuditEvent:
        return AuditEvent(
            at=self._clock.now_ms(),
            name=EventName.MESSAGE_DELIVERED,
            actor_user=subject.user_id,
            actor_device=subject.device_id,
            actor_role=subject.role,
            object_type=ObjectType.CONVERSATION,
            object_id=conversation_id,
            extra={"from_index": first, "to_index": last},
            rule="R-message-read",
        )

    # --- catch-up, queues, cursors ------------------------------------------------------------

    async def record_handed(self, handed: Sequence[Handed]) -> None:
        """One event for each device that gets entries which another node stored; durable on return."""
        events = [self._build_delivery(each.subject, each.conversation_id, each.first, each.last) for each in handed]
        if events:

            def change(tx: Change) -> None:
                for event in events:
                    tx.append_audit(event)

            await self._store.write(change)

    async def read_after(self, subject: Subject, positions: Sequence[Position], limit: int) -> CatchUp:
        """Entries after these positions that the device may read, at most `limit`; the events are durable on return.

        Conversations that were not reached because of the limit are left out of `reached`.
        """
        asked = positions[:CONVERSATIONS_PER_READ]
        ahead = await self._restored.find_ahead(subject.device_id, {each.conversation_id: each.after for each in asked})
        asked = [each for each in asked if each.conversation_id not in ahead]

        def question(view: View) -> CatchUp:
            return _read_after(view, subject.device_id, asked, limit)

        found = await self._store.read(question)
        found.ahead.update(ahead)
        events = [
            self._build_delivery(subject, conversation_id, first, last)
            for conversation_id, (first, last) in found.sent.items()
        ]
        events += [
            self._refuse(EventName.ACCESS_DENIED, "R-message-read", subject, name, NotFound()) for name in found.refused
        ]
        if events:

            def change(tx: Change) -> None:
                for event in events:
                    tx.append_audit(event)

            await self._store.write(change)
        return found

    async def read_queue(self, device_id: DeviceId, after: int, limit: int) -> list[QueueRecord]:
        """Queue items of the device after this position, in order."""

        def question(view: View) -> list[QueueRecord]:
            return view.delivery.read_queue(device_id, after, limit)

        return await self._store.read(question)

    async def acknowledge(self, device_id: DeviceId, cursors: Mapping[str, int], queue: int) -> None:
        """The device's own statement of progress; its queue items up to `queue` go."""
        known = {ConversationId(conversation_id): sequence for conversation_id, sequence in cursors.items()}

        def change(tx: Change) -> None:
            if known:
                tx.delivery.advance_cursors(device_id, known)
            if queue > 0:
                tx.delivery.delete_queue(device_id, queue)

        await self._store.write(change)


def _read_after(view: View, device_id: DeviceId, positions: Sequence[Position], limit: int) -> CatchUp:
    found, room = CatchUp(), _Room(limit, READ_BYTES)
    stays = view.delivery.list_stays(device_id, [position.conversation_id for position in positions])
    for position in positions:
        if room.is_used_up:
            break
        name = position.conversation_id
        if name not in stays:
            found.refused.add(name)
            continue
        record = view.delivery.find_conversation(name)
        if record is None:
            raise UsageError("a stay in a conversation that is not there")
        after = position.after
        for stay in stays[name]:
            after = max(after, stay.first_sequence - 1)
            through = record.last_sequence if stay.last_sequence is None else stay.last_sequence
            if after < through:
                after = _read_stay(view, Position(name, after), through, room, found)
            if after < through:
                break
        else:
            found.complete.add(name)
            if stays[name][-1].last_sequence is not None:
                found.ended.add(name)
        found.reached[name] = after
    return found


@dataclass(slots=True)
class _Room:
    """What one read may still bring. The first entry always fits."""

    entries: int
    size: int

    @property
    def is_used_up(self) -> bool:
        return self.entries <= 0 or self.size <= 0


def _read_stay(view: View, position: Position, through: int, room: _Room, found: CatchUp) -> int:
    """Add entries of one stay; the new `after`."""
    name, after = position.conversation_id, position.after
    if room.is_used_up:
        return after
    rows = view.delivery.read_entries(name, after, through, room.entries, room.size)
    if not rows:
        return after
    found.entries.extend(PublishedEntry(name, row.sequence, encode_entry(row)) for row in rows)
    first = found.sent.get(name, (rows[0].sequence, 0))[0]
    found.sent[name] = (first, rows[-1].sequence)
    room.entries -= len(rows)
    room.size -= sum(len(row.envelope) for row in rows)
    return rows[-1].sequence
