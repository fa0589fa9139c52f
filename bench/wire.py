"""The load generator's side of the stream: as little work for each frame as Python allows, so that the server shows.

Speaks WebSocket by itself. It masks with the key 0, which changes no byte: the server unmasks all the same, and no
proxy is in between that a client would have to protect itself from.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from curbside.clock import SystemClock
from curbside.crypto.jose import ProofRequest, make_proof
from curbside.crypto.secret import SecretBytes
from curbside.mls.messages import APPLICATION, PrivateMessage, encode_message
from curbside.wire import frames

WAIT = 60.0
OPAQUE_BYTES = 1024
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[frames.ServerFrame] = msgspec.msgpack.Decoder(frames.ServerFrame)
_NO_MASK = bytes(4)


def make_envelope(group_id: bytes, message_id: bytes, epoch: int) -> bytes:
    """A PrivateMessage of 1 KiB of ciphertext that nobody can open: all that a server can check of it is right."""
    return encode_message(PrivateMessage(group_id, epoch, APPLICATION, message_id, bytes(28), bytes(OPAQUE_BYTES)))


@dataclass(frozen=True)
class Credentials:
    """What opens a stream: a session's token and the key that its proofs are by."""

    token: str
    key: SecretBytes


class RawStream(asyncio.Protocol):
    """One device's stream. Frames go to whoever waits in `next_frame`, then to `on_frame`, else they are kept."""

    def __init__(self) -> None:
        self.on_frame: Callable[[Any], None] | None = None
        self._buffer = bytearray()
        self._upgraded = False
        self._transport: asyncio.Transport
        self._waiting: asyncio.Future[Any] | None = None
        self._early: list[Any] = []
        self.closed = asyncio.get_running_loop().create_future()

    # --- what a device does ---------------------------------------------------------------------

    @classmethod
    async def open(cls, url: str, credentials: Credentials) -> RawStream:
        """Connect and authenticate. Raises: RuntimeError when the server does not want it."""
        host, _, port = url.removeprefix("http://").partition(":")
        _, stream = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        assert isinstance(stream, RawStream)
        stream._transport.write(
            f"GET /v1/stream HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        challenge = await stream.next_frame()
        wanted = ProofRequest("GET", f"{url}/v1/stream", SystemClock().now(), credentials.token, challenge.nonce)
        stream.send(frames.Authenticate(credentials.token, make_proof(credentials.key, wanted), frames.PROTOCOL))
        ready = await stream.next_frame()
        if not isinstance(ready, frames.Ready):
            raise RuntimeError(f"the server refused the stream: {ready}")
        return stream

    async def sync(self, cursors: dict[str, int], queue: int = 0) -> list[Any]:
        """Follow conversations; all frames up to CaughtUp."""
        self.send(frames.Sync(cursors, queue))
        found: list[Any] = []
        while not isinstance(frame := await self.next_frame(), frames.CaughtUp):
            found.append(frame)
        return found

    def send(self, frame: frames.ClientFrame) -> None:
        """Send one frame."""
        self.send_encoded(_encoder.encode(frame))

    def send_encoded(self, data: bytes) -> None:
        """Send one frame that is encoded already."""
        length = len(data)
        if length < 126:
            head = bytes((0x82, 0x80 | length))
        elif length < 65536:
            head = struct.pack(">BBH", 0x82, 0xFE, length)
        else:
            head = struct.pack(">BBQ", 0x82, 0xFF, length)
        self._transport.write(b"".join((head, _NO_MASK, data)))

    async def next_frame(self) -> Any:
        """The next frame; only while `on_frame` is not set."""
        if self._early:
            return self._early.pop(0)
        self._waiting = asyncio.get_running_loop().create_future()
        return await asyncio.wait_for(self._waiting, WAIT)

    async def close(self) -> None:
        """Hang up."""
        self._transport.close()
        await self.closed

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(RuntimeError("the server hung up"))

    def data_received(self, data: bytes) -> None:
        if self._upgraded and not self._buffer:
            used = self._take(data)
            if used < len(data):
                self._buffer += data[used:]
            return
        self._buffer += data
        if not self._upgraded:
            head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._transport.close()
                return
            self._upgraded, self._buffer = True, bytearray(rest)
        whole = bytes(self._buffer)
        del self._buffer[: self._take(whole)]

    def _take(self, data: bytes) -> int:
        """Take the whole frames off the front; how many bytes they were. A server does not mask."""
        at, end = 0, len(data)
        while end - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                start += 2
                length = int.from_bytes(data[at + 2 : start], "big") if start <= end else end
            elif length == 127:
                start += 8
                length = int.from_bytes(data[at + 2 : start], "big") if start <= end else end
            if start + length > end:
                break
            self._heard(data[at] & 15, data[start : start + length])
            at = start + length
        return at

    def _heard(self, opcode: int, body: bytes) -> None:
        if opcode == 9:
            self._transport.write(struct.pack(">BB", 0x8A, 0x80 | len(body)) + _NO_MASK + body)
        elif opcode == 8:
            self._transport.close()
        elif opcode == 2:
            frame = _decoder.decode(body)
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(frame)
            elif self.on_frame is not None:
                self.on_frame(frame)
            else:
                self._early.append(frame)
