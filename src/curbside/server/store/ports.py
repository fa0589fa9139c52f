"""The store's port: what the services may ask of an engine, in the words of the domain.

    result = await store.write(change)       change(tx) runs inside one transaction; durable when write returns
    result = await store.read(question)      question(view) sees one consistent state

Promises every engine keeps (tests/contracts/test_store.py):

- `write` returns only after the change is durable, and raises only after nothing of it is left.
- Writes that wait at the same moment may share a transaction (group commit); a change that raises undoes itself alone.
- `change` may run more than once (its transaction was lost) and in another thread: it has no effect outside `tx`.
- Audit events of a change are in its transaction. When the change raises a CurbsideError and `refusal` is given, the
  event that `refusal(error)` returns is made durable before `write` raises the error: refusals leave a trace too.
- Logs are gap-free: sequences 1, 2, 3… per conversation, whatever was rolled back.

Raises, everywhere: StoreUnavailable (locked or unreachable), StorageFull, IntegrityError (damaged).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from curbside.audit.batch import MessageRow
from curbside.audit.events import AuditEvent
from curbside.errors import CurbsideError
from curbside.ids import BlobId, ConversationId, DeviceId, InviteId, MessageId, UserId
from curbside.server.store.records import (
    AuditRecord,
    BlobRecord,
    CheckpointRecord,
    ConversationRecord,
    DeviceRecord,
    EntryBatch,
    EntryRecord,
    InviteRecord,
    KeyPackageRecord,
    MemberRecord,
    NewEntry,
    NewQueueItem,
    PieceRecord,
    PlaceRecord,
    QueueRecord,
    SessionRecord,
    SigninRecord,
    UserRecord,
)

T = TypeVar("T")


class DeliveryView(Protocol):
    """Conversations, logs, memberships, queues and cursors."""

    def find_conversation(self, conversation_id: ConversationId) -> ConversationRecord | None: ...

    def list_conversations(self, device_id: DeviceId) -> list[ConversationRecord]:
        """Those the device is a member of now."""
        ...

    def count_conversations(self, device_id: DeviceId, limit: int) -> int:
        """How many of them there are, counted up to `limit`."""
        ...

    def find_group_state(self, conversation_id: ConversationId) -> bytes | None:
        """The saved public view of the group (mls.public), of the epoch in the conversation's record."""
        ...

    def list_members(self, conversation_id: ConversationId) -> list[MemberRecord]:
        """Present members, by leaf."""
        ...

    def list_stays(
        self, device_id: DeviceId, conversation_ids: Iterable[ConversationId]
    ) -> dict[ConversationId, list[MemberRecord]]:
        """All stays of the device, past and present, oldest first; conversations it never was in are left out."""
        ...

    def find_place(
        self, conversation_id: ConversationId, message_id: MessageId, envelope: bytes
    ) -> PlaceRecord | None: ...

    def find_places(self, asked: Sequence[tuple[ConversationId, MessageId, bytes]]) -> list[PlaceRecord | None]:
        """`find_place` for many (conversation, message id, envelope) at once, in the order asked.

        In a change: nobody else appends to these logs before it ends.
        """
        ...

    def read_entries(
        self, conversation_id: ConversationId, after: int, through: int, limit: int, most_bytes: int = 1 << 30
    ) -> list[EntryRecord]:
        """At most `limit` entries with after < sequence <= through, in order.

        It stops once their envelopes have `most_bytes` or more, so that one entry always fits.
        """
        ...

    def read_queue(self, device_id: DeviceId, after: int, limit: int) -> list[QueueRecord]:
        """At most `limit` items with position > after, in order."""
        ...

    def list_cursors(self, device_id: DeviceId) -> dict[ConversationId, int]: ...

    def list_left_behind(self, after: DeviceId, limit: int) -> list[tuple[DeviceId, UserId]]:
        """Revoked devices that are still in a conversation, by id, from behind `after` on ("" for the first)."""
        ...


