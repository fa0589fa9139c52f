"""Checks on leaves, KeyPackages and trees (RFC 9420 sections 7.3, 7.9.2, 10.1, 12.4.3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from curbside.crypto.hpke import check_public_key
from curbside.crypto.sign import check_signature_key
from curbside.crypto.suites import Suite
from curbside.errors import Malformed
from curbside.mls import tree_math
from curbside.mls.checks import Check, refuse, require
from curbside.mls.extensions import (
    DEFAULT_EXTENSIONS,
    DEFAULT_PROPOSALS,
    RequiredCapabilities,
    find_external_senders,
    find_required,
)
from curbside.mls.labels import verify_with_label
from curbside.mls.nodes import MLS10, SOURCE_KEY_PACKAGE, Extensions, KeyPackage, LeafNode, ParentNode
from curbside.mls.tree import RatchetTree
from curbside.mls.trust import CredentialValidator

HOUR = 3600
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what peers may ask for. Lifetimes are in seconds."""

    max_lifetime: int = 92 * DAY
    max_leaves: int = 65536
    max_pending: int = 4096
    join_requests: bool = False


@dataclass(frozen=True, slots=True)
class Guard:
    """What every check may need: the application's validator, the time (unix seconds) and the limits."""

    validator: CredentialValidator
    now: int
    limits: Limits = Limits()


def check_encryption_key(suite: Suite, key: bytes) -> None:
    """Check an HPKE public key. Raises: RuleBroken("mls.leaf.key_form")."""
    try:
        check_public_key(suite.hpke.kem, key)
    except Malformed:
        refuse(Check.LEAF_KEY_FORM)


def check_leaf_form(suite: Suite, leaf: LeafNode) -> None:
    """Check what a leaf says about itself: keys and capabilities. Raises: RuleBroken."""
    check_encryption_key(suite, leaf.encryption_key)
    try:
        check_signature_key(suite.signature_name, leaf.signature_key)
    except Malformed:
        refuse(Check.LEAF_KEY_FORM)
    listed = leaf.capabilities
    for extension in leaf.extensions:
        require(extension.kind in DEFAULT_EXTENSIONS or extension.kind in listed.extensions, Check.LEAF_CAPABILITIES)
    require(leaf.credential.kind in listed.credentials, Check.LEAF_CAPABILITIES)
    require(MLS10 in listed.versions, Check.LEAF_CAPABILITIES)


def check_lifetime(leaf: LeafNode, guard: Guard) -> None:
    """Check the lifetime of a leaf that is about to be added. Raises: RuleBroken."""
    lifetime = leaf.lifetime
    if lifetime is None:
        refuse(Check.LEAF_SOURCE)
    require(lifetime.not_before <= guard.now <= lifetime.not_after, Check.LEAF_LIFETIME)
    check_lifetime_length(leaf, guard.limits)


def check_lifetime_length(leaf: LeafNode, limits: Limits) -> None:
    """Check how long a leaf wants to live (section 7.2). Raises: RuleBroken."""
    if leaf.lifetime is not None:
        span = leaf.lifetime.not_after - leaf.lifetime.not_before
        require(span <= limits.max_lifetime, Check.LEAF_LIFETIME_LENGTH)


def verify_leaf(suite: Suite, leaf: LeafNode, place: tuple[bytes, int], guard: Guard) -> None:
    """Check form, signature and credential of a leaf; `place` is group id and leaf index.

    Raises: RuleBroken; BadSignature; UntrustedDevice.
    """
    check_leaf_form(suite, leaf)
    tbs = leaf.to_be_signed(*place)
    verify_with_label(suite, leaf.signature_key, b"LeafNodeTBS", tbs, leaf.signature)
    guard.validator.verify_credential(leaf.credential, leaf.signature_key, guard.now)


def verify_key_package_for(suite: Suite, package: KeyPackage, guard: Guard) -> None:
    """Check a KeyPackage for a group of this suite (section 10.1).

    Raises: RuleBroken; BadSignature; UntrustedDevice.
    """
    require(package.version == MLS10 and package.suite == suite.code, Check.KEY_PACKAGE_SUITE)
    require(package.leaf.source == SOURCE_KEY_PACKAGE, Check.LEAF_SOURCE)
    require(package.init_key != package.leaf.encryption_key, Check.KEY_PACKAGE_INIT_KEY)
    check_encryption_key(suite, package.init_key)
    known = DEFAULT_EXTENSIONS.union(package.leaf.capabilities.extensions)
    require(all(extension.kind in known for extension in package.extensions), Check.LEAF_CAPABILITIES)
    check_lifetime(package.leaf, guard)
    key, content = package.leaf.signature_key, package.encode_unsigned()
    check_leaf_form(suite, package.leaf)
    verify_with_label(suite, key, b"KeyPackageTBS", content, package.signature)
    verify_leaf(suite, package.leaf, (b"", 0), guard)


