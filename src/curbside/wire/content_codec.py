"""MIMI message content: from and to bytes.

`encode` writes deterministic CBOR; `decode` takes exactly that and gives Malformed or TooLarge for everything else.
Both run the same checks, so what can be sent can be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, cast

from curbside.errors import Malformed, TooLarge
from curbside.wire import cbor
from curbside.wire.content_clinical import check_extensions
from curbside.wire.content_types import (
    EXPIRES_SECONDS,
    EXTENSION_LEVELS,
    HASH_SHA256,
    MESSAGE_BYTES,
    MESSAGE_ID_BYTES,
    PART_LEVELS,
    PARTS,
    SALT_BYTES,
    TOPIC_BYTES,
    URI_BYTES,
    Expiry,
    Extensions,
    ExternalPart,
    Message,
    MultiPart,
    NullPart,
    Part,
    Semantics,
    SinglePart,
)

_DEPTH: Final = 2 * PART_LEVELS + 1
_UINT32: Final = 2**32 - 1


def encode(message: Message) -> bytes:
    """The one encoding of `message`.

    Raises:
        TooLarge: over MESSAGE_BYTES.
        Malformed: a field breaks the draft's rules; `decode` would refuse the bytes.
    """
    tree = _message_tree(message)
    _read_message(tree)
    data = cbor.encode(tree, _DEPTH)
    if len(data) > MESSAGE_BYTES:
        raise TooLarge("a message is over its size limit", limit=MESSAGE_BYTES)
    return data


def decode(data: bytes) -> Message:
    """Read a message.

    Raises:
        TooLarge: over MESSAGE_BYTES.
        Malformed: anything else that `encode` would not have written.
    """
    if len(data) > MESSAGE_BYTES:
        raise TooLarge("a message is over its size limit", limit=MESSAGE_BYTES)
    return _read_message(cbor.decode(data, _DEPTH))


def message_id(encoded: bytes, sender_uri: str, room_uri: str, decoded: Message | None = None) -> bytes:
    """The id of an encoded message sent by `sender_uri` in `room_uri` (draft, "Message ID").

    decoded: what `encoded` says, where the caller has it at hand.

    Raises:
        Malformed: `encoded` is not a message, or a URI is too long.
        TooLarge: `encoded` is over MESSAGE_BYTES.
    """
    salt = (decoded or decode(encoded)).salt
    hashed = hashlib.sha256()
    for uri in (sender_uri.encode(), room_uri.encode()):
        if len(uri) > URI_BYTES:
            raise Malformed("a URI is too long")
        hashed.update(len(uri).to_bytes(2, "big") + uri)
    hashed.update(encoded + salt)
    return bytes((HASH_SHA256,)) + hashed.digest()[: MESSAGE_ID_BYTES - 1]


def user_uri(user_id: str) -> str:
    """The sender URI of a person, as it goes into message ids."""
    return f"curbside-user:{user_id}"


def conversation_uri(conversation_id: str) -> str:
    """The room URI of a conversation, as it goes into message ids."""
    return f"curbside-conversation:{conversation_id}"


def check_expiry(message: Message, now: int) -> None:
    """`now`: Unix seconds.

    Raises:
        Malformed: an absolute expiry more than a year from now, either way (draft, "General handling").
    """
    expires = message.expires
    if expires is not None and not expires.relative and abs(expires.time - now) > EXPIRES_SECONDS:
        raise Malformed("a message expires at a nonsensical time")


# --- to CBOR ------------------------------------------------------------------------------------


def _message_tree(message: Message) -> cbor.Value:
    expires = message.expires
    return (
        message.salt,
        message.replaces,
        message.topic_id,
        None if expires is None else (expires.relative, expires.time),
        message.in_reply_to,
        cast("Mapping[cbor.Key, cbor.Value]", message.extensions),
        _part_tree(message.body, 1),
    )


def _part_tree(part: Part, level: int) -> cbor.Value:
    if level > PART_LEVELS:
        raise Malformed("message: parts are nested too deeply")
    head = (int(part.disposition), part.language)
    match part:
        case NullPart():
            return (*head, 0)
        case SinglePart():
            return (*head, 1, part.content_type, part.content)
        case ExternalPart():
            where = (part.content_type, part.url, part.expires, part.size)
            sealed = (part.enc_alg, part.key, part.nonce, part.aad, part.hash_alg, part.content_hash)
            return (*head, 2, *where, *sealed, part.description, part.filename)
        case MultiPart():
            return (*head, 3, int(part.semantics), tuple(_part_tree(nested, level + 1) for nested in part.parts))


# --- from CBOR ----------------------------------------------------------------------------------


def _read_message(value: cbor.Value) -> Message:
    salt, replaces, topic_id, expires, in_reply_to, extensions, body = _array(value, 7)
    if len(_bytes(salt)) != SALT_BYTES:
        raise Malformed("message: the salt must have 16 octets")
    if len(_bytes(topic_id)) > TOPIC_BYTES:
        raise Malformed("message: the topic is too long")
    part, count = _read_part(body, 1)
    if count > PARTS:
        raise Malformed("message: too many parts")
    message = Message(
        salt=_bytes(salt),
        body=part,
        replaces=_message_id(replaces),
        topic_id=_bytes(topic_id),
        expires=_expiry(expires),
        in_reply_to=_message_id(in_reply_to),
        extensions=_extensions(extensions),
    )
    check_extensions(message)
    return message


def _message_id(value: cbor.Value) -> bytes | None:
    if value is None:
        return None
    found = _bytes(value)
    if len(found) != MESSAGE_ID_BYTES or found[0] != HASH_SHA256:
        raise Malformed("message: not a message id")
    return found


def _expiry(value: cbor.Value) -> Expiry | None:
    if value is None:
        return None
    relative, time = _array(value, 2)
    if not isinstance(relative, bool):
        raise Malformed("message: expiry must say whether it is relative")
    seconds = _uint(time, _UINT32)
    if relative and seconds > EXPIRES_SECONDS:
        raise Malformed("message: expires too far in the future")
    return Expiry(relative, seconds)


def _extensions(value: cbor.Value) -> Extensions:
    if not isinstance(value, Mapping):
        raise Malformed("message: extensions must be a map")
    if _levels(value) > EXTENSION_LEVELS:
        raise Malformed("message: an extension is nested too deeply")
    for key in value:
        if isinstance(key, bytes) or (isinstance(key, int) and key == 0):
            raise Malformed("message: an extension's key must be text or an integer other than 0")
        if isinstance(key, str) and not 1 <= len(key.encode(errors="replace")) <= 255:
            raise Malformed("message: an extension's key must have 1 to 255 octets")
    for key in (1, 2):
        if key in value and not isinstance(value[key], str):
            raise Malformed("message: senderUri and roomUri must be text")
    return cast("Extensions", value)


def _levels(value: cbor.Value) -> int:
    match value:
        case list() | tuple():
            return 1 + max(map(_levels, value), default=0)
        case Mapping():
            return 1 + max(map(_levels, value.values()), default=0)
        case cbor.Tag():
            return 1 + _levels(value.value)
        case _:
            return 0


def _read_part(value: cbor.Value, level: int) -> tuple[Part, int]:
    """The part and how many parts it is made of, itself included."""
    if level > PART_LEVELS:
        raise Malformed("message: parts are nested too deeply")
    fields = _array(value)
    if len(fields) < 3:
        raise Malformed("message: a part is incomplete")
    disposition, language, cardinality = _uint(fields[0], 255), _text(fields[1]), _uint(fields[2], 255)
    match cardinality, fields[3:]:
        case 0, []:
            return NullPart(disposition, language), 1
        case 1, [content_type, content]:
            return SinglePart(_text(content_type), _bytes(content), disposition, language), 1
        case 2, [*rest] if len(rest) == 12:
            return _read_external(rest, disposition, language), 1
        case 3, [semantics, parts]:
            nested = [_read_part(part, level + 1) for part in _array(parts)]
            if len(nested) < 2:
                raise Malformed("message: a MultiPart has two parts or more")
            chosen = Semantics(_uint(semantics, 2))
            whole = MultiPart(chosen, tuple(part for part, _ in nested), disposition, language)
            return whole, 1 + sum(count for _, count in nested)
        case _:
            raise Malformed("message: not a part")


def _read_external(fields: Sequence[cbor.Value], disposition: int, language: str) -> ExternalPart:
    content_type, url, expires, size, enc_alg, key, nonce, aad, hash_alg, content_hash, description, filename = fields
    part = ExternalPart(
        content_type=_text(content_type),
        url=_text(url),
        expires=_uint(expires, _UINT32),
        size=_uint(size, cbor.MAX_SAFE_INTEGER),
        enc_alg=_uint(enc_alg, 0xFFFF),
        key=_bytes(key),
        nonce=_bytes(nonce),
        aad=_bytes(aad),
        hash_alg=_uint(hash_alg, 0xFF),
        content_hash=_bytes(content_hash),
        description=_text(description),
        filename=_text(filename),
        disposition=disposition,
        language=language,
    )
    if not part.url:
        raise Malformed("message: an external part without a url")
    if part.enc_alg == 0 and (part.key or part.nonce or part.aad):
        raise Malformed("message: an external part with a key but no cipher")
    return part


def _array(value: cbor.Value, length: int = -1) -> Sequence[cbor.Value]:
    if not isinstance(value, list | tuple) or (length >= 0 and len(value) != length):
        raise Malformed("message: an array of another length was expected")
    return value


def _bytes(value: cbor.Value) -> bytes:
    if not isinstance(value, bytes):
        raise Malformed("message: bytes were expected")
    return value


def _text(value: cbor.Value) -> str:
    if not isinstance(value, str):
        raise Malformed("message: text was expected")
    return value


def _uint(value: cbor.Value, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise Malformed("message: a number is out of its range")
    return value