class DeliveryChange(DeliveryView, Protocol):
    """What may change in delivery."""

    def create_conversation(self, record: ConversationRecord, group_state: bytes) -> None:
        """Raises: DuplicateRequest when the id is taken."""
        ...

    def append_entries(
        self, conversation_id: ConversationId, epoch: int, entries: Sequence[NewEntry], while_waiting: bool = False
    ) -> int:
        """Append in this order; the first one's sequence. Locks the conversation until the transaction ends.

        while_waiting: also while proposals wait to be committed (handshakes).

        Raises: EpochConflict (current_epoch) when the conversation is of another epoch; PendingProposals; NotFound:
        these three before anything was changed. DuplicateRequest when a message id is in the log already.
        """
        ...

    def append_batches(self, batches: Sequence[EntryBatch]) -> list[int | CurbsideError]:
        """`append_entries` to several conversations, each of which is named once: of each the first sequence, or the
        EpochConflict, PendingProposals or NotFound that kept it out and changed nothing.

        Raises: DuplicateRequest when a message id is in its log already.
        """
        ...

    def advance_epoch(self, conversation_id: ConversationId, epoch: int, group_state: bytes, waiting: int = 0) -> None:
        """Set epoch, group state and the number of proposals that wait. Raises: NotFound."""
        ...

    def add_members(self, conversation_id: ConversationId, members: Sequence[MemberRecord]) -> None: ...

    def end_members(self, conversation_id: ConversationId, device_ids: Iterable[DeviceId], last_sequence: int) -> None:
        """These devices' present stays end; they may read through last_sequence."""
        ...

    def add_queue_items(self, items: Sequence[NewQueueItem]) -> list[int]:
        """Their positions."""
        ...

    def delete_queue(self, device_id: DeviceId, through: int) -> None: ...

    def advance_cursors(self, device_id: DeviceId, cursors: Mapping[ConversationId, int]) -> None:
        """Cursors only rise; conversations the device never was in are passed over."""
        ...


class BlobView(Protocol):
    """What is known of blobs; their bytes are elsewhere (server.blobs)."""

    def find_blob(self, blob_id: BlobId) -> BlobRecord | None: ...

    def count_blob_bytes(self, conversation_id: ConversationId) -> int:
        """Bytes of the conversation's blobs, incomplete ones counted whole."""
        ...

    def list_pieces(self, blob_id: BlobId) -> list[PieceRecord]:
        """What an upload consists of so far, in order."""
        ...

    def list_expired_uploads(self, now: int, limit: int) -> list[BlobRecord]: ...

    def list_blobs(self, after: str, through: str | None, limit: int) -> list[BlobRecord]:
        """At most `limit` with after < blob_id <= through, by id; through: None for no end."""
        ...

    def list_piece_names(self, names: Sequence[str]) -> list[str]:
        """Those of the names that are some upload's pieces."""
        ...


class BlobChange(BlobView, Protocol):
    """What may change about blobs."""

    def add_blob(self, record: BlobRecord) -> None: ...

    def add_piece(self, piece: PieceRecord, expires_at: int) -> bool:
        """The upload goes on with this piece. False, and nothing changed, when it is not at the piece's offset (another
        node was quicker), is complete or is not there."""
        ...

    def reset_upload(self, blob_id: BlobId, expires_at: int) -> None:
        """An upload that is not complete begins anew, without pieces."""
        ...

    def complete_blob(self, blob_id: BlobId, completed_at: int) -> bool:
        """The pieces' rows go. Whether this call completed it."""
        ...

    def end_upload(self, blob_id: BlobId, now: int) -> bool:
        """Delete an upload, with its pieces' rows, that is not complete and has expired. Whether this call did."""
        ...

    def claim_sweep(self, now: int, next_at: int) -> str | None:
        """Take the next step of the round through the objects, if it is due: the name after which it begins. Nobody
        else gets one before next_at, unless `advance_sweep` says so."""
        ...

    def advance_sweep(self, after: str, due_at: int) -> None:
        """The step is done: the next one begins after this name, from due_at on. after: "" for a new round."""
        ...


class IdentityView(Protocol):
    """Settings, invites, people, devices, sessions and key packages."""

    def find_setting(self, name: str) -> bytes | None:
        """A value of this installation (organisation, OPAQUE server setup, delivery service's key)."""
        ...

    def find_invite(self, invite_id: InviteId) -> InviteRecord | None: ...

    def find_user(self, user_id: UserId) -> UserRecord | None: ...

    def list_users(self, query: str, after: UserId | None, limit: int) -> list[UserRecord]:
        """By name, then id; query: part of the name, "" for all; after: the last user of the page before."""
        ...

    def find_opaque_record(self, user_id: UserId) -> bytes | None: ...

    def find_device(self, device_id: DeviceId) -> DeviceRecord | None: ...

    def list_devices(self, user_id: UserId) -> list[DeviceRecord]:
        """All of the user's, revoked ones too, oldest first."""
        ...

    def find_session(self, token_hash: bytes) -> SessionRecord | None: ...

    def count_key_packages(self, device_id: DeviceId) -> int:
        """Those that can be handed out once."""
        ...


