"""Delivery: sends into logs, catch-up out of them, queues and cursors.

[Note: where the time goes] Sends of all connections gather while the last batch is being made durable; each batch is
one write: all entries are appended with one call, which tells when one of them is there already, their audit events
share a leaf, one fsync. Then the senders hear Stored and the listeners get the entry, encoded once. What a send must
fulfil is looked at in one pass over the envelope's known bytes; only where that finds anything odd are the checks run
one by one, which know the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from curbside.audit.batch import READ_RULE, SEND_RULE
from curbside.audit.events import AuditEvent, EventName, ObjectType
from curbside.clock import Clock
from curbside.errors import (
    CurbsideError,
    DuplicateRequest,
    NotFound,
    PendingProposals,
    StaleEpoch,
    StoreUnavailable,
    UsageError,
)
from curbside.ids import ConversationId, DeviceId, MessageId, decode_id
from curbside.policy.access import Relation, Subject, check_access
from curbside.server.acknowledging import Acknowledgements
from curbside.server.fanout import Fanout, Listener, PublishedEntry, encode_entry
from curbside.server.groups import GroupCache, check_envelope, check_epoch, is_id
from curbside.server.metrics import Metrics
from curbside.server.recording import About, Actor, Recorder
from curbside.server.restored import RestoredLogs
from curbside.server.sending import (
    Live,
    Outcome,
    Placed,
    Sending,
    SendQueue,
    SendSink,
    append_fresh,
    build_delivered,
    find_former,
    list_delivered,
    list_sent,
    may_send,
)
from curbside.server.store.ports import Change, Store, View
from curbside.server.store.records import EntryRecord, QueueRecord
from curbside.wire.frames import KIND_APPLICATION, Send, StoredItem
from curbside.wire.limits import FRAME_BYTES

BATCH_SENDS: Final = 512
WRITES: Final = 3
"""How often a batch is tried: without asking for duplicates, then with, then once more, in case another process stored
one of its messages meanwhile."""
CONVERSATIONS_PER_READ: Final = 256
READ_BYTES: Final = FRAME_BYTES // 2
"""Envelopes of one read of the log, the last one over it; with it an Entries frame stays within FRAME_BYTES."""


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
        self._waiting = SendQueue()
        self._acks = Acknowledgements(store)
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
        self._waiting.append(Sending(subject, frame, sink))
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._settle(self._waiting.take(BATCH_SENDS))
            if self._is_closed:
                return

    async def _settle(self, batch: list[Sending]) -> None:
        """Decide, store and answer one batch; nothing it meets stops the next one."""
        live: dict[ConversationId, frozenset[Listener]] = {}
        outcomes: Sequence[Outcome]
        try:
            for sending in batch:
                view = self._cache.find_view(ConversationId(sending.frame.conversation))
                if view is None or not may_send(sending, view):
                    await self._check(sending)
            named = {ConversationId(sending.frame.conversation) for sending in batch}
            live.update({name: self._fanout.list_live(name) for name in named})
            began = time.perf_counter()
            outcomes = await self._write(batch, live)
            self._metrics.write_seconds.observe(time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001  a mistake of ours must not end all sending
            outcomes = [error if isinstance(error, CurbsideError) else UsageError()] * len(batch)
        self._metrics.batch.observe(len(batch))
        self._metrics.stored.inc(sum(isinstance(outcome, Placed) for outcome in outcomes))
        for sending, outcome in zip(batch, outcomes, strict=True):
            self._answer(sending, outcome, live)

    async def _check(self, sending: Sending) -> None:
        frame = sending.frame
        try:
            conversation_id = ConversationId(frame.conversation)
            view = self._cache.find_view(conversation_id) or await self._cache.get_view(conversation_id)
            if frame.epoch > view.epoch:  # another process moved the conversation on, or the sender is wrong
                self._cache.drop(conversation_id)
                view = await self._cache.get_view(conversation_id)
            relation = Relation.MEMBER if sending.subject.device_id in view.leaves else Relation.NONE
            check_access(SEND_RULE, sending.subject, relation)
            check_envelope(frame, decode_id(frame.conversation))
            check_epoch(frame, view)
        except CurbsideError as error:
            sending.error = error

    async def _write(self, batch: Sequence[Sending], live: Live) -> Sequence[Outcome]:
        """Retries are rare: that a message is in the log is found out when the log does not take it a second time. Then
        nothing of the batch was stored, and the next attempt asks first.

        Raises: what the store raises; DuplicateRequest when other processes again and again store the same.
        """
        with contextlib.suppress(DuplicateRequest):
            return await self._store.write(partial(self._write_batch, batch, live, False))
        for _ in range(WRITES - 2):
            with contextlib.suppress(DuplicateRequest):  # stored by another process after we asked
                return await self._store.write(partial(self._write_batch, batch, live, True))
        return await self._store.write(partial(self._write_batch, batch, live, True))

    def _write_batch(self, batch: Sequence[Sending], live: Live, asks_first: bool, tx: Change) -> Sequence[Outcome]:
        outcomes: list[Outcome | None] = [sending.error for sending in batch]
        fresh = find_former(tx, batch, outcomes, asks_first)
        now = self._clock.now_ms()
        stored = append_fresh(tx, batch, fresh, outcomes, now)
        settled = [UsageError() if outcome is None else outcome for outcome in outcomes]
        for sending, outcome in zip(batch, settled, strict=True):
            if isinstance(outcome, CurbsideError):
                name = sending.frame.conversation
                tx.append_audit(self._refuse(EventName.MESSAGE_REFUSED, SEND_RULE, sending.subject, name, outcome))
        if stored:
            tx.append_messages(list_sent(batch, settled, stored))
            tx.append_messages(list_delivered(batch, settled, stored, live))
        return settled

    def _answer(self, sending: Sending, outcome: Outcome, live: Live) -> None:
        frame, sink = sending.frame, sending.sink
        conversation_id = ConversationId(frame.conversation)
        if isinstance(outcome, CurbsideError):
            if isinstance(outcome, StaleEpoch | PendingProposals) and sending.error is None:
                self._cache.drop(conversation_id)  # another process moved the conversation on
            self._metrics.refused.labels(outcome.code).inc()
            sink.refused(frame.request, outcome)
            return
        sequence, received_at, is_new = outcome
        sink.stored(StoredItem(frame.request, sequence, received_at), conversation_id)
        if is_new:
            message_id = MessageId(frame.message_id)
            record = EntryRecord(conversation_id, sequence, KIND_APPLICATION, message_id, received_at, frame.envelope)
            entry = PublishedEntry(conversation_id, sequence, encode_entry(record))
            self._fanout.publish(entry, live.get(conversation_id, frozenset()), sink)

    # --- audit --------------------------------------------------------------------------------

    def _refuse(
        self, name: EventName, rule: str, subject: Subject, conversation_id: str, error: CurbsideError
    ) -> AuditEvent:
        known = conversation_id if is_id(conversation_id) else ""
        about = About(name, rule, ObjectType.CONVERSATION if known else ObjectType.NONE, known)
        return self._recorder.refused(about, Actor.of(subject))(error)

    # --- catch-up, queues, cursors ------------------------------------------------------------

    async def record_handed(self, handed: Sequence[Handed]) -> None:
        """One audit row for each device that gets entries which another node stored; durable on return."""
        now = self._clock.now_ms()
        rows = [build_delivered(now, each.subject, each.conversation_id, each.first, each.last) for each in handed]
        if rows:
            await self._store.write(lambda tx: tx.append_messages(rows))

    async def read_after(self, subject: Subject, positions: Sequence[Position], limit: int) -> CatchUp:
        """Entries after these positions that the device may read, at most `limit`; the events are durable on return.

        Conversations that were not reached because of the limit are left out of `reached`.
        """
        self._metrics.log_reads.inc()
        asked = positions[:CONVERSATIONS_PER_READ]
        ahead = await self._restored.find_ahead(subject.device_id, {each.conversation_id: each.after for each in asked})
        asked = [each for each in asked if each.conversation_id not in ahead]

        def question(view: View) -> CatchUp:
            return _read_after(view, subject.device_id, asked, limit)

        found = await self._store.read(question)
        found.ahead.update(ahead)
        now = self._clock.now_ms()
        rows = [build_delivered(now, subject, name, first, last) for name, (first, last) in found.sent.items()]
        events = [self._refuse(EventName.ACCESS_DENIED, READ_RULE, subject, name, NotFound()) for name in found.refused]
        if rows or events:

            def change(tx: Change) -> None:
                for event in events:
                    tx.append_audit(event)
                tx.append_messages(rows)

            await self._store.write(change)
        return found

    async def read_queue(self, device_id: DeviceId, after: int, limit: int) -> list[QueueRecord]:
        """Queue items of the device after this position, in order."""

        def question(view: View) -> list[QueueRecord]:
            return view.delivery.read_queue(device_id, after, limit)

        return await self._store.read(question)

    async def acknowledge(self, device_id: DeviceId, cursors: Mapping[str, int], queue: int) -> None:
        """The device's own statement of progress; its queue items up to `queue` go."""
        await self._acks.add(device_id, cursors, queue)


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
