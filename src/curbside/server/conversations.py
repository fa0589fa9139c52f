"""Conversations: their beginning, the commits that change them, the delivery service's own proposals.

The server can ask, never act: it follows signed commits, and as external sender it proposes that a device leave.

[Note: one commit an epoch] Commits of one conversation are checked one after another (a lock in this process) and the
store compares the epoch once more inside the transaction, so that also another process cannot win the same epoch.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from curbside.audit.events import AuditEvent, EventName, Extra, ObjectType
from curbside.clock import Clock
from curbside.crypto.random import random_bytes
from curbside.errors import (
    CurbsideError,
    DuplicateRequest,
    EpochConflict,
    Malformed,
    MissingDevices,
    RuleBroken,
    StoreUnavailable,
    TooLarge,
    Unavailable,
    UntrustedDevice,
)
from curbside.ids import ConversationId, DeviceId, MessageId, UserId, decode_base64url, decode_id
from curbside.policy.access import Relation, Subject, check_access
from curbside.server.fanout import Fanout, PublishedEntry, encode_entry
from curbside.server.groups import (
    MESSAGE_ID_BYTES,
    FollowedGroup,
    GroupCache,
    GroupOpener,
    RosterChange,
    RosterMember,
    is_id,
)
from curbside.server.recording import SERVER, About, Actor, Recorder
from curbside.server.store.ports import Change, Store, View
from curbside.server.store.records import (
    ConversationRecord,
    EntryRecord,
    MemberRecord,
    NewEntry,
    NewQueueItem,
    PlaceRecord,
)
from curbside.wire import limits
from curbside.wire.bodies import Appended, ConversationState, NewCommit, NewConversation
from curbside.wire.frames import KIND_COMMIT, KIND_PROPOSAL, QUEUE_WELCOME

LOCKS_KEPT: Final = 4_096
TRIES: Final = 5
"""Of a change to a conversation that other processes change at the same time."""
T = TypeVar("T")
Refused = Callable[[CurbsideError], AuditEvent]
_RULES: Final = {
    EventName.GROUP_VIEWED: "R-conversation-read",
    EventName.GROUP_CREATED: "R-conversation-create",
    EventName.COMMIT_ACCEPTED: "R-conversation-commit",
    EventName.MEMBER_ADDED: "R-conversation-commit",
    EventName.MEMBER_REMOVED: "R-conversation-commit",
    EventName.PROPOSAL_ADDED: "R-device-revoke",
}


@dataclass(frozen=True, slots=True)
class _Commit:
    """A commit request, decoded. message_id: 16 bytes. epoch: that it ends."""

    subject: Subject
    conversation_id: ConversationId
    message_id: MessageId
    epoch: int
    commit: bytes
    welcome: bytes | None


@dataclass(frozen=True, slots=True)
class _Step:
    """A commit that was applied: the group one epoch on, and what it changed. waiting: proposals that waited before it.
    proposals: of removals that it left out, made again in the new epoch."""

    group: FollowedGroup
    change: RosterChange
    waiting: int
    proposals: tuple[NewEntry, ...] = ()


class _MovedOnError(Exception):
    """The conversation is not as it was looked at."""


class ConversationService:
    """Called by the routes of conversations, and by the device service when a device is revoked."""

    def __init__(
        self,
        store: Store,
        opener: GroupOpener,
        cache: GroupCache,
        fanout: Fanout,
        clock: Clock,
        most: int = limits.CURSORS_PER_SYNC // 2,
    ) -> None:
        """most: conversations of one device at a time."""
        self._most = most
        self._store = store
        self._opener = opener
        self._cache = cache
        self._fanout = fanout
        self._clock = clock
        self._recorder = Recorder(clock)
        self._locks: OrderedDict[ConversationId, asyncio.Lock] = OrderedDict()

    # --- reading ------------------------------------------------------------------------------

    async def get_state(self, subject: Subject, conversation_id: ConversationId) -> ConversationState:
        """The conversation as a member sees it. Raises: NotFound, also when the caller is no member; Malformed."""
        decode_id(conversation_id)

        def change(tx: Change) -> ConversationState:
            record, members = _find_for(tx, conversation_id)
            _check_member("R-conversation-read", subject, members)
            assert record is not None
            tx.append_audit(self._done(EventName.GROUP_VIEWED, Actor.of(subject), conversation_id))
            return _build_state(record, members)

        return await self._store.write(
            change, self._refused(EventName.ACCESS_DENIED, subject, conversation_id, "R-conversation-read")
        )

    async def list_states(self, subject: Subject) -> list[ConversationState]:
        """Conversations that the caller's device is a member of now."""

        def change(tx: Change) -> list[ConversationState]:
            tx.append_audit(self._done(EventName.GROUP_VIEWED, Actor.of(subject), ""))
            found = tx.delivery.list_conversations(subject.device_id)
            return [_build_state(record, tx.delivery.list_members(record.conversation_id)) for record in found]

        return await self._store.write(change)

    # --- beginning ----------------------------------------------------------------------------

    async def create(self, subject: Subject, body: NewConversation) -> ConversationState:
        """Begin to follow a group of one. Repeating the same request is harmless.

        Raises: PolicyDenied; Malformed, TooLarge; RuleBroken, BadSignature, UntrustedDevice, WrongGroup;
        DuplicateRequest when the id belongs to something else.
        """
        conversation_id = ConversationId(body.conversation_id)
        refused = self._refused(EventName.ACCESS_DENIED, subject, body.conversation_id, "R-conversation-create")
        try:
            check_access("R-conversation-create", subject)
            group = self._open(subject, conversation_id, body)
        except CurbsideError as error:
            await self._record(refused, error)
            raise
        state, now = group.save(), self._clock.now()
        creator = group.list_members()[0]

        def change(tx: Change) -> ConversationState:
            former = tx.delivery.find_conversation(conversation_id)
            if former is not None:
                if former.epoch != 0 or tx.delivery.find_group_state(conversation_id) != state:
                    raise DuplicateRequest
                return _build_state(former, tx.delivery.list_members(conversation_id))
            _check_room(tx, [subject.device_id], self._most)
            record = ConversationRecord(conversation_id, 0, 0, now)
            tx.delivery.create_conversation(record, state)
            member = MemberRecord(creator.device_id, creator.user_id, creator.leaf, 1)
            tx.delivery.add_members(conversation_id, [member])
            tx.append_audit(self._done(EventName.GROUP_CREATED, Actor.of(subject), conversation_id))
            return _build_state(record, [member])

        return await self._store.write(change, refused)

    def _open(self, subject: Subject, conversation_id: ConversationId, body: NewConversation) -> FollowedGroup:
        raw_id = decode_id(conversation_id)
        group_info = _decode_handshake(body.group_info)
        group = self._opener.open_group(group_info, self._clock.now())
        members = group.list_members()
        if group.group_id != raw_id:
            raise RuleBroken("delivery.create.group_id")
        if group.epoch != 0 or len(members) != 1:
            raise RuleBroken("delivery.create.epoch")
        if members[0].device_id != subject.device_id or members[0].user_id != subject.user_id:
            raise RuleBroken("delivery.create.creator")
        return group

    # --- commits ------------------------------------------------------------------------------

    async def commit(self, subject: Subject, conversation_id: ConversationId, body: NewCommit) -> Appended:
        """Accept the first valid commit of the current epoch. A retry with the same id and bytes gets the same answer.

        Raises: NotFound when the caller is no member; EpochConflict (current_epoch); MissingDevices; DuplicateRequest;
        Malformed, TooLarge, RuleBroken, BadSignature, UntrustedDevice, WrongGroup; PolicyDenied.
        """
        refused = self._refused(EventName.COMMIT_REJECTED, subject, conversation_id, "R-conversation-commit")
        try:
            request = _decode_commit(subject, conversation_id, body)
            async with self._lock(conversation_id):
                return await self._until_present(conversation_id, lambda: self._commit_locked(request))
        except CurbsideError as error:
            if isinstance(error, EpochConflict):
                self._cache.drop(conversation_id)  # another process may have moved it on
            await self._record(refused, error)
            raise

    async def _commit_locked(self, request: _Commit) -> Appended:
        group = await self._get_present(request.conversation_id)
        members = group.list_members()
        is_member = any(member.device_id == request.subject.device_id for member in members)
        former = await self._find_former(request)
        relation = Relation.MEMBER if is_member or former is not None else Relation.NONE
        check_access("R-conversation-commit", request.subject, relation)
        if former is not None:
            if not former.is_same:
                raise DuplicateRequest
            return Appended(former.sequence, request.epoch + 1, former.received_at)
        if request.epoch != group.epoch:
            raise EpochConflict(current_epoch=group.epoch)
        group = await self._cache.take_group(request.conversation_id)
        if request.epoch != group.epoch:  # meanwhile
            raise EpochConflict(current_epoch=group.epoch)
        self._check_committer(request, group, members)
        step = self._take_step(group, request.commit)
        _check_welcome(request, step.change)
        appended, queued = await self._store.write(lambda tx: self._write_commit(tx, request, step))
        self._cache.replace(request.conversation_id, step.group)
        self._publish(request, step.change, appended, queued)
        self._publish_proposals(request.conversation_id, appended.sequence, step.proposals)
        return appended

    async def _get_present(self, conversation_id: ConversationId) -> FollowedGroup:
        """The group as the store has it: another process may have moved it on, or may have proposed something."""

        def question(view: View) -> ConversationRecord | None:
            return view.delivery.find_conversation(conversation_id)

        group = await self._cache.get_group(conversation_id)
        record = await self._store.read(question)
        if record is not None and (record.epoch, record.waiting) != (group.epoch, len(group.list_waiting())):
            self._cache.drop(conversation_id)
            group = await self._cache.get_group(conversation_id)
        return group

    async def _until_present(self, conversation_id: ConversationId, work: Callable[[], Awaitable[T]]) -> T:
        """Do it again when another process proposed something in between. Raises: StoreUnavailable."""
        for _ in range(TRIES):
            try:
                return await work()
            except _MovedOnError:
                self._cache.drop(conversation_id)
        raise StoreUnavailable

    def _take_step(self, group: FollowedGroup, commit: bytes) -> _Step:
        """Apply a commit. Removals that waited and that it left out are asked for again: the sender did not know of
        them yet, and the first commit of an epoch wins."""
        leaving, now = {member.device_id for member in group.list_leaving()}, self._clock.now()
        waiting = len(group.list_waiting())
        change = group.apply_commit(commit, now)
        left_out = [member.leaf for member in group.list_members() if member.device_id in leaving] if leaving else []
        return _Step(group, change, waiting, tuple(self._propose(group, leaf) for leaf in left_out))

    def _propose(self, group: FollowedGroup, leaf: int) -> NewEntry:
        """The delivery service's Remove proposal, which waits in the group from now on."""
        message = group.propose_remove(leaf, self._clock.now())
        return NewEntry(KIND_PROPOSAL, MessageId(random_bytes(MESSAGE_ID_BYTES)), self._clock.now_ms(), message)

    async def _find_former(self, request: _Commit) -> PlaceRecord | None:
        """Where the same request was stored before, if the caller may know of it."""

        def question(view: View) -> PlaceRecord | None:
            stays = view.delivery.list_stays(request.subject.device_id, [request.conversation_id])
            if not stays:
                return None
            return view.delivery.find_place(request.conversation_id, request.message_id, request.commit)

        return await self._store.read(question)

    def _check_committer(self, request: _Commit, group: FollowedGroup, members: Sequence[RosterMember]) -> None:
        """A device sends its own commits only: the audit log names who acted."""
        leaf = group.find_sender(request.commit)
        own = next(member.leaf for member in members if member.device_id == request.subject.device_id)
        if leaf is not None and leaf != own:
            raise RuleBroken("delivery.commit.sender")

    def _write_commit(self, tx: Change, request: _Commit, step: _Step) -> tuple[Appended, list[DeviceId]]:
        conversation_id, now = request.conversation_id, self._clock.now_ms()
        _check_present(tx, conversation_id, step.waiting)
        _check_devices(tx, step)
        _check_room(tx, [member.device_id for member in step.change.added], self._most)
        entry = NewEntry(KIND_COMMIT, request.message_id, now, request.commit)
        sequence = tx.delivery.append_entries(conversation_id, request.epoch, [entry], while_waiting=True)
        tx.delivery.advance_epoch(conversation_id, step.group.epoch, step.group.save(), len(step.group.list_waiting()))
        if step.proposals:
            tx.delivery.append_entries(conversation_id, step.group.epoch, step.proposals, while_waiting=True)
            extra: dict[str, Extra] = {"epoch": step.group.epoch, "cause": "commit.left_out"}
            for _ in step.proposals:
                tx.append_audit(self._done(EventName.PROPOSAL_ADDED, SERVER, conversation_id, extra))
        removed = [member.device_id for member in step.change.removed]
        tx.delivery.end_members(conversation_id, removed, sequence)
        added = [MemberRecord(m.device_id, m.user_id, m.leaf, sequence + 1) for m in step.change.added]
        tx.delivery.add_members(conversation_id, added)
        welcomes = [
            NewQueueItem(m.device_id, QUEUE_WELCOME, conversation_id, sequence, request.welcome)
            for m in step.change.added
            if request.welcome is not None
        ]
        tx.delivery.add_queue_items(welcomes)
        for event in self._list_commit_events(request, step, sequence):
            tx.append_audit(event)
        return Appended(sequence, step.group.epoch, now), [item.device_id for item in welcomes]

    def _list_commit_events(self, request: _Commit, step: _Step, sequence: int) -> Iterable[AuditEvent]:
        subject, conversation_id = request.subject, request.conversation_id
        extra: dict[str, Extra] = {"epoch": step.group.epoch, "sequence": sequence}
        yield self._done(EventName.COMMIT_ACCEPTED, Actor.of(subject), conversation_id, extra)
        for name, members in (
            (EventName.MEMBER_ADDED, step.change.added),
            (EventName.MEMBER_REMOVED, step.change.removed),
        ):
            for member in members:
                who: dict[str, Extra] = {"user": member.user_id, "device": member.device_id}
                yield self._done(name, Actor.of(subject), conversation_id, extra | who)

    def _publish(self, request: _Commit, change: RosterChange, appended: Appended, queued: Sequence[DeviceId]) -> None:
        record = EntryRecord(
            request.conversation_id,
            appended.sequence,
            KIND_COMMIT,
            request.message_id,
            appended.received_at,
            request.commit,
        )
        self._publish_entry(record)
        removed = [member.device_id for member in change.removed]
        self._fanout.end_stays(request.conversation_id, removed, appended.sequence)
        for device_id in queued:
            self._fanout.offer_queue(device_id)

    def _publish_entry(self, record: EntryRecord) -> None:
        # Handshakes are rare: their listeners read them from the log, which writes the event of the delivery.
        entry = PublishedEntry(record.conversation_id, record.sequence, encode_entry(record), is_handshake=True)
        self._fanout.publish(entry, frozenset())

    # --- the delivery service's proposals -----------------------------------------------------

    async def propose_removal(self, device_id: DeviceId) -> int:
        """Ask every conversation of a revoked device to remove it; how many were asked.

        From then on nobody sends before the removal is committed. Where it waits already, nothing is asked.

        Raises: what went wrong in the last of the conversations that could not be asked; ask again then.
        """

        def question(view: View) -> list[ConversationRecord]:
            return view.delivery.list_conversations(device_id)

        found = await self._store.read(question)
        asked, failure = 0, None
        for record in found:
            try:
                async with self._lock(record.conversation_id):
                    asked += await self._until_present(
                        record.conversation_id, partial(self._propose_locked, record.conversation_id, device_id)
                    )
            except CurbsideError as error:  # the others are asked all the same
                self._cache.drop(record.conversation_id)
                failure = error
        if failure is not None:
            raise failure
        return asked

    async def _propose_locked(self, conversation_id: ConversationId, device_id: DeviceId) -> bool:
        present = await self._get_present(conversation_id)
        leaf = next((member.leaf for member in present.list_members() if member.device_id == device_id), None)
        if leaf is None or any(member.device_id == device_id for member in present.list_leaving()):
            return False
        group = await self._cache.take_group(conversation_id)
        waiting = len(group.list_waiting())
        epoch, entry = group.epoch, self._propose(group, leaf)

        def change(tx: Change) -> int:
            _check_present(tx, conversation_id, waiting)
            sequence = tx.delivery.append_entries(conversation_id, epoch, [entry], while_waiting=True)
            tx.delivery.advance_epoch(conversation_id, epoch, group.save(), len(group.list_waiting()))
            extra: dict[str, Extra] = {"epoch": epoch, "sequence": sequence, "device": device_id}
            tx.append_audit(self._done(EventName.PROPOSAL_ADDED, SERVER, conversation_id, extra))
            return sequence

        try:
            sequence = await self._store.write(change)
        except EpochConflict as error:  # another process was faster with a commit
            raise _MovedOnError from error
        self._cache.replace(conversation_id, group)
        self._publish_proposals(conversation_id, sequence - 1, [entry])
        return True

    def _publish_proposals(self, conversation_id: ConversationId, after: int, proposals: Sequence[NewEntry]) -> None:
        for sequence, entry in enumerate(proposals, after + 1):
            self._publish_entry(
                EntryRecord(conversation_id, sequence, entry.kind, entry.message_id, entry.received_at, entry.envelope)
            )

    # --- audit and locks ----------------------------------------------------------------------

    def _done(
        self, name: EventName, actor: Actor, conversation_id: str, extra: dict[str, Extra] | None = None
    ) -> AuditEvent:
        object_type = ObjectType.CONVERSATION if conversation_id else ObjectType.NONE
        about = About(name, _RULES[name], object_type, conversation_id, extra or {})
        return self._recorder.done(about, actor)

    def _refused(self, name: EventName, subject: Subject, conversation_id: str, rule: str) -> Refused:
        known = conversation_id if is_id(conversation_id) else ""
        object_type = ObjectType.CONVERSATION if known else ObjectType.NONE
        return self._recorder.refused(About(name, rule, object_type, known), Actor.of(subject))

    async def _record(self, refused: Refused, error: CurbsideError) -> None:
        if not isinstance(error, Unavailable):  # then there is no place to record it
            event = refused(error)
            await self._store.write(lambda tx: tx.append_audit(event))

    def _lock(self, conversation_id: ConversationId) -> asyncio.Lock:
        lock = self._locks.setdefault(conversation_id, asyncio.Lock())
        self._locks.move_to_end(conversation_id)
        while len(self._locks) > LOCKS_KEPT and not next(iter(self._locks.values())).locked():
            self._locks.popitem(last=False)
        return lock


