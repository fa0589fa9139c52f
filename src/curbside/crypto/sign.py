"""Signatures by name. Private keys are raw: the seed (EdDSA) or the big-endian scalar (ECDSA).

Public keys are raw 32 or 57 bytes (RFC 8032) or uncompressed points; ECDSA signatures are DER (RFC 8446).
"""

from __future__ import annotations

from typing import Final, Literal, final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from curbside.crypto.secret import SecretBytes
from curbside.errors import BadSignature, Malformed, UsageError

SignatureName = Literal["ed25519", "ed448", "p256", "p384", "p521"]
_PrivateKey = Ed25519PrivateKey | Ed448PrivateKey | ec.EllipticCurvePrivateKey
_PublicKey = Ed25519PublicKey | Ed448PublicKey | ec.EllipticCurvePublicKey

_CURVES: Final[dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm, int]]] = {
    "p256": (ec.SECP256R1(), hashes.SHA256(), 32),
    "p384": (ec.SECP384R1(), hashes.SHA384(), 48),
    "p521": (ec.SECP521R1(), hashes.SHA512(), 66),
}
_RAW: Final = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
_POINT: Final = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def generate_signature_key(name: SignatureName) -> SecretBytes:
    """A new private key."""
    if name == "ed25519":
        return SecretBytes(Ed25519PrivateKey.generate().private_bytes_raw())
    if name == "ed448":
        return SecretBytes(Ed448PrivateKey.generate().private_bytes_raw())
    curve, _, length = _CURVES[name]
    scalar = ec.generate_private_key(curve).private_numbers().private_value
    return SecretBytes(scalar.to_bytes(length, "big"))


def _load_private(name: SignatureName, private: bytes) -> _PrivateKey:
    try:
        if name == "ed25519":
            return Ed25519PrivateKey.from_private_bytes(private)
        if name == "ed448":
            return Ed448PrivateKey.from_private_bytes(private)
        return ec.derive_private_key(int.from_bytes(private, "big"), _CURVES[name][0])
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError("not a private signature key of this kind") from None


def _load_public(name: SignatureName, public: bytes) -> _PublicKey:
    try:
        if name == "ed25519":
            return Ed25519PublicKey.from_public_bytes(public)
        if name == "ed448":
            return Ed448PublicKey.from_public_bytes(public)
        if public[:1] != b"\x04":
            raise Malformed("not an uncompressed point")
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[name][0], public)
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("not a public signature key of this kind") from None


@final
class Signer:
    """A private signature key ready for use; the key object is made once, on first use."""

    __slots__ = ("_key", "_public", "name", "private")

    def __init__(self, name: SignatureName, private: SecretBytes) -> None:
        self.name: Final = name
        self.private: Final = private
        self._key: _PrivateKey | None = None
        self._public: bytes | None = None

    def _loaded(self) -> _PrivateKey:
        if self._key is None:
            self._key = _load_private(self.name, self.private.reveal())
        return self._key

    @property
    def public(self) -> bytes:
        """The public key in its raw form."""
        if self._public is None:
            public = self._loaded().public_key()
            form = _POINT if isinstance(public, ec.EllipticCurvePublicKey) else _RAW
            self._public = public.public_bytes(*form)
        return self._public

    def sign(self, content: bytes) -> bytes:
        """The signature over `content`."""
        key = self._loaded()
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(content, ec.ECDSA(_CURVES[self.name][1]))
        return key.sign(content)

    def __repr__(self) -> str:
        return f"<Signer {self.name}>"


def check_signature_key(name: SignatureName, public: bytes) -> None:
    """Check the form of a public key.

    Raises: Malformed.
    """
    _load_public(name, public)


def verify_signature(name: SignatureName, public: bytes, content: bytes, signature: bytes) -> None:
    """Verify a signature.

    Raises: BadSignature; Malformed when the public key is none.
    """
    key = _load_public(name, public)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, content, ec.ECDSA(_CURVES[name][1]))
        else:
            key.verify(signature, content)
    except InvalidSignature:
        raise BadSignature from None
