"""The vault: everything a device keeps, in one encrypted SQLite file with one writer.

The format is shared with the web client: SQLite3 Multiple Ciphers, chacha20, a random raw key, the schema in
`schema/0001_vault.sql`. The key is stored only wrapped, in the file beside it (`<vault>.wraps`, JSON).

All SQL of the client is in this module and in `rows.py`. State that belongs together changes inside one
`transaction()`; only after it has ended may anything leave the device (save, then send).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import apsw

from curbside.client.rows import VaultRows, storage_errors
from curbside.crypto.passphrase import WrapRecord, unwrap, wrap
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import IntegrityError, NotFound, VaultBusy, VaultLocked
from curbside.ids import encode_base64url

SCHEMA_VERSION = 1
VAULT_KEY_BYTES = 32
CACHE_KIB = 8192
"""Decrypted pages kept in memory: enough for the group states that are written with every message."""


class Vault:
    """An open vault. Create or open one with the class methods; `close()` locks it."""

    def __init__(self, path: Path, key: SecretBytes, lock_file: int) -> None:
        self.path = path
        self._lock_file = lock_file
        self._depth = 0
        self._db: apsw.Connection | None
        with storage_errors():
            db = self._db = apsw.Connection(str(path))
            try:
                _prepare(db, key)
            except BaseException:
                db.close()
                raise
        self.rows = VaultRows(db)

    @classmethod
    def create(cls, path: Path, passphrase: str) -> Vault:
        """A new vault at `path`, its key wrapped under `passphrase`.

        Raises: VaultBusy (open elsewhere), IntegrityError (something is there already).
        """
        if path.exists() or _wraps_path(path).exists():
            raise IntegrityError("a vault exists at this place already")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock_file = _lock(path)
        try:
            key = SecretBytes(random_bytes(VAULT_KEY_BYTES))
            vault_id = encode_base64url(random_bytes(16))
            _write_wraps(path, vault_id, [wrap(key, passphrase, vault_id)])
            vault = cls(path, key, lock_file)
            os.chmod(path, 0o600)
            schema = resources.files("curbside.client").joinpath("schema/0001_vault.sql").read_text("utf-8")
            with vault.transaction():
                vault.rows.execute_script(schema)
                vault.rows.put_setting("schema", str(SCHEMA_VERSION))
                vault.rows.put_setting("vault_id", vault_id)
        except BaseException:
            os.close(lock_file)
            raise
        return vault

    @classmethod
    def open(cls, path: Path, passphrase: str) -> Vault:
        """Open the vault at `path`.

        Raises: NotFound (no vault), VaultBusy, WrongPassphrase, IntegrityError (damaged or of a newer Curbside).
        """
        if not path.exists() or not _wraps_path(path).exists():
            raise NotFound("there is no vault at this place")
        lock_file = _lock(path)
        try:
            vault_id, wraps = _read_wraps(path)
            vault = cls(path, unwrap(wraps[0], passphrase, vault_id), lock_file)
            if vault.rows.find_setting("schema") != str(SCHEMA_VERSION):
                vault.rows.close()
                raise IntegrityError("the vault was made by another version of Curbside")
        except BaseException:
            os.close(lock_file)
            raise
        return vault

    @contextmanager
    def transaction(self) -> Iterator[VaultRows]:
        """All or nothing: what is written inside is durable when the block ends, and absent when it raises.

        Raises: StorageFull, StoreUnavailable, VaultLocked; IntegrityError when the file is damaged.
        """
        if self._db is None:
            raise VaultLocked()
        if self._depth:
            yield self.rows
            return
        with storage_errors():
            self._db.execute("begin immediate")
        self._depth += 1
        try:
            yield self.rows
            with storage_errors():
                self._db.execute("commit")
        except BaseException:
            if self._db is not None and self._db.in_transaction:
                self._db.execute("rollback")
            raise
        finally:
            self._depth -= 1

    @property
    def is_open(self) -> bool:
        """Whether the vault can be read."""
        return self._db is not None

    def close(self) -> None:
        """Lock: close the file, give the lock back."""
        if self._db is not None:
            self._db.close()
            self._db = None
            os.close(self._lock_file)


def _prepare(db: apsw.Connection, key: SecretBytes) -> None:
    db.pragma("cipher", "chacha20")
    db.pragma("key", f"raw:{key.reveal().hex()}")
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", 2)
    db.pragma("foreign_keys", 1)
    db.pragma("secure_delete", 1)
    db.pragma("cache_size", -CACHE_KIB)
    db.pragma("wal_autocheckpoint", 4000)
    db.set_busy_timeout(2000)


def _wraps_path(path: Path) -> Path:
    return path.with_name(path.name + ".wraps")


def _lock(path: Path) -> int:
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise VaultBusy("another process has this vault open") from error
    return descriptor


def _write_wraps(path: Path, vault_id: str, wraps: list[WrapRecord]) -> None:
    target = _wraps_path(path)
    temporary = target.with_name(target.name + ".new")
    body: dict[str, Any] = {"version": 1, "vault_id": vault_id, "wraps": wraps}
    descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(body, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, target)


def _read_wraps(path: Path) -> tuple[str, list[WrapRecord]]:
    try:
        body = json.loads(_wraps_path(path).read_text("utf-8"))
        if body["version"] != 1 or not body["wraps"]:
            raise IntegrityError("the vault's key file is of another version")
        return str(body["vault_id"]), list(body["wraps"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError("the vault's key file cannot be read") from error
