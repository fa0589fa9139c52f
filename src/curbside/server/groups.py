"""Groups as the server follows them: public views, their rosters, and what a send is compared with.

A public view is rebuilt from the store whenever it is not in memory; the store's epoch decides, never this cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from curbside.errors import (
    FutureEpoch,
    Malformed,
    NotFound,
    PendingProposals,
    RuleBroken,
    StaleEpoch,
    TooLarge,
    WrongGroup,
)
from curbside.ids import ConversationId, DeviceId, UserId, decode_id
from curbside.mls.codec import Reader, u64, vector
from curbside.server.store.ports import Store, View
from curbside.wire import limits
from curbside.wire.frames import Send

T = TypeVar("T")
GROUPS_IN_MEMORY: Final = 2_000
VIEWS_IN_MEMORY: Final = 20_000
MESSAGE_ID_BYTES: Final = 16
_PRIVATE_MESSAGE: Final = b"\x00\x01\x00\x02"
"""ProtocolVersion mls10, WireFormat mls_private_message (RFC 9420 section 6)."""
_APPLICATION: Final = b"\x01"


def is_id(text: str) -> bool:
    """Whether a peer's text has the form of an id."""
    try:
        decode_id(text)
    except (Malformed, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class RosterMember:
    """A leaf whose certificates were verified."""

    leaf: int
    device_id: DeviceId
    user_id: UserId


@dataclass(frozen=True, slots=True)
class RosterChange:
    """What a commit did to the roster; a device whose leaf was only renewed is in neither."""

    added: tuple[RosterMember, ...]
    removed: tuple[RosterMember, ...]


class FollowedGroup(Protocol):
    """A public view of one group. A method that raises leaves it as it was."""

    @property
    def epoch(self) -> int: ...

    @property
    def group_id(self) -> bytes: ...

    @property
    def suite(self) -> int: ...

    def list_members(self) -> list[RosterMember]: ...

    def list_waiting(self) -> list[str]:
        """References of the proposals that must be committed, base64url."""
        ...

    def list_leaving(self) -> list[RosterMember]:
        """Members whose removal waits to be committed."""
        ...

    def find_sender(self, message: bytes) -> int | None:
        """The leaf that signed a PublicMessage; None for a newcomer's external commit."""
        ...

    def apply_commit(self, message: bytes, now: int) -> RosterChange:
        """Check a commit (PublicMessage) and step into the next epoch. Raises: InvalidMessage, AccessError."""
        ...

    def propose_remove(self, leaf: int, now: int) -> bytes:
        """The delivery service's signed Remove proposal (PublicMessage), which now waits to be committed."""
        ...

    def save(self) -> bytes: ...


class GroupOpener(Protocol):
    """Makes followed groups."""

    def open_group(self, group_info: bytes, now: int) -> FollowedGroup:
        """Of a GroupInfo with its ratchet tree. Raises: InvalidMessage."""
        ...

    def load_group(self, state: bytes) -> FollowedGroup: ...


@dataclass(frozen=True, slots=True)
class SendView:
    """What a send is compared with: one epoch of one conversation. Immutable, replaced with each epoch.

    head: how every sound envelope of this epoch begins, up to its message id; b"" when nobody worked it out.
    """

    conversation_id: ConversationId
    epoch: int
    leaves: Mapping[DeviceId, int]
    waiting: tuple[str, ...]
    head: bytes = b""


def build_view(conversation_id: ConversationId, group: FollowedGroup) -> SendView:
    """The view of a group's present epoch."""
    leaves = {member.device_id: member.leaf for member in group.list_members()}
    head = build_head(group.group_id, group.epoch)
    return SendView(conversation_id, group.epoch, leaves, tuple(group.list_waiting()), head)


def build_head(group_id: bytes, epoch: int) -> bytes:
    """How a PrivateMessage with an application message of this epoch begins, its message id's length included."""
    return b"".join((_PRIVATE_MESSAGE, vector(group_id), u64(epoch), _APPLICATION, bytes((MESSAGE_ID_BYTES,))))


def is_sound(send: Send, view: SendView) -> bool:
    """Whether `check_envelope` and `check_epoch` certainly find nothing: a look at the few bytes that a sound envelope
    of this epoch has in known places. False says nothing: the checks do."""
    envelope, message_id, at = send.envelope, send.message_id, len(view.head)
    if not view.head or view.waiting or send.epoch != view.epoch or len(message_id) != MESSAGE_ID_BYTES:
        return False
    if not envelope.startswith(view.head) or not envelope.startswith(message_id, at):
        return False
    end = len(envelope)
    at += MESSAGE_ID_BYTES
    for _ in range(2):  # encrypted sender data, ciphertext: vectors (RFC 9420 section 2.1.2)
        if at + 4 > end:
            return False
        first = envelope[at]
        if first < 0x40:
            at += 1 + first
        elif first < 0x80:
            length = (first & 0x3F) << 8 | envelope[at + 1]
            if length < 0x40:
                return False
            at += 2 + length
        else:
            return False
    return at == end and end <= limits.ENVELOPE_BYTES


def check_envelope(send: Send, group_id: bytes) -> None:
    """Check what a server can check of an application message, whatever its epoch.

    Raises: Malformed, TooLarge, WrongGroup, RuleBroken.
    """
    if len(send.message_id) != MESSAGE_ID_BYTES:
        raise Malformed("a message id has 16 bytes")
    if len(send.envelope) > limits.ENVELOPE_BYTES:
        raise TooLarge(limit=limits.ENVELOPE_BYTES)
    reader = Reader(send.envelope)
    if reader.take(4) != _PRIVATE_MESSAGE:
        raise RuleBroken("delivery.envelope.private")
    if reader.vector() != group_id:
        raise WrongGroup
    if reader.u64() != send.epoch:
        raise RuleBroken("delivery.envelope.epoch")
    if reader.take(1) != _APPLICATION:
        raise RuleBroken("delivery.envelope.application")
    if reader.vector() != send.message_id:
        raise RuleBroken("delivery.envelope.message_id")
    reader.vector()
    reader.vector()
    if reader.more:
        raise Malformed("bytes follow the envelope")


def check_epoch(send: Send, view: SendView) -> None:
    """Raises: StaleEpoch, FutureEpoch, PendingProposals."""
    if send.epoch < view.epoch:
        raise StaleEpoch(current_epoch=view.epoch)
    if send.epoch > view.epoch:
        raise FutureEpoch(current_epoch=view.epoch)
    if view.waiting:
        raise PendingProposals(proposals=list(view.waiting))


class GroupCache:
    """Views and groups in memory, bounded, rebuilt from the store."""

    def __init__(self, store: Store, opener: GroupOpener) -> None:
        self._store = store
        self._opener = opener
        self._views: OrderedDict[ConversationId, SendView] = OrderedDict()
        self._groups: OrderedDict[ConversationId, FollowedGroup] = OrderedDict()

    def find_view(self, conversation_id: ConversationId) -> SendView | None:
        """The view if it is in memory."""
        return self._views.get(conversation_id)

    async def get_view(self, conversation_id: ConversationId) -> SendView:
        """Raises: NotFound, Malformed."""
        view = self._views.get(conversation_id)
        if view is None:
            view = build_view(conversation_id, await self.get_group(conversation_id))
            _keep(self._views, conversation_id, view, VIEWS_IN_MEMORY)
        return view

    async def get_group(self, conversation_id: ConversationId) -> FollowedGroup:
        """The group at the store's epoch, to look at. Raises: NotFound, Malformed."""
        group = self._groups.get(conversation_id)
        if group is not None:
            self._groups.move_to_end(conversation_id)
            return group
        decode_id(conversation_id)

        def question(view: View) -> bytes | None:
            return view.delivery.find_group_state(conversation_id)

        state = await self._store.read(question)
        if state is None:
            raise NotFound
        newer = self._groups.get(conversation_id)  # a commit was accepted while this one was read
        if newer is not None:
            return newer
        group = self._opener.load_group(state)
        _keep(self._groups, conversation_id, group, GROUPS_IN_MEMORY)
        return group

    async def take_group(self, conversation_id: ConversationId) -> FollowedGroup:
        """The group, to change: it leaves the cache until `replace` puts it back. Raises: NotFound, Malformed."""
        await self.get_group(conversation_id)
        return self._groups.pop(conversation_id)

    def replace(self, conversation_id: ConversationId, group: FollowedGroup) -> None:
        """The group as the store now holds it."""
        _keep(self._groups, conversation_id, group, GROUPS_IN_MEMORY)
        _keep(self._views, conversation_id, build_view(conversation_id, group), VIEWS_IN_MEMORY)

    def drop(self, conversation_id: ConversationId) -> None:
        """Forget what may differ from the store."""
        self._groups.pop(conversation_id, None)
        self._views.pop(conversation_id, None)


def _keep(cache: OrderedDict[ConversationId, T], key: ConversationId, value: T, most: int) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > most:
        cache.popitem(last=False)
