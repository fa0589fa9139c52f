"""Followed groups on the MLS core: a public view, the organisation's validator, whose leaf is whose."""

from __future__ import annotations

from typing import Final, final

from curbside.crypto.sign import Signer
from curbside.errors import RuleBroken
from curbside.ids import encode_base64url
from curbside.mls.messages import MEMBER, PublicMessage, parse_message
from curbside.mls.proposals import Remove
from curbside.mls.public import PublicGroup
from curbside.mls.trust import Member
from curbside.mls.validation import Limits
from curbside.policy.validator import OrganizationValidator
from curbside.server.groups import RosterChange, RosterMember
from curbside.wire.limits import GROUP_MEMBERS

_LIMITS: Final = Limits(max_leaves=GROUP_MEMBERS)


@final
class MlsGroup:
    """Implements FollowedGroup."""

    def __init__(self, group: PublicGroup, validator: OrganizationValidator, sender: Signer) -> None:
        self._group = group
        self._validator = validator
        self._sender = sender

    @property
    def epoch(self) -> int:
        return self._group.epoch

    @property
    def group_id(self) -> bytes:
        return self._group.group_id

    @property
    def suite(self) -> int:
        return self._group.suite

    def list_members(self) -> list[RosterMember]:
        return [self._identify(member) for member in self._group.members]

    def list_waiting(self) -> list[str]:
        return [encode_base64url(proposal.reference) for proposal in self._group.pending]

    def list_leaving(self) -> list[RosterMember]:
        leaves = {each.proposal.removed for each in self._group.pending if isinstance(each.proposal, Remove)}
        return [member for member in self.list_members() if member.leaf in leaves]

    def find_sender(self, message: bytes) -> int | None:
        parsed = parse_message(message)
        if not isinstance(parsed, PublicMessage):
            raise RuleBroken("delivery.commit.public")
        sender = parsed.authenticated.content.sender
        return sender.index if sender.kind == MEMBER else None

    def apply_commit(self, message: bytes, now: int) -> RosterChange:
        diff = self._group.apply(message, now)
        added = tuple(self._identify(member) for member in diff.added)
        removed = tuple(self._identify(member) for member in diff.removed)
        return RosterChange(added, removed)

    def propose_remove(self, leaf: int, now: int) -> bytes:
        message = self._group.propose_remove(leaf, self._sender.private)
        self._group.receive_proposal(message, now)
        return message

    def save(self) -> bytes:
        return self._group.save()

    def _identify(self, member: Member) -> RosterMember:
        device = self._validator.identify(member.credential)
        return RosterMember(member.leaf_index, device.device_id, device.user_id)


@final
class MlsGroups:
    """Implements GroupOpener. sender: the delivery service's key, an external sender of every group."""

    def __init__(self, validator: OrganizationValidator, sender: Signer) -> None:
        self._validator = validator
        self._sender = sender

    def open_group(self, group_info: bytes, now: int) -> MlsGroup:
        group = PublicGroup.from_group_info(group_info, self._validator, now, limits=_LIMITS)
        self._validator.verify_group(group.extensions, group.members, group.suite)
        return MlsGroup(group, self._validator, self._sender)

    def load_group(self, state: bytes) -> MlsGroup:
        return MlsGroup(PublicGroup.load(state, self._validator), self._validator, self._sender)
