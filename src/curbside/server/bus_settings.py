"""How to reach NATS: addresses, TLS, credentials."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.errors import ConfigError

_SCHEMES: Final = ("nats", "tls")
_NEAR: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_JWT: Final = re.compile(rb"-{3,}BEGIN NATS USER JWT-{3,}\s+([A-Za-z0-9_.-]+)\s+-{3,}END")
_SEED: Final = re.compile(rb"-{3,}BEGIN USER NKEY SEED-{3,}\s+(S[A-Z2-7]+)\s+-{3,}END")
_SEED_BYTES: Final = 36
"""Two bytes of type, the Ed25519 seed, two bytes of checksum."""


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """addresses: nats:// or tls://, separated by commas; they may hold a password. credentials: a `.creds` file.

    ca: PEM, None for the system's. certificate, key: PEM, of this node, where the server asks for one.
    """

    addresses: SecretBytes
    credentials: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def list_servers(self) -> list[str]:
        """The addresses. Raises: ConfigError, without any part of them."""
        found = [each.strip() for each in self.addresses.reveal().decode("utf-8", "replace").split(",")]
        for address in found:
            try:
                parts = urlsplit(address)
                is_address = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
            except ValueError:
                is_address = False
            if not is_address:
                raise ConfigError("bus.nats must be addresses such as nats://127.0.0.1:4222, separated by commas")
            if parts.scheme != urlsplit(found[0]).scheme:
                raise ConfigError("bus.nats: either all addresses are tls:// or none is")
            if parts.scheme == "nats" and parts.password and parts.hostname not in _NEAR:
                raise ConfigError("bus.nats: a password goes to another machine under tls:// only")
        return found

    @property
    def is_tls(self) -> bool:
        """Whether the connection must be under TLS. Raises: ConfigError."""
        return self.list_servers()[0].startswith("tls://")

    def make_tls(self) -> ssl.SSLContext | None:
        """The context of tls:// addresses; None for nats://. Raises: ConfigError."""
        if not self.is_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError("the bus's TLS files cannot be read") from error
        return context

    def make_credentials(self) -> dict[str, Any]:
        """What the client library needs to log in with the credentials file. Raises: ConfigError."""
        if self.credentials is None:
            return {}
        jwt, seed = read_credentials(self.credentials)
        return {"user_jwt_cb": lambda: bytearray(jwt), "signature_cb": make_signature_callback(seed)}

    def check(self) -> None:
        """Raises: ConfigError when something of it cannot be used."""
        self.list_servers()
        self.make_tls()
        self.make_credentials()


def read_credentials(path: Path) -> tuple[bytes, SecretBytes]:
    """The user's JWT and the Ed25519 seed of a `.creds` file. Raises: ConfigError, without any part of them."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the bus's credentials cannot be read: {error.strerror}") from error
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None or seed is None:
        raise ConfigError("the bus's credentials file has no user JWT and seed")
    try:
        raw = base64.b32decode(seed[1] + b"=" * (-len(seed[1]) % 8))
    except ValueError:
        raw = b""
    if len(raw) != _SEED_BYTES:
        raise ConfigError("the bus's credentials file has no usable seed")
    return jwt[1], SecretBytes(raw[2:34])


def make_signature_callback(seed: SecretBytes) -> Callable[[str], bytes]:
    """Signs the NATS server's nonce, as the client library wants it: base64."""
    signer = Signer("ed25519", seed)
    return lambda nonce: base64.b64encode(signer.sign(nonce.encode()))
