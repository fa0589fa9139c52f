"""Whole tables of the embedded store: read in one snapshot while a server writes, and written into a new file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

import apsw

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, IntegrityError
from curbside.server.store.ports import Change
from curbside.server.store.sqlite import SqliteChange
from curbside.server.store.sqlite_delivery import LAST_SEQUENCE
from curbside.server.store.sqlite_open import map_engine_error, migrate, open_connection
from curbside.server.store.tables import Kind, Row, Schema, Table, sort_tables

_KINDS: Final[dict[str, Kind]] = {"INTEGER": "integer", "TEXT": "text", "BLOB": "bytes"}
_BATCH: Final = 2000
_COMPUTED: Final = {("conversations", "last_sequence"): LAST_SEQUENCE}


class SqliteSnapshot:
    """Implements TableReader. Made by `open_sqlite_snapshot`.

    The snapshot lasts as long as its read transaction; until then the server's write-ahead log cannot be folded in
    beyond it, and grows by what is written meanwhile.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.schema = Schema("sqlite", int(connection.pragma("user_version")))
        self.tables = list_sqlite_tables(connection)

    def read_rows(self, table: Table) -> Iterator[Row]:
        return _read_rows(self._connection, table)

    def count_rows(self, table: Table) -> int:
        return int(self._connection.execute(f'SELECT count(*) FROM "{table.name}"').get)

    def read_counters(self) -> dict[str, int]:
        return _read_counters(self._connection)

    def read_rows_above(self, table: Table, place: int, limit: int) -> list[tuple[int, Row]]:
        """At most `limit` rows of a table with rowids above `place`, by rowid, each with it."""
        columns = _read_list(table)
        found = self._connection.execute(
            f'SELECT rowid, {columns} FROM "{table.name}" WHERE rowid > ? ORDER BY rowid LIMIT ?', (place, limit)
        )
        return [(row[0], tuple(row[1:])) for row in found]

    def read_rows_by_key(self, table: Table) -> Iterator[Row]:
        """All rows, by the bytes of their key."""
        order = ", ".join(f'"{name}" COLLATE BINARY' for name in table.key)
        return _select(self._connection, f'SELECT {_read_list(table)} FROM "{table.name}" ORDER BY {order}')

    def count_rows_through(self, table: Table, place: int) -> int:
        """Rows with a rowid of at most `place`."""
        return int(self._connection.execute(f'SELECT count(*) FROM "{table.name}" WHERE rowid <= ?', (place,)).get)

    def find_damage(self) -> str:
        """What the engine's own check finds wrong; "" when nothing is."""
        try:
            found = self._connection.execute("PRAGMA quick_check(1)").get
        except apsw.Error as error:
            return map_engine_error(error).detail
        return "" if found == "ok" else "its pages contradict one another"

    def close(self) -> None:
        self._connection.close()


