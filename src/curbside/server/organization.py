"""Making an organisation: the authority, the database key, the configuration. Run once, before the server ever runs.

The authority's private key lands in a folder of its own beside the server's data, never inside it, and nothing that the
running server imports can read it. Whoever has that key can invite anybody in any role: keep the file offline.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from curbside.clock import Clock
from curbside.crypto.passphrase import unwrap, wrap
from curbside.crypto.passphrase_rating import rate_passphrase
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.crypto.x509 import Issuer, make_authority
from curbside.errors import ConfigError, InvalidMessage, RuleBroken, UsageError, WrongPassphrase
from curbside.ids import decode_base64url, encode_base64url
from curbside.policy.chain import parse_authority
from curbside.server.database_key import create_key_file

FORMAT: Final = "curbside-authority/1"
AUTHORITY_KEY: Final = Path("authority", "authority.key")
AUTHORITY_CERTIFICATE: Final = Path("authority", "authority.der")
DATABASE_KEY: Final = Path("keys", "database.key")
CONFIG: Final = Path("curbside.toml")
DATA: Final = Path("data")
CHECKPOINTS: Final = Path("checkpoints", "audit.checkpoints")


@dataclass(frozen=True, slots=True)
class InitRequest:
    """folder: made if it is not there. url: origin under which clients reach the server. passphrase: of the authority
    key; None leaves the key open, for tests and demos only."""

    folder: Path
    name: str
    url: str
    passphrase: str | None
    host: str = "127.0.0.1"
    port: int = 8443
    static_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class InitResult:
    """Where everything is. checkpoint_file: signed heads of the audit log; best on another machine's share."""

    folder: Path
    config_file: Path
    data_folder: Path
    authority_key_file: Path
    authority_certificate_file: Path
    database_key_file: Path
    checkpoint_file: Path


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The authority key file. Exactly one of wrap (curbside.crypto.passphrase) and seed (base64url) is there."""

    format: str
    certificate: str
    wrap: dict[str, Any] | None = None
    seed: str | None = None


def init_organization(request: InitRequest, clock: Clock) -> InitResult:
    """Make a new organisation in a folder; nothing that exists is overwritten.

    Raises: ConfigError when there is one already or the folder cannot be written; RuleBroken("passphrase.strength").
    """
    folder = request.folder.resolve()
    result = _place(folder)
    parts = (result.config_file, result.authority_key_file, result.database_key_file)
    taken = [path for path in parts if path.exists()]
    if taken or (result.data_folder.exists() and any(result.data_folder.iterdir())):
        raise ConfigError(f"{folder} holds an organisation already; choose another --folder")
    if request.passphrase is not None:
        rating = rate_passphrase(request.passphrase, request.name, request.name)
        if not rating.acceptable:
            raise RuleBroken("passphrase.strength", rating.hint)
    try:
        authority = make_authority(request.name, clock.now())
    except UsageError as error:
        raise ConfigError(f"the organisation's name does not fit in a certificate: {error.detail}") from error
    try:
        for path in (result.authority_key_file.parent, result.database_key_file.parent, result.data_folder):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        result.checkpoint_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_authority(result.authority_key_file, authority, request.passphrase)
        _write_new(result.authority_certificate_file, authority.certificate.raw, 0o644)
        create_key_file(result.database_key_file)
        # Last: a folder without it was not finished, and init may be told to start again elsewhere.
        _write_new(result.config_file, _build_config(request, result).encode(), 0o600)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error
    return result


def find_organization(folder: Path) -> InitResult:
    """Where the parts of an organisation made by `init_organization` are.

    Raises: ConfigError when there is none.
    """
    result = _place(folder.resolve())
    if not result.config_file.exists():
        raise ConfigError(f"{folder} holds no organisation; make one with `curbside init --folder {folder}`")
    return result


def write_authority(path: Path, authority: Issuer, passphrase: str | None) -> None:
    """Write the authority key file, for its owner alone. passphrase None: not wrapped.

    Raises: OSError when it exists or cannot be written.
    """
    certificate = encode_base64url(authority.certificate.raw)
    if passphrase is None:
        file = _KeyFile(FORMAT, certificate, seed=encode_base64url(authority.key.reveal()))
    else:
        wrapped = wrap(authority.key, passphrase, _wrap_id(certificate))
        file = _KeyFile(FORMAT, certificate, wrap=dict(wrapped))
    _write_new(path, msgspec.json.format(msgspec.json.encode(file)) + b"\n", 0o600)


def is_wrapped(path: Path) -> bool:
    """Whether the authority key file needs a passphrase.

    Raises: ConfigError.
    """
    return _read_key_file(path).wrap is not None


def open_authority(path: Path, passphrase: str | None) -> Issuer:
    """The authority with its private key.

    Raises: WrongPassphrase; ConfigError when the file is none of ours or was changed.
    """
    file = _read_key_file(path)
    try:
        certificate = parse_authority(decode_base64url(file.certificate))
        if file.seed is not None:
            key = SecretBytes(decode_base64url(file.seed))
        elif passphrase is None:
            raise WrongPassphrase("the authority key needs its passphrase")
        else:
            key = unwrap(file.wrap, passphrase, _wrap_id(file.certificate))
    except InvalidMessage as error:
        raise ConfigError(f"{path} is damaged: {error.detail}") from error
    if len(key) != 32 or Signer("ed25519", key).public != certificate.public_key:
        raise ConfigError(f"{path} is damaged: the key is not that of the certificate")
    return Issuer(certificate, key)


def _place(folder: Path) -> InitResult:
    return InitResult(
        folder=folder,
        config_file=folder / CONFIG,
        data_folder=folder / DATA,
        authority_key_file=folder / AUTHORITY_KEY,
        authority_certificate_file=folder / AUTHORITY_CERTIFICATE,
        database_key_file=folder / DATABASE_KEY,
        checkpoint_file=folder / CHECKPOINTS,
    )


def _read_key_file(path: Path) -> _KeyFile:
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_KeyFile)
    except OSError as error:
        raise ConfigError(f"the authority key cannot be read: {error.strerror} ({path})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no authority key file") from error
    if file.format != FORMAT or (file.wrap is None) == (file.seed is None):
        raise ConfigError(f"{path} is no authority key file of this version")
    return file


def _wrap_id(certificate: str) -> str:
    """Binds the wrap to its certificate."""
    return f"authority {certificate}"


def _build_config(request: InitRequest, result: InitResult) -> str:
    lines = [
        "# Curbside's configuration. Settings that are not here have the safe default. Check: curbside serve --check",
        f"data_folder = {_quote(result.data_folder)}",
        f"public_urls = [{_quote(request.url)}]",
        f"host = {_quote(request.host)}",
        f"port = {request.port}",
        f"database_key_file = {_quote(result.database_key_file)}",
        f"authority_certificate = {_quote(result.authority_certificate_file)}",
    ]
    if request.static_folder is not None:
        lines.append(f"static_folder = {_quote(request.static_folder.resolve())}")
    lines += [
        "",
        "[audit]",
        "# Each signed checkpoint of the audit log is appended here. Put it on a share of another machine.",
        f"checkpoint_file = {_quote(result.checkpoint_file)}",
        "",
    ]
    return "\n".join(lines)


def _quote(value: object) -> str:
    """A TOML basic string; its escapes are those of JSON."""
    return json.dumps(str(value), ensure_ascii=False)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
