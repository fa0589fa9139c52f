"""One device's connection: what waits to be sent, and where it stands in each conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from curbside.errors import CurbsideError, DuplicateRequest, LogRolledBack, NotFound, TooLarge, UsageError
from curbside.ids import ConversationId
from curbside.policy.access import Subject
from curbside.server.config import Limits
from curbside.server.delivery import CatchUp, DeliveryService, Position
from curbside.server.fanout import EARLY_SECONDS, Fanout, PublishedEntry
from curbside.server.flusher import Flusher
from curbside.server.groups import is_id
from curbside.server.problems import hide_internal
from curbside.server.sessions import Authenticated
from curbside.server.sockets import Hold, Socket
from curbside.server.websocket_frames import GOING_AWAY, INTERNAL_ERROR, POLICY_VIOLATION
from curbside.wire import limits as sizes
from curbside.wire.frames import (
    CaughtUp,
    Closing,
    QueueItem,
    QueueItems,
    Refused,
    ServerFrame,
    Stored,
    StoredItem,
    Sync,
)

FRAME_ROOM: Final = 128 * 1024
"""Bytes of entries in one frame. A peer on a slow line shows by its acknowledgements that it lives, frame by frame."""
QUEUE_ITEMS: Final = 8
ANSWERS_WAITING: Final = 1_024
"""Answers that a peer has not read; above this its frames wait."""
SIGNALS_WAITING: Final = 32
"""Typing and presence that a peer has not read; above this the next ones are lost to it."""
ANSWERS_PER_WRITE: Final = 256
EARLY_ENTRIES: Final = 512
"""Entries of a conversation that wait for one before them."""
ENTRIES_PER_READ: Final = 4 * sizes.ENTRIES_PER_FRAME
"""Entries of one look into the log: its audit events are one write."""
_encoder: Final = msgspec.msgpack.Encoder()
_SIGNALS_HEAD: Final = b"\x92" + _encoder.encode("signals") + b"\xdc"


@dataclass(frozen=True, slots=True)
class ConnectionParts:
    """What all connections share."""

    delivery: DeliveryService
    fanout: Fanout
    flusher: Flusher
    limits: Limits


@dataclass(slots=True)
class _Subscription:
    """sent: the last sequence handed to this connection. known: the last that is known to exist.

    is_behind: the next entries come from the log. own: sequences of its own sends, told as Stored. early: what this
    node stored or sent here while another node's entry that comes before it is on its way; None: an own send.
    """

    sent: int
    known: int = 0
    is_behind: bool = True
    own: set[int] = field(default_factory=set)
    early: dict[int, PublishedEntry | None] = field(default_factory=dict)
    is_timed: bool = False


class Connection:
    """Implements Listener, SendSink and Flushed. Live entries, answers and catch-up leave it through `flush`."""

    __slots__ = (
        "_behind",
        "_closing",
        "_drained",
        "_entries",
        "_entry_bytes",
        "_fail",
        "_frames",
        "_in_flight",
        "_is_due",
        "_is_full",
        "_is_queue_behind",
        "_leaving",
        "_parts",
        "_queue_after",
        "_signals",
        "_socket",
        "_stored",
        "_subscriptions",
        "_syncs",
        "_task",
        "expires_at",
        "stream",
        "subject",
        "token_hash",
    )

    def __init__(
        self, session: Authenticated, parts: ConnectionParts, socket: Socket, fail: Callable[[Exception], None]
    ) -> None:
        """fail: told of an error that ends the connection."""
        self.subject: Subject = session.subject
        self.expires_at = session.expires_at
        self.token_hash = session.token_hash
        self.stream = session.stream
        self._parts = parts
        self._socket = socket
        self._fail = fail
        self._subscriptions: dict[ConversationId, _Subscription] = {}
        self._behind: dict[ConversationId, None] = {}
        self._entries: list[PublishedEntry] = []
        self._entry_bytes = 0
        self._stored: list[StoredItem] = []
        self._frames: list[bytes] = []
        self._signals: list[bytes] = []
        self._queue_after = -1
        self._is_queue_behind = False
        self._syncs = 0
        self._in_flight = 0
        self._is_full = False
        self._is_due = False
        self._closing: Closing | None = None
        self._leaving: Closing | None = None
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    # --- what the reader of frames does -------------------------------------------------------

    def count_send(self) -> None:
        """A send was accepted and waits for its answer."""
        self._in_flight += 1
        self._count_room()

    def refuse(self, request: int, error: CurbsideError) -> None:
        """Answer a request that never was in flight."""
        shown = hide_internal(error)
        self._put(Refused(request, shown.code, shown.detail, shown.members))

    def sync(self, frame: Sync) -> None:
        """Start over from these cursors; what was named in earlier Syncs goes on.

        Raises: TooLarge when it follows more conversations than one Sync can name.
        """
        for name, cursor in frame.cursors.items():
            conversation_id = ConversationId(name)
            if not is_id(name):
                self.refuse(0, NotFound(conversation=name[: sizes.DISPLAY_NAME_CHARS]))
                continue
            self._drop_entries(conversation_id)
            self._subscriptions[conversation_id] = _Subscription(cursor)
            self._behind[conversation_id] = None
            self._parts.fanout.subscribe(self, conversation_id)
        if len(self._subscriptions) > sizes.CURSORS_PER_SYNC:
            raise TooLarge(limit=sizes.CURSORS_PER_SYNC)
        self._queue_after = max(self._queue_after, frame.queue)
        self._is_queue_behind = True
        self._syncs += 1
        self._plan()

    @property
    def backlog_bytes(self) -> int:
        """Live entries that wait for the peer to read."""
        return self._entry_bytes

    def list_subscribed(self) -> list[ConversationId]:
        """Conversations that it hears of."""
        return list(self._subscriptions)

    # --- Listener and SendSink ----------------------------------------------------------------

    def stored(self, item: StoredItem, conversation_id: ConversationId) -> None:
        self._stored.append(item)
        subscription = self._subscriptions.get(conversation_id)
        if subscription is not None and item.sequence > subscription.sent:
            self._take_next(conversation_id, subscription, item.sequence, None)
        self._end_flight()

    def refused(self, request: int, error: CurbsideError) -> None:
        self.refuse(request, error)
        self._end_flight()

    def is_live(self, conversation_id: ConversationId) -> bool:
        subscription = self._subscriptions.get(conversation_id)
        return (
            subscription is not None
            and not subscription.is_behind
            and self._closing is None
            and self._entry_bytes < self._parts.limits.pending_bytes
        )

    def offer(self, entry: PublishedEntry, is_live: bool) -> None:
        subscription = self._subscriptions.get(entry.conversation_id)
        if subscription is None or entry.sequence <= subscription.sent:
            return
        if is_live:
            self._take_next(entry.conversation_id, subscription, entry.sequence, entry)
        else:
            self._fall_behind(entry.conversation_id, subscription, entry.sequence)

    def find_sent(self, conversation_id: ConversationId) -> int | None:
        subscription = self._subscriptions.get(conversation_id)
        return subscription.sent if subscription is not None else None

    def end_stay(self, conversation_id: ConversationId, last_sequence: int) -> None:
        subscription = self._subscriptions.get(conversation_id)
        if subscription is not None:  # the log says where its right to read ends
            self._fall_behind(conversation_id, subscription, last_sequence)

    def offer_queue(self) -> None:
        if self._queue_after >= 0:
            self._is_queue_behind = True
            self._plan()

    def offer_signal(self, signal: bytes) -> None:
        if len(self._signals) < SIGNALS_WAITING:
            self._signals.append(signal)
            self._plan()

    def replace(self) -> None:
        self.close_with(Closing(DuplicateRequest.code, "a newer connection of this device took over", -1))

    def end(self, error: CurbsideError) -> None:
        self.close_with(build_closing(error))

    # --- endings ------------------------------------------------------------------------------

    def leave(self, closing: Closing) -> None:
        """Read no more, and end with this frame once everything in flight is answered."""
        self._leaving = closing
        self._socket.hold(Hold.LEAVING)
        if self._in_flight == 0:
            self.close_with(closing)

    def close_with(self, closing: Closing) -> None:
        """End the connection with this frame; nothing else is sent any more."""
        if self._closing is not None:
            return
        self._flush_ready()
        self._closing = closing
        self._socket.write((_encoder.encode(closing),))
        self._socket.close(choose_code(closing), closing.code)
        self.lost()

    def lost(self) -> None:
        """The peer is gone, or does not count any more."""
        for subscription in self._subscriptions.values():
            subscription.early.clear()
        if self._task is not None:
            self._task.cancel()

    # --- the sending side ---------------------------------------------------------------------

    def flush(self) -> None:
        self._is_due = False
        if self._closing is not None:
            return
        try:
            self._flush_ready()
        except Exception as error:  # noqa: BLE001  a mistake of ours ends this stream, and no other
            self._fail(error)
        if self._task is None and (self._behind or self._is_queue_behind or self._syncs):
            self._task = asyncio.create_task(self._read_log(), name="stream-catch-up")

    def writable(self) -> None:
        """The peer has read what had piled up."""
        self._plan()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    @property
    def _is_ready(self) -> bool:
        return bool(self._stored or self._frames or self._entries or self._signals)

    def _flush_ready(self) -> None:
        """Answers and live entries, as much as the peer takes."""
        while self._is_ready and self._socket.is_writable and self._closing is None:
            messages: list[bytes] = []
            if self._stored:
                items, self._stored = self._stored, []
                messages.append(_encoder.encode(Stored(items)))
            if self._frames:
                messages += self._frames[:ANSWERS_PER_WRITE]
                del self._frames[:ANSWERS_PER_WRITE]
            if self._entries:
                part, self._entries = _take_part(self._entries)
                self._entry_bytes -= sum([len(entry.encoded) for entry in part])
                messages.append(self._parts.flusher.join(part))
            if self._signals:
                signals, self._signals = self._signals, []
                messages.append(b"".join((_SIGNALS_HEAD, len(signals).to_bytes(2, "big"), *signals)))
            self._socket.write(messages)
            self._count_room()

    async def _read_log(self) -> None:
        """Send what is behind, then say so."""
        try:
            while self._closing is None and (self._behind or self._is_queue_behind):
                await self._wait_until_flushed()
                await self._catch_up()
            for _ in range(self._syncs):
                self._put(CaughtUp())
            self._syncs = 0
        except Exception as error:  # noqa: BLE001  a mistake of ours ends this stream, and no other
            self._fail(error)
        finally:
            self._task = None

    async def _wait_until_flushed(self) -> None:
        """Nothing waits any more: what comes next comes after it."""
        self._flush_ready()
        while self._closing is None and (self._is_ready or not self._socket.is_writable):
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
            self._drained = None
            self._flush_ready()

    async def _catch_up(self) -> None:
        if self._is_queue_behind:
            await self._send_queue()
        if self._behind and self._closing is None:
            for name in self._behind:  # what was said to exist before this look is found by it, or it does not exist
                self._subscriptions[name].known = 0
            positions = [Position(name, self._subscriptions[name].sent) for name in self._behind]
            found = await self._parts.delivery.read_after(self.subject, positions, ENTRIES_PER_READ)
            await self._take_catch_up(found, {position.conversation_id: position.after for position in positions})

    async def _take_catch_up(self, found: CatchUp, asked: dict[ConversationId, int]) -> None:
        for name in found.refused:
            self._unsubscribe(name)
            self.refuse(0, NotFound(conversation=name))
        for name, last in found.ahead.items():
            self._unsubscribe(name)
            self.refuse(0, LogRolledBack(conversation=name, last_sequence=last))
        fresh: list[PublishedEntry] = []
        for entry in found.entries:
            subscription = self._subscriptions.get(entry.conversation_id)
            if subscription is None or subscription.sent != asked[entry.conversation_id]:
                continue  # a Sync in between started over
            if entry.sequence not in subscription.own:
                fresh.append(entry)
        for name, reached in found.reached.items():
            subscription = self._subscriptions.get(name)
            if subscription is None or subscription.sent != asked[name]:
                continue
            subscription.sent = reached
            if name in found.ended:
                self._unsubscribe(name)
            elif name in found.complete and subscription.known <= reached:
                subscription.is_behind = False
                subscription.own.clear()
                del self._behind[name]
        while fresh:
            part, fresh = _take_part(fresh)
            await self._emit(self._parts.flusher.join(part))

    async def _send_queue(self) -> None:
        self._is_queue_behind = False
        device_id, after = self.subject.device_id, max(0, self._queue_after)
        items = await self._parts.delivery.read_queue(device_id, after, QUEUE_ITEMS)
        if items:
            self._queue_after = items[-1].position
            self._is_queue_behind = len(items) == QUEUE_ITEMS
        for item in items:  # a Welcome may fill half a frame
            frame = QueueItem(item.position, item.kind, item.conversation_id, item.sequence, item.payload)
            await self._emit(_encoder.encode(QueueItems([frame])))

    async def _emit(self, frame: bytes) -> None:
        """Send a frame now, before live entries that wait."""
        if self._closing is None:
            self._socket.write((frame,))
            while self._closing is None and not self._socket.is_writable:
                self._drained = asyncio.get_running_loop().create_future()
                await self._drained
                self._drained = None

    # --- the order of entries -----------------------------------------------------------------

    def _take_next(
        self, name: ConversationId, subscription: _Subscription, sequence: int, entry: PublishedEntry | None
    ) -> None:
        """Hand an entry on if it is the next; else it waits a moment for another node's, or the log is read."""
        early = subscription.early
        if not subscription.is_behind and sequence == subscription.sent + 1:
            self._hand(subscription, entry)
            while early and subscription.sent + 1 in early:
                self._hand(subscription, early.pop(subscription.sent + 1))
            return
        if entry is None:
            subscription.own.add(sequence)
        if subscription.is_behind or len(early) >= EARLY_ENTRIES or not self._parts.fanout.neighbours.is_heard:
            self._fall_behind(name, subscription, sequence)
            return
        early[sequence] = entry
        self._give_time(name, subscription)

    def _hand(self, subscription: _Subscription, entry: PublishedEntry | None) -> None:
        subscription.sent += 1
        if entry is None:
            subscription.own.discard(subscription.sent)
            return
        self._entries.append(entry)
        self._entry_bytes += len(entry.encoded)
        self._plan()

    def _give_time(self, name: ConversationId, subscription: _Subscription) -> None:
        if not subscription.is_timed:
            subscription.is_timed = True
            loop = asyncio.get_running_loop()
            loop.call_later(EARLY_SECONDS, self._end_time, name, subscription, subscription.sent)

    def _end_time(self, name: ConversationId, subscription: _Subscription, sent: int) -> None:
        subscription.is_timed = False
        if not subscription.early or self._subscriptions.get(name) is not subscription:
            return
        if subscription.sent > sent:  # it goes on
            self._give_time(name, subscription)
        else:
            self._fall_behind(name, subscription, max(subscription.early))

    # --- bookkeeping --------------------------------------------------------------------------

    def _plan(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._parts.flusher.plan(self)

    def _put(self, frame: ServerFrame) -> None:
        self._frames.append(_encoder.encode(frame))
        self._count_room()
        self._plan()

    def _end_flight(self) -> None:
        self._in_flight -= 1
        self._count_room()
        self._plan()
        if self._leaving is not None and self._in_flight == 0:
            self.close_with(self._leaving)

    def _count_room(self) -> None:
        waiting = len(self._frames) + len(self._stored)
        is_full = self._in_flight >= self._parts.limits.requests_in_flight or waiting >= ANSWERS_WAITING
        if is_full != self._is_full:
            self._is_full = is_full
            if is_full:
                self._socket.hold(Hold.ROOM)
            else:
                self._socket.release(Hold.ROOM)

    def _fall_behind(self, name: ConversationId, subscription: _Subscription, known: int) -> None:
        subscription.known = max(subscription.known, known, *subscription.early)
        subscription.early.clear()
        subscription.is_behind = True
        self._behind[name] = None
        self._plan()

    def _unsubscribe(self, name: ConversationId) -> None:
        self._parts.fanout.unsubscribe(self, name)
        self._subscriptions.pop(name, None)
        self._behind.pop(name, None)

    def _drop_entries(self, name: ConversationId) -> None:
        if name in self._subscriptions and self._entries:
            self._entries = [entry for entry in self._entries if entry.conversation_id != name]
            self._entry_bytes = sum(len(entry.encoded) for entry in self._entries)


def _take_part(entries: list[PublishedEntry]) -> tuple[list[PublishedEntry], list[PublishedEntry]]:
    """The next entries that fit in one frame, and the rest."""
    size = count = 0
    for entry in entries[: sizes.ENTRIES_PER_FRAME]:
        size += len(entry.encoded)
        if count and size > FRAME_ROOM:
            break
        count += 1
    return (entries, []) if count == len(entries) else (entries[:count], entries[count:])


def build_closing(error: CurbsideError) -> Closing:
    """How the peer hears of an error that ends its connection."""
    shown = hide_internal(error)
    wait = int(shown.members.get("retry_after", 0)) * 1000 or (-1 if shown.retry == "never" else 1000)
    return Closing(shown.code, shown.detail, wait)


def choose_code(closing: Closing) -> int:
    """The WebSocket's close code that goes with it."""
    if closing.code == "draining":
        return GOING_AWAY
    return INTERNAL_ERROR if closing.code == UsageError.code else POLICY_VIOLATION
