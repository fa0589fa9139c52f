"""Making a commit with its Welcome (RFC 9420 section 12.4.1). Secret side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from curbside.crypto.hpke import generate_key_pair
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.crypto.suites import Suite
from curbside.errors import CurbsideError, Malformed, UsageError
from curbside.mls import tree_math
from curbside.mls.codec import vector
from curbside.mls.extensions import EXTERNAL_PUB, RATCHET_TREE
from curbside.mls.key_package import LeafPlace, OwnLeaf, make_leaf, make_signer
from curbside.mls.key_schedule import (
    EpochSecrets,
    confirmation_tag,
    derive_epoch,
    derive_joiner_secret,
    derive_member_secret,
    derive_psk_secret,
    external_key_pair,
    membership_tag,
)
from curbside.mls.labels import sign_with_label
from curbside.mls.messages import (
    COMMIT,
    MEMBER,
    NEW_MEMBER_COMMIT,
    WIRE_PRIVATE,
    WIRE_PUBLIC,
    AuthenticatedContent,
    Body,
    Commit,
    FramedContent,
    GroupInfo,
    ProposalOrRef,
    PublicMessage,
    Sender,
    UpdatePath,
    encode_message,
    parse_message,
)
from curbside.mls.nodes import Extension, Extensions, KeyPackage, LeafNode
from curbside.mls.proposals import (
    PSK_EXTERNAL,
    PSK_RESUMPTION,
    USAGE_APPLICATION,
    Add,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    PskId,
    ReInit,
    Remove,
    Update,
)
from curbside.mls.protection import seal_message
from curbside.mls.secret_tree import HANDSHAKE, Plan, SecretTree
from curbside.mls.state import EpochState, GroupSettings, StagedCommit
from curbside.mls.transcript import PublicState
from curbside.mls.transition import (
    Applied,
    apply_proposals,
    authorize_commit,
    check_path_leaf,
    is_path_required,
    make_diff,
    next_context,
    provisional_context,
)
from curbside.mls.tree import RatchetTree
from curbside.mls.treekem import PathDraft, draft_path, seal_path
from curbside.mls.trust import SentProposal
from curbside.mls.validation import Guard, check_members
from curbside.mls.welcome import PskStore, WelcomeDraft, seal_welcome

Wire = Literal["public", "private"]


@dataclass(frozen=True, slots=True)
class ExternalPsk:
    """A PSK from outside MLS, by its id."""

    psk_id: bytes
    secret: SecretBytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ResumptionPsk:
    """The resumption PSK of a past or the present epoch of this group."""

    epoch: int


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What a commit is to do, besides the pending proposals that others sent.

    adds: KeyPackages as MLSMessages. removes: leaf indices. update: whether to refresh our own keys even when no
    proposal needs it. leaf: a new credential, key or capabilities for our leaf. extensions: all group context
    extensions, replacing the present ones. reinit: close the group (nothing else may be asked for then).
    wire: as PublicMessage (the server checks it) or PrivateMessage. pending: whether pending proposals are committed.
    """

    adds: tuple[bytes, ...] = ()
    removes: tuple[int, ...] = ()
    update: bool = True
    leaf: OwnLeaf | None = None
    extensions: Extensions | None = None
    psks: tuple[ExternalPsk | ResumptionPsk, ...] = ()
    reinit: ReInit | None = None
    aad: bytes = b""
    wire: Wire = "public"
    pending: bool = True


@dataclass(frozen=True, slots=True, repr=False)
class CommitDraft:
    """Everything that goes into one commit, of a member or of somebody who joins by it.

    `secrets_of` is the member's epoch; None for an external commit. `init_secret` starts the key schedule.
    """

    public: PublicState
    sender: Sender
    signer: Signer
    leaf: OwnLeaf
    init_secret: bytes
    items: tuple[ProposalOrRef, ...]
    sent: tuple[SentProposal, ...]
    store: PskStore
    secrets_of: EpochState | None = None
    update: bool = True
    aad: bytes = b""
    wire: Wire = "public"
    special: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class BuiltCommit:
    """A commit with the epoch after it, and the plan to spend when it was encrypted."""

    staged: StagedCommit
    plan: Plan | None


def parse_key_package(data: bytes) -> KeyPackage:
    """Decode an MLSMessage that must be a KeyPackage. Raises: Malformed; RuleBroken; TooLarge."""
    message = parse_message(data)
    if not isinstance(message, KeyPackage):
        raise Malformed("not a KeyPackage")
    return message