class SqliteTarget:
    """Implements TableWriter. Made by `create_sqlite_target`."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self._path = path
        self._connection: apsw.Connection | None = connection
        self._change = SqliteChange(connection)
        self.tables = list_sqlite_tables(connection)
        connection.execute("BEGIN IMMEDIATE")
        for table in reversed(self.tables):  # rows that the schema files put there
            connection.execute(f'DELETE FROM "{table.name}"')

    @property
    def change(self) -> Change:
        return self._change

    def write_rows(self, table: Table, rows: Iterable[Row]) -> None:
        marks = ", ".join("?" * len(table.columns))
        statement = f'INSERT INTO "{table.name}" ({_column_list(table)}) VALUES ({marks})'
        try:
            self._get().executemany(statement, rows)
        except apsw.ConstraintError as error:
            raise IntegrityError(f"rows of {table.name} do not fit the table") from error
        except apsw.Error as error:
            raise map_engine_error(error) from error

    def read_rows(self, table: Table) -> Iterator[Row]:
        return _read_rows(self._get(), table)

    def upgrade(self) -> None:
        connection = self._get()
        try:
            connection.execute("COMMIT")
            migrate(connection)
            connection.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            raise map_engine_error(error) from error
        self.tables = list_sqlite_tables(connection)

    def set_counters(self, counters: Mapping[str, int]) -> None:
        connection = self._get()
        for table in self.tables:
            if table.counter is not None and table.name in counters:
                connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
                values = (table.name, counters[table.name])
                connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", values)

    def finish(self) -> None:
        connection = self._get()
        try:
            if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise IntegrityError("a row refers to one that is not there")
            connection.execute("COMMIT")
        except apsw.Error as error:
            raise map_engine_error(error) from error
        connection.close()
        self._connection = None
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    def abandon(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._path.unlink(missing_ok=True)

    def _get(self) -> apsw.Connection:
        if self._connection is None:
            raise IntegrityError("the new database was given up already")
        return self._connection


def open_sqlite_snapshot(path: Path, key: SecretBytes) -> SqliteSnapshot:
    """A snapshot of the store at `path`, also while a server uses it.

    Raises: ConfigError when there is none, the key does not fit, or no server of this program ever opened it;
    StoreUnavailable.
    """
    if not path.exists():
        raise ConfigError("there is no database yet: the server has not run")
    connection = open_connection(str(path), key)
    try:
        connection.pragma("query_only", True)
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # the snapshot is taken by looking
        return SqliteSnapshot(connection)
    except apsw.Error as error:
        connection.close()
        raise map_engine_error(error) from error


def create_sqlite_target(path: Path, key: SecretBytes, version: int | None = None) -> SqliteTarget:
    """A new store's file with the schema of this version (None: the newest), ready to be filled.

    Raises: ConfigError when the file exists or the version is newer than this program; StorageFull.
    """
    if path.exists():
        raise ConfigError(f"{path.name} exists already")
    connection = open_connection(str(path), key)
    try:
        connection.pragma("journal_mode", "OFF")  # a crash leaves a file that nobody has heard of yet
        connection.pragma("synchronous", "OFF")
        connection.pragma("foreign_keys", False)
        migrate(connection, version)
        return SqliteTarget(path, connection)
    except apsw.Error as error:
        connection.close()
        path.unlink(missing_ok=True)
        raise map_engine_error(error) from error
    except ConfigError:
        connection.close()
        path.unlink(missing_ok=True)
        raise


def list_sqlite_tables(connection: apsw.Connection) -> tuple[Table, ...]:
    """The tables of the schema, parents first.

    Raises: ConfigError when a column has a type, or a table no key, that rows cannot be carried with.
    """
    names = connection.execute(
        r"SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\_%' "
        r"ESCAPE '\'"
    )
    return sort_tables([_describe(connection, str(name)) for (name,) in names.fetchall()])


def _describe(connection: apsw.Connection, name: str) -> Table:
    found = connection.execute("SELECT name, type, pk FROM pragma_table_info(?) ORDER BY cid", (name,)).fetchall()
    rows = [(str(column), str(kind), int(str(at))) for column, kind, at in found]
    unknown = [kind for _, kind, _ in rows if kind not in _KINDS]
    if unknown:
        raise ConfigError(f"the table {name} has a column of type {unknown[0]}, which backups do not know")
    key = tuple(column for column, _, at in sorted(rows, key=lambda row: row[2]) if at)
    parents = connection.execute('SELECT DISTINCT "table" FROM pragma_foreign_key_list(?)', (name,)).fetchall()
    text = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", (name,)).get
    return Table(
        name=name,
        columns=tuple(column for column, _, _ in rows),
        kinds=tuple(_KINDS[kind] for _, kind, _ in rows),
        key=key or _find_unique(connection, name),
        counter=key[0] if "AUTOINCREMENT" in str(text) else None,
        parents=tuple(sorted(str(parent) for (parent,) in parents)),
    )


def _find_unique(connection: apsw.Connection, name: str) -> tuple[str, ...]:
    indexes = connection.execute(
        'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial ORDER BY name', (name,)
    )
    for (index,) in indexes.fetchall():
        columns = connection.execute("SELECT name FROM pragma_index_info(?) ORDER BY seqno", (index,)).fetchall()
        if all(column is not None for (column,) in columns):
            return tuple(str(column) for (column,) in columns)
    raise ConfigError(f"the table {name} has no key")


def _read_rows(connection: apsw.Connection, table: Table) -> Iterator[Row]:
    return _select(connection, f'SELECT {_read_list(table)} FROM "{table.name}" NOT INDEXED')


def _select(connection: apsw.Connection, statement: str) -> Iterator[Row]:
    try:
        rows = iter(connection.execute(statement))
        while batch := list(islice(rows, _BATCH)):
            yield from batch
    except apsw.Error as error:
        raise map_engine_error(error) from error


def _read_counters(connection: apsw.Connection) -> dict[str, int]:
    if not connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_sequence'").get:
        return {}
    return {str(name): int(last) for name, last in connection.execute("SELECT name, seq FROM sqlite_sequence")}


def _column_list(table: Table) -> str:
    return ", ".join(f'"{name}"' for name in table.columns)


def _read_list(table: Table) -> str:
    """The columns as they are to be read: with what the engine computes."""
    return ", ".join(_COMPUTED.get((table.name, name), f'"{name}"') for name in table.columns)
