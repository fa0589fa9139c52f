"""Groups that follow another one: reinit and branch (RFC 9420 sections 11.2 and 11.3). Secret side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from curbside.crypto.random import random_bytes
from curbside.errors import UsageError
from curbside.mls.committing import CommitDraft, build_commit, parse_key_package
from curbside.mls.joining import NewGroup, create_state, find_resumption
from curbside.mls.key_package import OwnLeaf, make_signer
from curbside.mls.messages import MEMBER, Sender
from curbside.mls.proposals import PSK_RESUMPTION, USAGE_BRANCH, USAGE_REINIT, Add, PreSharedKey, Proposal, PskId
from curbside.mls.state import GroupSettings, GroupState
from curbside.mls.trust import SentProposal
from curbside.mls.validation import DAY, Guard
from curbside.mls.welcome import PskStore

_LIFETIME = 84 * DAY


def start_successor(
    old: GroupState, leaf: OwnLeaf, key_packages: Sequence[bytes], settings: GroupSettings | None, guard: Guard
) -> GroupState:
    """The group that a committed ReInit asks for, with its first commit staged.

    Raises: UsageError when no ReInit was committed; RuleBroken; Malformed.
    """
    wanted = old.current.reinit
    if wanted is None:
        raise UsageError("no ReInit was committed in this group")
    new = NewGroup(wanted.group_id, wanted.suite, wanted.extensions, (guard.now - DAY, guard.now + _LIFETIME))
    if settings is None:
        suites = tuple(sorted({*old.settings.suites, wanted.suite}))
        settings = replace(old.settings, suites=suites)
    return _start(old, new, leaf, key_packages, (USAGE_REINIT, settings), guard)


def start_branch(
    old: GroupState, group_id: bytes, leaf: OwnLeaf, key_packages: Sequence[bytes], guard: Guard
) -> GroupState:
    """A subgroup with the same suite and extensions, with its first commit staged. Raises: RuleBroken; Malformed."""
    context = old.current.public.context
    new = NewGroup(group_id, context.suite, context.extensions, (guard.now - DAY, guard.now + _LIFETIME))
    return _start(old, new, leaf, key_packages, (USAGE_BRANCH, old.settings), guard)


def _start(
    old: GroupState,
    new: NewGroup,
    leaf: OwnLeaf,
    key_packages: Sequence[bytes],
    how: tuple[int, GroupSettings],
    guard: Guard,
) -> GroupState:
    usage, settings = how
    state = create_state(new, leaf, settings, guard)
    epoch, context = state.current, old.current.public.context
    suite, sender = epoch.public.suite, Sender(MEMBER, 0)
    psk = PskId(PSK_RESUMPTION, random_bytes(suite.hash_length), b"", usage, context.group_id, context.epoch)
    proposals: list[Proposal] = [Add(parse_key_package(data)) for data in key_packages]
    proposals.append(PreSharedKey(psk))
    draft = CommitDraft(
        public=epoch.public,
        sender=sender,
        signer=make_signer(suite, leaf),
        leaf=leaf,
        init_secret=epoch.secrets.init,
        items=tuple(proposals),
        sent=tuple(SentProposal(proposal, sender, by_reference=False) for proposal in proposals),
        store=PskStore({}, lambda group_id, number: find_resumption((old,), group_id, number)),
        secrets_of=epoch,
        special=True,
    )
    return replace(state, staged=build_commit(draft, settings, guard).staged)
