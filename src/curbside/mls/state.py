"""A member's state and its saved form (RFC 9420 sections 8 and 9). Secret side.

[Note: state is replaced, not changed] Public state, epochs and the group's state are frozen; operations build new
ones and `Group` puts them in place at the end. Only `SecretTree` changes in place, by `spend`, which cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from curbside.crypto.suites import get_suite
from curbside.errors import IntegrityError, InvalidMessage
from curbside.mls.codec import Reader, decode, optional, u8, u16, u32, u64, vector, vector_of
from curbside.mls.key_package import OwnLeaf
from curbside.mls.key_schedule import EpochSecrets
from curbside.mls.messages import GroupContext, Sender
from curbside.mls.nodes import Credential
from curbside.mls.proposals import ReInit, encode_proposal, read_proposal
from curbside.mls.protection import EpochKeys
from curbside.mls.secret_tree import RatchetLimits, SecretTree
from curbside.mls.transcript import PublicState
from curbside.mls.tree import RatchetTree
from curbside.mls.trust import Member, RosterDiff, SentProposal
from curbside.mls.validation import Limits

_SAVE_VERSION = 1
_MAX_SAVED = 1 << 28
WEEK = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """What this device allows. Sizes in bytes, times in seconds.

    suites: cipher suites that a group may have. padding: sizes to which plaintexts grow; above the last one, to
    its next multiple. past_epochs, past_seconds: how many epochs, and how long, late messages are still opened.
    resumption_epochs: how many resumption PSKs are kept. tree_in_welcome: whether Welcomes carry the tree.
    private_handshakes: whether handshakes may come encrypted.
    """

    suites: tuple[int, ...] = (1,)
    padding: tuple[int, ...] = (256, 1024, 4096, 16384)
    past_epochs: int = 3
    past_seconds: int = WEEK
    resumption_epochs: int = 4
    tree_in_welcome: bool = True
    private_handshakes: bool = True
    limits: Limits = Limits()
    ratchets: RatchetLimits = RatchetLimits()

    def pad(self, length: int) -> int:
        """The padded length of a plaintext."""
        for size in self.padding:
            if length <= size:
                return size
        last = self.padding[-1] if self.padding else 1
        return -(-length // last) * last

    def encode(self) -> bytes:
        """For saved state."""
        return _encode_settings(self)

    @classmethod
    def read(cls, reader: Reader) -> GroupSettings:
        """Decode. Raises: Malformed."""
        suites, padding = reader.u16s(), reader.u32s()
        past, seconds, resumption, in_welcome, private = (reader.u64() for _ in range(5))
        lifetime, leaves, pending, requests = (reader.u64() for _ in range(4))
        ratchets = RatchetLimits(reader.u64(), reader.u64(), reader.u64())
        limits = Limits(lifetime, leaves, pending, bool(requests))
        return cls(suites, padding, past, seconds, resumption, bool(in_welcome), bool(private), limits, ratchets)


@lru_cache(maxsize=8)
def _encode_settings(settings: GroupSettings) -> bytes:
    limits, ratchets = settings.limits, settings.ratchets
    numbers = (
        settings.past_epochs, settings.past_seconds, settings.resumption_epochs, settings.tree_in_welcome,
        settings.private_handshakes, limits.max_lifetime, limits.max_leaves, limits.max_pending,
        limits.join_requests, ratchets.max_forward, ratchets.max_skipped, ratchets.skipped_seconds,
    )  # fmt: skip
    return vector_of(map(u16, settings.suites)) + vector_of(map(u32, settings.padding)) + b"".join(map(u64, numbers))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class EpochState:
    """One epoch as a member knows it. `private` holds HPKE private keys by node index.

    `_kept` holds the encoding of all but the message keys, once it was made: only those change within an epoch.
    """

    public: PublicState
    own: int
    leaf: OwnLeaf
    private: dict[int, bytes]
    secrets: EpochSecrets
    tree: SecretTree
    reinit: ReInit | None = None
    _kept: list[bytes] = field(default_factory=list, init=False)

    def keys(self) -> EpochKeys:
        """What opens and seals private messages."""
        return EpochKeys(
            self.public.suite,
            self.public.encoded_context,
            self.secrets.sender_data,
            self.tree,
            self._find_key,
        )

    def _find_key(self, index: int) -> bytes | None:
        leaf = self.public.tree.find_leaf(index)
        return None if leaf is None else leaf.signature_key

    def encode(self) -> bytes:
        """For saved state."""
        if not self._kept:
            self._kept.append(self._encode_fixed())
        reinit = None if self.reinit is None else encode_proposal(self.reinit)
        return b"".join((self._kept[0], self.tree.encode(), optional(reinit)))

    def _encode_fixed(self) -> bytes:
        public = self.public
        private = (u32(node) + vector(key) for node, key in sorted(self.private.items()))
        return b"".join(
            (
                u32(self.own), public.encoded_context, vector(public.tree.encode()), vector(public.confirmation_tag),
                self.leaf.encode(), vector_of(private), self.secrets.encode(),
            )
        )  # fmt: skip

    @classmethod
    def read(cls, reader: Reader) -> EpochState:
        """Decode. Raises: Malformed."""
        own, context = reader.u32(), GroupContext.read(reader)
        suite = get_suite(context.suite)
        tree = RatchetTree.parse(suite, reader.vector())
        public = PublicState.make(suite, context, tree, reader.vector())
        leaf = OwnLeaf.read(reader)
        private = dict(reader.items(lambda inner: (inner.u32(), inner.vector())))
        secrets, message_keys = EpochSecrets.read(reader), SecretTree.read(suite, reader)
        reinit = read_proposal(reader) if reader.present() else None
        return cls(public, own, leaf, private, secrets, message_keys, reinit if isinstance(reinit, ReInit) else None)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class PastEpoch:
    """What is left of an epoch: keys of messages that may still come, and who the senders were.

    `_kept` holds what was encoded of the members last, with the epoch that they were compared with.
    """

    epoch: int
    ended: int
    context: bytes
    sender_data: bytes
    tree: SecretTree
    members: dict[int, Member]
    _kept: list[tuple[PublicState, bytes]] = field(default_factory=list, init=False)

    def keys(self) -> EpochKeys:
        """What opens late messages."""
        return EpochKeys(self.tree.suite, self.context, self.sender_data, self.tree, self._find_key)

    def _find_key(self, index: int) -> bytes | None:
        member = self.members.get(index)
        return None if member is None else member.signature_key

    def encode(self, current: PublicState) -> bytes:
        """For saved state: only members that differ from the current ones are written."""
        if not self._kept or self._kept[0][0] is not current:
            self._kept[:] = [(current, self._encode_members(current))]
        head = u64(self.epoch) + u64(self.ended) + vector(self.context) + vector(self.sender_data)
        return head + self.tree.encode() + self._kept[0][1]

    def _encode_members(self, current: PublicState) -> bytes:
        present = {index: Member.of(index, leaf) for index, leaf in current.tree.leaves()}
        changed = [i for i in sorted({*present, *self.members}) if present.get(i) != self.members.get(i)]
        return vector_of(u32(i) + optional(_encode_member(self.members.get(i))) for i in changed)

    @classmethod
    def reader(cls, current: PublicState) -> Callable[[Reader], PastEpoch]:
        """A function that decodes. Raises: Malformed."""
        now_members = {index: Member.of(index, leaf) for index, leaf in current.tree.leaves()}

        def read(reader: Reader) -> PastEpoch:
            epoch, ended, context, sender_data = reader.u64(), reader.u64(), reader.vector(), reader.vector()
            tree, members = SecretTree.read(current.suite, reader), dict(now_members)
            for index, member in reader.items(_read_change):
                if member is None:
                    members.pop(index, None)
                else:
                    members[index] = member
            return cls(epoch, ended, context, sender_data, tree, members)

        return read


def _encode_member(member: Member | None) -> bytes | None:
    return (
        None if member is None else u32(member.leaf_index) + member.credential.encode() + vector(member.signature_key)
    )


def _read_member(reader: Reader) -> Member:
    return Member(reader.u32(), Credential.read(reader), reader.vector())


def _read_change(reader: Reader) -> tuple[int, Member | None]:
    return reader.u32(), _read_member(reader) if reader.present() else None


def _encode_diff(diff: RosterDiff) -> bytes:
    pairs = (_known(old) + _known(new) for old, new in diff.updated)
    lists = (vector_of(map(_known, diff.added)), vector_of(map(_known, diff.removed)), vector_of(pairs))
    return b"".join(lists) + u8(diff.extensions_changed)


def _known(member: Member) -> bytes:
    return _encode_member(member) or b""


def _read_diff(reader: Reader) -> RosterDiff:
    added, removed = reader.items(_read_member), reader.items(_read_member)
    updated = reader.items(lambda inner: (_read_member(inner), _read_member(inner)))
    return RosterDiff(added, removed, updated, bool(reader.u8()))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StagedCommit:
    """Our own commit while the server has not said yes or no, with the epoch that it leads to; `made` unix seconds."""

    commit: bytes
    welcome: bytes | None
    group_info: bytes
    diff: RosterDiff
    next_epoch: EpochState
    made: int

    def encode(self) -> bytes:
        """For saved state."""
        welcome = None if self.welcome is None else vector(self.welcome)
        head = vector(self.commit) + optional(welcome) + vector(self.group_info)
        return head + _encode_diff(self.diff) + self.next_epoch.encode() + u64(self.made)

    @classmethod
    def read(cls, reader: Reader) -> StagedCommit:
        """Decode. Raises: Malformed."""
        commit, welcome = reader.vector(), reader.vector() if reader.present() else None
        return cls(commit, welcome, reader.vector(), _read_diff(reader), EpochState.read(reader), reader.u64())


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class OwnUpdate:
    """The secrets of an Update we proposed, until it is committed or the epoch ends."""

    private: bytes
    leaf: OwnLeaf

    @classmethod
    def read(cls, reader: Reader) -> OwnUpdate:
        """Decode. Raises: Malformed."""
        return cls(reader.vector(), OwnLeaf.read(reader))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class GroupState:
    """Everything a member knows of a group.

    `resumption` pairs epochs with their resumption PSKs, oldest first. `pending` are proposals of this epoch by
    reference. `own_updates` are keyed by the leaf's new encryption key. `removed` when we are no member any more.
    """

    settings: GroupSettings
    current: EpochState
    past: tuple[PastEpoch, ...] = ()
    resumption: tuple[tuple[int, bytes], ...] = ()
    pending: dict[bytes, SentProposal] = field(default_factory=dict)
    own_updates: dict[bytes, OwnUpdate] = field(default_factory=dict)
    staged: StagedCommit | None = None
    removed: bool = False

    def encode(self) -> bytes:
        """The saved form: holds secrets, belongs in the vault."""
        updates = (vector(k) + vector(u.private) + u.leaf.encode() for k, u in self.own_updates.items())
        return b"".join(
            (
                u8(_SAVE_VERSION), self.settings.encode(), self.current.encode(),
                vector_of(epoch.encode(self.current.public) for epoch in self.past),
                vector_of(u64(epoch) + vector(psk) for epoch, psk in self.resumption),
                vector_of(vector(ref) + _encode_sent(sent) for ref, sent in self.pending.items()),
                vector_of(updates), optional(None if self.staged is None else self.staged.encode()), u8(self.removed),
            )
        )  # fmt: skip

    @classmethod
    def decode(cls, blob: bytes) -> GroupState:
        """What `encode` made. Raises: IntegrityError when the blob is damaged or of another version."""
        try:
            return decode(blob, cls._read, _MAX_SAVED)
        except InvalidMessage:
            raise IntegrityError("saved group state cannot be read") from None

    @classmethod
    def _read(cls, reader: Reader) -> GroupState:
        if reader.u8() != _SAVE_VERSION:
            raise IntegrityError("saved group state is of another version")
        settings, current = GroupSettings.read(reader), EpochState.read(reader)
        past = reader.items(PastEpoch.reader(current.public))
        resumption = reader.items(lambda inner: (inner.u64(), inner.vector()))
        pending = dict(reader.items(lambda inner: (inner.vector(), _read_sent(inner))))
        updates = dict(reader.items(lambda inner: (inner.vector(), OwnUpdate.read(inner))))
        staged = StagedCommit.read(reader) if reader.present() else None
        return cls(settings, current, past, resumption, pending, updates, staged, bool(reader.u8()))


def _encode_sent(sent: SentProposal) -> bytes:
    return sent.sender.encode() + encode_proposal(sent.proposal)


def _read_sent(reader: Reader) -> SentProposal:
    sender = Sender.read(reader)
    return SentProposal(read_proposal(reader), sender, by_reference=True)
