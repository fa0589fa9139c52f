"""OrganizationValidator: the trust chain and the conversation's rules as the MLS core asks for them.

Client and server use the same one, so that the server refuses what clients would refuse (and clients never rely on it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, final

from curbside.crypto.kdf import is_same
from curbside.errors import Malformed, RuleBroken, UntrustedDevice
from curbside.ids import UserId
from curbside.mls import proposals
from curbside.mls.codec import decode
from curbside.mls.extensions import (
    EXTERNAL_SENDERS,
    ExternalSender,
    RequiredCapabilities,
    encode_external_senders,
    find_extension,
    find_required,
)
from curbside.mls.messages import EXTERNAL, MEMBER, Sender
from curbside.mls.nodes import CREDENTIAL_X509, Credential, Extension, Extensions, LeafNode
from curbside.mls.trust import CommitContext, Member
from curbside.policy.chain import UNKNOWN_DEVICE, ChainVerifier, VerifiedDevice, VerifiedUser, refuse, verify_successor
from curbside.policy.group_rules import Actor, Change, CommitFacts, ContextFacts, check_commit, check_group
from curbside.wire.group_policy import GROUP_POLICY, GroupPolicy, decode_group_policy, encode_group_policy

SUITES: Final = frozenset({1})
"""Cipher suites that an organisation allows unless it says more (docs/trust.md, group.suite)."""
_NOBODY: Final = UserId("")


@final
class OrganizationValidator:
    """Implements `curbside.mls.trust.CredentialValidator` for one organisation."""

    def __init__(self, authority_certificate: bytes, external_sender: bytes, suites: frozenset[int] = SUITES) -> None:
        """Pin an authority (certificate, DER) and the delivery service (one TLS-encoded ExternalSender).

        Raises: UntrustedDevice; Malformed.
        """
        self.chains: Final = ChainVerifier(authority_certificate)
        self._sender = decode(external_sender, ExternalSender.read)
        self._senders = encode_external_senders(self._sender)
        self._suites = suites

    # --- what the MLS core asks ---------------------------------------------------------------

    def verify_credential(self, credential: Credential, signature_key: bytes, now: int) -> None:
        """A leaf's chain verifies for its key. Raises: UntrustedDevice."""
        self.verify_device(credential, signature_key, now)

    def verify_successor(self, old: LeafNode, new: LeafNode) -> None:
        """The new leaf is the same device of the same user. Raises: UntrustedDevice."""
        verify_successor(self.identify(old.credential), self.identify(new.credential))

    def verify_external_sender(self, credential: Credential, signature_key: bytes, now: int) -> None:
        """The external sender is the pinned delivery service. Raises: UntrustedDevice."""
        if not is_same(signature_key, self._sender.signature_key) or credential != self._sender.credential:
            refuse("delivery service", "group.sender.key")

    def verify_commit(self, context: CommitContext) -> None:
        """The commit keeps the conversation's rules. Raises: RuleBroken; UntrustedDevice."""
        check_commit(self._gather(context), self._senders.body)

    # --- what clients and server ask ------------------------------------------------------------

    def verify_device(self, credential: Credential, signature_key: bytes, now: int) -> VerifiedDevice:
        """Verify a leaf's credential for its signature key at time `now` (Unix seconds). Raises: UntrustedDevice."""
        return self.chains.verify_device(_chain(credential), signature_key, now)

    def verify_person(self, certificates: Sequence[bytes], now: int) -> VerifiedUser:
        """Verify a directory entry: user and enrolment certificate, DER. Raises: UntrustedDevice."""
        return self.chains.verify_user(certificates, now)

    def identify(self, credential: Credential) -> VerifiedDevice:
        """Whose leaf this is, for a credential that was verified before. Raises: UntrustedDevice."""
        return self.chains.identify(_chain(credential))

    def verify_group(self, extensions: Extensions, members: Iterable[Member], suite: int) -> GroupPolicy:
        """Check a group that one joins, or that somebody creates, and return its policy.

        Raises: RuleBroken; UntrustedDevice.
        """
        users = frozenset(self.identify(member.credential).user_id for member in members)
        return check_group(_read_context(extensions), self._senders.body, users, suite in self._suites)

    def group_extensions(self, policy: GroupPolicy) -> tuple[Extension, ...]:
        """The group context extensions of a new conversation. Raises: Malformed when the policy has no encoding."""
        required = RequiredCapabilities(extensions=(GROUP_POLICY,), credentials=(CREDENTIAL_X509,))
        return required.encode(), self._senders, Extension(GROUP_POLICY, encode_group_policy(policy))

    def _gather(self, context: CommitContext) -> CommitFacts:
        before = {member.leaf_index: member for member in context.members_before}
        users = {index: self.identify(member.credential).user_id for index, member in before.items()}
        committer = self.identify(context.committer.credential).user_id
        joiner = Actor("newcomer", committer)

        def actor(sender: Sender) -> Actor:
            if sender.kind == MEMBER:
                return Actor("member", users[sender.index])
            return Actor("external_sender", _NOBODY, sender.index) if sender.kind == EXTERNAL else joiner

        adds, removes, context_by = [], [], None
        for sent in context.proposals:
            match sent.proposal:
                case proposals.Add(key_package):
                    added = self.identify(key_package.leaf.credential).user_id
                    adds.append(Change(added, actor(sent.sender)))
                case proposals.Remove(index):
                    removes.append(Change(users[index], actor(sent.sender)))
                case proposals.GroupContextExtensions():
                    context_by = actor(sent.sender)
        return CommitFacts(
            epoch=context.epoch,
            before=_read_context(context.extensions_before),
            after=_read_context(context.extensions_after),
            committer=joiner if context.external else Actor("member", committer),
            adds=tuple(adds),
            removes=tuple(removes),
            users=frozenset(users.values()),
            context_by=context_by,
            reinit=context.reinit is not None,
        )


def read_policy(extensions: Extensions) -> GroupPolicy:
    """The policy of a group that was checked before.

    Raises: RuleBroken("group.policy.present").
    """
    body = find_extension(extensions, GROUP_POLICY)
    try:
        if body is not None:
            return decode_group_policy(body)
    except Malformed:
        pass
    raise RuleBroken("group.policy.present")


def _chain(credential: Credential) -> tuple[bytes, ...]:
    if credential.kind != CREDENTIAL_X509:
        raise UntrustedDevice(UNKNOWN_DEVICE, "trust.chain.parse")
    return credential.certificates


def _read_context(extensions: Extensions) -> ContextFacts:
    try:
        required = find_required(extensions)
    except Malformed as error:
        raise RuleBroken("group.policy.present") from error
    return ContextFacts(
        policy=find_extension(extensions, GROUP_POLICY),
        external_senders=find_extension(extensions, EXTERNAL_SENDERS),
        required_extensions=required.extensions if required is not None else (),
    )