class IdentityChange(IdentityView, Protocol):
    """What may change in identity."""

    def put_setting(self, name: str, value: bytes) -> None: ...

    def add_invite(self, record: InviteRecord) -> None:
        """Raises: DuplicateRequest when the id is taken."""
        ...

    def use_invite(self, invite_id: InviteId, used_at: int) -> bool:
        """Whether this call used it: False when it was used before or is not there."""
        ...

    def add_user(self, record: UserRecord, opaque_record: bytes) -> None:
        """Raises: DuplicateRequest when the id is taken."""
        ...

    def add_device(self, record: DeviceRecord) -> None:
        """Raises: DuplicateRequest when the id is taken."""
        ...

    def revoke_device(self, device_id: DeviceId, revoked_at: int) -> bool:
        """Ends the device: its sessions, key packages and queue go too. Whether this call revoked it."""
        ...

    def touch_device(self, device_id: DeviceId, last_seen_at: int) -> None: ...

    def add_session(self, record: SessionRecord) -> None: ...

    def end_session(self, token_hash: bytes) -> None: ...

    def take_expired_sessions(self, now: int, limit: int) -> list[SessionRecord]:
        """At most `limit` sessions whose time is over; they are gone. Each goes to one caller, on whatever server."""
        ...

    def take_expired_signins(self, now: int, limit: int) -> list[SigninRecord]:
        """The same for sign-ins that nobody finished in time."""
        ...

    def delete_expired_proofs(self, now: int) -> None:
        """Forget used proofs whose time is over."""
        ...

    def add_signin(self, record: SigninRecord) -> None: ...

    def take_signin(self, signin_id: str) -> SigninRecord | None:
        """The record, which is gone afterwards: one finish for each start."""
        ...

    def use_proof(self, proof_id: bytes, expires_at: int) -> bool:
        """Whether this proof (hash of its key and jti) is new."""
        ...

    def add_key_packages(self, records: Sequence[KeyPackageRecord]) -> None:
        """A last-resort one replaces the device's former one."""
        ...

    def claim_key_package(self, device_id: DeviceId) -> bytes | None:
        """Hand one out: each once, then the last-resort one."""
        ...


class WatchView(Protocol):
    """What a server asks of a database that others write to as well. What is not there is left out of an answer."""

    def find_conversations(
        self, conversation_ids: Iterable[ConversationId]
    ) -> dict[ConversationId, ConversationRecord]:
        """Where these conversations stand."""
        ...

    def find_queue_ends(self, device_ids: Iterable[DeviceId]) -> dict[DeviceId, int]:
        """The last position of each device's queue."""
        ...

    def find_streams(self, token_hashes: Iterable[bytes]) -> dict[bytes, int]:
        """For each session that lasts, of a device that is active: the number of the device's newest stream."""
        ...


class WatchChange(WatchView, Protocol):
    """What may change about it."""

    def count_stream(self, device_id: DeviceId) -> int:
        """The number of a stream that begins: above those of all streams that this device had, on whatever server."""
        ...


class AuditView(Protocol):
    """The audit log."""

    def count_events(self) -> int: ...

    def read_events(self, start: int, limit: int) -> list[AuditRecord]:
        """At most `limit` events from sequence `start`, in order."""
        ...

    def read_leaf_hashes(self, start: int, limit: int) -> list[bytes]: ...

    def list_checkpoints(self, after_size: int, limit: int) -> list[CheckpointRecord]: ...

    def find_latest_checkpoint(self) -> CheckpointRecord | None: ...


class AuditChange(AuditView, Protocol):
    """What may change in the audit log; events are appended through `Change.append_audit` alone."""

    def add_checkpoint(self, record: CheckpointRecord) -> None: ...


class View(Protocol):
    """One consistent state, to read."""

    @property
    def delivery(self) -> DeliveryView: ...
    @property
    def blobs(self) -> BlobView: ...
    @property
    def identity(self) -> IdentityView: ...
    @property
    def watch(self) -> WatchView: ...
    @property
    def audit(self) -> AuditView: ...


class Change(Protocol):
    """One transaction, to write. Reads see what it wrote."""

    @property
    def delivery(self) -> DeliveryChange: ...
    @property
    def blobs(self) -> BlobChange: ...
    @property
    def identity(self) -> IdentityChange: ...
    @property
    def watch(self) -> WatchChange: ...
    @property
    def audit(self) -> AuditChange: ...

    def append_audit(self, event: AuditEvent) -> None:
        """The event is durable with the transaction, and has its place in the log, for good, before anybody looks."""
        ...

    def append_messages(self, rows: Iterable[MessageRow]) -> None:
        """Sends and deliveries; all of a transaction share leaves (audit.batch), after its other events, in order."""
        ...


class Store(Protocol):
    """An engine."""

    async def write(
        self, change: Callable[[Change], T], refusal: Callable[[CurbsideError], AuditEvent | None] | None = None
    ) -> T:
        """Run `change` and make it durable; its result. See the module's promises."""
        ...

    async def read(self, question: Callable[[View], T]) -> T:
        """Run `question` on one consistent state; its result."""
        ...

    @property
    def waiting(self) -> int:
        """Changes that wait for the writer."""
        ...

    async def check(self) -> None:
        """Whether writing works, without leaving a trace. Raises: StoreUnavailable, StorageFull, IntegrityError."""
        ...

    async def close(self) -> None:
        """Finish the writes that were accepted, then close. Further calls raise StoreUnavailable."""
        ...
