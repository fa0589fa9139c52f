"""The server's view of a group: tree and roster without secrets (RFC 9420, RFC 9750).

A `PublicGroup` follows PublicMessages. It checks everything but what needs the group's secrets: membership tags,
confirmation tags and the path secrets; members check those. Nothing here can decrypt anything (INV-01).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, final

from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.crypto.suites import get_suite
from curbside.errors import IntegrityError, InvalidMessage, Malformed, Replayed
from curbside.mls.checks import Check, refuse, require
from curbside.mls.codec import Reader, decode, u8, u64, vector, vector_of
from curbside.mls.extensions import find_external_senders
from curbside.mls.group_info import parse_group_info, verify_group_info
from curbside.mls.labels import key_package_ref, proposal_ref, sign_with_label
from curbside.mls.messages import (
    APPLICATION,
    COMMIT,
    EXTERNAL,
    PROPOSAL,
    WIRE_PUBLIC,
    AuthenticatedContent,
    Commit,
    FramedContent,
    GroupContext,
    PrivateMessage,
    PublicMessage,
    Sender,
    encode_message,
    parse_message,
)
from curbside.mls.nodes import Credential, Extensions, KeyPackage, Lifetime
from curbside.mls.proposals import Add, Proposal, ReInit, Remove, encode_proposal, read_proposal
from curbside.mls.results import ProposalReceived
from curbside.mls.transcript import PublicState, check_group_and_epoch, verify_content
from curbside.mls.transition import Step, check_proposal, follow_commit
from curbside.mls.tree import RatchetTree
from curbside.mls.trust import CredentialValidator, Member, RosterDiff, SentProposal, list_members
from curbside.mls.validation import Guard, Limits, verify_key_package_for

__all__ = [
    "KeyPackageInfo",
    "MessageHeader",
    "PublicGroup",
    "RosterDiff",
    "describe_message",
    "verify_key_package",
]

_SAVE_VERSION: Final = 1
_MAX_SAVED: Final = 1 << 28
_DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class KeyPackageInfo:
    """What a KeyPackage says about its client."""

    suite: int
    credential: Credential
    signature_key: bytes
    lifetime: Lifetime
    reference: bytes
    extensions: tuple[int, ...]


def verify_key_package(
    data: bytes, validator: CredentialValidator, now: int, limits: Limits = _DEFAULT_LIMITS
) -> KeyPackageInfo:
    """Check a KeyPackage (an MLSMessage) as section 10.1 says, at time `now` (unix seconds).

    Raises: Malformed; TooLarge; RuleBroken; BadSignature; UntrustedDevice.
    """
    package = parse_message(data)
    if not isinstance(package, KeyPackage):
        raise Malformed("not a KeyPackage")
    suite, leaf = get_suite(package.suite), package.leaf
    verify_key_package_for(suite, package, Guard(validator, now, limits))
    reference = key_package_ref(suite, package.encode())
    lifetime = leaf.lifetime or Lifetime(0, 0)
    return KeyPackageInfo(
        package.suite, leaf.credential, leaf.signature_key, lifetime, reference, leaf.capabilities.extensions
    )


@dataclass(frozen=True, slots=True)
class MessageHeader:
    """What everybody sees of a message: `kind` is "application", "proposal" or "commit"."""

    group_id: bytes
    epoch: int
    kind: str
    private: bool
    aad: bytes


def describe_message(data: bytes) -> MessageHeader:
    """The header of a PublicMessage or PrivateMessage; nothing is verified. Raises: Malformed; TooLarge."""
    message = parse_message(data)
    names = {APPLICATION: "application", PROPOSAL: "proposal", COMMIT: "commit"}
    if isinstance(message, PrivateMessage):
        return MessageHeader(message.group_id, message.epoch, names[message.content_type], True, message.aad)
    if isinstance(message, PublicMessage):
        content = message.authenticated.content
        return MessageHeader(content.group_id, content.epoch, names[content.content_type], False, content.aad)
    raise Malformed("not a message for a group")


@final
class PublicGroup:
    """One group as the server follows it. A refused input changes nothing."""

    __slots__ = ("_closed", "_limits", "_pending", "_public", "_validator")

    def __init__(self, public: PublicState, validator: CredentialValidator, limits: Limits) -> None:
        """For this module only; people use `from_group_info` and `load`."""
        self._public = public
        self._validator = validator
        self._limits = limits
        self._pending: dict[bytes, SentProposal] = {}
        self._closed = False

    @classmethod
    def from_group_info(
        cls,
        group_info: bytes,
        validator: CredentialValidator,
        now: int,
        tree: bytes | None = None,
        limits: Limits = _DEFAULT_LIMITS,
    ) -> PublicGroup:
        """Start to follow a group from a GroupInfo (MLSMessage) with its tree (section 12.4.3).

        Args: `tree` the encoded ratchet tree when the GroupInfo does not carry it; `now` unix seconds.
        Raises: Malformed; TooLarge; RuleBroken; BadSignature; UntrustedDevice.
        """
        public = verify_group_info(parse_group_info(group_info), tree, Guard(validator, now, limits))
        return cls(public, validator, limits)

    # --- looking ---------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self._public.context.epoch

    @property
    def group_id(self) -> bytes:
        """The group's id."""
        return self._public.context.group_id

    @property
    def suite(self) -> int:
        """The cipher suite's code."""
        return self._public.suite.code

    @property
    def members(self) -> list[Member]:
        """All members, by leaf index."""
        return list_members(self._public.tree)

    @property
    def extensions(self) -> Extensions:
        """The group context's extensions."""
        return self._public.context.extensions

    @property
    def tree_hash(self) -> bytes:
        """The hash of the ratchet tree."""
        return self._public.context.tree_hash

    @property
    def pending(self) -> tuple[ProposalReceived, ...]:
        """Proposals of this epoch that wait to be committed."""
        return tuple(self._describe(ref, sent) for ref, sent in self._pending.items())

    @property
    def is_closed(self) -> bool:
        """Whether a ReInit was committed: nothing more is sent in this group."""
        return self._closed

    def ratchet_tree(self) -> bytes:
        """The encoded ratchet tree, for joiners (section 12.4.3.3)."""
        return self._public.tree.encode()

    def check_group_info(self, group_info: bytes, now: int) -> None:
        """Check that a GroupInfo is of the present epoch of this group, for external joiners.

        Its confirmation tag and external_pub are the signer's word: only members could check them.
        Raises: Malformed; RuleBroken; BadSignature; WrongGroup; StaleEpoch; FutureEpoch; UntrustedDevice.
        """
        info = parse_group_info(group_info)
        check_group_and_epoch(self._public.context, info.context.group_id, info.context.epoch)
        require(info.context == self._public.context, Check.TREE_HASH, "the GroupInfo is of another state")
        verify_group_info(info, self._public.tree.encode(), self._guard(now))

    def _describe(self, ref: bytes, sent: SentProposal, aad: bytes = b"") -> ProposalReceived:
        leaf = self._public.tree.find_leaf(sent.sender.index) if sent.sender.kind == 1 else None
        member = None if leaf is None else Member.of(sent.sender.index, leaf)
        return ProposalReceived(sent.proposal.name, sent.sender, member, ref, sent.proposal, aad)

    def _guard(self, now: int) -> Guard:
        return Guard(self._validator, now, self._limits)

    # --- following -------------------------------------------------------------------------

    def check_application(self, message: bytes) -> MessageHeader:
        """Check the header of an application message: group, epoch, encrypted (section 6.3).

        Raises: Malformed; TooLarge; RuleBroken; WrongGroup; StaleEpoch; FutureEpoch.
        """
        parsed = parse_message(message)
        if not isinstance(parsed, PrivateMessage):
            return refuse(Check.MESSAGE_APPLICATION)
        require(parsed.content_type == APPLICATION, Check.MESSAGE_FORMAT)
        require(not self._closed, Check.COMMIT_REINIT_DONE)
        check_group_and_epoch(self._public.context, parsed.group_id, parsed.epoch)
        return MessageHeader(parsed.group_id, parsed.epoch, "application", True, parsed.aad)

    def _verified(self, message: bytes) -> AuthenticatedContent:
        parsed = parse_message(message)
        if not isinstance(parsed, PublicMessage):
            return refuse(Check.MESSAGE_FORMAT)
        signed = parsed.authenticated
        check_group_and_epoch(self._public.context, signed.content.group_id, signed.content.epoch)
        require(not self._closed, Check.COMMIT_REINIT_DONE)
        verify_content(self._public, signed)
        return signed

    def _follow(self, message: bytes, now: int) -> tuple[AuthenticatedContent, Step]:
        signed = self._verified(message)
        require(isinstance(signed.content.body, Commit), Check.MESSAGE_FORMAT)
        return signed, follow_commit(self._public, signed, self._pending, self._guard(now))

    def check_commit(self, message: bytes, now: int) -> RosterDiff:
        """Check a commit (PublicMessage) against this epoch and change nothing (section 12.4.2).

        Raises: Malformed; TooLarge; WrongGroup; StaleEpoch; FutureEpoch; RuleBroken; BadSignature; UntrustedDevice;
            what the policy raises.
        """
        return self._follow(message, now)[1].diff

    def apply(self, message: bytes, now: int) -> RosterDiff:
        """Check a commit and enter the next epoch. Raises: as `check_commit`."""
        signed, step = self._follow(message, now)
        self._public = PublicState.make(self._public.suite, step.context, step.applied.tree, signed.confirmation_tag)
        self._pending = {}
        self._closed = step.applied.reinit is not None
        return step.diff

    def receive_proposal(self, message: bytes, now: int) -> ProposalReceived:
        """Take in a proposal (PublicMessage) so that commits can refer to it (section 12.1).

        Raises: Malformed; TooLarge; WrongGroup; StaleEpoch; FutureEpoch; RuleBroken; BadSignature; UntrustedDevice;
            Replayed when it is known already.
        """
        signed = self._verified(message)
        content = signed.content
        if isinstance(content.body, (bytes, Commit)):
            return refuse(Check.MESSAGE_FORMAT)
        ref = proposal_ref(self._public.suite, signed.encode())
        if ref in self._pending:
            raise Replayed
        require(len(self._pending) < self._limits.max_pending, Check.PROPOSAL_LIMIT)
        sent = SentProposal(content.body, content.sender, by_reference=True)
        check_proposal(self._public, sent, self._guard(now))
        self._pending = {**self._pending, ref: sent}
        return self._describe(ref, sent, content.aad)

    # --- proposing as an external sender (section 12.1.8) ------------------------------------

    def propose_remove(self, leaf_index: int, signer: SecretBytes, sender_index: int = 0, aad: bytes = b"") -> bytes:
        """Propose to remove a member: a PublicMessage, to be given to `receive_proposal` and to the members.

        Args: `signer` raw private key of the external sender; `sender_index` its place in external_senders.
        Raises: RuleBroken.
        """
        require(self._public.tree.find_leaf(leaf_index) is not None, Check.REMOVE_EXISTS)
        return self.propose(Remove(leaf_index), signer, sender_index, aad)

    def propose_add(self, key_package: bytes, signer: SecretBytes, sender_index: int = 0, aad: bytes = b"") -> bytes:
        """Propose to add the client of a KeyPackage (MLSMessage). Raises: Malformed; RuleBroken."""
        package = parse_message(key_package)
        if not isinstance(package, KeyPackage):
            raise Malformed("not a KeyPackage")
        return self.propose(Add(package), signer, sender_index, aad)

    def propose(self, proposal: Proposal, signer: SecretBytes, sender_index: int = 0, aad: bytes = b"") -> bytes:
        """Sign any proposal as an external sender. Raises: RuleBroken when there is no such sender."""
        return sign_external_proposal(self._public.context, proposal, signer, sender_index, aad)

    # --- saving ----------------------------------------------------------------------------

    def save(self) -> bytes:
        """The whole public state."""
        public, limits = self._public, self._limits
        pending = (
            vector(ref) + sent.sender.encode() + encode_proposal(sent.proposal) for ref, sent in self._pending.items()
        )
        numbers = (limits.max_lifetime, limits.max_leaves, limits.max_pending, limits.join_requests)
        head = u8(_SAVE_VERSION) + b"".join(map(u64, numbers)) + u8(self._closed)
        tree = vector(public.tree.encode())
        return head + public.encoded_context + tree + vector(public.confirmation_tag) + vector_of(pending)

    @classmethod
    def load(cls, blob: bytes, validator: CredentialValidator) -> PublicGroup:
        """What `save` made. Raises: IntegrityError when it is damaged or of another version."""
        try:
            return decode(blob, lambda reader: cls._read(reader, validator), _MAX_SAVED)
        except InvalidMessage:
            raise IntegrityError("saved group state cannot be read") from None

    @classmethod
    def _read(cls, reader: Reader, validator: CredentialValidator) -> PublicGroup:
        if reader.u8() != _SAVE_VERSION:
            raise IntegrityError("saved group state is of another version")
        limits = Limits(reader.u64(), reader.u64(), reader.u64(), bool(reader.u64()))
        closed, context = bool(reader.u8()), GroupContext.read(reader)
        suite = get_suite(context.suite)
        tree = RatchetTree.parse(suite, reader.vector())
        group = cls(PublicState.make(suite, context, tree, reader.vector()), validator, limits)
        group._pending = dict(reader.items(_read_pending))
        group._closed = closed
        return group


