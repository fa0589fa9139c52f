"""The public state of a group and the transcript hashes (RFC 9420 sections 8.1 and 8.2)."""

from __future__ import annotations

from dataclasses import dataclass

from curbside.crypto.suites import Suite
from curbside.errors import FutureEpoch, StaleEpoch, WrongGroup
from curbside.mls.checks import Check, refuse, require
from curbside.mls.codec import vector
from curbside.mls.extensions import find_external_senders
from curbside.mls.labels import compute_hash, verify_with_label
from curbside.mls.messages import (
    COMMIT,
    EXTERNAL,
    MEMBER,
    NEW_MEMBER_COMMIT,
    NEW_MEMBER_PROPOSAL,
    PROPOSAL,
    AuthenticatedContent,
    Commit,
    GroupContext,
)
from curbside.mls.proposals import Add, ExternalInit, Update
from curbside.mls.tree import RatchetTree


@dataclass(frozen=True, slots=True)
class PublicState:
    """What everybody may know of a group in one epoch; never changed, only replaced."""

    suite: Suite
    context: GroupContext
    encoded_context: bytes
    tree: RatchetTree
    interim_hash: bytes
    confirmation_tag: bytes

    @classmethod
    def make(cls, suite: Suite, context: GroupContext, tree: RatchetTree, tag: bytes) -> PublicState:
        """The state of an epoch with this confirmation tag."""
        interim = interim_hash(suite, context.transcript_hash, tag)
        return cls(suite, context, context.encode(), tree, interim, tag)


def confirmed_hash(suite: Suite, interim: bytes, commit: AuthenticatedContent) -> bytes:
    """confirmed_transcript_hash after a commit."""
    return compute_hash(suite, interim + commit.encode_confirmed())


def interim_hash(suite: Suite, confirmed: bytes, confirmation_tag: bytes) -> bytes:
    """interim_transcript_hash after a commit."""
    return compute_hash(suite, confirmed + vector(confirmation_tag))


def check_group_and_epoch(context: GroupContext, group_id: bytes, epoch: int) -> None:
    """Check that a message belongs to this group and epoch. Raises: WrongGroup; StaleEpoch; FutureEpoch."""
    if group_id != context.group_id:
        raise WrongGroup
    if epoch < context.epoch:
        raise StaleEpoch(current_epoch=context.epoch)
    if epoch > context.epoch:
        raise FutureEpoch(current_epoch=context.epoch)


def sender_key(state: PublicState, signed: AuthenticatedContent) -> bytes:
    """The signature key of a handshake message's sender (section 6.1). Raises: RuleBroken."""
    content = signed.content
    sender, body = content.sender, content.body
    if sender.kind == MEMBER:
        leaf = state.tree.find_leaf(sender.index)
        if leaf is None:
            refuse(Check.MESSAGE_SENDER)
        return leaf.signature_key
    if sender.kind == EXTERNAL:
        senders = find_external_senders(state.context.extensions)
        require(content.content_type == PROPOSAL and sender.index < len(senders), Check.MESSAGE_SENDER)
        require(not isinstance(body, (Update, ExternalInit)), Check.PROPOSAL_EXTERNAL)
        return senders[sender.index].signature_key
    if sender.kind == NEW_MEMBER_PROPOSAL and isinstance(body, Add):
        return body.key_package.leaf.signature_key
    if sender.kind == NEW_MEMBER_COMMIT and isinstance(body, Commit):
        require(body.path is not None, Check.COMMIT_PATH)
        return body.path.leaf.signature_key if body.path else b""
    return refuse(Check.MESSAGE_SENDER)


def verify_content(state: PublicState, signed: AuthenticatedContent) -> None:
    """Check the signature of a handshake message of the current epoch.

    Raises: RuleBroken; BadSignature; Malformed.
    """
    require(signed.content.content_type in (PROPOSAL, COMMIT), Check.MESSAGE_APPLICATION)
    key = sender_key(state, signed)
    content = signed.to_be_signed(state.encoded_context)
    verify_with_label(state.suite, key, b"FramedContentTBS", content, signed.signature)
