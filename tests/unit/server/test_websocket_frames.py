"""The frame reader against the rules of RFC 6455, against random bytes, and against the `websockets` package."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from curbside.server.websocket_frames import (
    BAD_TEXT,
    PROTOCOL_ERROR,
    TOO_BIG,
    FrameReader,
    Kind,
    Notice,
    encode_close,
    encode_head,
    encode_ping,
    encode_pong,
)

LIMIT = 70_000
MASK = b"\x11\x22\x33\x44"
BROKEN = Notice(Kind.BROKEN, code=PROTOCOL_ERROR)
TOO_LONG = Notice(Kind.BROKEN, code=TOO_BIG)


def frame(first: int, payload: bytes = b"", mask: bytes | None = MASK, size: int = 0) -> bytes:
    """A client's frame. first: its first byte. size: bytes of the extended length, whatever the length needs."""
    length = len(payload)
    size = size or (0 if length < 126 else 2 if length < 0x10000 else 8)
    flag = 0x80 if mask is not None else 0
    head = bytes((first, flag | (length if size == 0 else 126 if size == 2 else 127)))
    head += length.to_bytes(size, "big") if size else b""
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def read_all(reader: FrameReader, *parts: bytes) -> Iterator[bytes | Notice]:
    """What comes of bytes that arrive in these parts, up to the first BROKEN."""
    for part in parts:
        buffer = bytearray(part)
        reader.feed(memoryview(buffer))
        while (message := reader.read()) is not None:
            yield message
            if isinstance(message, Notice) and message.kind is Kind.BROKEN:
                return
        reader.keep()
        buffer[:] = bytes(len(buffer))  # the buffer is another connection's now


def messages(*parts: bytes, limit: int = LIMIT) -> list[bytes | Notice]:
    """The same, from a new reader."""
    return list(read_all(FrameReader(limit), *parts))


# --- what is right --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, LIMIT])
def test_a_message_of_any_length(length: int) -> None:
    payload = bytes(at % 251 for at in range(length))
    assert messages(frame(0x82, payload)) == [payload]
    assert messages(frame(0x82, payload, mask=bytes(4))) == [payload]


def test_many_messages_in_one_read_and_one_in_many() -> None:
    stream = b"".join(frame(0x82, bytes([number]) * number) for number in range(200))
    expected = [bytes([number]) * number for number in range(200)]
    assert messages(stream) == expected
    assert messages(*(bytes([byte]) for byte in stream)) == expected


def test_fragments_with_control_frames_in_between() -> None:
    stream = (
        frame(0x02, b"one ")
        + frame(0x89, b"alive?")
        + frame(0x00, b"")
        + frame(0x00, b"two ")
        + frame(0x8A)
        + frame(0x80, b"three")
        + frame(0x82, b"next")
    )
    assert messages(stream) == [Notice(Kind.PING, b"alive?"), Notice(Kind.PONG), b"one two three", b"next"]


def test_text_is_told_and_nothing_else() -> None:
    assert messages(frame(0x81, b"secret")) == [Notice(Kind.TEXT)]
    assert messages(frame(0x01, b"sec") + frame(0x80, b"ret")) == [Notice(Kind.TEXT)]


def test_close_frames() -> None:
    assert messages(frame(0x88)) == [Notice(Kind.CLOSE, code=1005)]
    for code in (1000, 1001, 1003, 1007, 1011, 3000, 4999):
        assert messages(frame(0x88, struct.pack(">H", code) + "straße".encode())) == [Notice(Kind.CLOSE, code=code)]


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0xC2, 0xA2, 0x92, 0xF2, 0xC9, 0xC1])
def test_reserved_bits_break_it_compression_too(first: int) -> None:
    assert messages(frame(first, b"x")) == [BROKEN]


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_unknown_opcodes_break_it(opcode: int) -> None:
    assert messages(frame(0x80 | opcode, b"x")) == [BROKEN]


@pytest.mark.parametrize("first", [0x82, 0x81, 0x88, 0x89])
def test_unmasked_frames_break_it(first: int) -> None:
    assert messages(frame(first, b"xx", mask=None)) == [BROKEN]


@pytest.mark.parametrize("first", [0x08, 0x09, 0x0A])
def test_control_frames_in_fragments_break_it(first: int) -> None:
    assert messages(frame(first)) == [BROKEN]


@pytest.mark.parametrize("first", [0x88, 0x89, 0x8A])
def test_long_control_frames_break_it(first: int) -> None:
    assert messages(frame(first, bytes(126))) == [BROKEN]


def test_continuations_out_of_place_break_it() -> None:
    assert messages(frame(0x80, b"x")) == [BROKEN]
    assert messages(frame(0x00, b"x")) == [BROKEN]
    assert messages(frame(0x02, b"x") + frame(0x82, b"y")) == [BROKEN]
    assert messages(frame(0x02, b"x") + frame(0x81, b"y")) == [BROKEN]
    assert messages(frame(0x02, b"x") + frame(0x88)) == [BROKEN]


