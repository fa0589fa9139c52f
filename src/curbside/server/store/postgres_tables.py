"""Whole tables of a PostgreSQL store: read in one repeatable-read snapshot, and written in one transaction."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import psycopg
from psycopg import sql

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, IntegrityError
from curbside.server.store.ports import Change
from curbside.server.store.postgres import PostgresChange
from curbside.server.store.postgres_audit import begin_complete_reading
from curbside.server.store.postgres_open import PostgresSettings, connect, list_postgres_migrations
from curbside.server.store.postgres_sealing import KEY_CHECK, SEALED_COLUMNS, Sealer, check_key
from curbside.server.store.postgres_session import LOCK_CLASS, SCHEMA_LOCK, Session, map_postgres_error
from curbside.server.store.tables import Kind, Row, Schema, Table, Value, sort_tables

MOVE_TABLE: Final = "curbside_move"
"""Where a move from the embedded engine notes how far it is; see postgres_move."""
ENGINE_TABLES: Final = frozenset({"schema_versions", "writers", "audit_waiting"})
"""What this engine keeps about itself, and the audit events that wait for their place: none, in a snapshot."""
_KINDS: Final[dict[str, Kind]] = {"bigint": "integer", "boolean": "integer", "text": "text", "bytea": "bytes"}
_NAMES: Final[dict[str, str]] = {"bigint": "int8", "boolean": "bool", "text": "text", "bytea": "bytea"}


class PostgresTables:
    """The tables of a session's schema, whatever transaction it is in."""

    def __init__(self, session: Session, sealer: Sealer) -> None:
        self._session = session
        self._sealer = sealer
        self._types: dict[str, tuple[str, ...]] = {}
        self.tables = self._list()

    def read_rows(self, table: Table, order: Sequence[str] = ()) -> Iterator[Row]:
        """Rows with their sealed values open; in the order of the table's pages, or of these columns."""
        query = sql.SQL("COPY (SELECT {} FROM {}{}) TO STDOUT (FORMAT BINARY)").format(
            sql.SQL(", ").join(map(sql.Identifier, table.columns)),
            sql.Identifier(table.name),
            sql.SQL(" ORDER BY {}").format(sql.SQL(", ").join(map(sql.Identifier, order))) if order else sql.SQL(""),
        )
        try:
            with self._session.connection.cursor() as cursor, cursor.copy(query) as copy:
                copy.set_types(self._types[table.name])
                for row in copy.rows():
                    if table.name == "settings" and KEY_CHECK in row:
                        continue
                    yield self._open(table, row)
        except psycopg.Error as error:
            raise map_postgres_error(error) from error

    def write_rows(self, table: Table, rows: Iterable[Row]) -> None:
        """Add rows, sealing what is sealed here. Raises: IntegrityError when they do not fit the table."""
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
        )
        try:
            with self._session.connection.cursor() as cursor, cursor.copy(query) as copy:
                copy.set_types(self._types[table.name])
                for row in rows:
                    copy.write_row(self.seal(table, row))
        except psycopg.errors.IntegrityError as error:
            raise IntegrityError(f"rows of {table.name} do not fit the table") from error
        except psycopg.Error as error:
            raise map_postgres_error(error) from error

    def find_rows(self, table: Table, key: Sequence[str], rows: Sequence[Row]) -> list[Row]:
        """Those of the table's rows whose key is one of these rows'."""
        places = table.places(key)
        arrays = [[row[place] for row in rows] for place in places]
        types = [self._types[table.name][place] for place in places]
        given = sql.SQL(", ").join(sql.SQL("%s::{}[]").format(sql.SQL(name)) for name in types)
        query = sql.SQL("SELECT {} FROM {} WHERE ({}) IN (SELECT * FROM unnest({}))").format(
            sql.SQL(", ").join(map(sql.Identifier, table.columns)),
            sql.Identifier(table.name),
            sql.SQL(", ").join(map(sql.Identifier, key)),
            given,
        )
        try:
            cursor = self._session.connection.cursor(binary=True)
            return [self._open(table, row) for row in cursor.execute(query, arrays).fetchall()]
        except psycopg.Error as error:
            raise map_postgres_error(error) from error

    def update_row(self, table: Table, row: Row) -> None:
        """Write all columns of the row with this key."""
        changed = [name for name in table.columns if name not in table.key]
        if not changed:
            return
        marks = sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(n), sql.Placeholder()) for n in changed)
        sealed = self.seal(table, row)
        values = [sealed[place] for place in (*table.places(changed), *table.places(table.key))]
        query = sql.SQL("UPDATE {} SET {} WHERE {}").format(sql.Identifier(table.name), marks, _match(table))
        self._session.connection.execute(query, values)

    def delete_row(self, table: Table, row: Row) -> None:
        """Remove the row with this key."""
        query = sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(table.name), _match(table))
        self._session.connection.execute(query, [row[place] for place in table.places(table.key)])

    def count_rows(self, table: Table) -> int:
        """All that `read_rows` reads."""
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table.name))
        row = self._session.connection.execute(query).fetchone()
        count = int(row[0]) if row else 0
        return count - self._has_key_check() if table.name == "settings" else count

    def read_counters(self) -> dict[str, int]:
        """The last number given, by table."""
        found = {}
        for table in self.tables:
            if table.counter is not None:
                row = self._session.connection.execute(
                    sql.SQL("SELECT last_value, is_called FROM {}").format(self._find_sequence(table))
                ).fetchone()
                found[table.name] = int(row[0]) - (not row[1]) if row else 0
        return found

    def set_counters(self, counters: Mapping[str, int]) -> None:
        """Numbers that are given from now on are above these."""
        for table in self.tables:
            if table.counter is not None and counters.get(table.name, 0) > 0:
                name = self._find_sequence(table).as_string(self._session.connection)
                self._session.connection.execute("SELECT setval(%s::regclass, %s)", (name, counters[table.name]))

    def clear(self) -> None:
        """Remove all rows, those that the schema files put there."""
        names = sql.SQL(", ").join(sql.Identifier(table.name) for table in self.tables)
        self._session.connection.execute(sql.SQL("TRUNCATE {}").format(names))

    def seal(self, table: Table, row: Row) -> Row:
        """A row as it is kept here."""
        values: list[Value] = [
            bool(value) if kind == "bool" else value for value, kind in zip(row, self._types[table.name], strict=True)
        ]
        for key, column, place in _list_sealed(table):
            values[column] = self._sealer.seal(place, str(row[key]), _expect_bytes(row[column]))
        return tuple(values)

    def _open(self, table: Table, row: tuple[Value, ...]) -> Row:
        values = [int(value) if value is True or value is False else value for value in row]
        for key, column, place in _list_sealed(table):
            values[column] = self._sealer.open(place, str(row[key]), _expect_bytes(row[column]))
        return tuple(values)

    def _has_key_check(self) -> int:
        row = self._session.connection.execute("SELECT 1 FROM settings WHERE name = %s", (KEY_CHECK,)).fetchone()
        return int(row is not None)

    def _find_sequence(self, table: Table) -> sql.Identifier:
        row = self._session.connection.execute(
            """SELECT n.nspname, s.relname FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
            JOIN pg_namespace n ON n.oid = s.relnamespace
            WHERE d.classid = 'pg_class'::regclass AND d.refobjid = to_regclass(quote_ident(%s))
            AND d.deptype IN ('i', 'a')""",
            (table.name,),
        ).fetchone()
        if row is None:
            raise IntegrityError(f"the table {table.name} has lost its numbers")
        return sql.Identifier(*row)

    def _list(self) -> tuple[Table, ...]:
        names = self._session.connection.execute(
            """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition"""
        ).fetchall()
        return sort_tables([self._describe(name) for (name,) in names if name not in ENGINE_TABLES])

    def _describe(self, name: str) -> Table:
        run = self._session.connection.execute
        found = run(
            """SELECT attname, format_type(atttypid, atttypmod), attidentity <> '' FROM pg_attribute
            WHERE attrelid = to_regclass(quote_ident(%s)) AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
            (name,),
        ).fetchall()
        unknown = [kind for _, kind, _ in found if kind not in _KINDS]
        if unknown:
            raise ConfigError(f"the table {name} has a column of type {unknown[0]}, which backups do not know")
        self._types[name] = tuple(_NAMES[kind] for _, kind, _ in found)
        parents = run(
            """SELECT DISTINCT c.relname FROM pg_constraint k JOIN pg_class c ON c.oid = k.confrelid
            WHERE k.contype = 'f' AND k.conrelid = to_regclass(quote_ident(%s))""",
            (name,),
        ).fetchall()
        return Table(
            name=name,
            columns=tuple(column for column, _, _ in found),
            kinds=tuple(_KINDS[kind] for _, kind, _ in found),
            key=self._find_key(name),
            counter=next((column for column, _, is_numbered in found if is_numbered), None),
            parents=tuple(sorted(parent for (parent,) in parents)),
        )

    def _find_key(self, name: str) -> tuple[str, ...]:
        row = self._session.connection.execute(
            """SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i
            CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
            WHERE i.indrelid = to_regclass(quote_ident(%s)) AND i.indisunique AND i.indpred IS NULL
            AND i.indexprs IS NULL
            GROUP BY i.indexrelid, i.indisprimary ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1""",
            (name,),
        ).fetchone()
        if row is None:
            raise ConfigError(f"the table {name} has no key")
        return tuple(row[0])


class PostgresSnapshot:
    """Implements TableReader. Made by `open_postgres_snapshot`."""

    def __init__(self, session: Session, sealer: Sealer) -> None:
        self._session = session
        self._content = PostgresTables(session, sealer)
        self.tables = self._content.tables
        row = session.one("SELECT coalesce(max(version), 0) FROM schema_versions")
        self.schema = Schema("postgres", int(row[0]) if row else 0)

    def read_rows(self, table: Table) -> Iterator[Row]:
        yield from self._content.read_rows(table)
        if table.name == "audit_events":
            yield from self._read_waiting(table)

    def count_rows(self, table: Table) -> int:
        count = self._content.count_rows(table)
        if table.name == "audit_events":
            row = self._session.one("SELECT count(*) FROM audit_waiting")
            count += int(row[0]) if row else 0
        return count

    def read_counters(self) -> dict[str, int]:
        return self._content.read_counters()

    def close(self) -> None:
        self._session.close()

    def _read_waiting(self, table: Table) -> Iterator[Row]:
        row = self._session.one("SELECT coalesce(max(sequence) + 1, 0) FROM audit_events")
        first = int(row[0]) if row else 0
        carried = [name for name in table.columns if name != "sequence"]
        query = f"SELECT {', '.join(carried)} FROM audit_waiting ORDER BY in_transaction, position"
        for number, values in enumerate(self._session.all(query)):
            place = {"sequence": first + number, **dict(zip(carried, values, strict=True))}
            yield tuple(place[name] for name in table.columns)


class PostgresTarget:
    """Implements TableWriter, in one transaction that makes the schema too. Made by `create_postgres_target`."""

    def __init__(self, session: Session, sealer: Sealer, version: int) -> None:
        self._session = session
        self._sealer = sealer
        self._version = version
        self._content = PostgresTables(session, sealer)
        self._change = PostgresChange(session, sealer)
        self.tables = self._content.tables
        self._content.clear()

    @property
    def change(self) -> Change:
        return self._change

    def write_rows(self, table: Table, rows: Iterable[Row]) -> None:
        self._content.write_rows(table, rows)

    def read_rows(self, table: Table) -> Iterator[Row]:
        return self._content.read_rows(table)

    def upgrade(self) -> None:
        try:
            apply_steps(self._session, self._version, len(list_postgres_migrations()))
            self._content = PostgresTables(self._session, self._sealer)
        except psycopg.Error as error:
            raise map_postgres_error(error) from error
        self.tables = self._content.tables

    def set_counters(self, counters: Mapping[str, int]) -> None:
        self._content.set_counters(counters)

    def finish(self) -> None:
        try:
            check_key(self._session, self._sealer)
            self._session.script("COMMIT")
        except psycopg.Error as error:
            raise map_postgres_error(error) from error
        finally:
            self._session.close()

    def abandon(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._session.rollback()
        self._session.close()


def open_patient_session(settings: PostgresSettings) -> Session:
    """A connection for statements that take as long as they take. Raises: ConfigError, StoreUnavailable."""
    session = connect(settings)
    session.script(
        "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET synchronize_seqscans = off"
    )
    return session


def open_postgres_snapshot(settings: PostgresSettings, key: SecretBytes) -> PostgresSnapshot:
    """A snapshot of the store in this database, also while servers use it.

    Raises: ConfigError when there is none or the key does not fit; StoreUnavailable.
    """
    sealer = Sealer(key)
    session = open_patient_session(settings)
    try:
        row = session.one("SELECT to_regclass('audit_waiting') IS NOT NULL AND to_regclass('settings') IS NOT NULL")
        if row is None or not row[0]:
            raise ConfigError("there is no store in this database yet: the server has not run")
        begin_complete_reading(session)
        found = session.one("SELECT value FROM settings WHERE name = %s", (KEY_CHECK,))
        try:
            sealer.open("settings.value", KEY_CHECK, found[0] if found else b"")
        except IntegrityError as error:
            raise ConfigError("the database key does not fit this database") from error
        return PostgresSnapshot(session, sealer)
    except psycopg.Error as error:
        session.close()
        raise map_postgres_error(error) from error
    except (ConfigError, IntegrityError):
        session.close()
        raise


def create_postgres_target(settings: PostgresSettings, key: SecretBytes, version: int | None = None) -> PostgresTarget:
    """A transaction that makes the schema of this version (None: the newest) in an empty database, to be filled.

    Raises: ConfigError when the database is not empty, or the version is newer than this program; StoreUnavailable.
    """
    steps = list_postgres_migrations()
    wanted = len(steps) if version is None else version
    if wanted > len(steps):
        raise ConfigError(f"the backup has schema {wanted}, newer than this program's {len(steps)}")
    sealer = Sealer(key)
    session = open_patient_session(settings)
    try:
        session.begin()
        session.script(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {SCHEMA_LOCK})")
        check_empty(session)
        apply_steps(session, 0, wanted)
        return PostgresTarget(session, sealer, wanted)
    except psycopg.Error as error:
        session.close()
        raise map_postgres_error(error) from error
    except (ConfigError, IntegrityError):
        session.close()
        raise


def check_empty(session: Session) -> None:
    """Raises: ConfigError when the schema holds any table."""
    row = session.one("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")
    if row is None or row[0]:
        raise ConfigError("the database is not empty; give an empty one")


def apply_steps(session: Session, after: int, through: int) -> None:
    """Run the schema files with numbers after + 1 to through, in the present transaction."""
    for number, step in enumerate(list_postgres_migrations()[after:through], start=after + 1):
        session.script(step)
        session.script(f"INSERT INTO schema_versions (version) VALUES ({number})")


@functools.cache
def _list_sealed(table: Table) -> tuple[tuple[int, int, str], ...]:
    """The sealed values of a table's rows: where the row's key stands, where the value, and its place's name."""
    find = table.columns.index
    return tuple(
        (find(key), find(column), f"{name}.{column}") for name, key, column in SEALED_COLUMNS if name == table.name
    )


def _match(table: Table) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder()) for name in table.key
    )


def _expect_bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise IntegrityError("a value that is kept sealed is no bytes")
    return value
