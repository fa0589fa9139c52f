"""GroupInfo: checking one that was received (RFC 9420 sections 12.4.3 and 12.4.3.3)."""

from __future__ import annotations

from curbside.crypto.suites import get_suite
from curbside.errors import Malformed
from curbside.mls.checks import Check, refuse, require
from curbside.mls.extensions import RATCHET_TREE, find_extension
from curbside.mls.labels import verify_with_label
from curbside.mls.messages import GroupInfo, parse_message
from curbside.mls.transcript import PublicState
from curbside.mls.tree import RatchetTree
from curbside.mls.validation import Guard, verify_extensions, verify_tree


def parse_group_info(data: bytes) -> GroupInfo:
    """Decode an MLSMessage that must be a GroupInfo. Raises: Malformed; RuleBroken; TooLarge."""
    message = parse_message(data)
    if not isinstance(message, GroupInfo):
        raise Malformed("not a GroupInfo")
    return message


def verify_group_info(info: GroupInfo, tree_bytes: bytes | None, guard: Guard) -> PublicState:
    """Check a GroupInfo and its tree; the confirmation tag can be checked by members only.

    Args: `tree_bytes` the encoded ratchet tree, when it is not in the GroupInfo.
    Raises: RuleBroken; BadSignature; UntrustedDevice; Malformed.
    """
    suite = get_suite(info.context.suite)
    encoded = find_extension(info.extensions, RATCHET_TREE)
    encoded = tree_bytes if encoded is None else encoded
    if encoded is None:
        refuse(Check.TREE_MISSING)
    tree = RatchetTree.parse(suite, encoded, guard.limits.max_leaves)
    require(tree.leaf_count <= guard.limits.max_leaves, Check.TREE_SIZE)
    require(tree.tree_hash() == info.context.tree_hash, Check.TREE_HASH)
    signer = tree.find_leaf(info.signer)
    if signer is None:
        refuse(Check.GROUP_INFO_SIGNER)
    verify_with_label(suite, signer.signature_key, b"GroupInfoTBS", info.encode_unsigned(), info.signature)
    verify_extensions(suite, info.context.extensions, guard)
    verify_tree(tree, info.context.group_id, info.context.extensions, guard)
    return PublicState.make(suite, info.context, tree, info.confirmation_tag)