def _read_pending(reader: Reader) -> tuple[bytes, SentProposal]:
    ref, sender = reader.vector(), Sender.read(reader)
    return ref, SentProposal(read_proposal(reader), sender, by_reference=True)


def sign_external_proposal(
    context: GroupContext, proposal: Proposal, signer: SecretBytes, sender_index: int, aad: bytes = b""
) -> bytes:
    """A proposal of an external sender for the epoch of a group context (section 12.1.8): an MLSMessage.

    Raises: RuleBroken when the key is not that of the sender at `sender_index`.
    """
    suite, senders = get_suite(context.suite), find_external_senders(context.extensions)
    key = Signer(suite.signature_name, signer)
    known = sender_index < len(senders) and senders[sender_index].signature_key == key.public
    require(known, Check.MESSAGE_SENDER)
    require(isinstance(proposal, (Add, Remove, ReInit)) or proposal.code in (4, 7), Check.PROPOSAL_EXTERNAL)
    place = (context.group_id, context.epoch)
    content = FramedContent.make(place, Sender(EXTERNAL, sender_index), aad, PROPOSAL, proposal)
    signed = AuthenticatedContent(WIRE_PUBLIC, content, b"")
    signature = sign_with_label(key, b"FramedContentTBS", signed.to_be_signed(b""))
    return encode_message(PublicMessage(replace(signed, signature=signature)))