def new_psk_id(suite: Suite, group_id: bytes, psk: ExternalPsk | ResumptionPsk) -> PskId:
    """A PSK's id with a fresh nonce (section 8.4)."""
    nonce = random_bytes(suite.hash_length)
    if isinstance(psk, ExternalPsk):
        return PskId(PSK_EXTERNAL, nonce, psk.psk_id)
    return PskId(PSK_RESUMPTION, nonce, b"", USAGE_APPLICATION, group_id, psk.epoch)


def list_requested(request: CommitRequest, suite: Suite, group_id: bytes) -> list[Proposal]:
    """The proposals that a request asks for by value. Raises: Malformed; RuleBroken."""
    proposals: list[Proposal] = [Remove(index) for index in request.removes]
    proposals += [Add(parse_key_package(data)) for data in request.adds]
    proposals += [PreSharedKey(new_psk_id(suite, group_id, psk)) for psk in request.psks]
    if request.extensions is not None:
        proposals.append(GroupContextExtensions(request.extensions))
    if request.reinit is not None:
        proposals.append(request.reinit)
    return proposals


def select_pending(
    pending: Mapping[bytes, SentProposal], requested: Sequence[Proposal], own: int
) -> dict[bytes, SentProposal]:
    """The pending proposals that fit into one valid list with what is requested (section 12.2).

    Removes win over Updates, later Updates over earlier ones, everything over ReInit; our own Updates are
    replaced by the path, and nobody can commit their own removal.
    """
    if any(isinstance(p, ReInit) for p in requested):
        return {}
    removed = {p.removed for p in requested if isinstance(p, Remove)}
    added = {p.key_package.leaf.signature_key for p in requested if isinstance(p, Add)}
    taken: set[object] = {own, *removed, *added}
    if any(isinstance(p, GroupContextExtensions) for p in requested):
        taken.add(GroupContextExtensions)
    chosen = set()
    for kind in (Remove, Update, Add, PreSharedKey, GroupContextExtensions):
        for ref, sent in reversed(list(pending.items())):
            if isinstance(sent.proposal, kind):
                place = _place_of(sent)
                if place not in taken:
                    taken.add(place)
                    chosen.add(ref)
    if not chosen and not requested:
        return dict([(r, s) for r, s in pending.items() if isinstance(s.proposal, ReInit)][-1:])
    return {ref: sent for ref, sent in pending.items() if ref in chosen}


def _place_of(sent: SentProposal) -> object:
    """What two proposals of one list must not share."""
    match sent.proposal:
        case Remove(removed):
            return removed
        case Update():
            return sent.sender.index
        case Add(key_package):
            return key_package.leaf.signature_key
        case PreSharedKey(psk):
            return psk
        case _:
            return GroupContextExtensions


def draft_commit(
    epoch: EpochState, request: CommitRequest, pending: Mapping[bytes, SentProposal], store: PskStore, guard: Guard
) -> CommitDraft:
    """A member's commit of what is requested and of the pending proposals that fit. Raises: Malformed; RuleBroken."""
    suite, group_id, sender = epoch.public.suite, epoch.public.context.group_id, Sender(MEMBER, epoch.own)
    requested = list_requested(request, suite, group_id)
    chosen = select_pending(pending, requested, epoch.own) if request.pending else {}
    chosen = _without_misfits(epoch, requested, chosen, store, guard)
    by_value = [SentProposal(proposal, sender, by_reference=False) for proposal in requested]
    return CommitDraft(
        public=epoch.public,
        sender=sender,
        signer=make_signer(suite, epoch.leaf),
        leaf=request.leaf or epoch.leaf,
        init_secret=epoch.secrets.init,
        items=(*chosen, *requested),
        sent=(*chosen.values(), *by_value),
        store=store,
        secrets_of=epoch,
        update=request.update or request.leaf is not None,
        aad=request.aad,
        wire=request.wire,
    )