def check_supports(leaf: LeafNode, extensions: Extensions, required: RequiredCapabilities | None) -> None:
    """Check that a leaf supports the group's extensions and requirements. Raises: RuleBroken."""
    listed = leaf.capabilities
    for extension in extensions:
        require(extension.kind in DEFAULT_EXTENSIONS or extension.kind in listed.extensions, Check.EXTENSION_SUPPORTED)
    if required is None:
        return
    good = DEFAULT_EXTENSIONS.union(listed.extensions).issuperset(required.extensions)
    good = good and DEFAULT_PROPOSALS.union(listed.proposals).issuperset(required.proposals)
    require(good and set(listed.credentials).issuperset(required.credentials), Check.LEAF_REQUIRED)


def check_members(tree: RatchetTree, extensions: Extensions, changed: Iterable[int] | None) -> None:
    """Check that the members fit together; `changed` are the leaves to look at closely, None means all.

    Raises: RuleBroken; Malformed when a group context extension cannot be read.
    """
    members = dict(tree.leaves())
    required = find_required(extensions)
    for index in members if changed is None else changed:
        check_supports(members[index], extensions, required)
    kinds = {leaf.credential.kind for leaf in members.values()}
    for leaf in members.values():
        require(kinds.issubset(leaf.capabilities.credentials), Check.LEAF_CREDENTIALS)
    keys = {leaf.signature_key for leaf in members.values()}
    require(len(keys) == len(members), Check.LEAF_SIGNATURE_KEY)
    encryption_keys = tree.encryption_keys()
    require(len(set(encryption_keys)) == len(encryption_keys), Check.LEAF_ENCRYPTION_KEY)


def verify_extensions(suite: Suite, extensions: Extensions, guard: Guard) -> None:
    """Check new group context extensions that we know.

    Raises: Malformed; RuleBroken; UntrustedDevice.
    """
    find_required(extensions)
    for sender in find_external_senders(extensions):
        try:
            check_signature_key(suite.signature_name, sender.signature_key)
        except Malformed:
            refuse(Check.LEAF_KEY_FORM)
        guard.validator.verify_external_sender(sender.credential, sender.signature_key, guard.now)


# --- the whole tree, when joining -------------------------------------------------------------


def check_parent_hashes(tree: RatchetTree) -> None:
    """Check that exactly one descendant vouches for every parent node (section 7.9.2). Raises: RuleBroken."""
    for node, value in tree.parents():
        low, high = tree_math.left(node), tree_math.right(node)
        found = sum(_vouchers(tree, node, value, pair) for pair in ((low, high), (high, low)))
        require(found == 1, Check.TREE_PARENT_HASH)


def _vouchers(tree: RatchetTree, node: int, value: ParentNode, pair: tuple[int, int]) -> int:
    child, other = pair
    resolution = tree.resolution(child)
    candidates = [below for below in resolution if getattr(tree.nodes[below], "parent_hash", b"")]
    if not candidates:
        return 0
    wanted, span = tree.parent_hash(node, other), tree_math.leaf_range(child)
    unmerged = {2 * leaf for leaf in value.unmerged if leaf in span}
    covered, found = set(resolution), 0
    for below in candidates:
        descendant = tree.nodes[below]
        if isinstance(descendant, (LeafNode, ParentNode)) and descendant.parent_hash == wanted:
            found += covered - {below} == unmerged
    return found


def check_unmerged(tree: RatchetTree) -> None:
    """Check the unmerged leaves of every parent node (section 12.4.3.1). Raises: RuleBroken."""
    for node, value in tree.parents():
        span = tree_math.leaf_range(node)
        for leaf in value.unmerged:
            require(leaf in span and tree.find_leaf(leaf) is not None, Check.TREE_UNMERGED)
            between = tree_math.parent(2 * leaf)
            while between != node:
                inner = tree.nodes[between]
                require(not isinstance(inner, ParentNode) or leaf in inner.unmerged, Check.TREE_UNMERGED)
                between = tree_math.parent(between)


def verify_tree(tree: RatchetTree, group_id: bytes, extensions: Extensions, guard: Guard) -> None:
    """Check a tree that was received, all of it, but for its hash (section 12.4.3.1).

    Lifetimes are not compared with the clock: members may have been added long ago (section 7.3).
    Raises: RuleBroken; BadSignature; UntrustedDevice; Malformed.
    """
    require(tree.leaf_count <= guard.limits.max_leaves, Check.TREE_SIZE)
    check_unmerged(tree)
    check_members(tree, extensions, None)
    check_parent_hashes(tree)
    for _, value in tree.parents():
        check_encryption_key(tree.suite, value.encryption_key)
    for index, leaf in tree.leaves():
        check_lifetime_length(leaf, guard.limits)
        verify_leaf(tree.suite, leaf, (group_id, index), guard)
