"""Deterministic CBOR (RFC 8949 section 4.2.1), and nothing else.

`decode` accepts exactly the bytes that `encode` would write: shortest lengths and numbers, definite lengths,
map keys sorted and unique, valid UTF-8, one NaN. A second spelling of one value is refused, so equal content
has equal bytes and a hash of the bytes is a hash of the content.

The data model follows the MIMI content draft: map keys are integers that a double can hold, text or byte
strings; arrays come back as tuples, maps as dicts in key order. `web/src/core/wire/cbor.ts` is the twin.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeAlias, Union

from curbside.errors import Malformed

MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer key, either sign: what a double holds without loss."""

MAX_DEPTH = 16
"""Levels of arrays, maps and tags a document may have, unless the caller says less."""

Key: TypeAlias = int | str | bytes
Value: TypeAlias = Union[  # noqa: RUF036 - null first, as in the specification
    None, bool, int, float, str, bytes, list["Value"], tuple["Value", ...], Mapping[Key, "Value"], "Tag", "Simple"
]


@dataclass(frozen=True, slots=True)
class Tag:
    """A tagged value; the tag's meaning is the reader's business."""

    number: int
    value: Value


@dataclass(frozen=True, slots=True)
class Simple:
    """A simple value other than false, true and null; 23 is "undefined"."""

    number: int


def encode(value: Value, max_depth: int = MAX_DEPTH) -> bytes:
    """The one deterministic encoding of `value`.

    Raises:
        Malformed: `value` holds what the data model has no place for.
    """
    out: list[bytes] = []
    _write(value, out, max_depth)
    return b"".join(out)


def decode(data: bytes, max_depth: int = MAX_DEPTH) -> Value:
    """Read one document that fills `data` to its last byte.

    Raises:
        Malformed: cut, trailing or non-deterministic bytes, a wrong key type, too many levels.
    """
    reader = _Reader(bytes(data))
    value = reader.item(max_depth)
    if reader.position != len(data):
        raise Malformed("CBOR: bytes after the document")
    return value


# --- writing ------------------------------------------------------------------------------------


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    if argument <= 0xFF:
        return bytes((major << 5 | 24, argument))
    if argument <= 0xFFFF:
        return struct.pack(">BH", major << 5 | 25, argument)
    if argument <= 0xFFFFFFFF:
        return struct.pack(">BI", major << 5 | 26, argument)
    if argument <= 0xFFFFFFFFFFFFFFFF:
        return struct.pack(">BQ", major << 5 | 27, argument)
    raise Malformed("CBOR: integer beyond 64 bits")


def _write(value: Value, out: list[bytes], depth: int) -> None:
    match value:
        case None:
            out.append(b"\xf6")
        case bool():
            out.append(b"\xf5" if value else b"\xf4")
        case int():
            out.append(_head(0, value) if value >= 0 else _head(1, -1 - value))
        case str():
            raw = _utf8(value)
            out += (_head(3, len(raw)), raw)
        case bytes():
            out += (_head(2, len(value)), value)
        case float():
            out.append(_float(value))
        case Simple():
            if not (0 <= value.number < 20 or value.number == 23 or 32 <= value.number <= 255):
                raise Malformed("CBOR: no such simple value")
            out.append(_head(7, value.number))
        case _:
            _write_container(value, out, depth - 1)


def _write_container(value: Value, out: list[bytes], depth: int) -> None:
    if depth < 0:
        raise Malformed("CBOR: nested too deeply")
    match value:
        case list() | tuple():
            out.append(_head(4, len(value)))
            for item in value:
                _write(item, out, depth)
        case Mapping():
            out.append(_head(5, len(value)))
            for key, item in sorted(((_key(key), item) for key, item in value.items()), key=itemgetter(0)):
                out.append(key)
                _write(item, out, depth)
        case Tag():
            check_bignum(value.number, value.value)
            out.append(_head(6, value.number))
            _write(value.value, out, depth)
        case _:
            raise Malformed("CBOR: a type without an encoding")


