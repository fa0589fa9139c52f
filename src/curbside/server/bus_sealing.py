"""Sealing of what goes over the bus, so that the bus itself learns sizes and times and can make nothing up.

Every node derives the same key from the database key. A message is `salt (16 bytes) ‖ count (8 bytes) ‖ ciphertext and
tag`: ChaCha20-Poly1305 (RFC 8439) under HKDF-Expand(key, "sender" ‖ salt) with the count as nonce, the subject as
associated data. The salt is one node's, made at its start, and the count rises with each of its messages, so that a
(key, nonce) pair is used once. Subjects are pseudonyms: HMAC-SHA256 of what they are about, cut to 16 bytes.

Repetition is not noticed here: every message is harmless when it is heard twice (server.bus).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from curbside.crypto.aead import NONCE_LENGTH, TAG_LENGTH, open_sealed, seal
from curbside.crypto.kdf import compute_mac, expand
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import DecryptionFailed
from curbside.ids import encode_base64url

SALT_BYTES: Final = 16
COUNT_BYTES: Final = 8
SENDERS_KEPT: Final = 256
OVERHEAD: Final = SALT_BYTES + COUNT_BYTES + TAG_LENGTH
_PADDING: Final = bytes(NONCE_LENGTH - COUNT_BYTES)


class BusSealer:
    """Seals as one sender, opens what any node sealed."""

    def __init__(self, database_key: SecretBytes) -> None:
        self._key = SecretBytes(expand("sha256", database_key.reveal(), b"curbside bus 1", 32))
        self._salt = random_bytes(SALT_BYTES)
        self._own = self._derive(self._salt)
        self._count = 0
        self._senders: OrderedDict[bytes, SecretBytes] = OrderedDict()
        self.prefix: Final = f"curbside.{self.hide('fleet')}"
        """Subjects of the nodes of one database begin with it: several databases may share a bus."""

    def hide(self, name: str) -> str:
        """The pseudonym of an id, in the letters that a subject may have."""
        return encode_base64url(compute_mac("sha256", self._key.reveal(), b"subject" + name.encode())[:16])

    def seal(self, subject: str, message: bytes) -> bytes:
        """A message for this subject."""
        self._count += 1
        count = self._count.to_bytes(COUNT_BYTES, "big")
        sealed = seal("chacha20poly1305", self._own.reveal(), _PADDING + count, message, subject.encode())
        return self._salt + count + sealed

    def open(self, subject: str, data: bytes) -> bytes:
        """Raises: DecryptionFailed when no node of this database sealed it for this subject."""
        if len(data) < OVERHEAD:
            raise DecryptionFailed
        salt, rest = data[:SALT_BYTES], data[SALT_BYTES:]
        count, sealed = rest[:COUNT_BYTES], rest[COUNT_BYTES:]
        key = self._senders.get(salt)
        opened = open_sealed(
            "chacha20poly1305", (key or self._derive(salt)).reveal(), _PADDING + count, sealed, subject.encode()
        )
        if key is None:  # kept only once it proved to be a node's
            self._senders[salt] = self._derive(salt)
            if len(self._senders) > SENDERS_KEPT:
                self._senders.popitem(last=False)
        return opened

    def _derive(self, salt: bytes) -> SecretBytes:
        return SecretBytes(expand("sha256", self._key.reveal(), b"sender" + salt, 32))
