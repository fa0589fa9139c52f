"""Delivery and read reports: `application/mimi-message-status` (draft-mahy-mimi-message-status-01).

A report is a list of [message id, status]; the last status given for a message counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from curbside.errors import Malformed, TooLarge
from curbside.wire import cbor
from curbside.wire.content_types import MESSAGE_BYTES, MESSAGE_ID_BYTES

MEDIA_TYPE: Final = "application/mimi-message-status"
REPORTED_MESSAGES: Final = 1024
"""Messages that one report may name; about 36 KiB."""


class Status(IntEnum):
    """What became of a message on the reporting side. Unknown numbers (7 to 255) are kept."""

    UNREAD = 0
    DELIVERED = 1
    READ = 2
    EXPIRED = 3
    DELETED = 4
    HIDDEN = 5
    ERROR = 6


Report = tuple[tuple[bytes, int], ...]


def encode_report(statuses: Iterable[tuple[bytes, int]]) -> bytes:
    """The one encoding of a report.

    Raises:
        Malformed: no status at all, or what is no message id or status.
        TooLarge: over REPORTED_MESSAGES.
    """
    tree = tuple((message, int(status)) for message, status in statuses)
    _read_report(tree)
    return cbor.encode(tree, 2)


def decode_report(data: bytes) -> Report:
    """Read a report.

    Raises:
        Malformed: anything that `encode_report` would not have written.
        TooLarge: over REPORTED_MESSAGES, or bytes over MESSAGE_BYTES.
    """
    if len(data) > MESSAGE_BYTES:
        raise TooLarge("a report is over its size limit", limit=MESSAGE_BYTES)
    return _read_report(cbor.decode(data, 2))


def _read_report(value: cbor.Value) -> Report:
    if not isinstance(value, list | tuple) or not value:
        raise Malformed("report: one status or more was expected")
    if len(value) > REPORTED_MESSAGES:
        raise TooLarge("a report names too many messages", limit=REPORTED_MESSAGES)
    return tuple(map(_read_status, value))


def _read_status(value: cbor.Value) -> tuple[bytes, int]:
    match value:
        case (bytes() as message, int() as status) if (
            len(message) == MESSAGE_ID_BYTES and not isinstance(status, bool) and 0 <= status <= 255
        ):
            return message, status
        case _:
            raise Malformed("report: a message id and a status were expected")
