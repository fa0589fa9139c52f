"""The protocol between a transport and a stream: turns, holds, one write, endings. The transport is a list."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from typing import Any

import pytest

from curbside.errors import TooMany
from curbside.server.sockets import Hold, Socket
from curbside.server.websocket import FRAMES_A_TURN, WebSocketParts, WebSocketProtocol
from curbside.server.websocket_frames import encode_head

REQUEST = (
    b"GET /v1/stream HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)


class ListTransport(asyncio.Transport):
    """Keeps what is written, each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_reading = True
        self.is_over = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    abort = close


class Scribe:
    """A speaker that writes down what it hears into a book that others write in too."""

    def __init__(self, name: str, book: list[tuple[str, bytes | None]]) -> None:
        self.name = name
        self.book = book
        self.is_writable = 0
        self.is_lost = 0

    def opened(self) -> None:
        self.book.append((self.name, b"opened"))

    def received(self, message: bytes | None) -> None:
        self.book.append((self.name, message))

    def writable(self) -> None:
        self.is_writable += 1

    def lost(self) -> None:
        self.is_lost += 1


class Line:
    """One connection under test."""

    def __init__(self, name: str, book: list[tuple[str, bytes | None]], ping_seconds: float = 60.0) -> None:
        self.scribe = Scribe(name, book)
        self.buffer = memoryview(bytearray(2**20))
        self.connections: set[Any] = set()
        self.transport = ListTransport()
        self.protocol = WebSocketProtocol(
            WebSocketParts(self.admit, ping_seconds, self.buffer),
            self.connections,
        )
        self.protocol.connection_made(self.transport)
        self.protocol.data_received(REQUEST)
        self.transport.writes.clear()

    def admit(self, scope: Mapping[str, Any], socket: Socket) -> Scribe:
        return self.scribe

    def hear(self, data: bytes) -> None:
        """Bytes arrive."""
        self.protocol.get_buffer(-1)[: len(data)] = data
        self.protocol.buffer_updated(len(data))


def message(payload: bytes) -> bytes:
    """A client's message, masked with zeros."""
    head = bytearray(encode_head(len(payload)))
    head[1] |= 0x80
    return bytes(head) + bytes(4) + payload


@pytest.fixture
def book() -> list[tuple[str, bytes | None]]:
    return []


async def test_a_flood_waits_for_the_others_turn(book: list[tuple[str, bytes | None]]) -> None:
    flood, other = Line("flood", book), Line("other", book)
    book.clear()
    count = 10 * FRAMES_A_TURN
    flood.hear(b"".join(message(b"%d" % number) for number in range(count)))
    assert not flood.transport.is_reading
    other.hear(message(b"me too"))
    assert [name for name, _ in book] == ["flood"] * FRAMES_A_TURN + ["other"]
    for turn in range(1, 10):
        other.hear(message(b"again"))
        await asyncio.sleep(0)
        assert len(book) == (turn + 1) * (FRAMES_A_TURN + 1)
    await asyncio.sleep(0)
    assert [heard for name, heard in book if name == "flood"] == [b"%d" % number for number in range(count)]
    assert flood.transport.is_reading


async def test_what_is_held_is_read_later_and_in_order(book: list[tuple[str, bytes | None]]) -> None:
    line = Line("a", book)
    book.clear()
    line.protocol.hold(Hold.ROOM)
    line.protocol.hold(Hold.WORK)
    line.hear(message(b"1") + message(b"2"))
    assert (book, line.transport.is_reading) == ([], False)
    line.hear(message(b"3"))
    line.protocol.release(Hold.ROOM)
    await asyncio.sleep(0)
    assert book == []
    line.protocol.release(Hold.WORK)
    assert book == []
    await asyncio.sleep(0)
    assert book == [("a", b"1"), ("a", b"2"), ("a", b"3")]
    assert line.transport.is_reading


async def test_several_messages_are_one_write(book: list[tuple[str, bytes | None]]) -> None:
    line = Line("a", book)
    line.protocol.write((b"one", b"two" * 100))
    assert line.transport.writes == [b"\x82\x03one" + b"\x82\x7e" + struct.pack(">H", 300) + b"two" * 100]


async def test_a_speaker_hears_when_the_peer_reads_again(book: list[tuple[str, bytes | None]]) -> None:
    line = Line("a", book)
    line.protocol.pause_writing()
    assert not line.protocol.is_writable
    line.protocol.resume_writing()
    assert (line.protocol.is_writable, line.scribe.is_writable) == (True, 1)


async def test_nothing_is_read_or_written_after_the_close_frame(book: list[tuple[str, bytes | None]]) -> None:
    line = Line("a", book)
    book.clear()
    line.protocol.hold(Hold.ROOM)
    line.protocol.close(1008, "malformed")
    line.protocol.close(1000, "")
    line.protocol.write((b"late",))
    await asyncio.sleep(0)
    line.hear(message(b"late") + bytes((0x89, 0x80)) + bytes(4))
    assert line.transport.writes == [b"\x88\x0b\x03\xf0malformed"]
    assert (book, line.transport.is_over, line.transport.is_reading) == ([], False, True)
    line.hear(bytes((0x88, 0x80)) + bytes(4) + b"\xff" * 50)
    assert line.transport.is_over
    line.protocol.connection_lost(None)
    assert (line.scribe.is_lost, line.connections) == (1, set())


async def test_after_a_broken_frame_nothing_more_is_read(book: list[tuple[str, bytes | None]]) -> None:
    line = Line("a", book)
    book.clear()
    line.hear(b"\xff" * 100 + message(b"late"))
    line.hear(message(b"later"))
    await asyncio.sleep(0)
    assert (book, line.transport.writes) == ([], [b"\x88\x02\x03\xea"])
    line.protocol.connection_lost(None)
    assert line.scribe.is_lost == 1


async def test_a_refused_handshake_is_a_problem(book: list[tuple[str, bytes | None]]) -> None:
    class Full(Line):
        def admit(self, scope: Mapping[str, Any], socket: Socket) -> Scribe:
            raise TooMany(retry_after=5)

        def __init__(self) -> None:
            self.transport = ListTransport()
            parts = WebSocketParts(self.admit, 60.0, memoryview(bytearray(10)))
            self.connections = set()
            self.protocol = WebSocketProtocol(parts, self.connections)
            self.protocol.connection_made(self.transport)
            self.protocol.data_received(REQUEST)

    line = Full()
    (answer,) = line.transport.writes
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 5" in head
    assert b"content-length: %d" % len(body) in head
    assert b"urn:curbside:problem:too_many" in body
    assert line.transport.is_over
    line.protocol.connection_lost(None)
    assert line.connections == set()


async def test_uvicorn_may_end_it_at_any_time(book: list[tuple[str, bytes | None]]) -> None:
    line = Line("a", book)
    line.protocol.shutdown()
    assert line.transport.writes == [b"\x88\x02\x03\xe9"]
    early = WebSocketProtocol(WebSocketParts(line.admit, 60.0, line.buffer), set())
    transport = ListTransport()
    early.connection_made(transport)
    early.shutdown()
    assert transport.is_over
