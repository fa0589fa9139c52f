"""WebSocket frames (RFC 6455 section 5) as a server reads and writes them: bytes in, messages out, no socket.

[Note: no library here] The C function that unmasks is the `websockets` package's; the rest is this file, because a
message costs a third of what any layer above it costs (docs/adr/0013). No extension is ever negotiated, so a reserved
bit is an error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the package's C code
    from websockets.utils import apply_mask

CONTROL_BYTES: Final = 125

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
BAD_TEXT: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
_NO_CODE: Final = 1005
_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_OWN_CODES: Final = range(3000, 5000)

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_SMALLEST: Final = 6
"""Bytes of a frame without a payload: two of head, four of mask."""
_NOTHING: Final = memoryview(b"")


class Kind(Enum):
    """What came that is no binary message."""

    TEXT = auto()
    PING = auto()
    PONG = auto()
    CLOSE = auto()
    BROKEN = auto()


@dataclass(frozen=True, slots=True)
class Notice:
    """Anything but a binary message. data: payload of a ping. code: of a CLOSE, or to close with after BROKEN."""

    kind: Kind
    data: bytes = b""
    code: int = 0


class FrameReader:
    """Takes bytes as they come: `feed`, then `read` until it answers None, then `keep`.

    What `feed` was given is read in place; `keep` copies what is left of it. limit: longest message, bytes; a message
    in fragments counts whole. Nothing is to be read after a BROKEN.
    """

    __slots__ = ("_at", "_is_text", "_parts", "_rest", "_view", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._view: memoryview | bytearray = _NOTHING
        self._at = 0
        self._rest: bytearray | None = None
        self._parts: bytearray | None = None
        self._is_text = False

    def feed(self, data: memoryview) -> None:
        """More bytes."""
        if self._rest is None:
            self._view = data
        else:
            self._rest += data

    def keep(self) -> None:
        """Let go of what `feed` was given."""
        rest, at = self._rest, self._at
        if rest is not None:
            del rest[:at]  # moves nothing: a bytearray remembers where it begins
            if not rest:
                self._rest, self._view = None, _NOTHING
        else:
            if at < len(self._view):
                self._view = self._rest = bytearray(self._view[at:])
            else:
                self._view = _NOTHING
        self._at = 0

    def read(self) -> bytes | Notice | None:
        """The next message; None when more bytes are needed."""
        while True:
            view, at = self._view, self._at
            have = len(view) - at
            if have < _SMALLEST:
                return None if have < 2 or _is_sane(view[at], view[at + 1]) else _BROKEN
            first, length, start = view[at], view[at + 1] & 0x7F, at + 2
            if not _is_sane(first, view[at + 1]):
                return _BROKEN
            if length > CONTROL_BYTES:
                size = 2 if length == 126 else 8
                start += size
                if start > len(view):
                    return None
                length = int.from_bytes(view[at + 2 : start], "big")
                if length < (126 if size == 2 else 0x10000):
                    return _BROKEN  # section 5.2: the minimal number of bytes
            if first & 0xF < _CLOSE and length + len(self._parts or b"") > self.limit:
                return Notice(Kind.BROKEN, code=TOO_BIG)
            stop = start + 4 + length
            if stop > len(view):
                return None
            self._at = stop
            payload = apply_mask(view[start + 4 : stop], bytes(view[start : start + 4]))
            if first == _FIN | _BINARY and self._parts is None:
                return payload
            message = self._read_control(first & 0xF, payload) if first & _CLOSE else self._join(first, payload)
            if message is not None:
                return message

    def _join(self, first: int, payload: bytes) -> bytes | Notice | None:
        """A text frame or a fragment; None when the message goes on."""
        if (first & 0xF == _CONTINUATION) == (self._parts is None):
            return _BROKEN  # a continuation of nothing, or a new message within another
        if self._parts is None:
            self._is_text, self._parts = first & 0xF == _TEXT, bytearray()
        self._parts += payload
        if not first & _FIN:
            return None
        message, self._parts = bytes(self._parts), None
        return Notice(Kind.TEXT) if self._is_text else message

    def _read_control(self, opcode: int, payload: bytes) -> Notice:
        if opcode == _PING:
            return Notice(Kind.PING, payload)
        if opcode == _PONG:
            return Notice(Kind.PONG)
        notice = _read_close(payload)
        if notice.kind is Kind.CLOSE and self._parts is not None:
            return _BROKEN  # the message that it interrupts will never end
        return notice


def _read_close(payload: bytes) -> Notice:
    if not payload:
        return Notice(Kind.CLOSE, code=_NO_CODE)
    code = int.from_bytes(payload[:2], "big")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return Notice(Kind.BROKEN, code=BAD_TEXT)
    if len(payload) == 1 or (code not in _CODES and code not in _OWN_CODES):
        return _BROKEN
    return Notice(Kind.CLOSE, code=code)


_BROKEN: Final = Notice(Kind.BROKEN, code=PROTOCOL_ERROR)


def _is_sane(first: int, second: int) -> bool:
    """Whether a frame may begin like this: no reserved bit, a known opcode, masked, control frames whole and short."""
    if first & _RESERVED or not second & _MASKED:
        return False
    opcode = first & 0xF
    if opcode >= _CLOSE:
        return opcode <= _PONG and first & _FIN != 0 and second & 0x7F <= CONTROL_BYTES
    return opcode <= _BINARY


def encode_head(length: int) -> bytes:
    """What stands before a binary message of this many bytes."""
    if length <= CONTROL_BYTES:
        return bytes((_FIN | _BINARY, length))
    if length < 0x10000:
        return struct.pack(">BBH", _FIN | _BINARY, 126, length)
    return struct.pack(">BBQ", _FIN | _BINARY, 127, length)


def encode_ping() -> bytes:
    """A ping. What its pong holds does not matter: any frame is a sign of life."""
    return bytes((_FIN | _PING, 0))


def encode_pong(payload: bytes) -> bytes:
    """The answer to a ping."""
    return bytes((_FIN | _PONG, len(payload))) + payload


def encode_close(code: int, reason: str = "") -> bytes:
    """A close frame; a reason that is too long is cut."""
    if code == _NO_CODE:
        return bytes((_FIN | _CLOSE, 0))
    payload = struct.pack(">H", code) + reason.encode("ascii", "replace")[: CONTROL_BYTES - 2]
    return bytes((_FIN | _CLOSE, len(payload))) + payload
