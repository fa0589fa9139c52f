"""Path secrets: making and opening an UpdatePath (RFC 9420 sections 7.4 to 7.6). Secret side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from curbside.crypto import hpke
from curbside.crypto.random import random_bytes
from curbside.crypto.suites import Suite
from curbside.errors import DecryptionFailed
from curbside.mls import tree_math
from curbside.mls.checks import Check, require
from curbside.mls.labels import decrypt_with_label, derive_secret, encrypt_with_label
from curbside.mls.messages import HpkeCiphertext, UpdatePath, UpdatePathNode
from curbside.mls.nodes import LeafNode
from curbside.mls.tree import RatchetTree

_LABEL = b"UpdatePathNode"


def node_key_pair(suite: Suite, path_secret: bytes) -> tuple[bytes, bytes]:
    """The key pair of a node from its path secret: (private, public)."""
    return hpke.derive_key_pair(suite.hpke.kem, derive_secret(suite, path_secret, b"node"))


def next_path_secret(suite: Suite, path_secret: bytes) -> bytes:
    """The path secret of the next node up; after the last one it is the commit secret."""
    return derive_secret(suite, path_secret, b"path")


@dataclass(frozen=True, slots=True, repr=False)
class PathDraft:
    """A path whose keys are in the tree already; the secrets are still to be sealed.

    `secrets` maps nodes to path secrets, `private` nodes (the leaf too) to private keys.
    """

    leaf: LeafNode
    filtered: tuple[tuple[int, int], ...]
    public: tuple[bytes, ...]
    secrets: dict[int, bytes]
    private: dict[int, bytes]
    commit_secret: bytes


def draft_path(tree: RatchetTree, committer: int, make_leaf: Callable[[bytes, bytes], LeafNode]) -> PathDraft:
    """Put fresh keys on the committer's path in `tree` and its new leaf in its place.

    Args: `make_leaf(encryption_key, parent_hash)` gives the signed leaf.
    """
    suite = tree.suite
    leaf_private, leaf_public = hpke.generate_key_pair(suite.hpke.kem)
    if tree.find_leaf(committer) is None:
        tree.put_leaf(committer, make_leaf(leaf_public, b""))
    filtered = tuple(tree.filtered_path(committer))
    secrets, private, public = {}, {2 * committer: leaf_private}, []
    secret = random_bytes(suite.hash_length)
    for node, _ in filtered:
        secrets[node] = secret
        private[node], key = node_key_pair(suite, secret)
        public.append(key)
        secret = next_path_secret(suite, secret)
    leaf = make_leaf(leaf_public, tree.set_path(committer, public))
    tree.put_leaf(committer, leaf)
    return PathDraft(leaf, filtered, tuple(public), secrets, private, secret)


def seal_path(tree: RatchetTree, draft: PathDraft, new_leaves: Collection[int], context: bytes) -> UpdatePath:
    """Encrypt the path secrets to the members; `context` is the encoded provisional group context."""
    suite, nodes, excluded = tree.suite, [], {2 * leaf for leaf in new_leaves}
    for (node, other), public in zip(draft.filtered, draft.public, strict=True):
        sealed = []
        for target in tree.resolution(other):
            value = tree.nodes[target]
            if value is not None and target not in excluded:
                pair = encrypt_with_label(suite, value.encryption_key, _LABEL, context, draft.secrets[node])
                sealed.append(HpkeCiphertext(*pair).encode())
        nodes.append(UpdatePathNode(public, tuple(sealed)))
    return UpdatePath(draft.leaf, tuple(nodes))


@dataclass(frozen=True, slots=True, repr=False)
class Receiver:
    """Who opens a path: leaf index, private keys by node, leaves that the same commit added."""

    leaf: int
    private: Mapping[int, bytes]
    new_leaves: Collection[int]


def open_path(
    tree: RatchetTree, committer: int, path: UpdatePath, receiver: Receiver, context: bytes
) -> tuple[dict[int, bytes], bytes]:
    """Decrypt our path secret and derive the keys above it; the path is merged into `tree` already.

    Returns: new private keys by node, and the commit secret.
    Raises: DecryptionFailed; RuleBroken when the keys of the path do not follow from the secret.
    """
    suite, excluded = tree.suite, {2 * leaf for leaf in receiver.new_leaves}
    filtered, own = tree.filtered_path(committer), 2 * receiver.leaf
    start = next((i for i, (_, other) in enumerate(filtered) if tree_math.is_below(own, other)), None)
    if start is None:
        raise DecryptionFailed
    targets = [target for target in tree.resolution(filtered[start][1]) if target not in excluded]
    held = (i for i, target in enumerate(targets) if target in receiver.private and tree_math.is_below(own, target))
    place = next(held, None)
    if place is None:
        raise DecryptionFailed
    sealed = path.nodes[start].sealed_at(place)
    pair = (sealed.kem_output, sealed.ciphertext)
    secret = decrypt_with_label(suite, receiver.private[targets[place]], _LABEL, context, pair)
    nodes = [node for node, _ in filtered[start:]]
    return derive_upwards(tree, nodes, secret)


def derive_upwards(
    tree: RatchetTree, nodes: list[int], secret: bytes, check: Check = Check.COMMIT_PATH_KEY_DERIVED
) -> tuple[dict[int, bytes], bytes]:
    """Private keys of `nodes` from the path secret of the first, and the secret after the last.

    Raises: RuleBroken, naming `check`, when a key differs from the tree's.
    """
    suite, private = tree.suite, {}
    require(len(secret) == suite.hash_length, check)
    for node in nodes:
        private[node], public = node_key_pair(suite, secret)
        value = tree.nodes[node]
        require(value is not None and value.encryption_key == public, check)
        secret = next_path_secret(suite, secret)
    return private, secret
