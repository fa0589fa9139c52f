"""Authenticated encryption by name; all three have nonces of 12 and tags of 16 bytes."""

from __future__ import annotations

from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from curbside.errors import DecryptionFailed

AeadName = Literal["aes128gcm", "aes256gcm", "chacha20poly1305"]
KEY_LENGTH: Final[dict[AeadName, int]] = {"aes128gcm": 16, "aes256gcm": 32, "chacha20poly1305": 32}
NONCE_LENGTH: Final = 12
TAG_LENGTH: Final = 16


def _cipher(name: AeadName, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if name == "chacha20poly1305" else AESGCM(key)


def seal(name: AeadName, key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Encrypt; the tag follows the ciphertext. A (key, nonce) pair must never be used twice."""
    return _cipher(name, key).encrypt(nonce, plaintext, aad)


def open_sealed(name: AeadName, key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """Decrypt what `seal` made.

    Raises: DecryptionFailed, without a reason.
    """
    try:
        return _cipher(name, key).decrypt(nonce, ciphertext, aad)
    except (InvalidTag, ValueError):
        raise DecryptionFailed from None