def _without_misfits(
    epoch: EpochState,
    requested: Sequence[Proposal],
    chosen: dict[bytes, SentProposal],
    store: PskStore,
    guard: Guard,
) -> dict[bytes, SentProposal]:
    """Leave out pending proposals that would make the commit invalid or that the policy refuses.

    [Note: misfits do not block] A proposal that can never be committed (a PSK nobody has, a removal the policy
    forbids) must not keep the group from going on: a commit without it ends the epoch and the proposal with it.
    """
    sender = Sender(MEMBER, epoch.own)
    by_value = [SentProposal(proposal, sender, by_reference=False) for proposal in requested]

    def fits(refs: Mapping[bytes, SentProposal]) -> bool:
        try:
            sent = (*refs.values(), *by_value)
            applied = apply_proposals(epoch.public, sent, sender, guard)
            applied.has_path = True
            authorize_commit(epoch.public, applied, make_diff(epoch.public, applied), guard)
            store.collect(applied.psks)
        except CurbsideError:
            return False
        return True

    if not chosen or fits(chosen):
        return chosen
    kept: dict[bytes, SentProposal] = {}
    for ref, sent in chosen.items():
        if fits({**kept, ref: sent}):
            kept[ref] = sent
    return kept


def sign_as_member(epoch: EpochState, content_type: int, body: Body, aad: bytes, wire: int) -> AuthenticatedContent:
    """Content of ours for the present epoch, signed (section 6.1)."""
    public = epoch.public
    place = (public.context.group_id, public.context.epoch)
    content = FramedContent.make(place, Sender(MEMBER, epoch.own), aad, content_type, body)
    signed = AuthenticatedContent(wire, content, b"")
    signer, tbs = make_signer(public.suite, epoch.leaf), signed.to_be_signed(public.encoded_context)
    return replace(signed, signature=sign_with_label(signer, b"FramedContentTBS", tbs))


def make_update_leaf(epoch: EpochState, own: OwnLeaf) -> tuple[LeafNode, bytes]:
    """A leaf with fresh keys for an Update proposal, and its private key (section 12.1.2)."""
    suite = epoch.public.suite
    private, public_key = generate_key_pair(suite.hpke.kem)
    place = LeafPlace.for_update(epoch.public.context.group_id, epoch.own)
    return make_leaf(suite, own, make_signer(suite, own), public_key, place), private


def sign_content(draft: CommitDraft, wire: int, content: FramedContent, context: bytes) -> AuthenticatedContent:
    """Sign framed content for the present epoch (section 6.1)."""
    signed = AuthenticatedContent(wire, content, b"")
    return replace(signed, signature=sign_with_label(draft.signer, b"FramedContentTBS", signed.to_be_signed(context)))


def build_commit(draft: CommitDraft, settings: GroupSettings, guard: Guard) -> BuiltCommit:
    """Make a commit; changes nothing.

    Raises: RuleBroken; PolicyDenied and whatever else receivers would raise; UsageError.
    """
    public, external = draft.public, draft.sender.kind == NEW_MEMBER_COMMIT
    suite = public.suite
    applied = apply_proposals(public, draft.sent, draft.sender, guard, draft.special)
    path_draft = None
    if external or draft.update or is_path_required(draft.sent):
        path_draft = _refresh_path(draft, applied, external, guard)
    diff = make_diff(public, applied)
    authorize_commit(public, applied, diff, guard)
    provisional = provisional_context(public, applied)
    path: UpdatePath | None = None
    if path_draft is not None:
        path = seal_path(applied.tree, path_draft, applied.new_leaves, provisional.encode())
    content = FramedContent.make(
        (public.context.group_id, public.context.epoch), draft.sender, draft.aad, COMMIT, Commit(draft.items, path)
    )
    wire = WIRE_PRIVATE if draft.wire == "private" else WIRE_PUBLIC
    signed = sign_content(draft, wire, content, public.encoded_context)
    context = next_context(public, provisional, signed)
    commit_secret = bytes(suite.hash_length) if path_draft is None else path_draft.commit_secret
    schedule = _Schedule.run(draft, applied.psks, commit_secret, context.encode())
    tag = confirmation_tag(suite, schedule.secrets, context.transcript_hash)
    signed = replace(signed, confirmation_tag=tag)
    next_public = PublicState.make(suite, context, applied.tree, tag)
    state = _next_epoch(draft, applied, path_draft, next_public, schedule)
    commit, plan = frame_handshake(draft.secrets_of, signed, settings)
    info = make_group_info(state, with_tree=True)
    welcome = None
    if applied.added:
        in_welcome = info if settings.tree_in_welcome else make_group_info(state, with_tree=False)
        newcomers = tuple(_newcomer(applied, path_draft, index, package) for index, package in applied.added)
        parts = WelcomeDraft(suite, schedule.joiner, schedule.member, applied.psks, in_welcome, newcomers)
        welcome = encode_message(seal_welcome(parts))
    return BuiltCommit(StagedCommit(commit, welcome, encode_message(info), diff, state, guard.now), plan)


