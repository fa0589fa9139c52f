"""Keys and tokens of a NATS server that knows its users by JWT (NATS security: operator, account, user)."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.ids import encode_base64url

OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3
ENDLESS = {"subs": -1, "data": -1, "payload": -1}


def _crc(data: bytes) -> bytes:
    """CRC-16/XMODEM, little-endian."""
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = ((value << 1) ^ 0x1021 if value & 0x8000 else value << 1) & 0xFFFF
    return value.to_bytes(2, "little")


def _encode(data: bytes) -> str:
    return base64.b32encode(data + _crc(data)).decode().rstrip("=")


@dataclass(frozen=True)
class Key:
    """An nkey: an Ed25519 key with a type."""

    kind: int
    secret: SecretBytes

    @classmethod
    def make(cls, kind: int) -> Key:
        return cls(kind, generate_signature_key("ed25519"))

    @property
    def public(self) -> str:
        return _encode(bytes([self.kind]) + Signer("ed25519", self.secret).public)

    @property
    def seed(self) -> str:
        return _encode(bytes([SEED | self.kind >> 5, (self.kind & 31) << 3]) + self.secret.reveal())

    def sign(self, subject: Key, name: str, claims: dict[str, object]) -> str:
        """A JWT about another key."""
        head = encode_base64url(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
        body = {"jti": name, "iat": 1_700_000_000, "iss": self.public, "sub": subject.public, "name": name}
        text = f"{head}.{encode_base64url(json.dumps(body | {'nats': claims | {'version': 2}}).encode())}"
        return f"{text}.{encode_base64url(Signer('ed25519', self.secret).sign(text.encode()))}"


def write_accounts(folder: Path) -> tuple[Path, Path]:
    """A server's configuration, and the credentials file of its one user."""
    operator, account, user = Key.make(OPERATOR), Key.make(ACCOUNT), Key.make(USER)
    limits = {**ENDLESS, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    of_operator = operator.sign(operator, "operator", {"type": "operator"})
    of_account = operator.sign(account, "account", {"type": "account", "limits": limits})
    of_user = account.sign(user, "user", {"type": "user", "pub": {}, "sub": {}, **ENDLESS})
    folder.mkdir(parents=True, exist_ok=True)
    config, credentials = folder / "nats.conf", folder / "bus.creds"
    config.write_text(
        f"operator: {of_operator}\nresolver: MEMORY\nresolver_preload: {{ {account.public}: {of_account} }}\n"
    )
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    return config, credentials