def _find_for(tx: Change, conversation_id: ConversationId) -> tuple[ConversationRecord | None, list[MemberRecord]]:
    record = tx.delivery.find_conversation(conversation_id)
    return record, tx.delivery.list_members(conversation_id) if record is not None else []


def _check_present(tx: Change, conversation_id: ConversationId, waiting: int) -> None:
    """Raises: _MovedOnError when another process proposed something since the group was looked at.

    The state that is about to be saved would not know of it. Another epoch is noticed when the entry is appended.
    """
    record = tx.delivery.find_conversation(conversation_id)
    if record is not None and record.waiting != waiting:
        raise _MovedOnError


def _check_member(rule: str, subject: Subject, members: Iterable[MemberRecord]) -> None:
    is_member = any(member.device_id == subject.device_id for member in members)
    check_access(rule, subject, Relation.MEMBER if is_member else Relation.NONE)


def _build_state(record: ConversationRecord, members: Iterable[MemberRecord]) -> ConversationState:
    by_leaf: dict[int, str] = {member.leaf: member.device_id for member in members}
    return ConversationState(record.conversation_id, record.epoch, record.last_sequence, by_leaf)


def _decode_handshake(text: str) -> bytes:
    if len(text) > limits.HANDSHAKE_BYTES * 4 // 3 + 4:
        raise TooLarge(limit=limits.HANDSHAKE_BYTES)
    return decode_base64url(text)


