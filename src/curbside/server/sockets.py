"""The two sides of an open WebSocket: what a stream may do to its socket, and what the socket tells the stream.

Implemented over a transport (websocket.py, the way of every real connection) and over ASGI (websocket_asgi.py). All of
it runs in one event loop, and no method blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntFlag, auto
from typing import Any, Protocol


class Hold(IntFlag):
    """Why no message is read for now."""

    NONE = 0
    WORK = auto()
    """The last one is still being worked on."""
    ROOM = auto()
    """Too much is in flight, or waits for the peer to read it."""
    TURN = auto()
    """It is the others' turn."""
    LEAVING = auto()
    """The connection is about to end."""


class Socket(Protocol):
    """One open WebSocket."""

    @property
    def is_writable(self) -> bool:
        """False while the peer reads slower than we write; `Speaker.writable` tells when that is over."""
        ...

    def write(self, messages: Sequence[bytes]) -> None:
        """Send binary messages, all in one write. Kept in memory for as long as the peer does not read."""
        ...

    def allow(self, message_bytes: int) -> None:
        """The longest message from now on."""
        ...

    def hold(self, why: Hold) -> None:
        """Read no more messages until everything that holds is released."""
        ...

    def release(self, why: Hold) -> None:
        """This reason is over. Messages come later, never out of this call."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Say good-bye; nothing is read or written any more, and `Speaker.lost` follows within CLOSE_SECONDS."""
        ...

    def abort(self) -> None:
        """End it now."""
        ...


class Speaker(Protocol):
    """Who talks on a socket. No method raises."""

    def opened(self) -> None:
        """The handshake is over."""
        ...

    def received(self, message: bytes | None) -> None:
        """A message came; None: one that is not binary."""
        ...

    def writable(self) -> None:
        """The peer has read enough."""
        ...

    def lost(self) -> None:
        """It is over. Told once, after `opened`."""
        ...


Admit = Callable[[Mapping[str, Any], Socket], Speaker]
"""Who will talk on a new socket. Given `path`, `headers` and `client` as in an ASGI scope.

Raises: CurbsideError, with which the handshake is refused.
"""
