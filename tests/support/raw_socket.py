"""A WebSocket client that can do everything a client must not: frames are written byte by byte as a test wants them."""

from __future__ import annotations

import asyncio
import ssl
import struct
from dataclasses import dataclass
from typing import Any

import msgspec
from running import WAIT, Person, Running

from curbside.crypto.jose import ProofRequest, make_proof
from curbside.wire import frames

MASK = b"\x0f\xf0\x55\xaa"
_DECODER: msgspec.msgpack.Decoder[frames.ServerFrame] = msgspec.msgpack.Decoder(frames.ServerFrame)


def make_frame(first: int, payload: bytes = b"", mask: bytes | None = MASK) -> bytes:
    """A frame. first: its first byte, 0x82 for a binary message."""
    length, flag = len(payload), 0 if mask is None else 0x80
    if length < 126:
        head = bytes((first, flag | length))
    elif length < 0x10000:
        head = struct.pack(">BBH", first, flag | 126, length)
    else:
        head = struct.pack(">BBQ", first, flag | 127, length)
    if mask is None:
        return head + payload
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")


@dataclass
class RawSocket:
    """One connection to a running server's port."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def dial(cls, running: Running, trust: ssl.SSLContext | None = None) -> RawSocket:
        """A connection, and nothing said on it. trust: for TLS."""
        return cls(*await asyncio.open_connection("127.0.0.1", running.config.port, limit=2**22, ssl=trust))

    async def ask(self, running: Running, path: str = "/v1/stream", **changes: str | None) -> int:
        """Ask for a WebSocket; the answer's status. changes: headers in other words, None for without."""
        headers: dict[str, str | None] = {
            "host": running.config.public_urls[0].partition("://")[2],
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "sec-websocket-version": "13",
        }
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value is not None)
        self.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT)
        return int(head.split()[1])

    @classmethod
    async def open(cls, running: Running) -> RawSocket:
        """A WebSocket that has proven nothing; the challenge is still to be read."""
        socket = await cls.dial(running)
        assert await socket.ask(running) == 101
        return socket

    @classmethod
    async def prove(cls, person: Person) -> RawSocket:
        """An authenticated stream."""
        socket = await cls.open(person.running)
        challenge = await socket.receive()
        wanted = ProofRequest(
            "GET", person.running.url + "/v1/stream", person.running.clock.now(), person.token, challenge.nonce
        )
        proof = make_proof(person.newcomer.api_key, wanted)
        socket.send(frames.Authenticate(person.token, proof, frames.PROTOCOL))
        assert isinstance(await socket.receive(), frames.Ready)
        return socket

    def write(self, data: bytes) -> None:
        """Bytes as they are."""
        self.writer.write(data)

    def send(self, *sent: frames.ClientFrame) -> None:
        """Frames of the stream, in one write."""
        self.write(b"".join(make_frame(0x82, msgspec.msgpack.encode(frame)) for frame in sent))

    async def read_frame(self) -> tuple[int, bytes]:
        """The next frame: its first byte and its payload. Raises: IncompleteReadError at the end of the connection."""
        async with asyncio.timeout(WAIT):
            first, length = await self.reader.readexactly(2)
            assert length < 128, "a server does not mask"
            if length > 125:
                length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
            return first, await self.reader.readexactly(length)

    async def receive(self) -> Any:
        """The next frame of the stream."""
        first, payload = await self.read_frame()
        assert first == 0x82, (first, payload)
        return _DECODER.decode(payload)

    async def read_close(self) -> int:
        """The code of the server's close frame, whatever comes before it."""
        while True:
            first, payload = await self.read_frame()
            if first == 0x88:
                return int.from_bytes(payload[:2], "big") if payload else 1005

    async def read_end(self) -> bytes:
        """All bytes up to the end of the connection."""
        return await asyncio.wait_for(self.reader.read(), WAIT)

    async def close(self) -> None:
        """Hang up."""
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except OSError:
            return
