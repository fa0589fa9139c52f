"""How a member's state moves on: next epoch, end of membership, expiry (RFC 9420 section 9.2). Secret side."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from curbside.mls.key_schedule import EpochSecrets
from curbside.mls.secret_tree import SecretTree
from curbside.mls.state import EpochState, GroupState, PastEpoch
from curbside.mls.trust import Member

_NO_SECRETS: Final = EpochSecrets(*([b""] * 8))


def enter(state: GroupState, epoch: EpochState, now: int) -> GroupState:
    """The state in the next epoch: of the old one only message keys of others are left, for late messages.

    Pending proposals, own updates and a staged commit belonged to the old epoch and are gone.
    """
    old, settings = state.current, state.settings
    past: tuple[PastEpoch, ...] = ()
    if settings.past_epochs:
        members = {index: Member.of(index, leaf) for index, leaf in old.public.tree.leaves()}
        number, context = old.public.context.epoch, old.public.encoded_context
        keys = old.tree.without_sender(old.own)
        past = (PastEpoch(number, now, context, old.secrets.sender_data, keys, members), *state.past)
    resumption = (*state.resumption, (epoch.public.context.epoch, epoch.secrets.resumption))
    kept = resumption[-settings.resumption_epochs :] if settings.resumption_epochs else ()
    return expire(GroupState(settings, epoch, past[: settings.past_epochs], kept), now)


def leave(state: GroupState) -> GroupState:
    """The state of somebody who was removed: no secrets are left."""
    epoch = state.current
    empty = SecretTree(epoch.public.suite, epoch.tree.leaf_count, None)
    gone = EpochState(epoch.public, epoch.own, epoch.leaf, {}, _NO_SECRETS, empty, epoch.reinit)
    return GroupState(state.settings, gone, removed=True)


def expire(state: GroupState, now: int) -> GroupState:
    """The state without skipped keys and past epochs that are too old."""
    settings = state.settings
    for tree in (state.current.tree, *(old.tree for old in state.past)):
        tree.expire(settings.ratchets, now)
    kept = tuple(old for old in state.past if now - old.ended <= settings.past_seconds)
    return state if len(kept) == len(state.past) else replace(state, past=kept)
