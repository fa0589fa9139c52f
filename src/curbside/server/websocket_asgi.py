"""One WebSocket over ASGI, for whoever calls the application without our own server (the simulation, other servers)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final

from curbside.crypto.random import random_bytes
from curbside.errors import CurbsideError
from curbside.ids import encode_base64url
from curbside.server.problems import encode_problem
from curbside.server.sockets import Admit, Hold, Speaker
from curbside.server.websocket_frames import TOO_BIG

Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
SendEvent = Callable[[MutableMapping[str, Any]], Any]

CLOSE_SECONDS: Final = 3.0
HIGH_WATER: Final = 64 * 1024
"""Bytes that wait for `send`; above this the socket is not writable."""


async def serve_websocket(admit: Admit, scope: Scope, receive: Receive, send: SendEvent) -> None:
    """An ASGI WebSocket from its handshake to its end."""
    await receive()  # websocket.connect
    socket = AsgiSocket()
    try:
        speaker = admit(scope, socket)
    except CurbsideError as error:
        await refuse_handshake(scope, send, error)
        return
    await send({"type": "websocket.accept"})
    speaker.opened()
    try:
        await socket.run(speaker, receive, send)
    finally:
        speaker.lost()


async def refuse_handshake(scope: Scope, send: SendEvent, error: CurbsideError) -> None:
    """Answer the handshake with a problem, where the ASGI server can."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    status, headers, body = encode_problem(error, encode_base64url(random_bytes(16)))
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "websocket.http.response.start", "status": status, "headers": raw})
    await send({"type": "websocket.http.response.body", "body": body})


class AsgiSocket:
    """Implements Socket."""

    def __init__(self) -> None:
        self._limit = 0
        self._holds = Hold.NONE
        self._free = asyncio.Event()
        self._free.set()
        self._out: list[bytes] = []
        self._wake = asyncio.Event()
        self._closing: dict[str, Any] | None = None
        self._is_aborted = False
        self.is_writable = True

    def write(self, messages: Sequence[bytes]) -> None:
        if self._closing is None:
            self._out += messages
            self.is_writable = sum(map(len, self._out)) < HIGH_WATER
            self._wake.set()

    def allow(self, message_bytes: int) -> None:
        self._limit = message_bytes

    def hold(self, why: Hold) -> None:
        self._holds |= why
        self._free.clear()

    def release(self, why: Hold) -> None:
        self._holds &= ~why
        if not self._holds:
            self._free.set()

    def close(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = {"type": "websocket.close", "code": code, "reason": reason}
            self._wake.set()

    def abort(self) -> None:
        self._is_aborted = True
        self._wake.set()

    # --- the two directions ---------------------------------------------------------------------

    async def run(self, speaker: Speaker, receive: Receive, send: SendEvent) -> None:
        """Until either side has ended it."""
        writer = asyncio.create_task(self._write_all(speaker, send), name="websocket-write")
        reader = asyncio.create_task(self._read_all(speaker, receive), name="websocket-read")
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
            if self._closing is not None and not reader.done():
                await asyncio.wait({writer}, timeout=CLOSE_SECONDS)
        finally:
            writer.cancel()
            reader.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)

    async def _read_all(self, speaker: Speaker, receive: Receive) -> None:
        while True:
            await self._free.wait()
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            await self._free.wait()
            data = event.get("bytes")
            if data is not None and len(data) > self._limit > 0:
                self.close(TOO_BIG, "")
            if self._closing is None:
                speaker.received(None if data is None else bytes(data))

    async def _write_all(self, speaker: Speaker, send: SendEvent) -> None:
        try:
            while not self._is_aborted and (self._out or self._closing is None):
                await self._wake.wait()
                self._wake.clear()
                while self._out and not self._is_aborted:
                    out, self._out = self._out, []
                    for message in out:
                        await send({"type": "websocket.send", "bytes": message})
                    if not self.is_writable and sum(map(len, self._out)) < HIGH_WATER:
                        self.is_writable = True
                        speaker.writable()
            if self._closing is not None and not self._is_aborted:
                await send(self._closing)
        except (OSError, RuntimeError):
            return  # the peer was faster