def _key(key: Key) -> bytes:
    if isinstance(key, bool) or not isinstance(key, int | str | bytes):
        raise Malformed("CBOR: a map key must be an integer, text or bytes")
    if isinstance(key, int) and abs(key) > MAX_SAFE_INTEGER:
        raise Malformed("CBOR: an integer key beyond 2^53 - 1")
    out: list[bytes] = []
    _write(key, out, 0)
    return b"".join(out)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Malformed("CBOR: text that has no UTF-8 form") from None


def _float(value: float) -> bytes:
    if math.isnan(value):
        return b"\xf9\x7e\x00"
    for head, form in ((b"\xf9", ">e"), (b"\xfa", ">f")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            return head + packed
    return b"\xfb" + struct.pack(">d", value)


def check_bignum(number: int, value: Value) -> None:
    """A big integer must not fit a plain one and has no leading zero (RFC 8949 section 4.2.1).

    Raises:
        Malformed: tag 2 or 3 around anything else.
    """
    if number in (2, 3) and not (isinstance(value, bytes) and len(value) > 8 and value[0] != 0):
        raise Malformed("CBOR: a big integer that is not in its shortest form")


# --- reading ------------------------------------------------------------------------------------

_SHORTEST = {24: (1, 24), 25: (2, 0x100), 26: (4, 0x10000), 27: (8, 0x1_0000_0000)}
"""Additional information → (octets that follow, smallest argument that needs them)."""


class _Reader:
    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.data):
            raise Malformed("CBOR: cut short")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def head(self) -> tuple[int, int, int]:
        """(major type, additional information, argument); for major type 7 the argument is raw."""
        initial = self.take(1)[0]
        major, info = initial >> 5, initial & 31
        if info < 24:
            return major, info, info
        if info not in _SHORTEST:
            raise Malformed("CBOR: indefinite length or a reserved form")
        width, least = _SHORTEST[info]
        argument = int.from_bytes(self.take(width), "big")
        if major != 7 and argument < least:
            raise Malformed("CBOR: a number or length not in its shortest form")
        return major, info, argument

    def item(self, depth: int) -> Value:
        major, info, argument = self.head()
        match major:
            case 0:
                return argument
            case 1:
                return -1 - argument
            case 2:
                return self.take(argument)
            case 3:
                return self.text(argument)
            case 7:
                return _simple_or_float(info, argument)
            case _:
                return self.container(major, argument, depth - 1)

    def text(self, length: int) -> str:
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise Malformed("CBOR: text that is not UTF-8") from None

    def container(self, major: int, argument: int, depth: int) -> Value:
        if depth < 0:
            raise Malformed("CBOR: nested too deeply")
        if major == 6:
            value = self.item(depth)
            check_bignum(argument, value)
            return Tag(argument, value)
        if argument > len(self.data) - self.position:  # every item takes an octet at least
            raise Malformed("CBOR: cut short")
        if major == 4:
            return tuple(self.item(depth) for _ in range(argument))
        return self.map(argument, depth)

    def map(self, length: int, depth: int) -> dict[Key, Value]:
        found: dict[Key, Value] = {}
        previous = b""
        for _ in range(length):
            start = self.position
            key = self.item(0)
            if isinstance(key, bool) or not isinstance(key, int | str | bytes):
                raise Malformed("CBOR: a map key must be an integer, text or bytes")
            if isinstance(key, int) and abs(key) > MAX_SAFE_INTEGER:
                raise Malformed("CBOR: an integer key beyond 2^53 - 1")
            encoded = self.data[start : self.position]
            if encoded <= previous:
                raise Malformed("CBOR: map keys out of order or twice")
            previous = encoded
            found[key] = self.item(depth)
        return found


def _simple_or_float(info: int, argument: int) -> Value:
    match info:
        case 20 | 21:
            return info == 21
        case 22:
            return None
        case 25 | 26 | 27:
            return _shortest_float(info, argument)
        case 24 if argument < 32:
            raise Malformed("CBOR: a simple value not in its shortest form")
        case _:
            return Simple(argument)


def _shortest_float(info: int, argument: int) -> float:
    width, form = {25: (2, ">e"), 26: (4, ">f"), 27: (8, ">d")}[info]
    raw = argument.to_bytes(width, "big")
    value: float = struct.unpack(form, raw)[0]
    if _float(value)[1:] != raw:
        raise Malformed("CBOR: a float not in its shortest form")
    return value
