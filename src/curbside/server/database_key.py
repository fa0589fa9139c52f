"""The database key: where it comes from, how it is made, how it is changed."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, StoreUnavailable
from curbside.server.config import Config, KeyCommand, KeyFile, KeyGiven, KeySource, parse_key
from curbside.server.store.sqlite_open import KEY_BYTES, open_connection, rotate_key

COMMAND_SECONDS: Final = 30


def load_database_key(source: KeySource) -> SecretBytes:
    """The 32-byte key.

    Raises: ConfigError when the source does not give it, or a file could be read by others than its owner.
    """
    match source:
        case KeyGiven(key):
            return key
        case KeyFile(path):
            return _read_key_file(path)
        case KeyCommand(command):
            return _run_key_command(command)
        case _:
            raise ConfigError("the database key has no source")


def create_key_file(path: Path) -> None:
    """Make a new key in a new file that its owner alone can read.

    Raises: ConfigError when the file exists or cannot be made.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"the key file cannot be made: {error.strerror}") from error
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(random_bytes(KEY_BYTES).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())


def rotate_database_key(config: Config, new: SecretBytes | None = None) -> None:
    """Encrypt the database under another key; the server must be stopped.

    With a key file, a new key is made (unless `new` is given) and the file is replaced. With another source, `new` is
    required and the operator puts it where the source looks. When a rotation was cut short, calling it again ends it.

    Raises: ConfigError; StoreUnavailable while a server runs; StorageFull.
    """
    with lock_data_folder(config.data_folder):
        if not isinstance(config.database_key, KeyFile):
            if new is None:
                raise ConfigError("give the new key: it cannot be put where the old one comes from")
            _rotate(config, load_database_key(config.database_key), new)
            return
        path = config.database_key.path
        fresh = path.with_name(path.name + ".new")
        if fresh.exists():
            _finish_rotation(config, path, fresh)
            return
        _write_fresh(fresh, new)
        _rotate(config, load_database_key(config.database_key), _read_key_file(fresh))
        os.replace(fresh, path)


def _write_fresh(fresh: Path, new: SecretBytes | None) -> None:
    create_key_file(fresh)
    if new is not None:
        fresh.write_text(new.reveal().hex() + "\n", encoding="ascii")


def _finish_rotation(config: Config, path: Path, fresh: Path) -> None:
    key = _read_key_file(fresh)
    if not _fits(config, key):
        _rotate(config, _read_key_file(path), key)
    os.replace(fresh, path)


def _rotate(config: Config, old: SecretBytes, new: SecretBytes) -> None:
    if config.database_url is not None:
        # Here and below: the embedded server starts without PostgreSQL's library.
        from curbside.server.store.postgres_open import PostgresSettings
        from curbside.server.store.postgres_sealing import rotate_sealing_key

        rotate_sealing_key(PostgresSettings(config.database_url, is_alone=True), old, new)
    else:
        rotate_key(config.database_path, old, new)


def _fits(config: Config, key: SecretBytes) -> bool:
    if config.database_url is not None:
        from curbside.server.store.postgres_open import PostgresSettings
        from curbside.server.store.postgres_sealing import fits_key

        return fits_key(PostgresSettings(config.database_url), key)
    try:
        open_connection(str(config.database_path), key).close()
    except ConfigError:
        return False
    return True


@contextmanager
def lock_data_folder(folder: Path) -> Iterator[None]:
    """Hold the data folder for one program: two servers on one log would not see each other's entries.

    Raises: StoreUnavailable while another program holds it.
    """
    try:
        handle = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"the data folder cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise StoreUnavailable("another server uses this data folder") from error
    finally:
        os.close(handle)


def _read_key_file(path: Path) -> SecretBytes:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"the database key file cannot be read: {error.strerror}") from error
    with os.fdopen(handle, "r", encoding="ascii", errors="replace") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ConfigError("the database key file must be a file that its owner alone can read (chmod 600)")
        return parse_key(file.read(200), "the key file")


def _run_key_command(command: tuple[str, ...]) -> SecretBytes:
    try:
        ran = subprocess.run(  # noqa: S603 - the operator's own command, without a shell
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=COMMAND_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"the database key command failed: {type(error).__name__}") from None
    return parse_key(ran.stdout.decode("ascii", errors="replace"), "the key command")
