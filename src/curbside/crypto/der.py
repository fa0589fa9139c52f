"""The part of DER (X.690) that our certificates need; `web/src/core/crypto/der.ts` is the twin.

A general X.509 library reads more than one spelling of the same thing, and two libraries differ in which. Python and
the browser must agree on every certificate, so both read with these few lines, which accept one spelling only.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, final

from curbside.errors import Malformed, UsageError

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_ID: Final = 0x06
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31
TRUE: Final = b"\x01\x01\xff"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_LENGTH: Final = 0xFFFF


@final
class Reader:
    """Reads one element after another.

    Raises: Malformed from every method when the bytes are not what is asked for.
    """

    __slots__ = ("_data", "position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    @property
    def more(self) -> bool:
        """Whether bytes are left."""
        return self.position < len(self._data)

    def has(self, tag: int) -> bool:
        """Whether the next element has this tag."""
        return self.more and self._data[self.position] == tag

    def take(self, tag: int) -> bytes:
        """The content of the next element, which must have this tag."""
        if not self.has(tag):
            raise Malformed("DER: another element was expected")
        start, length = self._length(self.position + 1)
        end = start + length
        if end > len(self._data):
            raise Malformed("DER: cut short")
        self.position = end
        return self._data[start:end]

    def take_whole(self, tag: int) -> bytes:
        """The next element with its tag and length."""
        start = self.position
        self.take(tag)
        return self._data[start : self.position]

    def inner(self, tag: int) -> Reader:
        """A reader over the content of the next element."""
        return Reader(self.take(tag))

    def finish(self) -> None:
        """Check that nothing is left."""
        if self.more:
            raise Malformed("DER: bytes follow the value")

    def _length(self, at: int) -> tuple[int, int]:
        """(where the content starts, its length); only the shortest form, up to 65,535."""
        head = self._data[at : at + 3]
        match list(head):
            case [short, *_] if short < 0x80:
                return at + 1, short
            case [0x81, length, *_] if length >= 0x80:
                return at + 2, length
            case [0x82, high, low] if high:
                return at + 3, high << 8 | low
            case _:
                raise Malformed("DER: a length that is cut, too large or not in its shortest form")


def element(tag: int, *parts: bytes) -> bytes:
    """One element whose content is all parts, one after the other."""
    content = b"".join(parts)
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    if length < 0x100:
        return bytes((tag, 0x81, length)) + content
    if length > _MAX_LENGTH:
        raise UsageError("a DER element is too long")
    return bytes((tag, 0x82, length >> 8, length & 0xFF)) + content


def write_time(seconds: int) -> bytes:
    """A Time (RFC 5280 section 4.1.2.5) of Unix seconds: UTCTime through 2049, GeneralizedTime after."""
    moment = _EPOCH + timedelta(seconds=seconds)
    if not 1950 <= moment.year <= 9999:
        raise UsageError("a time that certificates cannot say")
    text = f"{moment.year:04}{moment:%m%d%H%M%SZ}".encode()
    return element(UTC_TIME, text[2:]) if moment.year < 2050 else element(GENERALIZED_TIME, text)


def read_time(reader: Reader) -> int:
    """Unix seconds of a Time; only the form that `write_time` writes.

    Raises: Malformed.
    """
    if reader.has(UTC_TIME):
        text = reader.take(UTC_TIME)
        text = (b"20" if text[:1] < b"5" else b"19") + text
    else:
        text = reader.take(GENERALIZED_TIME)
        if text[:4] < b"2050":
            raise Malformed("DER: a time before 2050 is written as UTCTime")
    if len(text) != 15 or text[14:] != b"Z" or not text[:14].isdigit():
        raise Malformed("DER: not a time")
    numbers = [int(text[:4]), *(int(text[i : i + 2]) for i in range(4, 14, 2))]
    try:
        moment = datetime(*numbers[:3], *numbers[3:], tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        raise Malformed("DER: not a time") from None
    return int((moment - _EPOCH).total_seconds())
