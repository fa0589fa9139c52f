"""Opening the PostgreSQL database: connection settings, checks of the server, schema versions.

What is not given in the URL is set to the safe choice: TLS with a verified certificate unless the server is on this
machine, durable commits, limits on how long a statement, a lock or an idle transaction may last.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, StoreUnavailable, UsageError
from curbside.server.store.postgres_session import (
    LOCK_CLASS,
    SCHEMA_LOCK,
    SERVING_LOCK,
    Row,
    Session,
    map_postgres_error,
)

OLDEST_SERVER: Final = 140000
KEEPALIVE: Final[dict[str, Any]] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_SCHEMA_FILE = re.compile(r"(\d{4})_[a-z_]+\.sql\Z")
_URL_START = re.compile(r"postgres(ql)?://")


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """How to reach the database. url: postgres://…; it may hold a password, so it is secret.

    lock_ms: wait for another process's transaction. statement_ms: for one statement. is_alone: the one server of the
    database. is_shared: one of several that tell one another of their work. Neither opens beside a server that is
    alone, nor is_alone beside one that is shared; tools open beside all.
    """

    url: SecretBytes
    lock_ms: int = 2000
    statement_ms: int = 10_000
    connect_seconds: int = 3
    is_alone: bool = False
    is_shared: bool = False


def parse_database_url(url: SecretBytes) -> dict[str, Any]:
    """Connection parameters, completed with safe ones.

    Raises: ConfigError, without any part of the URL.
    """
    text = url.reveal().decode("utf-8", errors="replace")
    if not _URL_START.match(text):
        raise ConfigError("database_url must start with postgres://")
    try:
        given: dict[str, Any] = dict(conninfo_to_dict(text))
    except psycopg.Error:
        raise ConfigError("database_url cannot be read; percent-encode special characters of the password") from None
    hosts = str(given.get("host") or given.get("hostaddr") or "")
    is_near = all(host in ("", "localhost", "127.0.0.1", "::1") or host[0] in "/@" for host in hosts.split(","))
    if not is_near and "sslmode" not in given:
        given["sslmode"] = "verify-full"
        given.setdefault("sslrootcert", ssl.get_default_verify_paths().cafile or "system")
    given.setdefault("target_session_attrs", "read-write")
    given.setdefault("application_name", "curbside")
    return KEEPALIVE | given


def connect(settings: PostgresSettings) -> Session:
    """A connection with the settings that every connection has.

    Raises: ConfigError when the URL or the server is not usable; StoreUnavailable when it cannot be reached.
    """
    parameters = parse_database_url(settings.url)
    parameters.setdefault("connect_timeout", settings.connect_seconds)
    try:
        connection: psycopg.Connection[Row] = psycopg.connect(**parameters, autocommit=True, prepare_threshold=0)
    except psycopg.Error as error:
        raise StoreUnavailable("the database server cannot be reached, or refuses the log-in") from error
    connection.prepared_max = 500
    session = Session(connection)
    try:
        _configure(session, settings)
    except psycopg.Error as error:
        session.close()
        raise map_postgres_error(error) from error
    except ConfigError:
        session.close()
        raise
    return session


def _configure(session: Session, settings: PostgresSettings) -> None:
    session.script(
        f"""SET lock_timeout = {settings.lock_ms}; SET statement_timeout = {settings.statement_ms};
        SET idle_in_transaction_session_timeout = 10000; SET default_transaction_isolation = 'read committed';
        SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
        SET client_min_messages = error;
        SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"""
    )
    row = session.one(
        """SELECT current_setting('server_version_num')::bigint, current_setting('server_encoding'),
        current_setting('fsync')"""
    )
    version, encoding, fsync = row or (0, "", "")
    if version < OLDEST_SERVER:
        raise ConfigError(f"the database server is too old; PostgreSQL {OLDEST_SERVER // 10000} or newer is needed")
    if encoding != "UTF8":
        raise ConfigError(f"the database has the encoding {encoding}; make one with UTF8")
    if fsync != "on":
        raise ConfigError("the database server runs with fsync off: it would lose acknowledged messages")


def claim_database(session: Session, alone: bool = True) -> None:
    """Be a server of this database, alone or one of several, for as long as the connection lasts.

    Raises: StoreUnavailable while a server is there that this one cannot be beside.
    """
    way = "" if alone else "_shared"
    row = session.one(f"SELECT pg_try_advisory_lock{way}({LOCK_CLASS}, {SERVING_LOCK})")
    if row is None or not row[0]:
        raise StoreUnavailable("another server uses this database")


def migrate_postgres(session: Session) -> None:
    """Bring the schema up to this program's version, one file a transaction; never back.

    Raises: ConfigError when the schema is newer or the database is another program's; StoreUnavailable, StorageFull.
    """
    steps = list_postgres_migrations()
    try:
        version = 0
        while version < len(steps):
            version = _take_step(session, steps)
        if version > len(steps):
            raise ConfigError(f"the database has schema {version}, newer than this program's {len(steps)}")
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigError("the database user may not make tables; make it the owner of the database") from error
    except psycopg.Error as error:
        raise map_postgres_error(error) from error
    finally:
        if not session.is_lost:
            session.rollback()


def _take_step(session: Session, steps: list[str]) -> int:
    """Apply the next schema file, if one is missing; the version then. Others who start now wait for the lock."""
    session.script(f"BEGIN; SELECT pg_advisory_xact_lock({LOCK_CLASS}, {SCHEMA_LOCK})")
    version = _find_version(session)
    if version < len(steps):
        session.script(steps[version])
        version += 1
        session.script(f"INSERT INTO schema_versions (version) VALUES ({version})")
    session.script("COMMIT")
    return version


def _find_version(session: Session) -> int:
    row = session.one("SELECT to_regclass('schema_versions') IS NOT NULL")
    if row is not None and row[0]:
        found = session.one("SELECT coalesce(max(version), 0) FROM schema_versions")
        return int(found[0]) if found else 0
    others = session.one("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")
    if others is None or others[0]:
        raise ConfigError("the database holds another program's tables; give Curbside a database of its own")
    return 0


def list_postgres_migrations() -> list[str]:
    """The schema files' texts in order; the first is version 1.

    Raises: UsageError when the numbers have a gap.
    """
    folder = resources.files("curbside.server.store") / "schema" / "postgres"
    found = {
        int(match[1]): entry.read_text("utf-8")
        for entry in folder.iterdir()
        if (match := _SCHEMA_FILE.match(entry.name))
    }
    if not found or sorted(found) != list(range(1, len(found) + 1)):
        raise UsageError("the schema files are not numbered without gaps")
    return [found[number] for number in sorted(found)]
