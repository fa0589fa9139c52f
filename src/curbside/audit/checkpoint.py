"""Checkpoints: signed heads of the audit log, in the text forms of C2SP signed-note and tlog-checkpoint.

    <origin>
    <size>
    <root, base64>
    time <Unix milliseconds>
                                        (empty line)
    — <origin> <base64 of key id (4 bytes) ‖ Ed25519 signature>

The signature covers everything before the empty line. A verifier key is one line of text, `<origin>+<key id>+<base64>`,
as the signed-note format writes it, so tools made for transparency logs can read both.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from curbside.audit.merkle import HASH_BYTES
from curbside.crypto.kdf import compute_hash
from curbside.crypto.sign import Signer, verify_signature
from curbside.errors import BadSignature, Malformed

_ED25519: Final = b"\x01"
_SIGNATURE_BYTES: Final = 64
_PUBLIC_BYTES: Final = 32
_ORIGIN: Final = re.compile(r"[A-Za-z0-9._/-]{1,128}\Z")
_FORM: Final = re.compile(
    r"(?P<text>(?P<origin>[A-Za-z0-9._/-]{1,128})\n(?P<size>0|[1-9][0-9]{0,15})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"time (?P<at>0|[1-9][0-9]{0,15})\n)\n— (?P<name>[A-Za-z0-9._/-]{1,128}) (?P<signature>[A-Za-z0-9+/]+={0,2})\n\Z"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A head of the log. origin: which log. size: events. root: 32 bytes. at: Unix milliseconds."""

    origin: str
    size: int
    root: bytes
    at: int


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The audit key's public half and the log it speaks for."""

    origin: str
    public: bytes

    def key_id(self) -> bytes:
        """The first four bytes of SHA-256(origin ‖ newline ‖ 0x01 ‖ key)."""
        return compute_hash("sha256", self.origin.encode() + b"\n" + _ED25519 + self.public)[:4]

    def encode(self) -> str:
        """One line of text."""
        key = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.origin}+{self.key_id().hex()}+{key}"


def parse_verifier_key(text: str) -> VerifierKey:
    """Read what `VerifierKey.encode` wrote.

    Raises: Malformed.
    """
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or not _ORIGIN.match(parts[0]):
        raise Malformed("not a verifier key")
    raw = _decode_base64(parts[2])
    if len(raw) != 1 + _PUBLIC_BYTES or raw[:1] != _ED25519:
        raise Malformed("not an Ed25519 verifier key")
    key = VerifierKey(parts[0], raw[1:])
    if key.encode() != text.strip():
        raise Malformed("the verifier key's id does not fit")
    return key


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """The signed text of a checkpoint. `signer` is the Ed25519 audit key."""
    text = (
        f"{checkpoint.origin}\n{checkpoint.size}\n{base64.b64encode(checkpoint.root).decode()}\ntime {checkpoint.at}\n"
    )
    key = VerifierKey(checkpoint.origin, signer.public)
    signature = base64.b64encode(key.key_id() + signer.sign(text.encode())).decode()
    return f"{text}\n— {checkpoint.origin} {signature}\n".encode()


def verify_checkpoint(body: bytes, key: VerifierKey) -> Checkpoint:
    """Read a checkpoint and verify its signature.

    Raises: Malformed; BadSignature, also when it is of another log or key.
    """
    try:
        match = _FORM.match(body.decode())
    except UnicodeDecodeError:
        raise Malformed("not a checkpoint") from None
    if match is None:
        raise Malformed("not a checkpoint")
    signature, root = _decode_base64(match["signature"]), _decode_base64(match["root"])
    if len(root) != HASH_BYTES or len(signature) != 4 + _SIGNATURE_BYTES:
        raise Malformed("not a checkpoint")
    if not match["origin"] == match["name"] == key.origin or signature[:4] != key.key_id():
        raise BadSignature("the checkpoint is of another log or key")
    verify_signature("ed25519", key.public, match["text"].encode(), signature[4:])
    return Checkpoint(match["origin"], int(match["size"]), root, int(match["at"]))


def split_checkpoints(data: bytes) -> list[bytes]:
    """The checkpoints of a file that holds one after the other; not verified yet.

    Raises: Malformed.
    """
    found: list[bytes] = []
    rest = data
    while rest.strip():
        body, end = _take_one(rest)
        found.append(body)
        rest = rest[end:]
    return found


def _take_one(data: bytes) -> tuple[bytes, int]:
    head = data.find("\n\n— ".encode())
    end = data.find(b"\n", head + 2) if head >= 0 else -1
    if end < 0:
        raise Malformed("not a file of checkpoints")
    return data[: end + 1].lstrip(b"\n"), end + 1


def _decode_base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise Malformed("not canonical base64")
    return raw
