"""A member's view of a group: the face of the secret side (RFC 9420).

Every method either succeeds or leaves the group exactly as it was: `save()` gives the same bytes before and after a
refusal. The caller serialises calls and saves before it sends: encrypt or stage, then `save()`, then send.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, final

from curbside.crypto.kdf import is_same
from curbside.crypto.secret import SecretBytes
from curbside.crypto.suites import Suite
from curbside.errors import (
    BadSignature,
    FutureEpoch,
    Gone,
    Malformed,
    PendingProposals,
    Replayed,
    StaleEpoch,
    UsageError,
    WrongGroup,
)
from curbside.mls import lifecycle, messages
from curbside.mls.checks import Check, refuse, require
from curbside.mls.committing import (
    CommitRequest,
    ExternalPsk,
    ResumptionPsk,
    Wire,
    build_commit,
    draft_commit,
    frame_handshake,
    make_group_info,
    make_update_leaf,
    new_psk_id,
    parse_key_package,
    sign_as_member,
)
from curbside.mls.joining import (
    JoinOptions,
    NewGroup,
    create_state,
    external_state,
    find_resumption,
    join_state,
)
from curbside.mls.key_package import KeyPackageSecrets, OwnLeaf, make_key_package
from curbside.mls.key_schedule import export_secret, membership_tag
from curbside.mls.labels import proposal_ref
from curbside.mls.messages import (
    COMMIT,
    MEMBER,
    NEW_MEMBER_COMMIT,
    PROPOSAL,
    WIRE_PRIVATE,
    WIRE_PUBLIC,
    AuthenticatedContent,
    PrivateMessage,
    PublicMessage,
    encode_message,
    parse_message,
)
from curbside.mls.nodes import Extensions
from curbside.mls.proposals import (
    Add,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ReInit,
    Remove,
    Update,
)
from curbside.mls.protection import Opened, open_message, seal_message
from curbside.mls.receiving import enter_epoch
from curbside.mls.results import Application, CommitReceived, ProposalReceived, Received, Staged
from curbside.mls.secret_tree import APPLICATION, Plan, SecretTree
from curbside.mls.state import EpochState, GroupSettings, GroupState, OwnUpdate, StagedCommit
from curbside.mls.succession import start_branch, start_successor
from curbside.mls.transcript import check_group_and_epoch, verify_content
from curbside.mls.transition import check_proposal, follow_commit
from curbside.mls.trust import CredentialValidator, Member, RosterDiff, SentProposal, list_members
from curbside.mls.validation import DAY, Guard
from curbside.mls.welcome import PskStore

__all__ = [
    "Application",
    "CommitReceived",
    "CommitRequest",
    "ExternalPsk",
    "Group",
    "GroupSettings",
    "JoinOptions",
    "KeyPackageSecrets",
    "OwnLeaf",
    "ProposalReceived",
    "ResumptionPsk",
    "Staged",
    "make_key_package",
]

_NO_PSKS: Final[Mapping[bytes, SecretBytes]] = {}
_CREATOR_LIFETIME: Final = 84 * DAY
_DEFAULTS: Final = GroupSettings()
_PLAIN_JOIN: Final = JoinOptions()


@final
class Group:
    """One group as one member sees it."""

    __slots__ = ("_state", "_validator", "used_key_package")

    def __init__(self, state: GroupState, validator: CredentialValidator) -> None:
        """For this package only; people use `create`, `join`, `join_external` and `load`."""
        self._state = state
        self._validator = validator
        self.used_key_package: bytes | None = None

    # --- becoming a member -----------------------------------------------------------------

    @classmethod
    def create(
        cls,
        group_id: bytes,
        leaf: OwnLeaf,
        suite: int,
        extensions: Extensions,
        settings: GroupSettings,
        validator: CredentialValidator,
        now: int,
    ) -> Group:
        """Start a group with ourselves as the only member (RFC 9420 section 11).

        Args: `suite` code of the cipher suite; `now` unix seconds.
        Raises: RuleBroken; UntrustedDevice.
        """
        new = NewGroup(group_id, suite, tuple(extensions), (now - DAY, now + _CREATOR_LIFETIME))
        guard = Guard(validator, now, settings.limits)
        return cls(create_state(new, leaf, settings, guard), validator)

    @classmethod
    def join(
        cls,
        welcome: bytes,
        key_packages: Sequence[KeyPackageSecrets],
        validator: CredentialValidator,
        now: int,
        settings: GroupSettings = _DEFAULTS,
        options: JoinOptions = _PLAIN_JOIN,
    ) -> Group:
        """Join by a Welcome (section 12.4.3.1).

        `used_key_package` of the result is the reference of the KeyPackage whose secrets must be deleted now.
        Raises: RuleBroken; DecryptionFailed; BadSignature; UntrustedDevice; Malformed; DuplicateRequest.
        """
        guard = Guard(validator, now, settings.limits)
        state, package = join_state(welcome, key_packages, settings, options, guard)
        group = cls(state, validator)
        group.used_key_package = package.reference
        return group

    @classmethod
    def join_external(
        cls,
        group_info: bytes,
        leaf: OwnLeaf,
        validator: CredentialValidator,
        now: int,
        settings: GroupSettings = _DEFAULTS,
        options: JoinOptions = _PLAIN_JOIN,
    ) -> tuple[Group, bytes]:
        """Join by an external commit (section 12.4.3.2): the group after it, and the commit to send.

        The group is real once the server has accepted the commit; drop it otherwise.
        Raises: RuleBroken; BadSignature; UntrustedDevice; Malformed.
        """
        guard = Guard(validator, now, settings.limits)
        state, built = external_state(group_info, leaf, settings, options, guard)
        return cls(state, validator), built.staged.commit

    @classmethod
    def load(cls, blob: bytes, validator: CredentialValidator, settings: GroupSettings | None = None) -> Group:
        """What `save` made; `settings` replace the saved ones. Raises: IntegrityError."""
        state = GroupState.decode(blob)
        return cls(state if settings is None else replace(state, settings=settings), validator)

    def save(self) -> bytes:
        """The whole state, secrets included: belongs in the vault, never in a backup."""
        return self._state.encode()

    def reinit_successor(
        self, leaf: OwnLeaf, key_packages: Sequence[bytes], now: int, settings: GroupSettings | None = None
    ) -> tuple[Group, Staged]:
        """After a committed ReInit: the new group with its first commit staged (section 11.2).

        Args: `key_packages` MLSMessages of all other members. Call `commit_accepted` on the result to go on.
        Raises: RuleBroken; UsageError when no ReInit was committed.
        """
        guard = Guard(self._validator, now, self._state.settings.limits)
        state = start_successor(self._state, leaf, key_packages, settings, guard)
        group = Group(state, self._validator)
        return group, group._staged_result()

    def branch(self, group_id: bytes, leaf: OwnLeaf, key_packages: Sequence[bytes], now: int) -> tuple[Group, Staged]:
        """A subgroup of this group's members with its first commit staged (section 11.3). Raises: RuleBroken."""
        guard = Guard(self._validator, now, self._state.settings.limits)
        state = start_branch(self._state, group_id, leaf, key_packages, guard)
        group = Group(state, self._validator)
        return group, group._staged_result()

    # --- looking ---------------------------------------------------------------------------

    @property
    def _epoch(self) -> EpochState:
        return self._state.current

    @property
    def _suite(self) -> Suite:
        return self._epoch.public.suite

    @property
    def state(self) -> GroupState:
        """The frozen state, for `JoinOptions.earlier`; holds secrets."""
        return self._state

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self._epoch.public.context.epoch

    @property
    def group_id(self) -> bytes:
        """The group's id."""
        return self._epoch.public.context.group_id

    @property
    def suite(self) -> int:
        """The cipher suite's code."""
        return self._suite.code

    @property
    def own_leaf(self) -> int:
        """Our leaf index."""
        return self._epoch.own

    @property
    def members(self) -> list[Member]:
        """All members, by leaf index; ourselves included."""
        return list_members(self._epoch.public.tree)

    @property
    def extensions(self) -> Extensions:
        """The group context's extensions."""
        return self._epoch.public.context.extensions

    @property
    def pending(self) -> tuple[ProposalReceived, ...]:
        """Proposals of this epoch that wait to be committed."""
        return tuple(self._describe(ref, sent) for ref, sent in self._state.pending.items())

    @property
    def staged(self) -> Staged | None:
        """Our own commit that waits for the server's answer."""
        return None if self._state.staged is None else self._staged_result()

    @property
    def is_active(self) -> bool:
        """Whether we are still a member and the group was not closed by a ReInit."""
        return not self._state.removed and self._epoch.reinit is None

    @property
    def reinit(self) -> ReInit | None:
        """The ReInit that closed this group, if one did."""
        return self._epoch.reinit

    def export(self, label: str, context: bytes, length: int) -> bytes:
        """MLS-Exporter (section 8.5): `length` bytes bound to this epoch. Raises: Gone."""
        self._check_member()
        return export_secret(self._suite, self._epoch.secrets, label.encode(), context, length)

    def epoch_authenticator(self) -> bytes:
        """A value that all members of this epoch share (section 8.7). Raises: Gone."""
        self._check_member()
        return self._epoch.secrets.authenticator

    def group_info(self, with_tree: bool = True) -> bytes:
        """A GroupInfo of this epoch as an MLSMessage, with external_pub (section 12.4.3). Raises: Gone."""
        self._check_member()
        return encode_message(make_group_info(self._epoch, with_tree))

    def ratchet_tree(self) -> bytes:
        """The encoded ratchet tree (section 12.4.3.3)."""
        return self._epoch.public.tree.encode()

    def _check_member(self) -> None:
        if self._state.removed:
            raise Gone("this device was removed from the group")

    def _check_open(self) -> None:
        self._check_member()
        require(self._epoch.reinit is None, Check.COMMIT_REINIT_DONE)

    def _describe(self, ref: bytes, sent: SentProposal, aad: bytes = b"") -> ProposalReceived:
        member = None
        if sent.sender.kind == MEMBER:
            member = self._member(sent.sender.index)
        return ProposalReceived(sent.proposal.name, sent.sender, member, ref, sent.proposal, aad)

    def _member(self, index: int) -> Member:
        leaf = self._epoch.public.tree.find_leaf(index)
        if leaf is None:
            refuse(Check.MESSAGE_SENDER)
        return Member.of(index, leaf)

    def _guard(self, now: int) -> Guard:
        return Guard(self._validator, now, self._state.settings.limits)

    def _psks(self, external: Mapping[bytes, SecretBytes]) -> PskStore:
        return PskStore(external, lambda group_id, epoch: find_resumption((self._state,), group_id, epoch))

    # --- sending ---------------------------------------------------------------------------

    def encrypt(self, data: bytes, aad: bytes = b"") -> bytes:
        """Encrypt an application message: an MLSMessage (section 6.3). Save before sending it.

        Args: `aad` is authenticated and not encrypted.
        Raises: PendingProposals (commit first, section 12.4); Gone; RuleBroken after a ReInit.
        """
        self._check_open()
        if self._state.pending:
            raise PendingProposals(proposals=[ref.hex() for ref in self._state.pending])
        epoch, settings = self._epoch, self._state.settings
        signed = sign_as_member(epoch, messages.APPLICATION, bytes(data), aad, WIRE_PRIVATE)
        generation = epoch.tree.next_generation(epoch.own, APPLICATION)
        plan = epoch.tree.plan(epoch.own, APPLICATION, generation, settings.ratchets, 0)
        message = encode_message(seal_message(epoch.keys(), plan, signed, settings.pad))
        epoch.tree.spend(plan)
        return message

    def stage_commit(self, request: CommitRequest, now: int, psks: Mapping[bytes, SecretBytes] = _NO_PSKS) -> Staged:
        """Make a commit without applying it (section 12.4.1); it is part of the saved state until answered.

        A second call replaces the first commit. Args: `psks` external PSKs that pending proposals name.
        Raises: RuleBroken; PolicyDenied and what else receivers would raise; Malformed; Gone.
        """
        self._check_open()
        held = {**psks, **{p.psk_id: p.secret for p in request.psks if isinstance(p, ExternalPsk)}}
        guard = self._guard(now)
        draft = draft_commit(self._epoch, request, self._state.pending, self._psks(held), guard)
        built = build_commit(draft, self._state.settings, guard)
        if built.plan is not None:
            self._epoch.tree.spend(built.plan)
        self._state = replace(self._state, staged=built.staged)
        return self._staged_result()

    def _staged_result(self) -> Staged:
        staged = self._state.staged
        if staged is None:
            raise UsageError("no commit is staged")
        epoch = staged.next_epoch.public.context.epoch
        return Staged(staged.commit, staged.welcome, staged.group_info, staged.diff, epoch)

    def commit_accepted(self, staged: Staged | None = None) -> RosterDiff:
        """The server took our staged commit: enter its epoch. Raises: UsageError when it is not the staged one."""
        held = self._state.staged
        if held is None or (staged is not None and staged.commit != held.commit):
            raise UsageError("this commit is not staged")
        self._state = lifecycle.enter(self._state, held.next_epoch, held.made)
        return held.diff

    def commit_rejected(self) -> None:
        """The server refused our staged commit: forget it. Nothing happens when none is staged."""
        self._state = replace(self._state, staged=None)

    def propose_remove(self, leaf_index: int, now: int, wire: Wire = "public") -> bytes:
        """Propose to remove a member: an MLSMessage. Raises: RuleBroken; Gone."""
        return self._propose(Remove(leaf_index), now, wire)

    def propose_add(self, key_package: bytes, now: int, wire: Wire = "public") -> bytes:
        """Propose to add the client of a KeyPackage (MLSMessage). Raises: RuleBroken; BadSignature; Malformed."""
        return self._propose(Add(parse_key_package(key_package)), now, wire)

    def propose_psk(self, psk: ExternalPsk | ResumptionPsk, now: int, wire: Wire = "public") -> bytes:
        """Propose a PSK. Raises: RuleBroken; Gone."""
        return self._propose(PreSharedKey(new_psk_id(self._suite, self.group_id, psk)), now, wire)

    def propose_extensions(self, extensions: Extensions, now: int, wire: Wire = "public") -> bytes:
        """Propose to replace all group context extensions. Raises: RuleBroken; Gone."""
        return self._propose(GroupContextExtensions(tuple(extensions)), now, wire)

    def propose_reinit(self, reinit: ReInit, now: int, wire: Wire = "public") -> bytes:
        """Propose to close the group for a new one. Raises: RuleBroken; Gone."""
        return self._propose(reinit, now, wire)

    def propose_update(self, now: int, leaf: OwnLeaf | None = None, wire: Wire = "public") -> bytes:
        """Propose fresh keys for our own leaf, for somebody else to commit (section 12.1.2). Raises: RuleBroken."""
        self._check_open()
        own = leaf or self._epoch.leaf
        node, private = make_update_leaf(self._epoch, own)
        message = self._propose(Update(node), now, wire)
        updates = {**self._state.own_updates, node.encryption_key: OwnUpdate(private, own)}
        self._state = replace(self._state, own_updates=updates)
        return message

    def _propose(self, proposal: Proposal, now: int, wire: Wire) -> bytes:
        self._check_open()
        code = WIRE_PRIVATE if wire == "private" else WIRE_PUBLIC
        signed = sign_as_member(self._epoch, PROPOSAL, proposal, b"", code)
        sent = SentProposal(proposal, signed.content.sender, by_reference=True)
        check_proposal(self._epoch.public, sent, self._guard(now))
        message, plan = frame_handshake(self._epoch, signed, self._state.settings)
        if plan is not None:
            self._epoch.tree.spend(plan)
        self._add_pending(signed, sent)
        return message

    def _add_pending(self, signed: AuthenticatedContent, sent: SentProposal) -> bytes:
        ref = proposal_ref(self._suite, signed.encode())
        self._state = replace(self._state, pending={**self._state.pending, ref: sent})
        return ref

    # --- receiving -------------------------------------------------------------------------

    def receive(self, message: bytes, now: int, psks: Mapping[bytes, SecretBytes] = _NO_PSKS) -> Received:
        """Take in a message of the group; a refusal changes nothing.

        Args: `now` unix seconds: when the server took the message, for a device that catches up later would refuse
            KeyPackages that were good when they were added. `psks` external PSKs that a commit may name.
        Raises: WrongGroup; StaleEpoch; FutureEpoch; Replayed; BadSignature; DecryptionFailed; RuleBroken;
            UntrustedDevice; Malformed; TooLarge; what the policy raises; Gone.
        """
        parsed = parse_message(message)
        self._check_member()
        if not isinstance(parsed, (PublicMessage, PrivateMessage)):
            raise Malformed("not a message for a group")
        staged = self._state.staged
        if staged is not None and message == staged.commit:
            return self._receive_own(staged)
        if isinstance(parsed, PrivateMessage):
            return self._receive_private(parsed, now, psks)
        return self._receive_public(parsed, now, psks)

    def _receive_own(self, staged: StagedCommit) -> CommitReceived:
        self._state = lifecycle.enter(self._state, staged.next_epoch, staged.made)
        return CommitReceived(staged.diff, False, self.epoch, self._member(self.own_leaf), own=True)

    def _receive_public(self, message: PublicMessage, now: int, psks: Mapping[bytes, SecretBytes]) -> Received:
        signed, public = message.authenticated, self._epoch.public
        content = signed.content
        check_group_and_epoch(public.context, content.group_id, content.epoch)
        if content.sender.kind == MEMBER:
            tag = membership_tag(public.suite, self._epoch.secrets, signed, public.encoded_context)
            if not is_same(tag, message.membership_tag):
                raise BadSignature
            require(content.sender.index != self.own_leaf, Check.MESSAGE_SELF)
        verify_content(public, signed)
        return self._accept_handshake(signed, None, now, psks)

    def _receive_private(self, message: PrivateMessage, now: int, psks: Mapping[bytes, SecretBytes]) -> Received:
        if message.group_id != self.group_id:
            raise WrongGroup
        if message.epoch > self.epoch:
            raise FutureEpoch(current_epoch=self.epoch)
        is_application = message.content_type == messages.APPLICATION
        if message.epoch < self.epoch:
            return self._receive_late(message, now)
        require(is_application or self._state.settings.private_handshakes, Check.MESSAGE_FORMAT)
        limits = self._state.settings.ratchets
        opened = open_message(self._epoch.keys(), message, self.own_leaf, limits, now)
        if not is_application:
            return self._accept_handshake(opened.signed, opened.plan, now, psks)
        return self._accept_data(opened, self._epoch.tree, self._member(opened.signed.content.sender.index), now)

    def _receive_late(self, message: PrivateMessage, now: int) -> Application:
        settings = self._state.settings
        past = next((old for old in self._state.past if old.epoch == message.epoch), None)
        too_late = past is None or now - past.ended > settings.past_seconds
        if past is None or too_late or message.content_type != messages.APPLICATION:
            raise StaleEpoch(current_epoch=self.epoch)
        opened = open_message(past.keys(), message, -1, settings.ratchets, now)
        return self._accept_data(opened, past.tree, past.members[opened.signed.content.sender.index], now)

    def _accept_data(self, opened: Opened, tree: SecretTree, sender: Member, now: int) -> Application:
        content = opened.signed.content
        if not isinstance(content.body, bytes):
            refuse(Check.MESSAGE_FORMAT)
        tree.spend(opened.plan)
        self._state = lifecycle.expire(self._state, now)
        return Application(content.body, content.aad, sender, content.epoch)

    def _accept_handshake(
        self, signed: AuthenticatedContent, plan: Plan | None, now: int, psks: Mapping[bytes, SecretBytes]
    ) -> Received:
        self._check_open()
        if signed.content.content_type == COMMIT:
            return self._accept_commit(signed, plan, now, psks)
        return self._accept_proposal(signed, plan, now)

    def _accept_proposal(self, signed: AuthenticatedContent, plan: Plan | None, now: int) -> ProposalReceived:
        content = signed.content
        ref = proposal_ref(self._suite, signed.encode())
        if ref in self._state.pending:
            raise Replayed
        require(len(self._state.pending) < self._state.settings.limits.max_pending, Check.PROPOSAL_LIMIT)
        if isinstance(content.body, (bytes, messages.Commit)):
            refuse(Check.MESSAGE_FORMAT)
        sent = SentProposal(content.body, content.sender, by_reference=True)
        check_proposal(self._epoch.public, sent, self._guard(now))
        if plan is not None:
            self._epoch.tree.spend(plan)
        self._add_pending(signed, sent)
        return self._describe(ref, sent, content.aad)

    def _accept_commit(
        self, signed: AuthenticatedContent, plan: Plan | None, now: int, psks: Mapping[bytes, SecretBytes]
    ) -> CommitReceived:
        epoch, state = self._epoch, self._state
        step = follow_commit(epoch.public, signed, state.pending, self._guard(now))
        leaf = step.applied.tree.find_leaf(step.applied.committer)
        if leaf is None:
            refuse(Check.MESSAGE_SENDER)
        sender, external = Member.of(step.applied.committer, leaf), signed.content.sender.kind == NEW_MEMBER_COMMIT
        removed = epoch.own in step.applied.removed
        if removed:
            self._state = lifecycle.leave(self._state)
        else:
            fresh = enter_epoch(epoch, step, signed, self._psks(psks), state.own_updates)
            if plan is not None:  # the key of the commit must not live on with the keys of late messages
                epoch.tree.spend(plan)
            self._state = lifecycle.enter(state, fresh, now)
        return CommitReceived(step.diff, removed, step.context.epoch, sender, signed.content.aad, external=external)

    def expire(self, now: int) -> None:
        """Delete skipped keys and past epochs that are too old at `now`; `receive` does it by itself."""
        self._state = lifecycle.expire(self._state, now)
