"""From one epoch to the next, as far as everybody can follow it (RFC 9420 sections 12.2 to 12.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from curbside.errors import UsageError
from curbside.mls.checks import Check, refuse, require
from curbside.mls.messages import (
    MEMBER,
    NEW_MEMBER_COMMIT,
    NEW_MEMBER_PROPOSAL,
    AuthenticatedContent,
    Commit,
    GroupContext,
    Sender,
    UpdatePath,
)
from curbside.mls.nodes import MLS10, SOURCE_COMMIT, SOURCE_UPDATE, Extensions, KeyPackage, LeafNode
from curbside.mls.proposals import (
    PSK_RESUMPTION,
    USAGE_APPLICATION,
    Add,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    PskId,
    ReInit,
    Remove,
    Update,
)
from curbside.mls.transcript import PublicState, confirmed_hash
from curbside.mls.tree import RatchetTree
from curbside.mls.trust import CommitContext, Member, RosterDiff, SentProposal
from curbside.mls.validation import (
    Guard,
    check_encryption_key,
    check_members,
    verify_extensions,
    verify_key_package_for,
    verify_leaf,
)

_MAX_EPOCH = 2**64 - 1


@dataclass(slots=True)
class Applied:
    """A proposal list applied to a copy of the tree; the path is still to come."""

    tree: RatchetTree
    extensions: Extensions
    committer: int
    sent: tuple[SentProposal, ...]
    added: tuple[tuple[int, KeyPackage], ...] = ()
    removed: tuple[int, ...] = ()
    updated: tuple[int, ...] = ()
    psks: tuple[PskId, ...] = ()
    kem_output: bytes | None = None
    reinit: ReInit | None = None
    has_path: bool = False
    new_leaves: frozenset[int] = field(default_factory=frozenset)


def check_proposal(state: PublicState, sent: SentProposal, guard: Guard) -> None:
    """Check one proposal by itself (section 12.1).

    Raises: RuleBroken; BadSignature; UntrustedDevice; Malformed.
    """
    proposal, suite = sent.proposal, state.suite
    if sent.sender.kind == NEW_MEMBER_PROPOSAL:
        require(guard.limits.join_requests and isinstance(proposal, Add), Check.PROPOSAL_JOIN)
    match proposal:
        case Add(key_package):
            verify_key_package_for(suite, key_package, guard)
        case Update(leaf):
            require(sent.by_reference and sent.sender.kind == MEMBER, Check.COMMIT_UPDATE_BY_VALUE)
            require(leaf.source == SOURCE_UPDATE, Check.LEAF_SOURCE)
            _verify_replacement(state, leaf, sent.sender.index, sent.sender.index, guard)
        case Remove(removed):
            require(state.tree.find_leaf(removed) is not None, Check.REMOVE_EXISTS)
        case PreSharedKey(psk):
            require(len(psk.nonce) == suite.hash_length, Check.PSK_NONCE)
        case ReInit():
            require(proposal.version >= MLS10, Check.REINIT_VERSION)
        case GroupContextExtensions(extensions):
            verify_extensions(suite, extensions, guard)
        case ExternalInit():
            require(sent.sender.kind == NEW_MEMBER_COMMIT, Check.COMMIT_EXTERNAL_INIT)


def _verify_replacement(state: PublicState, leaf: LeafNode, old_index: int, index: int, guard: Guard) -> None:
    old = state.tree.find_leaf(old_index)
    if old is None:
        refuse(Check.REMOVE_EXISTS)
    require(leaf.encryption_key != old.encryption_key, Check.LEAF_KEY_CHANGED)
    verify_leaf(state.suite, leaf, (state.context.group_id, index), guard)
    guard.validator.verify_successor(old, leaf)


def resolve_proposals(
    commit: Commit, sender: Sender, pending: Mapping[bytes, SentProposal]
) -> tuple[SentProposal, ...]:
    """The committed proposals with their senders. Raises: RuleBroken when a reference is not known."""
    found = []
    for item in commit.proposals:
        if isinstance(item, bytes):
            require(sender.kind == MEMBER, Check.COMMIT_EXTERNAL_LIST)
            if item not in pending:
                refuse(Check.PROPOSAL_KNOWN)
            found.append(pending[item])
        else:
            found.append(SentProposal(item, sender, by_reference=False))
    return tuple(found)


def is_path_required(sent: Sequence[SentProposal]) -> bool:
    """Whether the commit needs a path (section 12.4)."""
    return not sent or any(not isinstance(s.proposal, (Add, PreSharedKey, ReInit)) for s in sent)


def _count(sent: Sequence[SentProposal], kind: type) -> int:
    return sum(isinstance(item.proposal, kind) for item in sent)


def _check_member_list(sent: Sequence[SentProposal], committer: int) -> None:
    touched = []
    for item in sent:
        if isinstance(item.proposal, Update):
            require(item.by_reference, Check.COMMIT_UPDATE_BY_VALUE)
            require(item.sender.index != committer, Check.COMMIT_OWN_UPDATE)
            touched.append(item.sender.index)
        elif isinstance(item.proposal, Remove):
            require(item.proposal.removed != committer, Check.COMMIT_OWN_REMOVE)
            touched.append(item.proposal.removed)
    require(len(set(touched)) == len(touched), Check.COMMIT_ONE_PER_LEAF)
    require(_count(sent, GroupContextExtensions) <= 1, Check.COMMIT_ONE_EXTENSIONS)
    require(_count(sent, ReInit) == 0 or len(sent) == 1, Check.REINIT_ALONE)
    require(_count(sent, ExternalInit) == 0, Check.COMMIT_EXTERNAL_INIT)


def _check_external_list(sent: Sequence[SentProposal]) -> None:
    require(_count(sent, ExternalInit) == 1, Check.COMMIT_EXTERNAL_INIT)
    allowed = all(isinstance(item.proposal, (ExternalInit, Remove, PreSharedKey)) for item in sent)
    by_value = not any(item.by_reference for item in sent)
    require(allowed and by_value and _count(sent, Remove) <= 1, Check.COMMIT_EXTERNAL_LIST)


def _check_psks(sent: Sequence[SentProposal], special: bool) -> tuple[PskId, ...]:
    psks = tuple(item.proposal.psk for item in sent if isinstance(item.proposal, PreSharedKey))
    require(len(set(psks)) == len(psks), Check.PSK_UNIQUE)
    if not special:
        plain = all(psk.kind != PSK_RESUMPTION or psk.usage == USAGE_APPLICATION for psk in psks)
        require(plain, Check.PSK_USAGE)
    return psks


def _check_adds(tree: RatchetTree, sent: Sequence[SentProposal]) -> None:
    adds = [item.proposal.key_package.leaf.signature_key for item in sent if isinstance(item.proposal, Add)]
    if adds:
        present = {leaf.signature_key for _, leaf in tree.leaves()}
        fresh = set(adds)
        require(len(fresh) == len(adds) and not fresh & present, Check.COMMIT_DUPLICATE_ADD)


def apply_proposals(
    state: PublicState, sent: tuple[SentProposal, ...], sender: Sender, guard: Guard, special: bool = False
) -> Applied:
    """Check a proposal list and apply it to a copy of the tree (sections 12.2 and 12.3).

    Args: `special` when our own first commit of a reinit or branch group is made (allows its PSK).
    Raises: RuleBroken; BadSignature; UntrustedDevice; Malformed.
    """
    require(state.context.epoch < _MAX_EPOCH, Check.COMMIT_EPOCH_LIMIT)
    external = sender.kind == NEW_MEMBER_COMMIT
    if external:
        _check_external_list(sent)
    else:
        _check_member_list(sent, sender.index)
    psks = _check_psks(sent, special)
    for item in sent:
        if not item.by_reference:  # those were checked when they came, in this same epoch
            check_proposal(state, item, guard)
    result = Applied(state.tree.copy(), state.context.extensions, sender.index, sent, psks=psks)
    _apply_in_order(result, state, sent)
    leaves = result.tree.leaf_count
    if external:
        result.committer = result.tree.free_leaf()
        leaves *= 1 if result.committer < leaves else 2  # the tree grows for who joins
    require(leaves <= guard.limits.max_leaves, Check.TREE_SIZE)
    changed = [index for index, _ in result.added] + [i for i in result.updated if result.tree.find_leaf(i)]
    check_members(result.tree, result.extensions, None if result.extensions != state.context.extensions else changed)
    return result


def _apply_in_order(result: Applied, state: PublicState, sent: Sequence[SentProposal]) -> None:
    tree, updated, removed = result.tree, [], []
    for item in sent:
        match item.proposal:
            case GroupContextExtensions(extensions):
                result.extensions = extensions
            case Update(leaf):
                tree.update_leaf(item.sender.index, leaf)
                updated.append(item.sender.index)
            case ExternalInit(kem_output):
                result.kem_output = kem_output
            case ReInit():
                result.reinit = item.proposal
    for item in sent:
        if isinstance(item.proposal, Remove):
            require(tree.find_leaf(item.proposal.removed) is not None, Check.REMOVE_EXISTS)
            tree.remove_leaf(item.proposal.removed)
            removed.append(item.proposal.removed)
    tree.truncate()
    _check_adds(tree, sent)
    adds = [item.proposal.key_package for item in sent if isinstance(item.proposal, Add)]
    result.added = tuple((tree.add_leaf(package.leaf), package) for package in adds)
    result.new_leaves = frozenset(index for index, _ in result.added)
    result.updated, result.removed = tuple(updated), tuple(removed)


def check_path_leaf(state: PublicState, applied: Applied, leaf: LeafNode, external: bool, guard: Guard) -> None:
    """Check the leaf of a path against the leaf it replaces (section 12.4.2).

    Raises: RuleBroken; BadSignature; UntrustedDevice.
    """
    require(leaf.source == SOURCE_COMMIT, Check.LEAF_SOURCE)
    if not external:
        _verify_replacement(state, leaf, applied.committer, applied.committer, guard)
    elif applied.removed:
        _verify_replacement(state, leaf, applied.removed[0], applied.committer, guard)
    else:
        verify_leaf(state.suite, leaf, (state.context.group_id, applied.committer), guard)


def merge_path(state: PublicState, applied: Applied, path: UpdatePath, external: bool, guard: Guard) -> None:
    """Check a path and merge it into the applied tree (sections 7.5 and 12.4.2).

    Raises: RuleBroken; BadSignature; UntrustedDevice.
    """
    tree, committer = applied.tree, applied.committer
    check_path_leaf(state, applied, path.leaf, external, guard)
    keys = [path.leaf.encryption_key, *(node.encryption_key for node in path.nodes)]
    known = set(tree.encryption_keys())
    require(len(set(keys)) == len(keys) and known.isdisjoint(keys), Check.COMMIT_PATH_KEY_UNIQUE)
    if external:
        tree.put_leaf(committer, path.leaf)
    excluded = {2 * leaf for leaf in applied.new_leaves}
    filtered = tree.filtered_path(committer)
    require(len(filtered) == len(path.nodes), Check.COMMIT_PATH_LENGTH)
    for (_, other), node in zip(filtered, path.nodes, strict=True):
        check_encryption_key(state.suite, node.encryption_key)
        targets = sum(target not in excluded for target in tree.resolution(other))
        require(targets == len(node.sealed), Check.COMMIT_PATH_CIPHERTEXTS)
    parent_hash = tree.set_path(committer, keys[1:])
    require(path.leaf.parent_hash == parent_hash, Check.COMMIT_PARENT_HASH)
    tree.put_leaf(committer, path.leaf)
    applied.has_path = True
    check_members(tree, applied.extensions, [committer])


def provisional_context(state: PublicState, applied: Applied) -> GroupContext:
    """The next group context, with the old transcript hash (section 12.4.1)."""
    return replace(
        state.context,
        epoch=state.context.epoch + 1,
        tree_hash=applied.tree.tree_hash(),
        extensions=applied.extensions,
    )


def make_diff(state: PublicState, applied: Applied) -> RosterDiff:
    """What the commit changes in the roster."""
    before, after, committer = state.tree, applied.tree, applied.committer
    joined = {index for index, _ in applied.added}
    if any(isinstance(item.proposal, ExternalInit) for item in applied.sent):
        joined.add(committer)
        changed = set(applied.updated)
    else:
        changed = {*applied.updated, *((committer,) if applied.has_path else ())}
    pairs = []
    for index in sorted(changed):
        old, new = before.find_leaf(index), after.find_leaf(index)
        if old is not None and new is not None:
            pairs.append((Member.of(index, old), Member.of(index, new)))
    added = [(index, after.find_leaf(index)) for index in sorted(joined)]
    removed = [(index, before.find_leaf(index)) for index in sorted(applied.removed)]
    return RosterDiff(
        tuple(Member.of(index, leaf) for index, leaf in added if leaf),
        tuple(Member.of(index, leaf) for index, leaf in removed if leaf),
        tuple(pairs),
        applied.extensions != state.context.extensions,
    )


def authorize_commit(state: PublicState, applied: Applied, diff: RosterDiff, guard: Guard) -> None:
    """Let the application's policy look at a commit. Raises: whatever the validator raises."""
    leaf = applied.tree.find_leaf(applied.committer)
    if leaf is None:
        raise UsageError("the committer has no leaf")
    guard.validator.verify_commit(
        CommitContext(
            group_id=state.context.group_id,
            epoch=state.context.epoch,
            committer=Member.of(applied.committer, leaf),
            external=applied.kem_output is not None,
            proposals=applied.sent,
            diff=diff,
            extensions_before=state.context.extensions,
            extensions_after=applied.extensions,
            psks=applied.psks,
            reinit=applied.reinit,
            has_path=applied.has_path,
            tree_before=state.tree,
            tree_after=applied.tree,
        )
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A commit that was checked and applied publicly; `context` is the next epoch's."""

    applied: Applied
    path: UpdatePath | None
    provisional: GroupContext
    context: GroupContext
    diff: RosterDiff


def follow_commit(
    state: PublicState, signed: AuthenticatedContent, pending: Mapping[bytes, SentProposal], guard: Guard
) -> Step:
    """Check a commit whose signature is verified, and apply what is public of it (section 12.4.2).

    Raises: RuleBroken; BadSignature; UntrustedDevice; Malformed; what the policy raises.
    """
    commit, sender = signed.content.body, signed.content.sender
    if not isinstance(commit, Commit):
        refuse(Check.MESSAGE_SENDER)
    external = sender.kind == NEW_MEMBER_COMMIT
    sent = resolve_proposals(commit, sender, pending)
    require(commit.path is not None or not is_path_required(sent), Check.COMMIT_PATH)
    applied = apply_proposals(state, sent, sender, guard)
    if commit.path is not None:
        merge_path(state, applied, commit.path, external, guard)
    diff = make_diff(state, applied)
    authorize_commit(state, applied, diff, guard)
    provisional = provisional_context(state, applied)
    return Step(applied, commit.path, provisional, next_context(state, provisional, signed), diff)


def next_context(state: PublicState, provisional: GroupContext, signed: AuthenticatedContent) -> GroupContext:
    """The provisional context with the new transcript hash."""
    return replace(provisional, transcript_hash=confirmed_hash(state.suite, state.interim_hash, signed))
