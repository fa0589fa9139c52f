"""The presentation language of RFC 9420 section 2.1: integers, optional values, variable-size vectors."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final, TypeVar, final

from curbside.errors import Malformed, TooLarge, UsageError

T = TypeVar("T")
MAX_BYTES: Final = 1 << 24
_MAX_VECTOR: Final = (1 << 30) - 1
_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")


@final
class Reader:
    """Reads one encoded value after another and never beyond its end.

    Raises: Malformed from every method when the bytes do not hold what is asked for.
    """

    __slots__ = ("_data", "_end", "position")

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self.position = start
        self._end = len(data) if end is None else end

    @property
    def more(self) -> bool:
        """Whether bytes are left."""
        return self.position < self._end

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        start = self.position
        stop = start + length
        if stop > self._end:
            raise Malformed("the value ends too early")
        self.position = stop
        return self._data[start:stop]

    def u8(self) -> int:
        """uint8."""
        position = self.position
        if position >= self._end:
            raise Malformed("the value ends too early")
        self.position = position + 1
        return self._data[position]

    def u16(self) -> int:
        """uint16."""
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        """uint32."""
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        """uint64."""
        return int.from_bytes(self.take(8), "big")

    def varint(self) -> int:
        """The length header of a vector; only the shortest form is allowed."""
        first = self.u8()
        if first < 0x40:
            return first
        if first < 0x80:
            value = (first & 0x3F) << 8 | self.u8()
            shortest = value >= 0x40
        elif first < 0xC0:
            value = (first & 0x3F) << 24 | int.from_bytes(self.take(3), "big")
            shortest = value >= 0x4000
        else:
            raise Malformed("a length has the reserved prefix")
        if not shortest:
            raise Malformed("a length is not in its shortest form")
        return value

    def vector(self) -> bytes:
        """opaque<V>."""
        return self.take(self.varint())

    def inner(self) -> Reader:
        """A reader over the content of the next vector."""
        length = self.varint()
        start = self.position
        if start + length > self._end:
            raise Malformed("a vector ends too early")
        self.position = start + length
        return Reader(self._data, start, start + length)

    def items(self, read: Callable[[Reader], T]) -> tuple[T, ...]:
        """A vector of structs."""
        inner = self.inner()
        found = []
        while inner.position < inner._end:
            found.append(read(inner))
        return tuple(found)

    def u16s(self) -> tuple[int, ...]:
        """uint16<V>."""
        content = self.vector()
        if len(content) % 2:
            raise Malformed("a vector of uint16 has an odd length")
        return struct.unpack(f">{len(content) // 2}H", content)

    def u32s(self) -> tuple[int, ...]:
        """uint32<V>."""
        content = self.vector()
        if len(content) % 4:
            raise Malformed("a vector of uint32 has an uneven length")
        return struct.unpack(f">{len(content) // 4}I", content)

    def present(self) -> bool:
        """The presence octet of an optional value."""
        octet = self.u8()
        if octet > 1:
            raise Malformed("an optional value is neither there nor absent")
        return octet == 1

    def since(self, start: int) -> bytes:
        """The bytes from `start` up to here, as they came."""
        return self._data[start : self.position]

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(self._end - self.position)

    def finish(self) -> None:
        """Check that nothing is left."""
        if self.position != self._end:
            raise Malformed("bytes follow the value")


def decode(data: bytes, read: Callable[[Reader], T], limit: int = MAX_BYTES) -> T:
    """Decode exactly one value of at most `limit` bytes.

    Raises: Malformed; TooLarge.
    """
    if not isinstance(data, bytes):
        raise UsageError("encoded values are bytes")
    if len(data) > limit:
        raise TooLarge(limit=limit)
    reader = Reader(data)
    value = read(reader)
    reader.finish()
    return value


def u8(value: int) -> bytes:
    """uint8."""
    return bytes((value,))


def u16(value: int) -> bytes:
    """uint16."""
    return _U16.pack(value)


def u32(value: int) -> bytes:
    """uint32."""
    return _U32.pack(value)


def u64(value: int) -> bytes:
    """uint64."""
    return _U64.pack(value)


def varint(value: int) -> bytes:
    """The length header of a vector, in its shortest form."""
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return _U16.pack(value | 0x4000)
    if value > _MAX_VECTOR:
        raise TooLarge(limit=_MAX_VECTOR)
    return _U32.pack(value | 0x80000000)


def vector(content: bytes) -> bytes:
    """opaque<V>."""
    length = len(content)
    if length < 0x40:
        return bytes((length,)) + content
    return varint(length) + content


def vector_of(parts: Iterable[bytes]) -> bytes:
    """A vector of encoded structs."""
    return vector(b"".join(parts))


def u16s(values: Iterable[int]) -> bytes:
    """uint16<V>."""
    return vector_of(map(_U16.pack, values))


def u32s(values: Iterable[int]) -> bytes:
    """uint32<V>."""
    return vector_of(map(_U32.pack, values))


def optional(content: bytes | None) -> bytes:
    """optional<T> of an encoded value."""
    return b"\x00" if content is None else b"\x01" + content
