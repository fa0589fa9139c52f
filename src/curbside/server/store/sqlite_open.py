"""Opening the encrypted SQLite file: key, settings of the engine, schema versions, rotation of the key.

Cipher: SQLite3MultipleCiphers' chacha20 (ChaCha20-Poly1305, one tag for each page) with a raw 32-byte key. Journal,
WAL and copies made by VACUUM INTO are encrypted alike; temporary tables stay in memory.
"""

from __future__ import annotations

import os
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import Final

import apsw

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, CurbsideError, IntegrityError, StorageFull, StoreUnavailable, UsageError

KEY_BYTES: Final = 32
APPLICATION_ID: Final = 0x43524253
MEMORY: Final = ":memory:"
_SCHEMA_FILE = re.compile(r"(\d{4})_[a-z_]+\.sql\Z")


def open_connection(path: str, key: SecretBytes, busy_ms: int = 2000) -> apsw.Connection:
    """A connection with the key applied and the settings every connection has.

    busy_ms: how long to wait for another process's lock.

    Raises: ConfigError when the key does not fit; StoreUnavailable when the file cannot be opened.
    """
    if len(key) != KEY_BYTES:
        raise ConfigError(f"the database key must have {KEY_BYTES} bytes")
    if path != MEMORY:
        _create_private(path)
    try:
        connection = apsw.Connection(path)
        connection.set_busy_timeout(busy_ms)
        if path != MEMORY:
            _apply_key(connection, key)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        for name, value in _PRAGMAS:
            connection.pragma(name, value)
    except apsw.NotADBError as error:
        raise ConfigError("the database key does not fit this database") from error
    except apsw.Error as error:
        raise map_engine_error(error) from error
    return connection


_PRAGMAS: Final = (
    ("journal_mode", "WAL"),
    ("synchronous", "FULL"),  # an acknowledged message survives a power cut
    ("foreign_keys", True),
    ("temp_store", "MEMORY"),  # no temporary file
    ("secure_delete", True),
    ("trusted_schema", False),
    ("cache_size", -65536),  # KiB: the pages that sends touch, in some 10,000 conversations at once
    ("wal_autocheckpoint", 4000),  # pages: one that many commits changed goes into the file once
)


def map_engine_error(error: apsw.Error) -> CurbsideError:
    """What an engine's error means to a caller."""
    match error:
        case apsw.FullError():
            return StorageFull()
        case apsw.IOError() if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:
            return StorageFull()
        case apsw.CorruptError() | apsw.NotADBError():
            return IntegrityError("the database is damaged")
        case apsw.ConstraintError() | apsw.SQLError() | apsw.MismatchError() | apsw.RangeError() | apsw.MisuseError():
            return UsageError(f"the store refused a statement: {type(error).__name__}")
        case _:
            return StoreUnavailable()


def migrate(connection: apsw.Connection, through: int | None = None) -> None:
    """Bring the schema up to this program's version, one file a transaction; never back.

    through: only to this version, for a restore of an older backup.

    Raises: ConfigError when the file belongs to a newer program or to another one; Unavailable as usual.
    """
    steps = list_migrations()
    try:
        version, owner = connection.pragma("user_version"), connection.pragma("application_id")
        if owner != APPLICATION_ID and (owner or version):
            raise ConfigError("the database file belongs to another program")
        if version > len(steps):
            raise ConfigError(f"the database has schema {version}, newer than this program's {len(steps)}")
        if through is not None and through > len(steps):
            raise ConfigError(f"the backup has schema {through}, newer than this program's {len(steps)}")
        for number in range(version + 1, (len(steps) if through is None else through) + 1):
            with connection:
                connection.execute(steps[number - 1])
                connection.pragma("user_version", number)
                connection.pragma("application_id", APPLICATION_ID)
    except apsw.Error as error:
        raise map_engine_error(error) from error


def list_migrations() -> list[str]:
    """The schema files' texts in order; the first is version 1.

    Raises: UsageError when the numbers have a gap.
    """
    folder = resources.files("curbside.server.store") / "schema"
    found = {
        int(match[1]): entry.read_text("utf-8")
        for entry in folder.iterdir()
        if (match := _SCHEMA_FILE.match(entry.name))
    }
    if not found or sorted(found) != list(range(1, len(found) + 1)):
        raise UsageError("the schema files are not numbered without gaps")
    return [found[number] for number in sorted(found)]


def rotate_key(path: Path, old: SecretBytes, new: SecretBytes) -> None:
    """Encrypt the database under `new`. Nothing else may have it open. A crash leaves the old file or the new one.

    Raises: ConfigError when `old` does not fit; StoreUnavailable when the database is in use; StorageFull.
    """
    copy = path.with_name(path.name + ".rotating")
    copy.unlink(missing_ok=True)
    connection = open_connection(str(path), old, busy_ms=0)
    try:
        connection.pragma("locking_mode", "EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE; COMMIT")
        connection.pragma("journal_mode", "DELETE")  # refused while another connection is open; folds the WAL in
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        _rekey(copy, old, new)
        os.replace(copy, path)
        _sync_folder(path.parent)
    except apsw.Error as error:
        raise map_engine_error(error) from error
    finally:
        copy.unlink(missing_ok=True)
        connection.close()


def _rekey(copy: Path, old: SecretBytes, new: SecretBytes) -> None:
    connection = apsw.Connection(str(copy))
    try:
        _apply_key(connection, old)
        connection.execute(f'PRAGMA rekey = "raw:{new.reveal().hex()}"')
    finally:
        connection.close()
    check = open_connection(str(copy), new)
    try:
        if check.pragma("integrity_check") != "ok":
            raise IntegrityError("the database did not survive the change of its key; the old one is kept")
        check.pragma("journal_mode", "DELETE")
    finally:
        check.close()
    with copy.open("rb") as file:
        os.fsync(file.fileno())


def _apply_key(connection: apsw.Connection, key: SecretBytes) -> None:
    connection.pragma("cipher", "chacha20")
    connection.execute(f'PRAGMA key = "raw:{key.reveal().hex()}"')


def _create_private(path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreUnavailable("the database file cannot be opened") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
