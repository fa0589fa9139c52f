"""HPKE base mode (RFC 9180) with export and DeriveKeyPair, for the KEMs of the MLS suites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from curbside.crypto import aead, kdf
from curbside.crypto.aead import AeadName
from curbside.crypto.kdf import HASH_LENGTH, HashName
from curbside.crypto.random import random_bytes
from curbside.errors import CurbsideError, DecryptionFailed, Malformed, UsageError

KemName = Literal["x25519", "x448", "p256", "p384", "p521"]
_PrivateKey = X25519PrivateKey | X448PrivateKey | ec.EllipticCurvePrivateKey

_P25519: Final = 2**255 - 19
_P448: Final = 2**448 - 2**224 - 1
# Points of small order: the shared secret would be zero whatever the private key is (RFC 7748 section 6).
_SMALL_X25519: Final = frozenset(
    value.to_bytes(32, "little")
    for value in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P25519 - 1,
        _P25519,
        _P25519 + 1,
    )
)
_SMALL_X448: Final = frozenset(v.to_bytes(56, "little") for v in (0, 1, _P448 - 1, _P448, _P448 + 1))
_POINT: Final = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


@dataclass(frozen=True, slots=True)
class _Nist:
    curve: ec.EllipticCurve
    order: int
    mask: int


_NIST: Final[dict[str, _Nist]] = {
    "p256": _Nist(ec.SECP256R1(), 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551, 0xFF),
    "p384": _Nist(
        ec.SECP384R1(),
        int("f" * 48 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),
        0xFF,
    ),
    "p521": _Nist(
        ec.SECP521R1(),
        int("1" + "f" * 64 + "fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16),
        0x01,
    ),
}


@dataclass(frozen=True, slots=True)
class Kem:
    """A DHKEM: its name, HPKE id, hash, and the lengths of private key and shared secret."""

    name: KemName
    code: int
    hash_name: HashName
    private_length: int
    secret_length: int


KEMS: Final[dict[KemName, Kem]] = {
    "x25519": Kem("x25519", 0x0020, "sha256", 32, 32),
    "x448": Kem("x448", 0x0021, "sha512", 56, 64),
    "p256": Kem("p256", 0x0010, "sha256", 32, 32),
    "p384": Kem("p384", 0x0011, "sha384", 48, 48),
    "p521": Kem("p521", 0x0012, "sha512", 66, 64),
}
_KDF_CODE: Final[dict[HashName, int]] = {"sha256": 1, "sha384": 2, "sha512": 3}
_AEAD_CODE: Final[dict[AeadName, int]] = {"aes128gcm": 1, "aes256gcm": 2, "chacha20poly1305": 3}


def check_public_key(kem: Kem, public: bytes) -> None:
    """Check that a public key has the right form and is no point of small order.

    Raises: Malformed.
    """
    if kem.name == "x25519":
        good = len(public) == 32 and public[:31] + bytes((public[31] & 0x7F,)) not in _SMALL_X25519
    elif kem.name == "x448":
        good = len(public) == 56 and public not in _SMALL_X448
    else:
        try:
            good = public[:1] == b"\x04" and bool(
                ec.EllipticCurvePublicKey.from_encoded_point(_NIST[kem.name].curve, public)
            )
        except (ValueError, UnsupportedAlgorithm):
            good = False
    if not good:
        raise Malformed("not a public key of this KEM")


def _load(kem: Kem, private: bytes) -> _PrivateKey:
    try:
        if kem.name == "x25519":
            return X25519PrivateKey.from_private_bytes(private)
        if kem.name == "x448":
            return X448PrivateKey.from_private_bytes(private)
        return ec.derive_private_key(int.from_bytes(private, "big"), _NIST[kem.name].curve)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError("not a private key of this KEM") from None


def _public_of(key: _PrivateKey) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.public_key().public_bytes(*_POINT)
    return key.public_key().public_bytes_raw()


def _agree(key: _PrivateKey, public: bytes) -> bytes:
    try:
        if isinstance(key, X25519PrivateKey):
            return key.exchange(X25519PublicKey.from_public_bytes(public))
        if isinstance(key, X448PrivateKey):
            return key.exchange(X448PublicKey.from_public_bytes(public))
        if public[:1] != b"\x04":
            raise Malformed("not an uncompressed point")
        return key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(key.curve, public))
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("key agreement failed") from None


def public_key(kem: Kem, private: bytes) -> bytes:
    """The public key of a private key."""
    return _public_of(_load(kem, private))


def _kem_extract(kem: Kem, salt: bytes, label: bytes, key_material: bytes) -> bytes:
    content = b"HPKE-v1KEM" + kem.code.to_bytes(2, "big") + label + key_material
    return kdf.extract(kem.hash_name, salt, content)


def _kem_expand(kem: Kem, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    content = length.to_bytes(2, "big") + b"HPKE-v1KEM" + kem.code.to_bytes(2, "big") + label + info
    return kdf.expand(kem.hash_name, secret, content, length)


def derive_key_pair(kem: Kem, key_material: bytes) -> tuple[bytes, bytes]:
    """DeriveKeyPair (RFC 9180 section 7.1.3): (private, public)."""
    secret = _kem_extract(kem, b"", b"dkp_prk", key_material)
    if kem.name in ("x25519", "x448"):
        private = _kem_expand(kem, secret, b"sk", b"", kem.private_length)
        return private, public_key(kem, private)
    nist = _NIST[kem.name]
    for counter in range(256):
        candidate = bytearray(_kem_expand(kem, secret, b"candidate", bytes((counter,)), kem.private_length))
        candidate[0] &= nist.mask
        if 0 < int.from_bytes(candidate, "big") < nist.order:
            return bytes(candidate), public_key(kem, bytes(candidate))
    raise UsageError("no key can be derived")


def generate_key_pair(kem: Kem) -> tuple[bytes, bytes]:
    """A new key pair: (private, public)."""
    return derive_key_pair(kem, random_bytes(kem.private_length))


@dataclass(frozen=True, slots=True)
class Hpke:
    """One combination of KEM, KDF and AEAD, in base mode (RFC 9180 section 5.1.1)."""

    kem: Kem
    hash_name: HashName
    aead_name: AeadName

    def _suite(self) -> bytes:
        codes = (self.kem.code, _KDF_CODE[self.hash_name], _AEAD_CODE[self.aead_name])
        return b"HPKE" + b"".join(code.to_bytes(2, "big") for code in codes)

    def _expand(self, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
        content = length.to_bytes(2, "big") + b"HPKE-v1" + self._suite() + label + info
        return kdf.expand(self.hash_name, secret, content, length)

    def _schedule(self, shared: bytes, info: bytes) -> tuple[bytes, bytes]:
        prefix = b"HPKE-v1" + self._suite()
        name = self.hash_name
        context = b"\x00" + kdf.extract(name, b"", prefix + b"psk_id_hash")
        context += kdf.extract(name, b"", prefix + b"info_hash" + info)
        return kdf.extract(name, shared, prefix + b"secret"), context

    def _key_and_nonce(self, shared: bytes, info: bytes) -> tuple[bytes, bytes]:
        secret, context = self._schedule(shared, info)
        key = self._expand(secret, b"key", context, aead.KEY_LENGTH[self.aead_name])
        return key, self._expand(secret, b"base_nonce", context, aead.NONCE_LENGTH)

    def _shared(self, agreed: bytes, kem_output: bytes, receiver: bytes) -> bytes:
        kem = self.kem
        secret = _kem_extract(kem, b"", b"eae_prk", agreed)
        return _kem_expand(kem, secret, b"shared_secret", kem_output + receiver, kem.secret_length)

    def _encapsulate(self, receiver: bytes) -> tuple[bytes, bytes]:
        private, kem_output = generate_key_pair(self.kem)
        return self._shared(_agree(_load(self.kem, private), receiver), kem_output, receiver), kem_output

    def _decapsulate(self, private: bytes, kem_output: bytes) -> bytes:
        key = _load(self.kem, private)
        return self._shared(_agree(key, kem_output), kem_output, _public_of(key))

    def seal(self, receiver: bytes, info: bytes, aad: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        """Encrypt to a public key: (kem_output, ciphertext).

        Raises: Malformed when the public key is none.
        """
        shared, kem_output = self._encapsulate(receiver)
        key, nonce = self._key_and_nonce(shared, info)
        return kem_output, aead.seal(self.aead_name, key, nonce, plaintext, aad)

    def open(self, private: bytes, kem_output: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """Decrypt what `seal` made.

        Raises: DecryptionFailed.
        """
        try:
            shared = self._decapsulate(private, kem_output)
        except CurbsideError:
            raise DecryptionFailed from None
        key, nonce = self._key_and_nonce(shared, info)
        return aead.open_sealed(self.aead_name, key, nonce, ciphertext, aad)

    def export_to(self, receiver: bytes, info: bytes, label: bytes) -> tuple[bytes, bytes]:
        """Make a secret with a public key by the export interface: (kem_output, secret).

        Raises: Malformed when the public key is none.
        """
        shared, kem_output = self._encapsulate(receiver)
        return kem_output, self._export(shared, info, label)

    def export_from(self, private: bytes, kem_output: bytes, info: bytes, label: bytes) -> bytes:
        """The secret that `export_to` made.

        Raises: Malformed when `kem_output` is no public key.
        """
        return self._export(self._decapsulate(private, kem_output), info, label)

    def _export(self, shared: bytes, info: bytes, label: bytes) -> bytes:
        secret, context = self._schedule(shared, info)
        length = HASH_LENGTH[self.hash_name]
        return self._expand(self._expand(secret, b"exp", context, length), b"sec", label, length)
