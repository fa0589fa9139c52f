"""Identifiers: 16 random bytes written as 22 characters of base64url, never a bare `str` in a signature."""

from __future__ import annotations

import base64
import binascii
from typing import NewType

from curbside.errors import Malformed

UserId = NewType("UserId", str)
DeviceId = NewType("DeviceId", str)
ConversationId = NewType("ConversationId", str)
InviteId = NewType("InviteId", str)
BlobId = NewType("BlobId", str)
MessageId = NewType("MessageId", bytes)
"""16 random bytes a client makes for one send; also the authenticated data of its envelope."""

ID_BYTES = 16
ID_CHARS = 22


def encode_base64url(data: bytes) -> str:
    """Base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: str) -> bytes:
    """The bytes of unpadded base64url; refuses padding, other alphabets and non-canonical endings.

    Raises: Malformed.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("not base64url") from error
    if encode_base64url(data) != text:
        raise Malformed("not canonical base64url")
    return data


def encode_id(raw: bytes) -> str:
    """The 22-character form of 16 bytes."""
    if len(raw) != ID_BYTES:
        raise Malformed(f"an id has {ID_BYTES} bytes")
    return encode_base64url(raw)


def decode_id(text: str) -> bytes:
    """The 16 bytes of an id's 22-character form.

    Raises: Malformed.
    """
    raw = decode_base64url(text)
    if len(raw) != ID_BYTES:
        raise Malformed(f"an id has {ID_CHARS} characters")
    return raw
