"""Passphrases: one spelling of them, and the vault key wrapped under one (docs/trust.md "Passphrase").

A passphrase is normalised to NFKC (NIST SP 800-63B-4 section 3.1.1.2, which also says to count code points) and encoded
as UTF-8, so that the same keys give the same bytes on every keyboard and in both clients; nothing is trimmed or folded.
`web/src/core/crypto/passphrase.ts` is the twin; how good a passphrase is, is judged in `passphrase_rating`.
"""

from __future__ import annotations

import unicodedata
from typing import Final, TypedDict, cast

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from curbside.crypto import aead
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import DecryptionFailed, Malformed, UsageError, WrongPassphrase
from curbside.ids import decode_base64url, encode_base64url

MINIMUM_CHARS: Final = 15
"""Code points, after normalisation (NIST SP 800-63B-4: 15 where it is the only factor)."""
MAXIMUM_CHARS: Final = 1024
MEMORY_KIB: Final = 65_536
PASSES: Final = 3
LANES: Final = 1
SALT_BYTES: Final = 16
VAULT_KEY_BYTES: Final = 32
_LABEL: Final = b"curbside vault wrap v1\x00"
_MEMBERS: Final = {"kind", "kdf", "memory_kib", "passes", "lanes", "salt", "nonce", "ciphertext"}
_BOUNDS: Final = {"memory_kib": (MEMORY_KIB, 4 * MEMORY_KIB), "passes": (PASSES, 10), "lanes": (1, 4)}
"""What a record may ask for: never less work than today, never more than a phone can do."""


class WrapRecord(TypedDict):
    """A vault key wrapped under a passphrase; plain JSON. salt, nonce, ciphertext: base64url."""

    kind: str
    kdf: str
    memory_kib: int
    passes: int
    lanes: int
    salt: str
    nonce: str
    ciphertext: str


def normalize_passphrase(passphrase: str) -> str:
    """The one spelling of a passphrase: NFKC.

    Raises: UsageError when it is no Unicode text or over MAXIMUM_CHARS.
    """
    if len(passphrase) > MAXIMUM_CHARS or any(0xD800 <= ord(char) <= 0xDFFF for char in passphrase):
        raise UsageError("a passphrase is too long or not Unicode text")
    return unicodedata.normalize("NFKC", passphrase)


def prepare_passphrase(passphrase: str) -> SecretBytes:
    """The bytes that stand for a passphrase everywhere: UTF-8 of its normal form.

    Raises: UsageError.
    """
    return SecretBytes(normalize_passphrase(passphrase).encode())


def wrap(vault_key: SecretBytes, passphrase: str, vault_id: str, salt: bytes = b"", nonce: bytes = b"") -> WrapRecord:
    """Wrap a vault key (32 bytes) for the vault of this id. salt, nonce: random unless given (by test vectors only).

    Raises: UsageError.
    """
    if len(vault_key) != VAULT_KEY_BYTES:
        raise UsageError("a vault key has 32 bytes")
    salt, nonce = salt or random_bytes(SALT_BYTES), nonce or random_bytes(aead.NONCE_LENGTH)
    key = _derive(passphrase, salt, MEMORY_KIB, PASSES, LANES)
    ciphertext = aead.seal("aes256gcm", key.reveal(), nonce, vault_key.reveal(), _LABEL + vault_id.encode())
    key.wipe()
    return WrapRecord(
        kind="passphrase",
        kdf="argon2id",
        memory_kib=MEMORY_KIB,
        passes=PASSES,
        lanes=LANES,
        salt=encode_base64url(salt),
        nonce=encode_base64url(nonce),
        ciphertext=encode_base64url(ciphertext),
    )


def unwrap(record: object, passphrase: str, vault_id: str) -> SecretBytes:
    """The vault key out of a record (parsed JSON).

    Raises: WrongPassphrase; Malformed when it is no record of ours.
    """
    wrap = parse_wrap_record(record)
    salt, nonce, ciphertext = (decode_base64url(wrap[name]) for name in ("salt", "nonce", "ciphertext"))
    key = _derive(passphrase, salt, wrap["memory_kib"], wrap["passes"], wrap["lanes"])
    try:
        return SecretBytes(aead.open_sealed("aes256gcm", key.reveal(), nonce, ciphertext, _LABEL + vault_id.encode()))
    except DecryptionFailed:
        raise WrongPassphrase from None
    finally:
        key.wipe()


def parse_wrap_record(record: object) -> WrapRecord:
    """Check the form of a record.

    Raises: Malformed.
    """
    if not isinstance(record, dict) or set(record) != _MEMBERS:
        raise Malformed("vault wrap: other members were expected")
    if record["kind"] != "passphrase" or record["kdf"] != "argon2id":
        raise Malformed("vault wrap: of an unknown kind")
    for name, (least, most) in _BOUNDS.items():
        if type(record[name]) is not int or not least <= record[name] <= most:
            raise Malformed(f"vault wrap: {name} is out of its range")
    lengths = {"salt": SALT_BYTES, "nonce": aead.NONCE_LENGTH, "ciphertext": VAULT_KEY_BYTES + aead.TAG_LENGTH}
    for name, length in lengths.items():
        if not isinstance(record[name], str) or len(decode_base64url(record[name])) != length:
            raise Malformed(f"vault wrap: {name} has another length")
    return cast("WrapRecord", record)


def _derive(passphrase: str, salt: bytes, memory_kib: int, passes: int, lanes: int) -> SecretBytes:
    secret = prepare_passphrase(passphrase)
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib)
    key = SecretBytes(kdf.derive(secret.reveal()))
    secret.wipe()
    return key
