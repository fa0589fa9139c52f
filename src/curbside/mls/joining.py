"""Becoming a member: create, Welcome, external commit (RFC 9420 sections 11 and 12.4.3). Secret side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from curbside.crypto import hpke
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.suites import Suite, get_suite
from curbside.errors import CurbsideError
from curbside.mls.checks import Check, refuse, require
from curbside.mls.committing import BuiltCommit, CommitDraft, ExternalPsk, build_commit, new_psk_id
from curbside.mls.extensions import find_external_pub
from curbside.mls.group_info import parse_group_info, verify_group_info
from curbside.mls.key_package import KeyPackageSecrets, LeafPlace, OwnLeaf, make_leaf, make_signer
from curbside.mls.key_schedule import confirmation_tag, make_external_init, split_epoch
from curbside.mls.labels import sign_with_label
from curbside.mls.messages import (
    NEW_MEMBER_COMMIT,
    NEW_MEMBER_PROPOSAL,
    PROPOSAL,
    WIRE_PUBLIC,
    AuthenticatedContent,
    FramedContent,
    GroupContext,
    PublicMessage,
    Sender,
    encode_message,
)
from curbside.mls.nodes import SOURCE_KEY_PACKAGE, Extensions, LeafNode, Lifetime
from curbside.mls.proposals import USAGE_REINIT, Add, ExternalInit, PreSharedKey, Proposal, PskId, Remove
from curbside.mls.secret_tree import SecretTree
from curbside.mls.state import EpochState, GroupSettings, GroupState
from curbside.mls.transcript import PublicState
from curbside.mls.tree import RatchetTree
from curbside.mls.trust import CredentialValidator, SentProposal
from curbside.mls.validation import Guard, check_members, verify_extensions, verify_leaf
from curbside.mls.welcome import OpenedWelcome, PskStore, enter_group, open_welcome, parse_welcome


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """What may come with a join.

    tree: the encoded ratchet tree when the message does not carry it. psks: external PSKs by id.
    earlier: our states of other groups, for their resumption PSKs (reinit, branch).
    known_groups: ids of the groups that we are in. aad: authenticated data of an external commit.
    resync: replace our old leaf, found by `replaces` or by our signature key or credential (external commit only).
    use_psks: external PSKs that an external commit puts into the key schedule.
    """

    tree: bytes | None = None
    psks: Mapping[bytes, SecretBytes] = field(default_factory=dict)
    earlier: Sequence[GroupState] = ()
    known_groups: Collection[bytes] = ()
    aad: bytes = b""
    resync: bool = False
    replaces: int | None = None
    use_psks: tuple[ExternalPsk, ...] = ()


def check_suite(settings: GroupSettings, code: int) -> Suite:
    """The suite, if the settings allow it. Raises: RuleBroken."""
    suite = get_suite(code)
    require(code in settings.suites, Check.SUITE_ALLOWED)
    return suite


@dataclass(frozen=True, slots=True)
class NewGroup:
    """What a new group starts with (section 11)."""

    group_id: bytes
    suite: int
    extensions: Extensions
    lifetime: tuple[int, int]


def create_state(new: NewGroup, leaf: OwnLeaf, settings: GroupSettings, guard: Guard) -> GroupState:
    """The state of a group whose only member we are. Raises: RuleBroken; UntrustedDevice."""
    suite = check_suite(settings, new.suite)
    private, public_key = hpke.generate_key_pair(suite.hpke.kem)
    place = LeafPlace(SOURCE_KEY_PACKAGE, Lifetime(*new.lifetime))
    node = make_leaf(suite, leaf, make_signer(suite, leaf), public_key, place)
    verify_leaf(suite, node, (new.group_id, 0), guard)
    verify_extensions(suite, new.extensions, guard)
    tree = RatchetTree.of_one(suite, node)
    check_members(tree, new.extensions, None)
    context = GroupContext(suite.code, new.group_id, 0, tree.tree_hash(), b"", new.extensions)
    secrets, encryption = split_epoch(suite, random_bytes(suite.hash_length))
    public = PublicState.make(suite, context, tree, confirmation_tag(suite, secrets, b""))
    epoch = EpochState(public, 0, leaf, {0: private}, secrets, SecretTree(suite, 1, encryption))
    return GroupState(settings, epoch, resumption=((0, secrets.resumption),))


def find_resumption(states: Sequence[GroupState], group_id: bytes, epoch: int) -> bytes | None:
    """The resumption PSK of a group and epoch, if we still have it."""
    for state in states:
        if state.current.public.context.group_id == group_id:
            return dict(state.resumption).get(epoch)
    return None


def join_state(
    welcome: bytes, packages: Sequence[KeyPackageSecrets], settings: GroupSettings, options: JoinOptions, guard: Guard
) -> tuple[GroupState, KeyPackageSecrets]:
    """Join by a Welcome: the state, and the KeyPackage that was used.

    Raises: RuleBroken; DecryptionFailed; BadSignature; UntrustedDevice; Malformed; DuplicateRequest.
    """
    message = parse_welcome(welcome)
    check_suite(settings, message.suite)
    store = PskStore(options.psks, lambda group_id, epoch: find_resumption(options.earlier, group_id, epoch))
    opened = open_welcome(message, packages, store)
    epoch = enter_group(opened, options.tree, options.known_groups, guard)
    if opened.special_psk is not None:
        _check_succession(opened, opened.special_psk, epoch.public, options.earlier, guard.validator)
    resumption = ((epoch.public.context.epoch, epoch.secrets.resumption),)
    return GroupState(settings, epoch, resumption=resumption), opened.package


def _check_succession(
    opened: OpenedWelcome,
    psk: PskId,
    public: PublicState,
    earlier: Sequence[GroupState],
    validator: CredentialValidator,
) -> None:
    olds = [state for state in earlier if state.current.public.context.group_id == psk.group_id]
    old = olds[0] if olds else refuse(Check.PSK_KNOWN)
    before = [leaf for _, leaf in old.current.public.tree.leaves()]
    after = [leaf for _, leaf in public.tree.leaves()]
    context = opened.info.context
    if psk.usage == USAGE_REINIT:
        wanted = old.current.reinit
        same = wanted is not None and psk.epoch == old.current.public.context.epoch
        same = same and wanted is not None and context.group_id == wanted.group_id
        same = same and wanted is not None and context.suite == wanted.suite
        require(same and wanted is not None and context.extensions == wanted.extensions, Check.REINIT_MATCH)
        require(all(_is_among(leaf, after, validator, forward=True) for leaf in before), Check.REINIT_MATCH)
    else:
        require(context.suite == old.current.public.suite.code, Check.BRANCH_MATCH)
        require(all(_is_among(leaf, before, validator, forward=False) for leaf in after), Check.BRANCH_MATCH)


def _is_among(leaf: LeafNode, others: Sequence[LeafNode], validator: CredentialValidator, forward: bool) -> bool:
    if any(other.credential == leaf.credential for other in others):
        return True
    for other in others:
        old, new = (leaf, other) if forward else (other, leaf)
        try:
            validator.verify_successor(old, new)
        except CurbsideError:
            continue
        return True
    return False


def external_state(
    group_info: bytes, leaf: OwnLeaf, settings: GroupSettings, options: JoinOptions, guard: Guard
) -> tuple[GroupState, BuiltCommit]:
    """Join by an external commit: the state after it, and the commit to send (section 12.4.3.2).

    Raises: RuleBroken; BadSignature; UntrustedDevice; Malformed.
    """
    info = parse_group_info(group_info)
    suite = check_suite(settings, info.context.suite)
    public = verify_group_info(info, options.tree, guard)
    external_pub = find_external_pub(info.extensions)
    if external_pub is None:
        refuse(Check.GROUP_INFO_EXTERNAL_PUB)
    kem_output, init_secret = make_external_init(suite, external_pub)
    group_id = public.context.group_id
    proposals: list[Proposal] = [ExternalInit(kem_output)]
    if options.resync:
        proposals.append(Remove(_find_old_leaf(public, leaf, options.replaces)))
    proposals += [PreSharedKey(new_psk_id(suite, group_id, psk)) for psk in options.use_psks]
    sender = Sender(NEW_MEMBER_COMMIT)
    held = {**options.psks, **{psk.psk_id: psk.secret for psk in options.use_psks}}
    draft = CommitDraft(
        public=public,
        sender=sender,
        signer=make_signer(suite, leaf),
        leaf=leaf,
        init_secret=init_secret,
        items=tuple(proposals),
        sent=tuple(SentProposal(proposal, sender, by_reference=False) for proposal in proposals),
        store=PskStore(held),
        aad=options.aad,
    )
    built = build_commit(draft, settings, guard)
    epoch = built.staged.next_epoch
    resumption = ((epoch.public.context.epoch, epoch.secrets.resumption),)
    return GroupState(settings, epoch, resumption=resumption), built


def request_to_join(group_id: bytes, epoch: int, package: KeyPackageSecrets) -> bytes:
    """Ask to be added (sender new_member_proposal, section 12.1.8): an MLSMessage for the group's members.

    They accept it only if their `Limits.join_requests` says so.
    """
    suite = get_suite(package.package.suite)
    content = FramedContent.make((group_id, epoch), Sender(NEW_MEMBER_PROPOSAL), b"", PROPOSAL, Add(package.package))
    signed = AuthenticatedContent(WIRE_PUBLIC, content, b"")
    signature = sign_with_label(make_signer(suite, package.own), b"FramedContentTBS", signed.to_be_signed(b""))
    return encode_message(PublicMessage(replace(signed, signature=signature)))


def _find_old_leaf(public: PublicState, leaf: OwnLeaf, replaces: int | None) -> int:
    if replaces is not None:
        return replaces
    key = make_signer(public.suite, leaf).public
    same_key = [index for index, other in public.tree.leaves() if other.signature_key == key]
    same_name = [index for index, other in public.tree.leaves() if other.credential == leaf.credential]
    found = same_key or same_name
    return found[0] if found else refuse(Check.REMOVE_EXISTS)
