"""Fan-out: which connections hear of which conversation's new entries. In memory, rebuilt by every Sync.

What happens here is told to the neighbours, the other nodes that serve the same database (server.nodes); what they tell
comes in by `offer`, `note` and the methods that end in `_here`, which tell nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from curbside.errors import CurbsideError
from curbside.ids import ConversationId, DeviceId
from curbside.policy.access import Subject
from curbside.server.store.records import EntryRecord
from curbside.wire.frames import Entry

EARLY_SECONDS: Final = 0.25
"""How long an entry waits for one before it, which another node stored, before the log is read."""


class Listener(Protocol):
    """A connection, as delivery sees it. No method blocks."""

    @property
    def subject(self) -> Subject: ...

    @property
    def token_hash(self) -> bytes:
        """Of the session that it lives by."""
        ...

    @property
    def stream(self) -> int:
        """Its number among the connections that this device ever had."""
        ...

    def is_live(self, conversation_id: ConversationId) -> bool:
        """Whether it has all entries so far, so that it takes the next one as it comes."""
        ...

    def find_sent(self, conversation_id: ConversationId) -> int | None:
        """The last sequence it was handed; None when it does not hear of the conversation."""
        ...

    def offer(self, entry: PublishedEntry, is_live: bool) -> None:
        """A new entry. is_live False: the listener must fetch it from the log itself."""
        ...

    def end_stay(self, conversation_id: ConversationId, last_sequence: int) -> None:
        """Its device may read through last_sequence and no further."""
        ...

    def offer_queue(self) -> None:
        """Something new is in its device's queue."""
        ...

    def offer_signal(self, signal: bytes) -> None:
        """Somebody's typing or presence, encoded (wire.frames.SignalItem); lost when the connection is busy."""
        ...

    def end(self, error: CurbsideError) -> None:
        """Close the connection, now, for this reason."""
        ...

    def replace(self) -> None:
        """Close the connection: its device has a newer one."""
        ...


@dataclass(frozen=True, slots=True)
class PublishedEntry:
    """A durable entry. encoded: the wire's Entry, encoded once for all who hear of it.

    is_handshake: a commit or a proposal; who hears of it reads it from the log, which knows whose right ends there.
    """

    conversation_id: ConversationId
    sequence: int
    encoded: bytes
    is_handshake: bool = False


_encoder: Final = msgspec.msgpack.Encoder()


def encode_entry(record: EntryRecord) -> bytes:
    """A log entry in its wire form; joined with others into an Entries frame."""
    return _encoder.encode(
        Entry(
            record.conversation_id,
            record.sequence,
            record.kind,
            record.message_id,
            record.received_at,
            record.envelope,
        )
    )


class Neighbours(Protocol):
    """The other nodes, as fan-out sees them. No method blocks; what cannot be told is found out in the store."""

    @property
    def is_heard(self) -> bool:
        """Whether an entry that is missing may be on its way from one of them."""
        ...

    def follow(self, conversation_id: ConversationId) -> None:
        """Somebody here hears of the conversation: tell us what others add to it."""
        ...

    def unfollow(self, conversation_id: ConversationId) -> None: ...

    def tell_entry(self, entry: PublishedEntry) -> None: ...

    def tell_queue(self, device_id: DeviceId) -> None: ...

    def tell_stream(self, device_id: DeviceId, stream: int) -> None:
        """The device's newest connection is here."""
        ...

    def tell_ended(self, device_id: DeviceId) -> None:
        """A session of the device, or the device itself, is over."""
        ...


class NoNeighbours:
    """One process serves everybody."""

    is_heard: Final = False

    def follow(self, conversation_id: ConversationId) -> None: ...

    def unfollow(self, conversation_id: ConversationId) -> None: ...

    def tell_entry(self, entry: PublishedEntry) -> None: ...

    def tell_queue(self, device_id: DeviceId) -> None: ...

    def tell_stream(self, device_id: DeviceId, stream: int) -> None: ...

    def tell_ended(self, device_id: DeviceId) -> None: ...


@dataclass(slots=True)
class _Audience:
    """Who hears of a conversation. known: the last sequence that this node saw for itself, in the store or in entries
    that it handed on; what others merely say is not known."""

    listeners: dict[Listener, None] = field(default_factory=dict)
    known: int = 0


