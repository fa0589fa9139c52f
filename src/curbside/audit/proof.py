"""Proof of one event without the rest of the log: one JSON object that a stranger can verify.

    {"format": "curbside-audit-proof/1", "key": <verifier key>, "checkpoint": <signed text>, "index": i, "event": {…},
     "path": [<hash, base64url>, …],
     "batch": {"event": {…}, "row": r, "path": [<hash>, …]}}

path: inclusion proof (RFC 9162 section 2.1.3) of the leaf at `index` in the tree of the checkpoint. That leaf is the
event's; or, with batch, that of the `message.batch` event in which the proven event is row r, and batch.path leads from
the proven event's leaf hash to the root that the batch's event names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from curbside.audit.batch import parse_row_event, read_batch
from curbside.audit.checkpoint import Checkpoint, VerifierKey, parse_verifier_key, verify_checkpoint
from curbside.audit.events import AuditEvent, parse_event
from curbside.audit.merkle import build_inclusion_proof, hash_leaf, verify_inclusion
from curbside.errors import BadSignature, IntegrityError, Malformed, UsageError
from curbside.ids import decode_base64url, encode_base64url

FORMAT: Final = "curbside-audit-proof/1"


class BatchPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the proven event stands in its batch."""

    event: msgspec.Raw
    row: int
    path: list[str]


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The members of the object above."""

    format: str
    key: str
    checkpoint: str
    index: int
    event: msgspec.Raw
    path: list[str]
    batch: BatchPart | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The leaf that is to be proven and how it leads to a checkpoint's root. event: the stored bytes."""

    index: int
    event: bytes
    path: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Proven:
    """An event that is in the log. row: in the batch at `index`; None when it is an entry of its own."""

    event: AuditEvent
    index: int
    row: int | None
    checkpoint: Checkpoint
    is_pinned: bool


def build_proof(
    key: VerifierKey, checkpoint: bytes, place: Place, rows: Sequence[bytes] = (), row: int | None = None
) -> bytes:
    """The proof of the event at `place`, or of one row of the batch there. rows: the batch's, all of them.

    Raises: UsageError when there is no such row.
    """
    event, batch = place.event, None
    if row is not None:
        if not 0 <= row < len(rows):
            raise UsageError("no such row")
        path = build_inclusion_proof([hash_leaf(each) for each in rows], row)
        event, batch = rows[row], BatchPart(msgspec.Raw(place.event), row, _encode_path(path))
    return msgspec.json.encode(
        Proof(
            FORMAT, key.encode(), checkpoint.decode(), place.index, msgspec.Raw(event), _encode_path(place.path), batch
        )
    )


def verify_proof(data: bytes, pinned: VerifierKey | None = None) -> Proven:
    """Read a proof and check all of it. pinned: the audit key known from elsewhere.

    Raises: Malformed; BadSignature; IntegrityError.
    """
    try:
        proof = msgspec.json.decode(data, type=Proof)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Malformed("not a proof") from None
    if proof.format != FORMAT:
        raise Malformed("not a proof")
    own = parse_verifier_key(proof.key)
    if pinned is not None and own != pinned:
        raise BadSignature("the proof is of another log or key")
    head = verify_checkpoint(proof.checkpoint.encode(), own)
    leaf = bytes(proof.event) if proof.batch is None else bytes(proof.batch.event)
    verify_inclusion(hash_leaf(leaf), proof.index, head.size, _decode_path(proof.path), head.root)
    if proof.batch is None:
        return Proven(parse_event(leaf), proof.index, None, head, pinned is not None)
    event = _verify_row(bytes(proof.event), proof.batch)
    return Proven(event, proof.index, proof.batch.row, head, pinned is not None)


def _verify_row(data: bytes, part: BatchPart) -> AuditEvent:
    batch = read_batch(parse_event(bytes(part.event)))
    if batch is None:
        raise IntegrityError("the entry that is said to be a batch is none")
    verify_inclusion(hash_leaf(data), part.row, batch.count, _decode_path(part.path), batch.root)
    return parse_row_event(data)


def _encode_path(path: Sequence[bytes]) -> list[str]:
    return [encode_base64url(step) for step in path]


def _decode_path(path: Sequence[str]) -> list[bytes]:
    return [decode_base64url(step) for step in path]
