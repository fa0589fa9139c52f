"""Frames of the stream: one WebSocket per device, one MessagePack array per frame, `[tag, field, …]`.

Order on a connection:

    server  Challenge        a fresh nonce
    client  Authenticate     token and a proof (RFC 9449) over that nonce
    server  Ready
    client  Sync             where this device stands; may be sent again, for further conversations
    server  Entries*, QueueItems*, CaughtUp
    then, in any order:
    client  Send, Acknowledge, Signal
    server  Stored, Refused, Entries, QueueItems, Signals, Closing

A device receives live entries of exactly those conversations that it has named in a Sync. Its own sends come back
as Stored, not as Entries, on the connection that sent them; on any later Sync they are in the log like all others.
"""

from __future__ import annotations

from typing import Final

import msgspec

PROTOCOL: Final = 1

KIND_APPLICATION: Final = 0
KIND_COMMIT: Final = 1
KIND_PROPOSAL: Final = 2

QUEUE_WELCOME: Final = 0

SIGNAL_TYPING: Final = 0
SIGNAL_STOPPED: Final = 1
SIGNAL_HERE: Final = 2
SIGNAL_AWAY: Final = 3


class Challenge(msgspec.Struct, array_like=True, frozen=True, tag="challenge"):
    """Server's first frame. nonce: 32 bytes, used once. server_time: Unix milliseconds."""

    nonce: bytes
    server_time: int
    protocol: int


class Authenticate(msgspec.Struct, array_like=True, frozen=True, tag="auth"):
    """token: the session's token. proof: a DPoP JWT with htm GET, htu of the stream and claim nonce (base64url)."""

    token: str
    proof: str
    protocol: int


class Ready(msgspec.Struct, array_like=True, frozen=True, tag="ready"):
    """The connection is authenticated. session_expires_at: Unix seconds."""

    user_id: str
    device_id: str
    session_expires_at: int


class Sync(msgspec.Struct, array_like=True, frozen=True, tag="sync"):
    """cursors: last sequence number processed, by conversation (0 = from the start of what this device may read).
    queue: last queue position processed. An unknown conversation is answered with Refused(request=0)."""

    cursors: dict[str, int]
    queue: int


class Send(msgspec.Struct, array_like=True, frozen=True, tag="send"):
    """An application message. request: the client's number for the answer. message_id: 16 bytes, the same on a retry,
    and the authenticated data of the envelope. epoch: of the envelope. envelope: an MLSMessage (PrivateMessage)."""

    request: int
    conversation: str
    message_id: bytes
    epoch: int
    envelope: bytes


class Acknowledge(msgspec.Struct, array_like=True, frozen=True, tag="ack"):
    """Durably processed up to here: cursors by conversation, and the queue position (its items are then deleted)."""

    cursors: dict[str, int]
    queue: int


class Signal(msgspec.Struct, array_like=True, frozen=True, tag="signal"):
    """Typing (SIGNAL_TYPING, SIGNAL_STOPPED) or presence (SIGNAL_HERE, SIGNAL_AWAY) in a conversation that this
    connection has named in a Sync. Never answered, never stored; what comes too often, or is switched off, is dropped.
    Repeat it while it lasts: typing every 4 seconds, presence every 20."""

    conversation: str
    kind: int


class StoredItem(msgspec.Struct, array_like=True, frozen=True):
    """request: of the Send. sequence: its place in the log. received_at: Unix milliseconds."""

    request: int
    sequence: int
    received_at: int


class Stored(msgspec.Struct, array_like=True, frozen=True, tag="stored"):
    """These sends are durable."""

    items: list[StoredItem]


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One entry of a conversation's log. kind: KIND_*. message_id: 16 bytes. received_at: Unix milliseconds."""

    conversation: str
    sequence: int
    kind: int
    message_id: bytes
    received_at: int
    envelope: bytes


class Entries(msgspec.Struct, array_like=True, frozen=True, tag="entries"):
    """Log entries; each conversation's come in order and without gaps."""

    items: list[Entry]


class QueueItem(msgspec.Struct, array_like=True, frozen=True):
    """Addressed to this device alone. kind: QUEUE_*. sequence: of the commit that added the device; sync from there.
    payload: a Welcome (MLSMessage)."""

    position: int
    kind: int
    conversation: str
    sequence: int
    payload: bytes


class QueueItems(msgspec.Struct, array_like=True, frozen=True, tag="queue"):
    """Queue items in order of position."""

    items: list[QueueItem]


class SignalItem(msgspec.Struct, array_like=True, frozen=True):
    """Another member's Signal. kind: SIGNAL_*. lasts: milliseconds after which it is over unless it comes again; 0 with
    SIGNAL_STOPPED and SIGNAL_AWAY. The server says so; nothing in it is signed."""

    conversation: str
    user_id: str
    device_id: str
    kind: int
    lasts: int


class Signals(msgspec.Struct, array_like=True, frozen=True, tag="signals"):
    """What others do at this moment. Some may be lost."""

    items: list[SignalItem]


class CaughtUp(msgspec.Struct, array_like=True, frozen=True, tag="caught_up"):
    """All entries that were durable when the Sync arrived have been sent."""


class Refused(msgspec.Struct, array_like=True, frozen=True, tag="refused"):
    """A Send (or, with request 0, a Sync) was refused. code, detail, members: as in an RFC 9457 problem."""

    request: int
    code: str
    detail: str
    members: dict[str, str | int | list[str]]


class Closing(msgspec.Struct, array_like=True, frozen=True, tag="closing"):
    """The server ends the connection. code: a problem code (device_revoked, not_authenticated, malformed, too_large,
    too_many, duplicate_request: another connection of this device took over) or "draining". retry_after: milliseconds
    to wait before connecting again; -1: do not."""

    code: str
    detail: str
    retry_after: int


ClientFrame = Authenticate | Sync | Send | Acknowledge | Signal
ServerFrame = Challenge | Ready | Stored | Entries | QueueItems | Signals | CaughtUp | Refused | Closing
