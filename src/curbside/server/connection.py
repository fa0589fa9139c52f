"""One device's connection: what waits to be sent, and where it stands in each conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from curbside.errors import CurbsideError, DuplicateRequest, NotFound, TooLarge
from curbside.ids import ConversationId
from curbside.policy.access import Subject
from curbside.server.config import Limits
from curbside.server.delivery import CatchUp, DeliveryService, Position
from curbside.server.fanout import Fanout, PublishedEntry
from curbside.server.groups import is_id
from curbside.server.problems import hide_internal
from curbside.server.sessions import Authenticated
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

SendEvent = Callable[[MutableMapping[str, Any]], Any]
CLOSE_SECONDS: Final = 2.0
"""A peer that does not read gets this long to hear why the connection ends."""
FRAME_ROOM: Final = sizes.FRAME_BYTES - 1024
QUEUE_ITEMS: Final = 8
ANSWERS_WAITING: Final = 1_024
"""Answers that a peer has not read; above this its frames wait."""
SIGNALS_WAITING: Final = 32
"""Typing and presence that a peer has not read; above this the next ones are lost to it."""
_POLICY_VIOLATION: Final = 1008
_GOING_AWAY: Final = 1001
_encoder: Final = msgspec.msgpack.Encoder()
_ENTRIES_HEAD: Final = b"\x92" + _encoder.encode("entries")
_SIGNALS_HEAD: Final = b"\x92" + _encoder.encode("signals")


@dataclass(slots=True)
class _Subscription:
    """sent: the last sequence handed to this connection. known: the last that is known to exist.

    is_behind: the next entries come from the log. own: sequences of its own sends, told as Stored.
    """

    sent: int
    known: int = 0
    is_behind: bool = True
    own: set[int] = field(default_factory=set)


class Connection:
    """Implements Listener and SendSink. `pump` is its only sender."""

    def __init__(
        self,
        session: Authenticated,
        delivery: DeliveryService,
        fanout: Fanout,
        send: SendEvent,
        limits: Limits,
    ) -> None:
        self.subject: Subject = session.subject
        self.expires_at = session.expires_at
        self.token_hash = session.token_hash
        self.stream = session.stream
        self._delivery = delivery
        self._fanout = fanout
        self._send = send
        self._limits = limits
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
        self._closing: Closing | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    # --- what the reader of frames does -------------------------------------------------------

    async def wait_for_room(self) -> None:
        """Until fewer sends are in flight, and fewer answers wait for the peer to read them, than are allowed."""
        await self._room.wait()

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
            self._fanout.subscribe(self, conversation_id)
        if len(self._subscriptions) > sizes.CURSORS_PER_SYNC:
            raise TooLarge(limit=sizes.CURSORS_PER_SYNC)
        self._queue_after = max(self._queue_after, frame.queue)
        self._is_queue_behind = True
        self._syncs += 1
        self._wake.set()

    def list_subscribed(self) -> list[ConversationId]:
        """Conversations that it hears of."""
        return list(self._subscriptions)

    # --- Listener and SendSink ----------------------------------------------------------------

    def stored(self, item: StoredItem, conversation_id: ConversationId) -> None:
        self._stored.append(item)
        self._end_flight()
        subscription = self._subscriptions.get(conversation_id)
        if subscription is not None:
            if not subscription.is_behind and item.sequence == subscription.sent + 1:
                subscription.sent = item.sequence
            elif item.sequence > subscription.sent:
                subscription.own.add(item.sequence)
                self._fall_behind(conversation_id, subscription, item.sequence)
        self._wake.set()

    def refused(self, request: int, error: CurbsideError) -> None:
        self._end_flight()
        self.refuse(request, error)

    def is_live(self, conversation_id: ConversationId) -> bool:
        subscription = self._subscriptions.get(conversation_id)
        return (
            subscription is not None
            and not subscription.is_behind
            and self._closing is None
            and self._entry_bytes < self._limits.pending_bytes
        )

    def offer(self, entry: PublishedEntry, is_live: bool) -> None:
        subscription = self._subscriptions.get(entry.conversation_id)
        if subscription is None or entry.sequence <= subscription.sent:
            return
        if is_live and not subscription.is_behind and entry.sequence == subscription.sent + 1:
            subscription.sent = entry.sequence
            self._entries.append(entry)
            self._entry_bytes += len(entry.encoded)
        else:
            self._fall_behind(entry.conversation_id, subscription, entry.sequence)
        self._wake.set()

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
            self._wake.set()

    def offer_signal(self, signal: bytes) -> None:
        if len(self._signals) < SIGNALS_WAITING:
            self._signals.append(signal)
            self._wake.set()

    def replace(self) -> None:
        self.close_with(Closing(DuplicateRequest.code, "a newer connection of this device took over", -1))

    def end(self, error: CurbsideError) -> None:
        shown = hide_internal(error)
        wait = int(shown.members.get("retry_after", 0)) * 1000 or (-1 if shown.retry == "never" else 1000)
        self.close_with(Closing(shown.code, shown.detail, wait))

    def close_with(self, closing: Closing) -> None:
        """End the connection with this frame; nothing else is sent any more."""
        if self._closing is None:
            self._closing = closing
        self._wake.set()

    # --- the sending side ---------------------------------------------------------------------

    async def pump(self) -> None:
        """Send what waits until the connection ends. Raises: CurbsideError from the store; OSError."""
        while self._closing is None:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()
            while self._closing is None and (self._behind or self._is_queue_behind):
                await self._catch_up()
                await self._flush()
            if self._closing is None and self._syncs:
                frames, self._syncs = self._syncs, 0
                for _ in range(frames):
                    await self._emit(_encoder.encode(CaughtUp()))
        await self._say_goodbye()

    async def _flush(self) -> None:
        while self._closing is None and (self._stored or self._entries or self._frames):
            if self._stored:
                items, self._stored = self._stored, []
                await self._emit(_encoder.encode(Stored(items)))
            frames, self._frames = self._frames, []
            for frame in frames:
                await self._emit(frame)
            self._count_room()
            if self._entries:
                part = self._take_part()
                self._entry_bytes -= sum(len(entry.encoded) for entry in part)
                await self._emit_entries(part)
        if self._signals:
            signals, self._signals = self._signals, []
            await self._emit(b"".join((_SIGNALS_HEAD, b"\xdc", len(signals).to_bytes(2, "big"), *signals)))

    def _take_part(self) -> list[PublishedEntry]:
        """The next entries that fit in one frame."""
        size = count = 0
        for entry in self._entries[: sizes.ENTRIES_PER_FRAME]:
            size += len(entry.encoded)
            if count and size > FRAME_ROOM:
                break
            count += 1
        part = self._entries[:count]
        del self._entries[:count]
        return part

    async def _catch_up(self) -> None:
        if self._is_queue_behind:
            await self._send_queue()
        if self._behind:
            positions = [Position(name, self._subscriptions[name].sent) for name in self._behind]
            found = await self._delivery.read_after(self.subject, positions, sizes.ENTRIES_PER_FRAME)
            await self._take_catch_up(found, {position.conversation_id: position.after for position in positions})

    async def _take_catch_up(self, found: CatchUp, asked: dict[ConversationId, int]) -> None:
        for name in found.refused:
            self._unsubscribe(name)
            self.refuse(0, NotFound(conversation=name))
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
        if fresh:
            await self._emit_entries(fresh)

    async def _send_queue(self) -> None:
        self._is_queue_behind = False
        items = await self._delivery.read_queue(self.subject.device_id, max(0, self._queue_after), QUEUE_ITEMS)
        if items:
            self._queue_after = items[-1].position
            self._is_queue_behind = len(items) == QUEUE_ITEMS
        for item in items:  # a Welcome may fill half a frame
            frame = QueueItem(item.position, item.kind, item.conversation_id, item.sequence, item.payload)
            await self._emit(_encoder.encode(QueueItems([frame])))

    async def _emit_entries(self, entries: Iterable[PublishedEntry]) -> None:
        encoded = [entry.encoded for entry in entries]
        await self._emit(b"".join((_ENTRIES_HEAD, b"\xdc", len(encoded).to_bytes(2, "big"), *encoded)))

    async def _emit(self, frame: bytes) -> None:
        if self._closing is None:
            await self._send({"type": "websocket.send", "bytes": frame})

    async def _say_goodbye(self) -> None:
        assert self._closing is not None
        code = _GOING_AWAY if self._closing.code == "draining" else _POLICY_VIOLATION
        async with asyncio.timeout(CLOSE_SECONDS):
            await self._send({"type": "websocket.send", "bytes": _encoder.encode(self._closing)})
            await self._send({"type": "websocket.close", "code": code, "reason": self._closing.code})

    # --- bookkeeping --------------------------------------------------------------------------

    def _put(self, frame: ServerFrame) -> None:
        self._frames.append(_encoder.encode(frame))
        self._count_room()
        self._wake.set()

    def _end_flight(self) -> None:
        self._in_flight -= 1
        self._count_room()

    def _count_room(self) -> None:
        waiting = len(self._frames) + len(self._stored)
        if self._in_flight < self._limits.requests_in_flight and waiting < ANSWERS_WAITING:
            self._room.set()
        else:
            self._room.clear()

    def _fall_behind(self, name: ConversationId, subscription: _Subscription, known: int) -> None:
        subscription.known = max(subscription.known, known)
        subscription.is_behind = True
        self._behind[name] = None
        self._wake.set()

    def _unsubscribe(self, name: ConversationId) -> None:
        self._fanout.unsubscribe(self, name)
        self._subscriptions.pop(name, None)
        self._behind.pop(name, None)

    def _drop_entries(self, name: ConversationId) -> None:
        if name in self._subscriptions and self._entries:
            self._entries = [entry for entry in self._entries if entry.conversation_id != name]
            self._entry_bytes = sum(len(entry.encoded) for entry in self._entries)
