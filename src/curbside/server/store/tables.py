"""Whole tables as rows, for backups and for moving between engines: what the engines' readers and writers share.

A reader sees one consistent state and knows its tables from the schema itself, so that a table which a later schema
file adds is in the next backup by itself. Values are integers, texts, bytes and None, whatever the engine makes of
them; values that an engine keeps sealed leave it open and are sealed again where they arrive.

The sum of a table does not depend on the order of its rows: the SHA-256 hashes of the rows' encodings are added modulo
2^256. It tells whether two engines hold the same rows. It is no signature: whoever may choose rows can make sums meet,
so where somebody might have, the bytes themselves are hashed (server/backup).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import msgspec

from curbside.errors import ConfigError, IntegrityError
from curbside.server.store.ports import Change

Value = int | str | bytes | None
Row = tuple[Value, ...]
Kind = Literal["integer", "text", "bytes"]
EngineName = Literal["sqlite", "postgres"]

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[tuple[Any, ...], ...])
_MODULUS: Final = 1 << 256
_ARRAY_32: Final = b"\xdd"


@dataclass(frozen=True, slots=True)
class Table:
    """A table. kinds: of its columns. key: columns that tell rows apart.

    counter: the column that the engine numbers by itself, None if there is none. parents: tables it refers to.
    """

    name: str
    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    key: tuple[str, ...]
    counter: str | None = None
    parents: tuple[str, ...] = ()

    def places(self, names: Iterable[str]) -> tuple[int, ...]:
        """Where columns stand in a row."""
        return tuple(self.columns.index(name) for name in names)


@dataclass(frozen=True, slots=True)
class Schema:
    """Which engine, and how many of its schema files were applied."""

    engine: EngineName
    version: int


class TableReader(Protocol):
    """One consistent state of a store, read table by table while others go on writing."""

    @property
    def schema(self) -> Schema: ...

    @property
    def tables(self) -> tuple[Table, ...]:
        """Parents first."""
        ...

    def read_rows(self, table: Table) -> Iterator[Row]:
        """All rows, in an order that new rows do not disturb where the engine has one."""
        ...

    def count_rows(self, table: Table) -> int: ...

    def read_counters(self) -> dict[str, int]:
        """The last number given, by table."""
        ...

    def close(self) -> None: ...


class TableWriter(Protocol):
    """A new store that is filled; nothing of it can be seen by others before `finish`."""

    @property
    def tables(self) -> tuple[Table, ...]: ...

    @property
    def change(self) -> Change:
        """The store's own words, on what was written so far."""
        ...

    def write_rows(self, table: Table, rows: Iterable[Row]) -> None: ...

    def read_rows(self, table: Table) -> Iterator[Row]: ...

    def upgrade(self) -> None:
        """Bring the schema, and what was written, to this program's version."""
        ...

    def set_counters(self, counters: Mapping[str, int]) -> None:
        """Numbers that are given from now on are above these."""
        ...

    def finish(self) -> None:
        """Make it durable and give it up. Raises: IntegrityError when a row refers to one that is not there."""
        ...

    def abandon(self) -> None:
        """Leave nothing behind; harmless after `finish`."""
        ...


class RowSum:
    """Count and sum of a table's rows."""

    __slots__ = ("count", "total")

    def __init__(self, count: int = 0, total: int = 0) -> None:
        self.count = count
        self.total = total

    def add(self, encoded: bytes) -> bytes:
        """Count a row by its encoding; the row's hash."""
        digest = hashlib.sha256(encoded).digest()
        self.count += 1
        self.total += int.from_bytes(digest, "big")
        return digest

    def encode(self) -> bytes:
        """The sum, 32 bytes."""
        return (self.total % _MODULUS).to_bytes(32, "big")

    def is_same(self, other: RowSum) -> bool:
        """Whether both counted the same rows."""
        return self.count == other.count and self.encode() == other.encode()


def encode_row(row: Row) -> bytes:
    """The one encoding of a row: a MessagePack array."""
    return _encoder.encode(row)


def join_rows(encoded: Sequence[bytes]) -> bytes:
    """Encodings of rows as one MessagePack array of arrays."""
    return _ARRAY_32 + len(encoded).to_bytes(4, "big") + b"".join(encoded)


def split_rows(data: bytes) -> tuple[Row, ...]:
    """What `join_rows` joined. Raises: IntegrityError."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IntegrityError("rows of a backup cannot be read") from error


def sum_rows(rows: Iterable[Row]) -> RowSum:
    """Count and sum of rows."""
    total = RowSum()
    for row in rows:
        total.add(_encoder.encode(row))
    return total


def sort_tables(tables: Iterable[Table]) -> tuple[Table, ...]:
    """Parents before their children, by name otherwise."""
    left = {table.name: table for table in sorted(tables, key=lambda each: each.name)}
    done: dict[str, Table] = {}
    while left:
        ready = [t for t in left.values() if all(p in done or p == t.name or p not in left for p in t.parents)]
        if not ready:
            raise ConfigError("the tables refer to one another in a circle")
        for table in ready:
            done[table.name] = left.pop(table.name)
    return tuple(done.values())


def match_tables(source: Sequence[Table], target: Sequence[Table]) -> list[tuple[Table, Table]]:
    """Each source table with its target. Raises: ConfigError when the target has no place for a table or a column."""
    by_name = {table.name: table for table in target}
    pairs = []
    for table in source:
        other = by_name.get(table.name)
        if other is None or set(other.columns) != set(table.columns):
            raise ConfigError(f"the table {table.name} has another form there; use the same version on both sides")
        pairs.append((table, other))
    return pairs


def reorder(source: Table, target: Table, rows: Iterable[Row]) -> Iterable[Row]:
    """Rows of the source with their columns in the target's order."""
    if source.columns == target.columns:
        return rows
    places = source.places(target.columns)
    return (tuple(row[place] for place in places) for row in rows)
