"""Hash, MAC and HKDF (RFC 5869) by the name of a hash: "sha256", "sha384" or "sha512"."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Literal

from curbside.errors import UsageError

HashName = Literal["sha256", "sha384", "sha512"]
HASH_LENGTH: Final[dict[HashName, int]] = {"sha256": 32, "sha384": 48, "sha512": 64}
_HASHES: Final = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}


def compute_hash(name: HashName, content: bytes) -> bytes:
    """The digest of `content`."""
    return _HASHES[name](content).digest()


def compute_mac(name: HashName, key: bytes, content: bytes) -> bytes:
    """HMAC of `content` under `key`."""
    return hmac.digest(key, content, name)


def is_same(left: bytes, right: bytes) -> bool:
    """Whether two values are equal, in constant time for values of equal length."""
    return hmac.compare_digest(left, right)


def extract(name: HashName, salt: bytes, key_material: bytes) -> bytes:
    """HKDF-Extract."""
    return hmac.digest(salt or bytes(HASH_LENGTH[name]), key_material, name)


def expand(name: HashName, secret: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand to `length` bytes.

    Raises: UsageError when `length` is beyond what HKDF can give.
    """
    if length <= HASH_LENGTH[name]:
        return hmac.digest(secret, info + b"\x01", name)[:length]
    if length > 255 * HASH_LENGTH[name]:
        raise UsageError("HKDF cannot give so many bytes")
    block, output, counter = b"", bytearray(), 1
    while len(output) < length:
        block = hmac.digest(secret, block + info + bytes((counter,)), name)
        output += block
        counter += 1
    return bytes(output[:length])
