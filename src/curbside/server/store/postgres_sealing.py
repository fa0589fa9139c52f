"""Sealing of what would let a thief of the database act as the server.

PostgreSQL does not encrypt its pages. Settings (private keys among them), OPAQUE records and sign-in states are
therefore encrypted by the server, with ChaCha20-Poly1305 under the database key, each bound to its place:
nonce (12 bytes) ‖ ciphertext and tag, associated data `<column> NUL <row's key>`.
"""

from __future__ import annotations

from typing import Final

import psycopg

from curbside.crypto.aead import NONCE_LENGTH, open_sealed, seal
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, DecryptionFailed, IntegrityError
from curbside.server.store.postgres_open import PostgresSettings, claim_database, connect, migrate_postgres
from curbside.server.store.postgres_session import Session, map_postgres_error

KEY_BYTES: Final = 32
KEY_CHECK: Final = "store.key_check"
SEALED_COLUMNS: Final = (
    ("settings", "name", "value"),
    ("users", "user_id", "opaque_record"),
    ("signins", "signin_id", "state"),
)


class Sealer:
    """Seals and opens values of one database key."""

    def __init__(self, key: SecretBytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigError(f"the database key must have {KEY_BYTES} bytes")
        self._key = key

    def seal(self, column: str, row: str, value: bytes) -> bytes:
        """column: "table.column"; row: the row's key."""
        nonce = random_bytes(NONCE_LENGTH)
        return nonce + seal("chacha20poly1305", self._key.reveal(), nonce, value, _place(column, row))

    def open(self, column: str, row: str, sealed: bytes) -> bytes:
        """Raises: IntegrityError when the value was changed, moved, or sealed under another key."""
        nonce, ciphertext = sealed[:NONCE_LENGTH], sealed[NONCE_LENGTH:]
        try:
            return open_sealed("chacha20poly1305", self._key.reveal(), nonce, ciphertext, _place(column, row))
        except DecryptionFailed as error:
            raise IntegrityError("a sealed value of the database does not open") from error


def _place(column: str, row: str) -> bytes:
    return f"{column}\0{row}".encode()


def check_key(session: Session, sealer: Sealer) -> None:
    """Raises: ConfigError when the key is not the one this database was made with."""
    session.change(
        "INSERT INTO settings (name, value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (KEY_CHECK, sealer.seal("settings.value", KEY_CHECK, b"")),
    )
    row = session.one("SELECT value FROM settings WHERE name = %s", (KEY_CHECK,))
    try:
        sealer.open("settings.value", KEY_CHECK, row[0] if row else b"")
    except IntegrityError as error:
        raise ConfigError("the database key does not fit this database") from error


def fits_key(settings: PostgresSettings, key: SecretBytes) -> bool:
    """Whether the database was sealed with this key. Raises: ConfigError, StoreUnavailable."""
    session = connect(settings)
    try:
        row = session.one("SELECT value FROM settings WHERE name = %s", (KEY_CHECK,))
        Sealer(key).open("settings.value", KEY_CHECK, row[0] if row else b"")
    except IntegrityError:
        return False
    except psycopg.Error as error:
        raise map_postgres_error(error) from error
    finally:
        session.close()
    return True


def rotate_sealing_key(settings: PostgresSettings, old: SecretBytes, new: SecretBytes) -> None:
    """Seal everything under `new`, in one transaction. No server may run on the database.

    Raises: ConfigError when `old` does not fit; StoreUnavailable when the database is in use; StorageFull.
    """
    before, after = Sealer(old), Sealer(new)
    session = connect(settings)
    try:
        claim_database(session)
        migrate_postgres(session)
        session.begin()
        check_key(session, before)
        for table, key, value in SEALED_COLUMNS:
            column = f"{table}.{value}"
            for row, sealed in session.all(f"SELECT {key}, {value} FROM {table}"):
                fresh = after.seal(column, row, before.open(column, row, sealed))
                session.change(f"UPDATE {table} SET {value} = %s WHERE {key} = %s", (fresh, row))
        session.script("COMMIT")
    except psycopg.Error as error:
        raise map_postgres_error(error) from error
    finally:
        session.close()
