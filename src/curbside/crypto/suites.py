"""The seven MLS cipher suites (RFC 9420 section 17.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from curbside.crypto.aead import KEY_LENGTH, NONCE_LENGTH, AeadName
from curbside.crypto.hpke import KEMS, Hpke, KemName
from curbside.crypto.kdf import HASH_LENGTH, HashName
from curbside.crypto.sign import SignatureName
from curbside.errors import RuleBroken


@dataclass(frozen=True, slots=True)
class Suite:
    """One cipher suite. `hash_length` is KDF.Nh, `key_length` AEAD.Nk, `nonce_length` AEAD.Nn, in bytes."""

    code: int
    name: str
    hpke: Hpke
    hash_name: HashName
    aead_name: AeadName
    signature_name: SignatureName
    hash_length: int
    key_length: int
    nonce_length: int


def _suite(code: int, name: str, kem: KemName, hash_name: HashName, aead: AeadName, sign: SignatureName) -> Suite:
    hpke = Hpke(KEMS[kem], hash_name, aead)
    return Suite(code, name, hpke, hash_name, aead, sign, HASH_LENGTH[hash_name], KEY_LENGTH[aead], NONCE_LENGTH)


_ALL: Final = (
    _suite(1, "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519", "x25519", "sha256", "aes128gcm", "ed25519"),
    _suite(2, "MLS_128_DHKEMP256_AES128GCM_SHA256_P256", "p256", "sha256", "aes128gcm", "p256"),
    _suite(3, "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519", "x25519", "sha256", "chacha20poly1305", "ed25519"),
    _suite(4, "MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448", "x448", "sha512", "aes256gcm", "ed448"),
    _suite(5, "MLS_256_DHKEMP521_AES256GCM_SHA512_P521", "p521", "sha512", "aes256gcm", "p521"),
    _suite(6, "MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448", "x448", "sha512", "chacha20poly1305", "ed448"),
    _suite(7, "MLS_256_DHKEMP384_AES256GCM_SHA384_P384", "p384", "sha384", "aes256gcm", "p384"),
)
SUITES: Final[dict[int, Suite]] = {suite.code: suite for suite in _ALL}


def get_suite(code: int) -> Suite:
    """The suite of a code point.

    Raises: RuleBroken("mls.suite.known").
    """
    suite = SUITES.get(code)
    if suite is None:
        raise RuleBroken("mls.suite.known", f"cipher suite {code} is not known")
    return suite