class Fanout:
    """One connection a device; any number of listeners a conversation."""

    def __init__(self) -> None:
        self.neighbours: Neighbours = NoNeighbours()
        self._devices: dict[DeviceId, Listener] = {}
        self._conversations: dict[ConversationId, _Audience] = {}

    def __len__(self) -> int:
        return len(self._devices)

    # --- who listens --------------------------------------------------------------------------

    def register(self, listener: Listener) -> Listener | None:
        """Make it the device's connection; the one that it replaces, if any."""
        former = self._devices.get(listener.subject.device_id)
        self._devices[listener.subject.device_id] = listener
        self.neighbours.tell_stream(listener.subject.device_id, listener.stream)
        return former

    def forget(self, listener: Listener, conversation_ids: Iterable[ConversationId]) -> None:
        """The connection is over."""
        if self._devices.get(listener.subject.device_id) is listener:
            del self._devices[listener.subject.device_id]
        for conversation_id in conversation_ids:
            self.unsubscribe(listener, conversation_id)

    def subscribe(self, listener: Listener, conversation_id: ConversationId) -> None:
        """Hear of new entries from now on."""
        audience = self._conversations.get(conversation_id)
        if audience is None:
            audience = self._conversations[conversation_id] = _Audience()
            self.neighbours.follow(conversation_id)
        audience.listeners[listener] = None

    def unsubscribe(self, listener: Listener, conversation_id: ConversationId) -> None:
        """Hear of them no longer."""
        audience = self._conversations.get(conversation_id)
        if audience is not None:
            audience.listeners.pop(listener, None)
            if not audience.listeners:
                del self._conversations[conversation_id]
                self.neighbours.unfollow(conversation_id)

    def list_listeners(self) -> list[Listener]:
        """All connections."""
        return list(self._devices.values())

    def find_listener(self, device_id: DeviceId) -> Listener | None:
        """The device's connection to this node."""
        return self._devices.get(device_id)

    def list_audience(self, conversation_id: ConversationId) -> list[Listener]:
        """All connections that hear of the conversation."""
        audience = self._conversations.get(conversation_id)
        return list(audience.listeners) if audience is not None else []

    def list_conversations(self) -> list[ConversationId]:
        """Conversations that somebody here hears of."""
        return list(self._conversations)

    def find_known(self, conversation_id: ConversationId) -> int:
        """The last sequence of the conversation that this node saw for itself; 0 when nobody listens."""
        audience = self._conversations.get(conversation_id)
        return audience.known if audience is not None else 0

    def list_live(self, conversation_id: ConversationId) -> frozenset[Listener]:
        """Those who take the next entry as it comes: the delivery that the audit log is told of."""
        audience = self._conversations.get(conversation_id)
        if audience is None:
            return frozenset()
        return frozenset(listener for listener in audience.listeners if listener.is_live(conversation_id))

    # --- what happens here --------------------------------------------------------------------

    def publish(self, entry: PublishedEntry, live: frozenset[Listener], sender: Listener | None = None) -> None:
        """Offer a durable entry to all but its sender. live: what `list_live` answered before it was written."""
        self.offer(entry, live, sender)
        self.confirm(entry.conversation_id, entry.sequence)
        self.neighbours.tell_entry(entry)

    def end_stays(self, conversation_id: ConversationId, device_ids: Iterable[DeviceId], last_sequence: int) -> None:
        """These devices were removed from the conversation. Neighbours hear of the commit that did it."""
        for device_id in device_ids:
            listener = self._devices.get(device_id)
            if listener is not None:
                listener.end_stay(conversation_id, last_sequence)

    def offer_queue(self, device_id: DeviceId) -> None:
        """The device's queue has a new item."""
        self.offer_queue_here(device_id)
        self.neighbours.tell_queue(device_id)

    def end_device(self, device_id: DeviceId, error: CurbsideError) -> None:
        """Close the device's connection, if it has one; called when a device is revoked or signed out."""
        listener = self._devices.get(device_id)
        if listener is not None:
            listener.end(error)
        self.neighbours.tell_ended(device_id)

    # --- what neighbours did ------------------------------------------------------------------

    def offer(self, entry: PublishedEntry, live: frozenset[Listener], sender: Listener | None = None) -> None:
        """Offer an entry to the connections of this node."""
        audience = self._conversations.get(entry.conversation_id)
        if audience is None:
            return
        for listener in tuple(audience.listeners):
            if listener is not sender:
                listener.offer(entry, listener in live)

    def note(self, conversation_id: ConversationId, sequence: int) -> None:
        """The log is said to go on to `sequence`; who listens looks, and reads it from where they stand."""
        self.offer(PublishedEntry(conversation_id, sequence, b""), frozenset())

    def confirm(self, conversation_id: ConversationId, sequence: int) -> None:
        """The log does go on to `sequence`, and who listens knows of it."""
        audience = self._conversations.get(conversation_id)
        if audience is not None:
            audience.known = max(audience.known, sequence)

    def offer_queue_here(self, device_id: DeviceId) -> None:
        """The device's queue has a new item, if the device is connected to this node."""
        listener = self._devices.get(device_id)
        if listener is not None:
            listener.offer_queue()

    def end_older_here(self, device_id: DeviceId, stream: int) -> None:
        """The device has a connection of this number elsewhere; an older one here is over."""
        listener = self._devices.get(device_id)
        if listener is not None and listener.stream < stream:
            listener.replace()
