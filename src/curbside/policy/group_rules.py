"""The conversation's rules over a commit (docs/trust.md, `group.*`), pure: facts in, RuleBroken out.

`curbside.policy.validator` gathers the facts from MLS; `web/src/core/group_rules.ts` is the twin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from curbside.errors import Malformed, RuleBroken
from curbside.ids import UserId
from curbside.wire.group_policy import GROUP_POLICY, GroupPolicy, decode_group_policy

DELIVERY_SERVICE: Final = 0
"""Index of the delivery service among the external senders."""
DIRECT_USERS: Final = 2


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for something: a member, an external sender by index, or somebody who is joining."""

    kind: Literal["member", "external_sender", "newcomer"]
    user_id: UserId
    index: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A device of `user_id` is added or removed at the wish of `by`."""

    user_id: UserId
    by: Actor


@dataclass(frozen=True, slots=True)
class ContextFacts:
    """What the rules look at in a group context. Bodies of extensions, None when absent."""

    policy: bytes | None
    external_senders: bytes | None
    required_extensions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CommitFacts:
    """What the rules look at in a commit. epoch: that it ends. users: of the members before. context_by: who proposed
    new group context extensions, if anybody did."""

    epoch: int
    before: ContextFacts
    after: ContextFacts
    committer: Actor
    adds: tuple[Change, ...]
    removes: tuple[Change, ...]
    users: frozenset[UserId]
    context_by: Actor | None = None
    reinit: bool = False


def check_group(
    context: ContextFacts, pinned_senders: bytes, users: frozenset[UserId], suite_allowed: bool
) -> GroupPolicy:
    """Check a group as it stands, when one joins it or when it is created; its policy.

    Raises: RuleBroken.
    """
    policy = _read_policy(context)
    _require(context.external_senders == pinned_senders, "group.sender.key")
    _require(suite_allowed, "group.suite")
    if policy.kind == "direct":
        _require(len(users | set(policy.administrators)) <= DIRECT_USERS, "group.direct.members")
    return policy


def check_commit(commit: CommitFacts, pinned_senders: bytes) -> None:
    """Check a commit against the policy of the epoch that it ends.

    Raises: RuleBroken.
    """
    policy, new = _read_policy(commit.before), _read_policy(commit.after)
    _require(new.version >= policy.version, "group.policy.present")
    _check_context(policy, new, commit)
    _require(commit.after.external_senders == pinned_senders, "group.sender.key")
    _require(commit.before.external_senders == pinned_senders, "group.sender.key")
    _require(not commit.reinit, "group.reinit")
    if commit.committer.kind == "newcomer":
        _require(commit.committer.user_id in commit.users, "group.external.commit")
    _require(all(add.by.kind == "member" for add in commit.adds), "group.external.add")
    if policy.kind == "direct":
        _check_direct_adds(policy, commit)
    else:
        _require(all(_may_change(policy, add) for add in commit.adds), "group.add")
    _require(all(_may_remove(policy, remove) for remove in commit.removes), "group.remove")


def _require(holds: bool, check: str) -> None:
    if not holds:
        raise RuleBroken(check)


def _read_policy(context: ContextFacts) -> GroupPolicy:
    _require(GROUP_POLICY in context.required_extensions, "group.policy.present")
    if context.policy is None:
        raise RuleBroken("group.policy.present")
    try:
        return decode_group_policy(context.policy)
    except Malformed as error:
        raise RuleBroken("group.policy.present") from error


def _check_context(policy: GroupPolicy, new: GroupPolicy, commit: CommitFacts) -> None:
    if commit.context_by is not None:
        _require(_is_administrator(policy, commit.context_by), "group.policy.change")
    if new != policy:
        risen = new.version == policy.version + 1 and new.kind == policy.kind
        _require(commit.context_by is not None and risen, "group.policy.change")


def _is_administrator(policy: GroupPolicy, actor: Actor) -> bool:
    """Nobody is above the other in a direct conversation."""
    return policy.kind == "group" and actor.kind == "member" and actor.user_id in policy.administrators


def _may_change(policy: GroupPolicy, change: Change) -> bool:
    own = change.by.kind != "external_sender" and change.by.user_id == change.user_id
    return own or _is_administrator(policy, change.by)


def _may_remove(policy: GroupPolicy, remove: Change) -> bool:
    if remove.by.kind == "external_sender":
        return remove.by.index == DELIVERY_SERVICE
    return _may_change(policy, remove)


def _check_direct_adds(policy: GroupPolicy, commit: CommitFacts) -> None:
    added = {add.user_id for add in commit.adds}
    users = commit.users | set(policy.administrators)
    if commit.epoch > 0:
        _require(added <= users, "group.direct.members")
    _require(len(users | added) <= DIRECT_USERS, "group.direct.members")
