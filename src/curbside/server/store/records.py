"""What goes into and comes out of the store: plain frozen records, no behaviour. Those that every message makes anew
are tuples, which cost a third.

Times are Unix seconds unless they say milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from curbside.ids import BlobId, ConversationId, DeviceId, InviteId, MessageId, UserId

# --- delivery ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConversationRecord:
    """One conversation. last_sequence: of its log, 0 when empty. waiting: proposals that wait to be committed."""

    conversation_id: ConversationId
    epoch: int
    last_sequence: int
    created_at: int
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """One stay of a device in a conversation: it may read sequences first_sequence to last_sequence, both included.

    last_sequence is None while the stay lasts. leaf: its index in the ratchet tree.
    """

    device_id: DeviceId
    user_id: UserId
    leaf: int
    first_sequence: int
    last_sequence: int | None = None


class NewEntry(NamedTuple):
    """An entry before it has a place in the log. kind: KIND_* of wire.frames. received_at: Unix milliseconds."""

    kind: int
    message_id: MessageId
    received_at: int
    envelope: bytes


class EntryBatch(NamedTuple):
    """Entries that one conversation gets together, in this order, if it is of this epoch."""

    conversation_id: ConversationId
    epoch: int
    entries: Sequence[NewEntry]


class EntryRecord(NamedTuple):
    """An entry of a log. received_at: Unix milliseconds."""

    conversation_id: ConversationId
    sequence: int
    kind: int
    message_id: MessageId
    received_at: int
    envelope: bytes


class PlaceRecord(NamedTuple):
    """Where a message id stands in a log. is_same: the envelope asked about equals the stored one."""

    sequence: int
    received_at: int
    is_same: bool


@dataclass(frozen=True, slots=True)
class NewQueueItem:
    """Addressed to one device. kind: QUEUE_* of wire.frames. sequence: the device syncs the conversation from there."""

    device_id: DeviceId
    kind: int
    conversation_id: ConversationId
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """A queue item with its position; positions rise and are never reused."""

    position: int
    kind: int
    conversation_id: ConversationId
    sequence: int
    payload: bytes


# --- blobs ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """One attachment's ciphertext. size, offset: bytes. completed_at is 0 until the hash fitted; expires_at: of an
    upload that is not complete."""

    blob_id: BlobId
    conversation_id: ConversationId
    uploader: DeviceId
    size: int
    offset: int
    sha256: bytes
    created_at: int
    expires_at: int
    completed_at: int = 0


@dataclass(frozen=True, slots=True)
class PieceRecord:
    """Bytes first to first + size of an upload, held in the object `name`, which is written once."""

    blob_id: BlobId
    first: int
    size: int
    name: str


# --- identity ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InviteRecord:
    """One enrolment. used_at is 0 until it was used."""

    invite_id: InviteId
    user_id: UserId
    role: str
    enrolment_certificate: bytes
    created_at: int
    expires_at: int
    used_at: int = 0


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A person. Certificates are DER. name repeats what the user certificate says, for the directory's order."""

    user_id: UserId
    name: str
    role: str
    user_certificate: bytes
    enrolment_certificate: bytes
    created_at: int


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device. api_key: raw Ed25519 public key of DPoP proofs. revoked_at is 0 while it is active."""

    device_id: DeviceId
    user_id: UserId
    label: str
    device_certificate: bytes
    api_key: bytes
    created_at: int
    last_seen_at: int
    revoked_at: int = 0


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session. token_hash: SHA-256 of the token; the token itself is never stored."""

    token_hash: bytes
    user_id: UserId
    device_id: DeviceId
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class SigninRecord:
    """A sign-in between start and finish. state: what OPAQUE's server side keeps."""

    signin_id: str
    user_id: UserId
    device_id: DeviceId
    expires_at: int
    state: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyPackageRecord:
    """One KeyPackage (MLSMessage). A last-resort one is handed out again and again, others once."""

    device_id: DeviceId
    key_package: bytes
    is_last_resort: bool = False


# --- audit ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An event in the log. sequence: from 0, gap-free. leaf_hash: SHA-256(0x00 ‖ event), RFC 9162 section 2.1.1.

    rows: of a message.batch event, the rows it stands for (audit.batch); empty for all others.
    """

    sequence: int
    event: bytes
    leaf_hash: bytes
    rows: bytes = b""


@dataclass(frozen=True, slots=True)
class AuditLeaf:
    """An event before it has a place in the log; members as of AuditRecord."""

    event: bytes
    leaf_hash: bytes
    rows: bytes = b""


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A signed head. size: events it covers. body: its canonical bytes, signature included."""

    size: int
    root_hash: bytes
    created_at: int
    body: bytes
