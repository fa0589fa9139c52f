"""Arrays on their way to PostgreSQL.

psycopg writes an array element by element in Python, which costs more than all the rest of storing a batch. Lists of
nothing but numbers, bytes or text are written here in one go, in PostgreSQL's binary form of an array with one
dimension (array_recv, src/backend/utils/adt/arrayfuncs.c); all others as psycopg does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any, Final

import psycopg
from psycopg.abc import DumperKey, PyFormat
from psycopg.types.array import BaseListDumper, ListBinaryDumper

_HEAD: Final = struct.Struct("!iiIii")
"""Dimensions, whether there are NULLs, the elements' type, how many, the first one's index."""
_LENGTH: Final = struct.Struct("!i")


def _join(element_oid: int, elements: list[bytes]) -> bytes:
    lengths = map(_LENGTH.pack, map(len, elements))
    head = _HEAD.pack(1, 0, element_oid, len(elements), 1)
    return head + b"".join(chain.from_iterable(zip(lengths, elements, strict=True)))


def _write_numbers(values: list[int]) -> bytes:
    try:
        body = struct.pack("!" + "iq" * len(values), *chain.from_iterable(zip(repeat(8), values, strict=False)))
    except struct.error as error:
        raise psycopg.DataError("a number does not fit") from error
    return _HEAD.pack(1, 0, 20, len(values), 1) + body


def _write_bytes(values: list[bytes]) -> bytes:
    return _join(17, values)


def _write_texts(values: list[str]) -> bytes:
    return _join(25, [value.encode() for value in values])


_WRITERS: Final[dict[type, tuple[int, Callable[[Any], bytes]]]] = {
    int: (1016, _write_numbers),
    bytes: (1001, _write_bytes),
    str: (1009, _write_texts),
}
"""Array types and their forms, by the type that all elements have."""


class ArrayDumper(ListBinaryDumper):
    """Registered for lists on each connection of the store."""

    def get_key(self, obj: list[Any], format: PyFormat) -> DumperKey:  # noqa: A002 - psycopg's name
        kind = _find_kind(obj)
        return (list, kind) if kind is not None else super().get_key(obj, format)

    def upgrade(self, obj: list[Any], format: PyFormat) -> BaseListDumper:  # noqa: A002 - as above
        kind = _find_kind(obj)
        if kind is None:
            return super().upgrade(obj, format)
        return _PlainDumper(kind)


class _PlainDumper(ArrayDumper):
    """A list whose elements are all of one plain type."""

    def __init__(self, kind: type) -> None:
        super().__init__(list)
        self.oid, self._write = _WRITERS[kind]

    def dump(self, obj: list[Any]) -> bytes:
        return self._write(obj)


def _find_kind(values: list[Any]) -> type | None:
    kinds = set(map(type, values))
    kind = kinds.pop() if len(kinds) == 1 else None
    return kind if kind in _WRITERS else None
