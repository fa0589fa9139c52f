"""MIMI message content (draft-ietf-mimi-content-08): the types and the limits.

A message is seven fields, the last of them one tree of parts. None of these types has a text form: content must
not reach a log by way of repr().
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeAlias

from curbside.wire import cbor

MESSAGE_BYTES: Final = 64 * 1024
"""One encoded message."""
SALT_BYTES: Final = 16
MESSAGE_ID_BYTES: Final = 32
TOPIC_BYTES: Final = 4096
PARTS: Final = 1024
PART_LEVELS: Final = 4
EXTENSION_LEVELS: Final = 4
EXPIRES_SECONDS: Final = 366 * 24 * 3600
"""Furthest relative expiry; more is nonsense (draft, "General handling")."""
URI_BYTES: Final = 0xFFFF

HASH_SHA256: Final = 1
"""IANA named-information hash algorithm; also the first octet of a message id."""


class Disposition(IntEnum):
    """What a part is for. Unknown numbers (9 to 255) are kept and treated as RENDER."""

    UNSPECIFIED = 0
    RENDER = 1
    REACTION = 2
    PROFILE = 3
    INLINE = 4
    ICON = 5
    ATTACHMENT = 6
    SESSION = 7
    PREVIEW = 8


class Semantics(IntEnum):
    """How the parts of a MultiPart belong together."""

    CHOOSE_ONE = 0
    SINGLE_UNIT = 1
    PROCESS_ALL = 2


@dataclass(frozen=True, repr=False)
class NullPart:
    """No body: a delete, an unlike, or a message that is all extension."""

    disposition: int = Disposition.RENDER
    language: str = ""


@dataclass(frozen=True, repr=False)
class SinglePart:
    """A body inside the message."""

    content_type: str
    content: bytes
    disposition: int = Disposition.RENDER
    language: str = ""


@dataclass(frozen=True, repr=False)
class ExternalPart:
    """A body kept elsewhere, encrypted under a key of its own.

    expires: Unix seconds, 0 = never. size: octets of the plain content, 0 = not given. enc_alg: IANA AEAD number;
    0 = not encrypted, and then key, nonce and aad are empty. content_hash: of the bytes at the url.
    """

    content_type: str
    url: str
    expires: int = 0
    size: int = 0
    enc_alg: int = 0
    key: bytes = b""
    nonce: bytes = b""
    aad: bytes = b""
    hash_alg: int = 0
    content_hash: bytes = b""
    description: str = ""
    filename: str = ""
    disposition: int = Disposition.ATTACHMENT
    language: str = ""


@dataclass(frozen=True, repr=False)
class MultiPart:
    """Two or more parts."""

    semantics: Semantics
    parts: tuple[Part, ...]
    disposition: int = Disposition.RENDER
    language: str = ""


Part: TypeAlias = NullPart | SinglePart | ExternalPart | MultiPart
ExtensionKey: TypeAlias = int | str
Extensions: TypeAlias = Mapping[ExtensionKey, cbor.Value]


@dataclass(frozen=True)
class Expiry:
    """relative: seconds after reading; otherwise Unix seconds."""

    relative: bool
    time: int


@dataclass(frozen=True, repr=False)
class Message:
    """One message as the people in a conversation exchange it.

    replaces: id of the first version of the message this one edits or deletes. topic_id: empty = none.
    extensions: by number, kept as they came, known or not.
    """

    salt: bytes
    body: Part = field(default_factory=NullPart)
    replaces: bytes | None = None
    topic_id: bytes = b""
    expires: Expiry | None = None
    in_reply_to: bytes | None = None
    extensions: Extensions = field(default_factory=dict)

    @property
    def nested_part(self) -> Part:
        """The draft's name of the body."""
        return self.body
