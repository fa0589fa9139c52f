"""DPoP proofs (RFC 9449) with Ed25519 (RFC 8037), the thumbprint of a key (RFC 7638), and the device's word for its
API key. `web/src/core/crypto/jose.ts` makes the same proofs, byte for byte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from curbside.crypto.kdf import compute_hash, is_same
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, verify_signature
from curbside.errors import BadSignature, InvalidMessage, Malformed, NotAuthenticated
from curbside.ids import DeviceId, decode_base64url, decode_id, encode_base64url, encode_id

PROOF_CHARS: Final = 2048
SKEW_SECONDS: Final = 120
"""How far a proof's iat may be from the server's clock, either way."""
_API_KEY_LABEL: Final = b"curbside device api key v1\x00"
_HEADER_MEMBERS: Final = {"typ", "alg", "jwk"}
_REQUIRED_CLAIMS: Final = {"jti", "htm", "htu", "iat"}
_MAX_IAT: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """What a proof is for. uri: scheme, host and path, no query. token: "" where there is none yet. nonce: of the
    stream's challenge, 32 bytes; b"" elsewhere. now: Unix seconds."""

    method: str
    uri: str
    now: int
    token: str = ""
    nonce: bytes = b""


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that verified. The caller refuses a jti that it has seen before, for SKEW_SECONDS after `issued_at`."""

    public_key: bytes
    jti: str
    issued_at: int


def make_proof(key: SecretBytes, request: ProofRequest, jti: str = "") -> str:
    """A proof by a device's API key (Ed25519 seed). jti: random unless given."""
    signer = Signer("ed25519", key)
    header = {"typ": "dpop+jwt", "alg": "EdDSA", "jwk": _jwk(signer.public)}
    claims: dict[str, str | int] = {
        "jti": jti or encode_id(random_bytes(16)),
        "htm": request.method,
        "htu": request.uri,
        "iat": request.now,
    }
    if request.token:
        claims["ath"] = hash_token(request.token)
    if request.nonce:
        claims["nonce"] = encode_base64url(request.nonce)
    signed = f"{_write_part(header)}.{_write_part(claims)}"
    return f"{signed}.{encode_base64url(signer.sign(signed.encode()))}"


def verify_proof(proof: str, request: ProofRequest, public_key: bytes | None = None) -> Proof:
    """Verify a proof against the request it came with, and the key it must be by (None: any key, as at sign-up).

    Raises: NotAuthenticated; member `check` is dpop.form, .signature, .key, .method, .uri, .time, .token or .nonce.
    """
    try:
        key, claims = _parse_proof(proof)
    except BadSignature:
        _refuse("dpop.signature")
    except InvalidMessage as error:
        _refuse("dpop.form", error.detail)
    if public_key is not None and not is_same(key, public_key):
        _refuse("dpop.key")
    if claims["htm"] != request.method:
        _refuse("dpop.method")
    if claims["htu"] != request.uri:
        _refuse("dpop.uri")
    if abs(claims["iat"] - request.now) > SKEW_SECONDS:
        _refuse("dpop.time", "the device's clock is wrong")
    if claims.get("ath") != (hash_token(request.token) if request.token else None):
        _refuse("dpop.token")
    if claims.get("nonce") != (encode_base64url(request.nonce) if request.nonce else None):
        _refuse("dpop.nonce")
    return Proof(key, claims["jti"], claims["iat"])


def hash_token(token: str) -> str:
    """The `ath` claim of a token: base64url of its SHA-256."""
    return encode_base64url(compute_hash("sha256", token.encode()))


def compute_thumbprint(public_key: bytes) -> str:
    """The JWK thumbprint of an Ed25519 key (RFC 7638, RFC 8037 appendix A.3)."""
    canonical = json.dumps(dict(sorted(_jwk(public_key).items())), separators=(",", ":"))
    return encode_base64url(compute_hash("sha256", canonical.encode()))


def sign_api_key(device_key: SecretBytes, device_id: DeviceId, api_key: bytes) -> bytes:
    """The device key's signature over the device's API public key (docs/trust.md)."""
    return Signer("ed25519", device_key).sign(_API_KEY_LABEL + decode_id(device_id) + api_key)


def verify_api_key(device_public_key: bytes, device_id: DeviceId, api_key: bytes, signature: bytes) -> None:
    """Verify `sign_api_key`'s signature.

    Raises: BadSignature; Malformed.
    """
    if len(api_key) != 32:
        raise Malformed("an API key has 32 bytes")
    verify_signature("ed25519", device_public_key, _API_KEY_LABEL + decode_id(device_id) + api_key, signature)


def _refuse(check: str, detail: str = "") -> NoReturn:
    raise NotAuthenticated(detail or f"check {check} failed", check=check) from None


def _jwk(public_key: bytes) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(public_key)}


def _write_part(part: object) -> str:
    return encode_base64url(json.dumps(part, separators=(",", ":"), ensure_ascii=False).encode())


def _parse_proof(proof: str) -> tuple[bytes, dict[str, Any]]:
    """(public key, claims) of a proof whose signature verifies. Raises: Malformed; BadSignature."""
    parts = proof.split(".")
    if len(proof) > PROOF_CHARS or not proof.isascii() or len(parts) != 3:
        raise Malformed("not a JWT")
    header, claims = _read_part(parts[0]), _read_part(parts[1])
    if set(header) != _HEADER_MEMBERS or header["typ"] != "dpop+jwt" or header["alg"] != "EdDSA":
        raise Malformed("not the header of a DPoP proof")
    key = _read_jwk(header["jwk"])
    if set(claims) - {"ath", "nonce"} != _REQUIRED_CLAIMS:
        raise Malformed("not the claims of a DPoP proof")
    iat = claims["iat"]
    if type(iat) is not int or not 0 <= iat <= _MAX_IAT:
        raise Malformed("iat must be Unix seconds")
    if not all(isinstance(value, str) for name, value in claims.items() if name != "iat"):
        raise Malformed("a claim has the wrong type")
    decode_id(claims["jti"])
    signed = f"{parts[0]}.{parts[1]}"
    verify_signature("ed25519", key, signed.encode(), decode_base64url(parts[2]))
    return key, claims


def _read_jwk(jwk: object) -> bytes:
    match jwk:
        case {"kty": "OKP", "crv": "Ed25519", "x": str() as x, **rest} if not rest:
            key = decode_base64url(x)
            if len(key) == 32:
                return key
    raise Malformed("not the JWK of an Ed25519 public key")


def _read_part(part: str) -> dict[str, Any]:
    try:
        value = json.loads(
            decode_base64url(part).decode(),
            object_pairs_hook=_read_object,
            parse_constant=_refuse_number,
            parse_float=_refuse_number,
        )
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed("a JSON member stands twice")
    return members


def _refuse_number(text: str) -> NoReturn:
    raise Malformed("a number that is not an integer")
