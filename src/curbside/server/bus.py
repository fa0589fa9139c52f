"""The bus: what carries messages between the nodes that serve one database.

It promises little on purpose: a message arrives at most once or twice, late, in any order, or never. Whoever hears one
looks at what it says and finds out the rest in the store; whoever hears nothing finds out in the store as well
(server.watch). So a bus that is slow, gone or lying costs time, never a message, and gives nobody a right.

Engines: `NoBus` here, for one node alone or for several that have only the store; `NatsBus` in server.bus_nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from curbside.ids import ConversationId, DeviceId, UserId
from curbside.server.fanout import PublishedEntry


class EntriesAdded(msgspec.Struct, array_like=True, frozen=True, tag="entries"):
    """A conversation's log goes on, without gaps from `first`. encoded: the wire's entries; fewer or none of them when
    they must be read from the log. last: sequence of the newest."""

    conversation: ConversationId
    first: int
    last: int
    encoded: list[bytes]
    is_handshake: bool


class QueueFilled(msgspec.Struct, array_like=True, frozen=True, tag="queue"):
    """The device's queue has something new."""

    device: DeviceId


class StreamOpened(msgspec.Struct, array_like=True, frozen=True, tag="stream"):
    """The device's newest connection has this number."""

    device: DeviceId
    number: int


class DeviceEnded(msgspec.Struct, array_like=True, frozen=True, tag="ended"):
    """A session of the device, or the device, is over: look it up."""

    device: DeviceId


class Signalled(msgspec.Struct, array_like=True, frozen=True, tag="signal"):
    """Somebody is typing or present. at: Unix milliseconds of the node where it was said."""

    conversation: ConversationId
    user: UserId
    device: DeviceId
    kind: int
    at: int


class Hello(msgspec.Struct, array_like=True, frozen=True, tag="hello"):
    """A node is there; said every second. is_leaving: for the last time."""

    node: str
    is_leaving: bool


BusMessage = EntriesAdded | QueueFilled | StreamOpened | DeviceEnded | Signalled | Hello
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[BusMessage]] = msgspec.msgpack.Decoder(BusMessage)


def encode_message(message: BusMessage) -> bytes:
    """A message's one form on the bus, before it is sealed."""
    return _encoder.encode(message)


def decode_message(data: bytes) -> BusMessage:
    """Raises: msgspec.MsgspecError, for what no node of this version says."""
    return _decoder.decode(data)


def build_entries_added(entry: PublishedEntry) -> EntriesAdded:
    """What the others hear of one entry."""
    encoded = [] if entry.is_handshake else [entry.encoded]
    return EntriesAdded(entry.conversation_id, entry.sequence, entry.sequence, encoded, entry.is_handshake)


class BusEars(Protocol):
    """Who hears. No method blocks or raises."""

    def heard(self, message: BusMessage) -> None: ...

    def followed(self, conversation_ids: Sequence[ConversationId]) -> None:
        """From now on their messages come; what was before may have been missed."""
        ...

    def missed(self) -> None:
        """Something was lost, nobody knows what."""
        ...


class Bus(Protocol):
    """An engine. `follow`, `unfollow` and `publish` never block and never raise."""

    @property
    def is_alone(self) -> bool:
        """Whether this node has the database for itself: there is nothing to say and nothing to find out."""
        ...

    @property
    def is_up(self) -> bool:
        """Whether messages go out and come in, as far as is known."""
        ...

    def start(self, ears: BusEars) -> None:
        """Begin to connect, in the background; needs a running loop."""
        ...

    async def close(self) -> None:
        """Send what waits, as far as that is quick, and disconnect."""
        ...

    def follow(self, conversation_id: ConversationId) -> None:
        """Hear of this conversation's messages."""
        ...

    def unfollow(self, conversation_id: ConversationId) -> None: ...

    def publish(self, message: BusMessage) -> None:
        """Tell the nodes that follow what the message is about. Dropped when the bus is down or too slow."""
        ...


class NoBus:
    """Nothing is carried. is_alone: no other node exists; else the others' work is found in the store alone."""

    is_up: Final = False

    def __init__(self, is_alone: bool = True) -> None:
        self._is_alone = is_alone

    @property
    def is_alone(self) -> bool:
        return self._is_alone

    def start(self, ears: BusEars) -> None: ...

    async def close(self) -> None: ...

    def follow(self, conversation_id: ConversationId) -> None: ...

    def unfollow(self, conversation_id: ConversationId) -> None: ...

    def publish(self, message: BusMessage) -> None: ...
