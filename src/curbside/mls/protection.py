"""Private messages: sealing and opening (RFC 9420 section 6.3). Secret side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from curbside.crypto import aead
from curbside.crypto.random import random_bytes
from curbside.crypto.suites import Suite
from curbside.mls import messages
from curbside.mls.checks import Check, refuse, require
from curbside.mls.codec import Reader, decode, u32, vector
from curbside.mls.labels import expand_with_label, verify_with_label
from curbside.mls.messages import (
    MEMBER,
    WIRE_PRIVATE,
    AuthenticatedContent,
    Body,
    FramedContent,
    PrivateMessage,
    Sender,
)
from curbside.mls.secret_tree import APPLICATION, HANDSHAKE, Plan, RatchetLimits, SecretTree

_GUARD_LENGTH = 4


@dataclass(frozen=True, slots=True, repr=False)
class EpochKeys:
    """What opens private messages of one epoch.

    `context` is the encoded group context; `find_key` gives the signature key of a leaf, or None.
    """

    suite: Suite
    context: bytes
    sender_data_secret: bytes
    tree: SecretTree
    find_key: Callable[[int], bytes | None]


@dataclass(frozen=True, slots=True, repr=False)
class Opened:
    """A genuine private message; `plan` must be spent when the message is accepted."""

    signed: AuthenticatedContent
    plan: Plan


def ratchet_kind(content_type: int) -> int:
    """Which ratchet a content type uses (section 9.1)."""
    return APPLICATION if content_type == messages.APPLICATION else HANDSHAKE


def sender_data_key(suite: Suite, secret: bytes, ciphertext: bytes) -> tuple[bytes, bytes]:
    """Key and nonce for the sender data (section 6.3.2)."""
    sample = ciphertext[: suite.hash_length]
    key = expand_with_label(suite, secret, b"key", sample, suite.key_length)
    return key, expand_with_label(suite, secret, b"nonce", sample, suite.nonce_length)


def _guarded(nonce: bytes, guard: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(nonce, guard, strict=False)) + nonce[_GUARD_LENGTH:]


def seal_message(
    keys: EpochKeys, plan: Plan, signed: AuthenticatedContent, pad: Callable[[int], int]
) -> PrivateMessage:
    """Encrypt signed content with the key of a plan, which must be spent at once.

    Args: `pad(length)` is the length in bytes to which the plaintext grows.
    """
    suite, content = keys.suite, signed.content
    plaintext = messages.encode_body(content.content_type, content.body) + signed.encode_auth()
    plaintext += bytes(max(0, pad(len(plaintext)) - len(plaintext)))
    guard = random_bytes(_GUARD_LENGTH)
    shell = PrivateMessage(content.group_id, content.epoch, content.content_type, content.aad, b"", b"")
    head = shell.encode_head()
    nonce = _guarded(plan.nonce, guard)
    ciphertext = aead.seal(suite.aead_name, plan.key, nonce, plaintext, head + vector(content.aad))
    data = u32(content.sender.index) + u32(plan.generation) + guard
    key, nonce = sender_data_key(suite, keys.sender_data_secret, ciphertext)
    sender_data = aead.seal(suite.aead_name, key, nonce, data, head)
    return PrivateMessage(content.group_id, content.epoch, content.content_type, content.aad, sender_data, ciphertext)


def _read_sender_data(reader: Reader) -> tuple[int, int, bytes]:
    return reader.u32(), reader.u32(), reader.take(_GUARD_LENGTH)


def _parse_plaintext(content_type: int, plaintext: bytes) -> tuple[Body, bytes, bytes, bytes]:
    reader = Reader(plaintext)
    body = messages.read_body(content_type, reader)
    encoded = reader.since(0)
    signature, tag = messages.read_auth(content_type, reader)
    require(not reader.rest().strip(b"\0"), Check.MESSAGE_PADDING)
    return body, encoded, signature, tag


def open_message(keys: EpochKeys, message: PrivateMessage, own: int, limits: RatchetLimits, now: int) -> Opened:
    """Decrypt a private message and verify its signature; changes nothing.

    Raises: DecryptionFailed; Replayed; BadSignature; Malformed; RuleBroken.
    """
    suite, head = keys.suite, message.encode_head()
    key, nonce = sender_data_key(suite, keys.sender_data_secret, message.ciphertext)
    data = aead.open_sealed(suite.aead_name, key, nonce, message.sender_data, head)
    leaf, generation, guard = decode(data, _read_sender_data)
    signature_key = keys.find_key(leaf)
    if signature_key is None:
        refuse(Check.MESSAGE_SENDER)
    require(leaf != own, Check.MESSAGE_SELF)
    plan = keys.tree.plan(leaf, ratchet_kind(message.content_type), generation, limits, now)
    aad = head + vector(message.aad)
    plaintext = aead.open_sealed(suite.aead_name, plan.key, _guarded(plan.nonce, guard), message.ciphertext, aad)
    body, encoded, signature, tag = _parse_plaintext(message.content_type, plaintext)
    content = FramedContent.from_encoded(
        (message.group_id, message.epoch), Sender(MEMBER, leaf), message.aad, message.content_type, (body, encoded)
    )
    signed = AuthenticatedContent(WIRE_PRIVATE, content, signature, tag)
    verify_with_label(suite, signature_key, b"FramedContentTBS", signed.to_be_signed(keys.context), signature)
    return Opened(signed, plan)