def _refresh_path(draft: CommitDraft, applied: Applied, external: bool, guard: Guard) -> PathDraft:
    suite, committer = draft.public.suite, applied.committer
    signer, group_id = make_signer(suite, draft.leaf), draft.public.context.group_id

    def new_leaf(encryption_key: bytes, parent_hash: bytes) -> LeafNode:
        place = LeafPlace.for_commit(group_id, committer, parent_hash)
        return make_leaf(suite, draft.leaf, signer, encryption_key, place)

    path = draft_path(applied.tree, committer, new_leaf)
    applied.has_path = True
    check_path_leaf(draft.public, applied, path.leaf, external, guard)
    check_members(applied.tree, applied.extensions, [committer])
    return path


@dataclass(frozen=True, slots=True, repr=False)
class _Schedule:
    joiner: bytes
    member: bytes
    secrets: EpochSecrets
    encryption: bytes

    @classmethod
    def run(cls, draft: CommitDraft, psks: Sequence[PskId], commit_secret: bytes, context: bytes) -> _Schedule:
        suite = draft.public.suite
        joiner = derive_joiner_secret(suite, draft.init_secret, commit_secret, context)
        member = derive_member_secret(suite, joiner, derive_psk_secret(suite, draft.store.collect(psks)))
        return cls(joiner, member, *derive_epoch(suite, member, context))


def _next_epoch(
    draft: CommitDraft, applied: Applied, path: PathDraft | None, public: PublicState, schedule: _Schedule
) -> EpochState:
    old, private = draft.secrets_of, {}
    if old is not None:
        private = keep_private(old.public.tree, applied.tree, old.private)
    if path is not None:
        private.update(path.private)
    leaf = draft.leaf if path is not None or old is None else old.leaf
    message_keys = SecretTree(public.suite, applied.tree.leaf_count, schedule.encryption)
    return EpochState(public, applied.committer, leaf, private, schedule.secrets, message_keys, applied.reinit)


def _newcomer(
    applied: Applied, path: PathDraft | None, index: int, package: KeyPackage
) -> tuple[KeyPackage, bytes | None]:
    if path is None:
        return package, None
    return package, path.secrets[tree_math.common_ancestor(applied.committer, index)]


def keep_private(before: RatchetTree, after: RatchetTree, private: Mapping[int, bytes]) -> dict[int, bytes]:
    """Private keys of nodes whose public key is still the same; the others are outdated (section 7.5)."""
    kept = {}
    for node, key in private.items():
        old = before.nodes[node] if node < len(before.nodes) else None
        new = after.nodes[node] if node < len(after.nodes) else None
        if old is not None and new is not None and old.encryption_key == new.encryption_key:
            kept[node] = key
    return kept


def frame_handshake(
    epoch: EpochState | None, signed: AuthenticatedContent, settings: GroupSettings
) -> tuple[bytes, Plan | None]:
    """Protect a signed handshake: the MLSMessage, and the plan to spend when it was encrypted (section 12.4.1)."""
    if signed.wire == WIRE_PRIVATE:
        if epoch is None:
            raise UsageError("an external commit is always public")
        generation = epoch.tree.next_generation(epoch.own, HANDSHAKE)
        plan = epoch.tree.plan(epoch.own, HANDSHAKE, generation, settings.ratchets, 0)
        return encode_message(seal_message(epoch.keys(), plan, signed, settings.pad)), plan
    tag = b""
    if epoch is not None and signed.content.sender.kind == MEMBER:
        public = epoch.public
        tag = membership_tag(public.suite, epoch.secrets, signed, public.encoded_context)
    return encode_message(PublicMessage(signed, tag)), None


def make_group_info(epoch: EpochState, with_tree: bool, with_external_pub: bool = True) -> GroupInfo:
    """A signed GroupInfo of an epoch (section 12.4.3)."""
    public, extensions = epoch.public, []
    if with_tree:
        extensions.append(Extension(RATCHET_TREE, public.tree.encode()))
    if with_external_pub:
        extensions.append(Extension(EXTERNAL_PUB, vector(external_key_pair(public.suite, epoch.secrets)[1])))
    info = GroupInfo(public.context, tuple(extensions), public.confirmation_tag, epoch.own)
    signer = make_signer(public.suite, epoch.leaf)
    return replace(info, signature=sign_with_label(signer, b"GroupInfoTBS", info.encode_unsigned()))
