"""Many sends and deliveries under one leaf of the log, each of them still an event that can be proven by itself.

A transaction that made several of them leaves one `message.batch` event: how many rows it stands for (extra: count) and
the root (extra: root, base64url) of the Merkle tree, RFC 9162 section 2.1, whose leaves are the canonical encodings of
their `message.sent` and `message.delivered` events: hashed exactly as they would be as leaves of the log itself. What
is kept beside the batch is only a short form of these events; they are written out again to be read, exported or
proven, and a row that was changed, dropped, added or moved gives another root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

from curbside.audit.events import AuditEvent, EventName, ObjectType, parse_event
from curbside.audit.merkle import HASH_BYTES, compute_root, hash_leaf
from curbside.crypto.kdf import is_same
from curbside.errors import IntegrityError, Malformed, UsageError
from curbside.ids import decode_base64url, encode_base64url

ROWS_PER_BATCH: Final = 512
SEND_RULE: Final = "R-message-send"
READ_RULE: Final = "R-message-read"
_REMEMBERED: Final = 16_384


class SentRow(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """A send that was stored. at: Unix milliseconds. size_bucket: of its envelope."""

    at: int
    user: str
    device: str
    role: str
    conversation: str
    sequence: int
    epoch: int
    size_bucket: int


class DeliveredRow(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Entries first to last of a conversation that left for a device. at: Unix milliseconds."""

    at: int
    user: str
    device: str
    role: str
    conversation: str
    first: int
    last: int


MessageRow = SentRow | DeliveredRow


@dataclass(frozen=True, slots=True)
class BatchHead:
    """What a message.batch event says. root: of the tree over its rows' events."""

    count: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """event: the message.batch event, encoded. rows: the short forms, as they are kept."""

    event: bytes
    rows: bytes


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[MessageRow])


def encode_row(row: MessageRow) -> bytes:
    """The event's canonical encoding: what `AuditEvent.encode` writes for it, put together without making one.

    Raises: UsageError when a field holds anything that could be free text.
    """
    actor, place = _write_actor(row.device, row.role, row.user), _write_place(row.conversation)
    if type(row) is SentRow:
        text = (
            f'{actor}{row.at},"extra":{{"epoch":{row.epoch},"sequence":{row.sequence},"size_bucket":{row.size_bucket}}},'
            f'"name":"message.sent",{place}"rule":"{SEND_RULE}"}}'
        )
    else:
        assert type(row) is DeliveredRow
        text = (
            f'{actor}{row.at},"extra":{{"from_index":{row.first},"to_index":{row.last}}},'
            f'"name":"message.delivered",{place}"rule":"{READ_RULE}"}}'
        )
    return text.encode()


@lru_cache(_REMEMBERED)
def _write_actor(device: str, role: str, user: str) -> str:
    """The encoding's part before the time."""
    event = AuditEvent(at=0, name=EventName.MESSAGE_SENT, actor_device=device, actor_role=role, actor_user=user)
    return event.encode().decode().partition('0,"name":')[0]


@lru_cache(_REMEMBERED)
def _write_place(conversation: str) -> str:
    """The encoding's part between name and rule."""
    event = AuditEvent(
        at=0, name=EventName.MESSAGE_SENT, object_id=conversation, object_type=ObjectType.CONVERSATION, rule="R"
    )
    return event.encode().decode().partition('"message.sent",')[2].removesuffix('"rule":"R"}')


def build_batch(rows: Sequence[MessageRow]) -> Batch:
    """The leaf that stands for these rows, 1 to ROWS_PER_BATCH of them."""
    if not 0 < len(rows) <= ROWS_PER_BATCH:
        raise UsageError(f"a batch has 1 to {ROWS_PER_BATCH} rows")
    root = compute_root([hash_leaf(encode_row(row)) for row in rows])
    event = AuditEvent(
        at=max(row.at for row in rows),
        name=EventName.MESSAGE_BATCH,
        extra={"count": len(rows), "root": encode_base64url(root)},
    )
    return Batch(event.encode(), _encoder.encode(rows))


def split_batches(rows: Sequence[MessageRow]) -> Iterable[Sequence[MessageRow]]:
    """Rows of one transaction in parts that fit a batch, in order."""
    return (rows[at : at + ROWS_PER_BATCH] for at in range(0, len(rows), ROWS_PER_BATCH))


def parse_rows(data: bytes) -> list[bytes]:
    """The events, in their canonical encoding, of what `build_batch` kept.

    Raises: IntegrityError when it is not that.
    """
    try:
        return [encode_row(row) for row in _decoder.decode(data)]
    except (msgspec.MsgspecError, UsageError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError("the audit log holds rows of a batch that are none") from error


def read_batch(event: AuditEvent) -> BatchHead | None:
    """What a message.batch event says; None for any other event.

    Raises: Malformed.
    """
    if event.name is not EventName.MESSAGE_BATCH:
        return None
    count, root = event.extra.get("count"), event.extra.get("root")
    if not (isinstance(count, int) and 0 < count <= ROWS_PER_BATCH and isinstance(root, str)):
        raise Malformed("not a batch of messages")
    raw = decode_base64url(root)
    if len(raw) != HASH_BYTES or event != AuditEvent(
        at=event.at, name=event.name, extra={"count": count, "root": root}
    ):
        raise Malformed("not a batch of messages")
    return BatchHead(count, raw)


def parse_row_event(data: bytes) -> AuditEvent:
    """An event that may stand in a batch: one that `encode_row` writes.

    Raises: Malformed.
    """
    event = parse_event(data)
    if event.name not in (EventName.MESSAGE_SENT, EventName.MESSAGE_DELIVERED):
        raise Malformed("this event stands in no batch")
    return event


def verify_rows(head: BatchHead, leaf_hashes: Sequence[bytes]) -> None:
    """Check that these are the leaf hashes of all rows of the batch, in order.

    Raises: IntegrityError.
    """
    if len(leaf_hashes) != head.count or not is_same(compute_root(leaf_hashes), head.root):
        raise IntegrityError("the rows are not those of the batch")
