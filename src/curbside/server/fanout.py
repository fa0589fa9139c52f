"""Fan-out: which connections hear of which conversation's new entries. In memory, rebuilt by every Sync."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from curbside.errors import CurbsideError
from curbside.ids import ConversationId, DeviceId
from curbside.policy.access import Subject
from curbside.server.store.records import EntryRecord, QueueRecord
from curbside.wire.frames import Entry


class Listener(Protocol):
    """A connection, as delivery sees it. No method blocks."""

    @property
    def subject(self) -> Subject: ...

    def is_live(self, conversation_id: ConversationId) -> bool:
        """Whether it has all entries so far, so that it takes the next one as it comes."""
        ...

    def offer(self, entry: PublishedEntry, is_live: bool) -> None:
        """A new entry. is_live False: the listener must fetch it from the log itself."""
        ...

    def end_stay(self, conversation_id: ConversationId, last_sequence: int) -> None:
        """Its device may read through last_sequence and no further."""
        ...

    def offer_queue(self, item: QueueRecord) -> None: ...

    def end(self, error: CurbsideError) -> None:
        """Close the connection, now, for this reason."""
        ...


@dataclass(frozen=True, slots=True)
class PublishedEntry:
    """A durable entry. encoded: the wire's Entry, encoded once for all who hear of it."""

    conversation_id: ConversationId
    sequence: int
    encoded: bytes


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


class Fanout:
    """One connection a device; any number of listeners a conversation."""

    def __init__(self) -> None:
        self._devices: dict[DeviceId, Listener] = {}
        self._conversations: dict[ConversationId, dict[Listener, None]] = {}

    def __len__(self) -> int:
        return len(self._devices)

    def register(self, listener: Listener) -> Listener | None:
        """Make it the device's connection; the one that it replaces, if any."""
        former = self._devices.get(listener.subject.device_id)
        self._devices[listener.subject.device_id] = listener
        return former

    def forget(self, listener: Listener, conversation_ids: Iterable[ConversationId]) -> None:
        """The connection is over."""
        if self._devices.get(listener.subject.device_id) is listener:
            del self._devices[listener.subject.device_id]
        for conversation_id in conversation_ids:
            self.unsubscribe(listener, conversation_id)

    def subscribe(self, listener: Listener, conversation_id: ConversationId) -> None:
        """Hear of new entries from now on."""
        self._conversations.setdefault(conversation_id, {})[listener] = None

    def unsubscribe(self, listener: Listener, conversation_id: ConversationId) -> None:
        """Hear of them no longer."""
        listeners = self._conversations.get(conversation_id)
        if listeners is not None:
            listeners.pop(listener, None)
            if not listeners:
                del self._conversations[conversation_id]

    def list_live(self, conversation_id: ConversationId) -> frozenset[Listener]:
        """Those who take the next entry as it comes: the delivery that the audit log is told of."""
        listeners = self._conversations.get(conversation_id, ())
        return frozenset(listener for listener in listeners if listener.is_live(conversation_id))

    def publish(self, entry: PublishedEntry, live: frozenset[Listener], sender: Listener | None = None) -> None:
        """Offer a durable entry to all but its sender. live: what `list_live` answered before it was written."""
        for listener in tuple(self._conversations.get(entry.conversation_id, ())):
            if listener is not sender:
                listener.offer(entry, listener in live)

    def end_stays(self, conversation_id: ConversationId, device_ids: Iterable[DeviceId], last_sequence: int) -> None:
        """These devices were removed from the conversation."""
        for device_id in device_ids:
            listener = self._devices.get(device_id)
            if listener is not None:
                listener.end_stay(conversation_id, last_sequence)

    def offer_queue(self, device_id: DeviceId, item: QueueRecord) -> None:
        """A new queue item, to the device if it is connected."""
        listener = self._devices.get(device_id)
        if listener is not None:
            listener.offer_queue(item)

    def end_device(self, device_id: DeviceId, error: CurbsideError) -> None:
        """Close the device's connection, if it has one; called when a device is revoked or signed out."""
        listener = self._devices.get(device_id)
        if listener is not None:
            listener.end(error)

    def list_listeners(self) -> list[Listener]:
        """All connections."""
        return list(self._devices.values())
