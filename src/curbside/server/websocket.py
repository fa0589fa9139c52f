"""One WebSocket straight on its transport: no task, queue or event for a message (docs/adr/0013).

uvicorn reads the HTTP request and hands the transport over. [Note: one buffer] The loop reads into a buffer that all
connections of a server share, because what was read is worked off before anything else is: an idle connection has none.

[Note: ends] After its close frame a connection reads on, without listening, until the peer's close frame comes or
CLOSE_SECONDS are over. Closing the socket earlier would make the kernel answer what the peer still sends with a reset,
which deletes our last frame on the peer's side before it was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final, cast

from websockets.http11 import Request
from websockets.server import ServerProtocol

from curbside.crypto.random import random_bytes
from curbside.errors import CurbsideError
from curbside.ids import encode_base64url
from curbside.server import websocket_frames as frames
from curbside.server.problems import encode_problem
from curbside.server.sockets import Admit, Hold, Speaker
from curbside.server.websocket_frames import FrameReader, Kind, Notice

CLOSE_SECONDS: Final = 3.0
"""A peer gets this long to hear why the connection ends."""
READ_BYTES: Final = 256 * 1024
FRAMES_A_TURN: Final = 32
"""Frames that one connection may bring before the others have their turn."""
FIRST_FRAME_BYTES: Final = 16 * 1024
"""The longest message until `allow` says otherwise."""


@dataclass(frozen=True, slots=True)
class WebSocketParts:
    """What all WebSockets of a server share. ping_seconds: silence after which a peer is asked whether it lives; after
    as much again it is gone."""

    admit: Admit
    ping_seconds: float
    buffer: memoryview


class _State(Enum):
    OPENING = auto()
    OPEN = auto()
    CLOSING = auto()


class WebSocketProtocol(asyncio.BufferedProtocol):
    """Implements Socket. uvicorn calls `connection_made` and `data_received` with the request, then the loop calls."""

    __slots__ = (
        "_closer",
        "_connections",
        "_heartbeat",
        "_holds",
        "_is_heard",
        "_is_pinged",
        "_is_reading",
        "_is_turn_due",
        "_parts",
        "_reader",
        "_speaker",
        "_state",
        "_transport",
        "is_writable",
    )

    def __init__(self, parts: WebSocketParts, connections: set[Any]) -> None:
        self._parts = parts
        self._connections = connections
        self._state = _State.OPENING
        self._reader = FrameReader(FIRST_FRAME_BYTES)
        self._speaker: Speaker | None = None
        self._transport: asyncio.Transport
        self._holds = Hold.NONE
        self._is_reading = True
        self._is_turn_due = False
        self._is_heard = True
        self._is_pinged = False
        self._heartbeat: asyncio.TimerHandle | None = None
        self._closer: asyncio.TimerHandle | None = None
        self.is_writable = True

    # --- the handshake --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """The request, as the HTTP side has read it."""
        library = ServerProtocol()
        library.receive_data(data)
        request = next((event for event in library.events_received() if isinstance(event, Request)), None)
        if request is None:
            self._transport.close()
            return
        response = library.accept(request)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            try:
                self._speaker = self._parts.admit(self._describe(request), self)
            except CurbsideError as error:
                self._refuse(error)
                return
        library.send_response(response)
        self._transport.write(b"".join(library.data_to_send()))
        if self._speaker is None:
            self._transport.close()
            return
        self._state = _State.OPEN
        self._heartbeat = asyncio.get_running_loop().call_later(self._parts.ping_seconds, self._beat)
        self._speaker.opened()

    def _describe(self, request: Request) -> dict[str, Any]:
        return {
            "path": request.path.partition("?")[0],
            "headers": [
                (name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()
            ],
            "client": self._transport.get_extra_info("peername"),
        }

    def _refuse(self, error: CurbsideError) -> None:
        status, headers, body = encode_problem(error, encode_base64url(random_bytes(16)))
        headers |= {"content-length": str(len(body)), "connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n"
        self._transport.write(head.encode("latin-1") + body)
        self._transport.close()

    # --- reading --------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._parts.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._is_heard = True
        self._reader.feed(self._parts.buffer[:nbytes])
        self._read()

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def _read(self) -> None:
        """Take what has come, one turn's worth."""
        reader = self._reader
        for _ in range(FRAMES_A_TURN):
            if self._holds:
                break
            message = reader.read()
            if message is None:
                break
            if type(message) is not bytes:
                self._notice(cast("Notice", message))
            elif self._state is _State.OPEN and self._speaker is not None:
                self._speaker.received(message)
        else:
            self.hold(Hold.TURN)
            self._plan_turn()
        reader.keep()
        self._steer()

    def _notice(self, notice: Notice) -> None:
        if notice.kind is Kind.BROKEN:
            self.close(notice.code, "")
            self._reader = _Deaf()
        elif notice.kind is Kind.CLOSE:
            self._answer_close(notice.code)
        elif self._state is not _State.OPEN or notice.kind is Kind.PONG:
            return
        elif notice.kind is Kind.PING:
            if self.is_writable:  # who does not read is owed no answers
                self._transport.write(frames.encode_pong(notice.data))
        elif self._speaker is not None:
            self._speaker.received(None)

    def _answer_close(self, code: int) -> None:
        if self._state is _State.OPEN:
            self.close(code, "")
        self._reader = _Deaf()
        self._transport.close()

    # --- who may speak when -----------------------------------------------------------------------

    def allow(self, message_bytes: int) -> None:
        self._reader.limit = message_bytes

    def hold(self, why: Hold) -> None:
        self._holds |= why

    def release(self, why: Hold) -> None:
        if self._holds & why:
            self._holds &= ~why
            if not self._holds:
                self._plan_turn()

    def _plan_turn(self) -> None:
        if not self._is_turn_due:
            self._is_turn_due = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_turn_due = False
        self._holds &= ~Hold.TURN
        if not self._transport.is_closing():
            self._read()

    def _steer(self) -> None:
        """Let the transport read if anybody listens."""
        if self._is_reading == bool(self._holds) and not self._transport.is_closing():
            self._is_reading = not self._is_reading
            if self._is_reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # --- writing ----------------------------------------------------------------------------------

    def write(self, messages: Sequence[bytes]) -> None:
        if self._state is _State.OPEN:
            parts: list[bytes] = []
            for message in messages:
                parts += (frames.encode_head(len(message)), message)
            self._transport.write(b"".join(parts))

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        if self._speaker is not None and self._state is _State.OPEN:
            self._speaker.writable()

    # --- the end ----------------------------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        if self._state is not _State.OPEN:
            return
        self._state = _State.CLOSING
        self._transport.write(frames.encode_close(code, reason))
        self._closer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.abort)
        self._holds = Hold.NONE
        self._plan_turn()

    def abort(self) -> None:
        self._transport.abort()

    def shutdown(self) -> None:
        """uvicorn asks all that is open to end."""
        if self._state is _State.OPEN:
            self.close(frames.GOING_AWAY, "")
        elif self._state is _State.OPENING:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        for timer in (self._heartbeat, self._closer):
            if timer is not None:
                timer.cancel()
        self._state = _State.CLOSING
        speaker, self._speaker = self._speaker, None
        if speaker is not None:
            speaker.lost()

    def _beat(self) -> None:
        """Now and then: has the peer been heard of?"""
        is_ours = bool(self._holds) and self.is_writable  # it could not be heard
        if self._state is not _State.OPEN:
            return
        if self._is_heard or is_ours:
            self._is_pinged = False
        elif self._is_pinged:
            self.abort()
            return
        else:
            self._is_pinged = True
            self._transport.write(frames.encode_ping())
        self._is_heard = False
        self._heartbeat = asyncio.get_running_loop().call_later(self._parts.ping_seconds, self._beat)


class _Deaf(FrameReader):
    """Reads nothing any more."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(0)

    def feed(self, data: memoryview) -> None:
        return

    def read(self) -> None:
        return None
