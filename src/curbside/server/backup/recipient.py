"""The key pair of backups. The public half is on the server and makes backups; the private half opens them.

    public file    curbside-backup-recipient/1 <X25519 public key, base64url>
    private file   JSON: the private key, wrapped under a passphrase or open, and the organisation's audit key

The private file also pins the audit key that signs manifests: whoever has the public half alone can encrypt something
to it, but not pass it off as a backup of the organisation.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from curbside.audit.checkpoint import VerifierKey, parse_verifier_key
from curbside.crypto.hpke import KEMS, Hpke, check_public_key, generate_key_pair, public_key
from curbside.crypto.kdf import compute_hash, is_same
from curbside.crypto.passphrase import unwrap, wrap
from curbside.crypto.passphrase_rating import rate_passphrase
from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, InvalidMessage, RuleBroken, WrongPassphrase
from curbside.ids import decode_base64url, encode_base64url

HPKE: Final = Hpke(KEMS["x25519"], "sha256", "aes256gcm")
PUBLIC_FORMAT: Final = "curbside-backup-recipient/1"
PRIVATE_FORMAT: Final = "curbside-backup-key/1"


@dataclass(frozen=True, slots=True)
class BackupKey:
    """The private half. audit_key: signs the manifests of the organisation; None: nobody said which."""

    private: SecretBytes
    public: bytes
    audit_key: VerifierKey | None


class _PrivateFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of wrap (curbside.crypto.passphrase) and private (base64url) is there."""

    format: str
    public: str
    audit_key: str | None = None
    wrap: dict[str, Any] | None = None
    private: str | None = None


def make_backup_key(
    private_file: Path, public_file: Path, passphrase: str | None, audit_key: VerifierKey | None
) -> None:
    """Make a key pair in two new files. passphrase None: the private half is not wrapped.

    Raises: ConfigError when a file exists or cannot be written; RuleBroken("passphrase.strength").
    """
    if passphrase is not None:
        rating = rate_passphrase(passphrase, "backup", "backup")
        if not rating.acceptable:
            raise RuleBroken("passphrase.strength", rating.hint)
    private, public = generate_key_pair(HPKE.kem)
    name = encode_base64url(public)
    pinned = None if audit_key is None else audit_key.encode()
    if passphrase is None:
        file = _PrivateFile(PRIVATE_FORMAT, name, pinned, private=encode_base64url(private))
    else:
        file = _PrivateFile(
            PRIVATE_FORMAT, name, pinned, wrap=dict(wrap(SecretBytes(private), passphrase, _wrap_id(name)))
        )
    try:
        _write_new(private_file, msgspec.json.format(msgspec.json.encode(file)) + b"\n", 0o600)
        _write_new(public_file, f"{PUBLIC_FORMAT} {name}\n".encode(), 0o644)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error


def read_recipient(path: Path) -> bytes:
    """The public half. Raises: ConfigError."""
    try:
        words = path.read_text("ascii").split()
        if len(words) == 2 and words[0] == PUBLIC_FORMAT:
            public = decode_base64url(words[1])
            check_public_key(HPKE.kem, public)
            return public
    except OSError as error:
        raise ConfigError(f"the backup's public key cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, InvalidMessage):
        pass
    raise ConfigError(f"{path} is no public key of backups")


def is_wrapped(path: Path) -> bool:
    """Whether the private file needs a passphrase. Raises: ConfigError."""
    return _read_private_file(path).wrap is not None


def open_backup_key(path: Path, passphrase: str | None) -> BackupKey:
    """The private half. Raises: WrongPassphrase; ConfigError when the file is none of ours or was changed."""
    file = _read_private_file(path)
    try:
        public = decode_base64url(file.public)
        audit_key = None if file.audit_key is None else parse_verifier_key(file.audit_key)
        if file.private is not None:
            private = SecretBytes(decode_base64url(file.private))
        elif passphrase is None:
            raise WrongPassphrase("the backup key needs its passphrase")
        else:
            private = unwrap(file.wrap, passphrase, _wrap_id(file.public))
    except InvalidMessage as error:
        raise ConfigError(f"{path} is damaged: {error.detail}") from error
    if len(private) != HPKE.kem.private_length or not is_same(public_key(HPKE.kem, private.reveal()), public):
        raise ConfigError(f"{path} is damaged: its halves do not belong together")
    return BackupKey(private, public, audit_key)


def print_of(public: bytes) -> bytes:
    """A short name of a public half: 8 bytes."""
    return compute_hash("sha256", public)[:8]


def _read_private_file(path: Path) -> _PrivateFile:
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_PrivateFile)
    except OSError as error:
        raise ConfigError(f"the backup key cannot be read: {error.strerror} ({path})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no private key of backups") from error
    if file.format != PRIVATE_FORMAT or (file.wrap is None) == (file.private is None):
        raise ConfigError(f"{path} is no private key of backups of this version")
    return file


def _wrap_id(public: str) -> str:
    """Binds the wrap to its key pair."""
    return f"backup {public}"


def _write_new(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
