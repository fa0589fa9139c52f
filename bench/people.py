"""People in conversations, as the load generator needs them: groups made and filled over HTTP like any client's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from enrolment import Newcomer

from bench.wire import Credentials, RawStream
from curbside.client.network import Network
from curbside.client.transport import Transport
from curbside.clock import Clock
from curbside.crypto.random import random_bytes
from curbside.ids import UserId, decode_base64url, encode_base64url, encode_id
from curbside.mls.group import CommitRequest, Group, GroupSettings, OwnLeaf
from curbside.mls.nodes import CREDENTIAL_X509, Capabilities, Credential
from curbside.policy.validator import OrganizationValidator
from curbside.wire import bodies
from curbside.wire.group_policy import GROUP_POLICY, GroupPolicy, make_direct_policy, make_group_policy

SETTINGS = GroupSettings(private_handshakes=False)


class Place(Protocol):
    """Where people are: the server's address, and what is pinned at sign-up."""

    url: str
    validator: OrganizationValidator

    @property
    def clock(self) -> Clock: ...

    @property
    def network(self) -> Network: ...


@dataclass
class Person:
    """Somebody with one device and an open session."""

    organization: Place
    newcomer: Newcomer
    _transport: Transport | None = field(default=None, init=False)

    @property
    def user_id(self) -> UserId:
        """Who it is."""
        return self.newcomer.user_id

    @property
    def transport(self) -> Transport:
        """Requests with this person's proofs."""
        if self._transport is None:
            organization, newcomer = self.organization, self.newcomer
            self._transport = Transport(organization.url, newcomer.api_key, organization.clock, organization.network)
            self._transport.session = newcomer.session
        return self._transport

    async def close(self) -> None:
        """Hang up; the next request connects again."""
        if self._transport is not None:
            await self._transport.close()
            self._transport = None

    async def connect(self) -> RawStream:
        """A stream of this person's device."""
        return await RawStream.open(self.organization.url, self.credentials)

    @property
    def credentials(self) -> Credentials:
        """What opens its stream."""
        assert self.newcomer.session is not None
        return Credentials(self.newcomer.session.token, self.newcomer.api_key)

    # --- groups -------------------------------------------------------------------------------

    async def begin_pair(self, other: UserId) -> Group:
        """A direct conversation; its log has one entry then, and its epoch is 1."""
        return await self._begin(make_direct_policy(self.user_id, other), [other])

    async def begin_group(self, others: Iterable[UserId]) -> Group:
        """A group conversation; its log has one entry then, and its epoch is 1."""
        return await self._begin(make_group_policy(self.user_id), list(others))

    async def _begin(self, policy: GroupPolicy, others: Sequence[UserId]) -> Group:
        validator, now = self.organization.validator, self.organization.clock.now()
        capabilities = Capabilities(suites=(1, 2), extensions=(GROUP_POLICY,), credentials=(CREDENTIAL_X509,))
        leaf = OwnLeaf(Credential.x509(*self.newcomer.chain), self.newcomer.device_key, capabilities)
        extensions = validator.group_extensions(policy)
        group = Group.create(random_bytes(16), leaf, 1, extensions, SETTINGS, validator, now)
        conversation = encode_id(group.group_id)
        new = bodies.NewConversation(conversation, encode_base64url(group.group_info()))
        await self.transport.call("POST", "/v1/conversations", bodies.ConversationState, new)
        packages = [package for other in others for package in await self._claim(other)]
        staged = group.stage_commit(CommitRequest(adds=tuple(packages)), now)
        commit = bodies.NewCommit(
            encode_id(random_bytes(16)),
            group.epoch,
            encode_base64url(staged.commit),
            encode_base64url(staged.welcome or b""),
        )
        await self.transport.call("POST", f"/v1/conversations/{conversation}/commits", bodies.Appended, commit)
        group.commit_accepted(staged)
        return group

    async def _claim(self, other: UserId) -> list[bytes]:
        path = f"/v1/people/{other}/key-packages/claim"
        claimed = await self.transport.call("POST", path, bodies.ClaimedKeyPackages)
        return [decode_base64url(device.key_package) for device in claimed.devices]