def _decode_commit(subject: Subject, conversation_id: ConversationId, body: NewCommit) -> _Commit:
    decode_id(conversation_id)
    message_id = decode_base64url(body.message_id)
    if len(message_id) != MESSAGE_ID_BYTES:
        raise Malformed("a message id has 16 bytes")
    welcome = _decode_handshake(body.welcome) if body.welcome is not None else None
    commit = _decode_handshake(body.commit)
    return _Commit(subject, conversation_id, MessageId(message_id), body.epoch, commit, welcome)


def _check_welcome(request: _Commit, change: RosterChange) -> None:
    """Devices that were added need a Welcome; one that added itself (an external commit) does not."""
    others = [member for member in change.added if member.device_id != request.subject.device_id]
    if bool(others) != (request.welcome is not None):
        raise RuleBroken("delivery.commit.welcome")


def _check_room(tx: Change, device_ids: Iterable[DeviceId], most: int) -> None:
    """None of these devices has as many conversations already as it may have. Raises: TooLarge (limit)."""
    if any(tx.delivery.count_conversations(device_id, most) >= most for device_id in device_ids):
        raise TooLarge("a device has too many conversations already", limit=most)


def _check_devices(tx: Change, step: _Step) -> None:
    """Added devices are enrolled and active, and a user who is new to the conversation comes with all of them."""
    present = {member.device_id for member in step.group.list_members()}
    fresh: set[UserId] = set()
    before = {m.user_id for m in step.group.list_members()} - {m.user_id for m in step.change.added}
    for member in step.change.added:
        device = tx.identity.find_device(member.device_id)
        if device is None or device.user_id != member.user_id or device.revoked_at:
            raise UntrustedDevice(member.device_id, "delivery.device.active")
        if member.user_id not in before:
            fresh.add(member.user_id)
    missing = [
        device.device_id
        for user_id in sorted(fresh)
        for device in tx.identity.list_devices(user_id)
        if not device.revoked_at and device.device_id not in present
    ]
    if missing:
        raise MissingDevices(missing_devices=missing)