def test_a_length_in_more_bytes_than_it_needs_breaks_it() -> None:
    assert messages(frame(0x82, bytes(125), size=2)) == [BROKEN]
    assert messages(frame(0x82, bytes(200), size=8)) == [BROKEN]
    assert messages(b"\x82\xff" + b"\xff" * 8 + MASK) == [TOO_LONG]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_close_codes_that_nobody_may_send_break_it(code: int) -> None:
    assert messages(frame(0x88, struct.pack(">H", code))) == [BROKEN]


def test_close_frames_that_are_cut_break_it() -> None:
    assert messages(frame(0x88, b"\x03")) == [BROKEN]
    assert messages(frame(0x88, b"\x03\xe8\xff\xfe")) == [Notice(Kind.BROKEN, code=BAD_TEXT)]


def test_a_head_that_is_wrong_is_refused_before_its_payload_comes() -> None:
    assert messages(frame(0xC2, bytes(100))[:2]) == [BROKEN]
    assert messages(frame(0x82, bytes(LIMIT + 1))[:14]) == [TOO_LONG]


def test_the_limit_is_for_whole_messages() -> None:
    assert messages(frame(0x82, bytes(10)), limit=10) == [bytes(10)]
    assert messages(frame(0x82, bytes(11)), limit=10) == [TOO_LONG]
    assert messages(frame(0x02, bytes(6)) + frame(0x80, bytes(4)), limit=10) == [bytes(10)]
    assert messages(frame(0x02, bytes(6)) + frame(0x80, bytes(5)), limit=10) == [TOO_LONG]
    assert messages(frame(0x89, bytes(99)), limit=10) == [Notice(Kind.PING, bytes(99))]


def test_a_flood_of_empty_fragments_keeps_nothing() -> None:
    reader = FrameReader(LIMIT)
    assert list(read_all(reader, frame(0x02), *(frame(0x00) for _ in range(1_000)))) == []
    assert reader._parts == bytearray()


# --- anything at all ------------------------------------------------------------------------------

FIRST = st.sampled_from([0x82, 0x02, 0x00, 0x80, 0x81, 0x01, 0x88, 0x89, 0x8A, 0xC2, 0x83, 0x8B, 0x09])
FRAMES = st.builds(
    frame,
    FIRST,
    st.one_of(st.binary(max_size=140), st.sampled_from([b"\x03\xe8", b"\x03\xedab", b"\x0b\xb8", bytes(300)])),
    st.sampled_from([MASK, MASK, MASK, bytes(4), None]),
)


@given(st.lists(FRAMES, max_size=12), st.data())
def test_how_the_bytes_are_cut_makes_no_difference(chosen: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(chosen)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    cuts = [0, *places, len(stream)]
    parts = [stream[start:end] for start, end in pairwise(cuts)]
    assert messages(*parts) == messages(stream)


@given(st.binary(max_size=400))
def test_random_bytes_raise_nothing(stream: bytes) -> None:
    found = messages(stream)
    assert all(isinstance(message, bytes | Notice) for message in found)


def library_messages(stream: bytes) -> list[bytes | str | int]:
    """What the `websockets` package makes of the same bytes: messages, names of control frames, or why it fails."""
    library = Protocol(SERVER, max_size=LIMIT)
    library.receive_data(stream)
    found: list[bytes | str | int] = []
    parts: list[bytes] = []
    is_text = False
    for event in library.events_received():
        assert isinstance(event, LibraryFrame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            is_text = event.opcode is Opcode.TEXT if event.opcode is not Opcode.CONT else is_text
            parts.append(bytes(event.data))
            if event.fin:
                found.append("TEXT" if is_text else b"".join(parts))
                parts = []
        else:
            found.append(event.opcode.name)
    if library.parser_exc is not None and "CLOSE" not in found:
        sent = library.close_sent
        found.append(sent.code if sent is not None else 0)
    return found


def our_messages(stream: bytes) -> list[bytes | str | int]:
    """Ours, in the same words; nothing after a close frame."""
    found: list[bytes | str | int] = []
    for message in messages(stream):
        if isinstance(message, bytes):
            found.append(message)
        elif message.kind is Kind.BROKEN:
            found.append(message.code)
        else:
            found.append(message.kind.name)
            if message.kind is Kind.CLOSE:
                break
    return found


@given(st.lists(FRAMES, max_size=8))
def test_a_library_reads_the_same(chosen: list[bytes]) -> None:
    stream = b"".join(chosen)
    assert our_messages(stream) == library_messages(stream)


# --- what we write --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_a_library_reads_what_we_write(length: int) -> None:
    library = Protocol(CLIENT, max_size=None)
    library.receive_data(
        encode_head(length) + bytes(length) + encode_ping() + encode_pong(b"x") + encode_close(1008, "r")
    )
    found = library.events_received()
    assert [(event.opcode, bytes(event.data)) for event in found if isinstance(event, LibraryFrame)] == [
        (Opcode.BINARY, bytes(length)),
        (Opcode.PING, b""),
        (Opcode.PONG, b"x"),
        (Opcode.CLOSE, b"\x03\xf0r"),
    ]
    assert encode_close(1005) == b"\x88\x00"
    assert len(encode_close(1000, "x" * 500)) == 2 + 125
