"""The ratchet tree: members' leaves and the inner nodes' public keys (RFC 9420 sections 4 and 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

from curbside.crypto.suites import Suite
from curbside.errors import Malformed
from curbside.mls import tree_math
from curbside.mls.checks import Check, require
from curbside.mls.codec import Reader, decode, optional, u8, u32, vector, vector_of
from curbside.mls.labels import compute_hash
from curbside.mls.nodes import LeafNode, ParentNode

Node = LeafNode | ParentNode
_NO_LEAVES: frozenset[int] = frozenset()


@final
class RatchetTree:
    """Nodes in the order of the array-based tree, padded with blanks to a full tree; hashes are kept per node.

    Whoever changes a tree works on a `copy()`; a tree that is part of a state is never changed.
    """

    __slots__ = ("_encoded", "_hashes", "nodes", "suite")

    def __init__(self, suite: Suite, nodes: list[Node | None]) -> None:
        self.suite = suite
        self.nodes = nodes
        self._hashes: list[bytes | None] = [None] * len(nodes)
        self._encoded: bytes | None = None

    @classmethod
    def of_one(cls, suite: Suite, leaf: LeafNode) -> RatchetTree:
        """The tree of a group with one member."""
        return cls(suite, [leaf])

    def copy(self) -> RatchetTree:
        """A tree that can be changed apart from this one."""
        twin = RatchetTree.__new__(RatchetTree)
        twin.suite = self.suite
        twin.nodes = self.nodes.copy()
        twin._hashes = self._hashes.copy()
        twin._encoded = self._encoded
        return twin

    # --- looking ---------------------------------------------------------------------------

    @property
    def leaf_count(self) -> int:
        """How many leaves the full tree has, blank ones too."""
        return (len(self.nodes) + 1) // 2

    def find_leaf(self, index: int) -> LeafNode | None:
        """The leaf at a leaf index; None when blank or outside."""
        if not 0 <= index < self.leaf_count:
            return None
        node = self.nodes[2 * index]
        return node if isinstance(node, LeafNode) else None

    def leaves(self) -> Iterator[tuple[int, LeafNode]]:
        """The members: (leaf index, leaf)."""
        for index, node in enumerate(self.nodes[::2]):
            if isinstance(node, LeafNode):
                yield index, node

    def parents(self) -> Iterator[tuple[int, ParentNode]]:
        """The inner nodes that are not blank: (node index, node)."""
        for position, node in enumerate(self.nodes[1::2]):
            if isinstance(node, ParentNode):
                yield 2 * position + 1, node

    def encryption_keys(self) -> list[bytes]:
        """The encryption keys of all nodes."""
        return [node.encryption_key for node in self.nodes if node is not None]

    def resolution(self, node: int) -> list[int]:
        """The nodes that together cover all members below `node` (section 4.1.1)."""
        found: list[int] = []
        self._resolve(node, found)
        return found

    def _resolve(self, node: int, found: list[int]) -> None:
        value = self.nodes[node]
        if value is not None:
            found.append(node)
            if isinstance(value, ParentNode):
                found.extend(2 * leaf for leaf in value.unmerged)
        elif node & 1:
            self._resolve(tree_math.left(node), found)
            self._resolve(tree_math.right(node), found)

    def _is_empty(self, node: int) -> bool:
        reach = (1 << tree_math.level(node)) - 1
        return all(value is None for value in self.nodes[node - reach : node + reach + 1])

    def filtered_path(self, leaf: int) -> list[tuple[int, int]]:
        """The filtered direct path of a leaf: (node, its child on the copath) (section 4.1.2)."""
        path, below, top = [], 2 * leaf, tree_math.root(self.leaf_count)
        while below != top:
            other, above = tree_math.sibling(below), tree_math.parent(below)
            if not self._is_empty(other):
                path.append((above, other))
            below = above
        return path

    def free_leaf(self) -> int:
        """The leaf index where the next member goes; may lie outside the present tree (section 12.1.1)."""
        for index, node in enumerate(self.nodes[::2]):
            if node is None:
                return index
        return self.leaf_count

    # --- changing --------------------------------------------------------------------------

    def _set(self, node: int, value: Node | None) -> None:
        self.nodes[node] = value
        self._encoded = None
        top, hashes = tree_math.root(self.leaf_count), self._hashes
        hashes[node] = None
        while node != top:
            node = tree_math.parent(node)
            hashes[node] = None

    def _blank_path(self, leaf: int) -> None:
        for node in tree_math.direct_path(2 * leaf, self.leaf_count):
            self.nodes[node] = None
            self._hashes[node] = None

    def _grow_for(self, leaf: int) -> None:
        while leaf >= self.leaf_count:
            blanks = len(self.nodes) + 1
            self.nodes.extend([None] * blanks)
            self._hashes.extend([None] * blanks)

    def put_leaf(self, index: int, leaf: LeafNode) -> None:
        """Set a leaf and nothing else, growing the tree if need be."""
        self._grow_for(index)
        self._set(2 * index, leaf)

    def add_leaf(self, leaf: LeafNode) -> int:
        """Apply an Add (section 12.1.1): the new member's leaf index."""
        index = self.free_leaf()
        self.put_leaf(index, leaf)
        for node in tree_math.direct_path(2 * index, self.leaf_count):
            value = self.nodes[node]
            if isinstance(value, ParentNode):
                unmerged = tuple(sorted((*value.unmerged, index)))
                self.nodes[node] = ParentNode(value.encryption_key, value.parent_hash, unmerged)
        return index

    def update_leaf(self, index: int, leaf: LeafNode) -> None:
        """Apply an Update (section 12.1.2)."""
        self._set(2 * index, leaf)
        self._blank_path(index)

    def remove_leaf(self, index: int) -> None:
        """Apply a Remove (section 12.1.3), without `truncate`."""
        self._set(2 * index, None)
        self._blank_path(index)

    def truncate(self) -> None:
        """Drop right halves without members (section 7.7)."""
        while len(self.nodes) > 1:
            half = len(self.nodes) // 2
            if any(node is not None for node in self.nodes[half + 1 :: 2]):
                return
            del self.nodes[half:], self._hashes[half:]
            self._encoded = None

    def set_path(self, leaf: int, keys: Iterable[bytes]) -> bytes:
        """Put new public keys on the filtered direct path of a leaf (section 7.5).

        Returns: the parent hash that the leaf must carry.
        Raises: RuleBroken when there are more or fewer keys than nodes.
        """
        path, fresh = self.filtered_path(leaf), list(keys)
        require(len(path) == len(fresh), Check.COMMIT_PATH_LENGTH)
        self._blank_path(leaf)
        above = b""
        for (node, other), key in reversed(list(zip(path, fresh, strict=True))):
            self.nodes[node] = ParentNode(key, above)
            above = self.parent_hash(node, other)
        self._encoded = None
        return above

    # --- hashes ----------------------------------------------------------------------------

    def tree_hash(self) -> bytes:
        """The hash of the root (section 7.8)."""
        return self.node_hash(tree_math.root(self.leaf_count))

    def node_hash(self, node: int) -> bytes:
        """The tree hash of a node."""
        kept = self._hashes[node]
        if kept is None:
            kept = self._hashes[node] = self._hash_without(node, _NO_LEAVES)
        return kept

    def _hash_without(self, node: int, without: frozenset[int]) -> bytes:
        value = self.nodes[node]
        if not node & 1:
            if node // 2 in without:
                value = None
            content = b"\x01" + u32(node // 2) + optional(None if value is None else value.encode())
            return compute_hash(self.suite, content)
        if without and isinstance(value, ParentNode):
            kept = tuple(leaf for leaf in value.unmerged if leaf not in without)
            value = ParentNode(value.encryption_key, value.parent_hash, kept)
        low, high = tree_math.left(node), tree_math.right(node)
        content = b"\x02" + optional(None if value is None else value.encode())
        for child in (low, high):
            content += vector(self.original_hash(child, without) if without else self.node_hash(child))
        return compute_hash(self.suite, content)

    def original_hash(self, node: int, without: frozenset[int]) -> bytes:
        """The tree hash of a node as if some leaves had never been added (section 7.9)."""
        inside = without.intersection(tree_math.leaf_range(node)) if without else without
        return self._hash_without(node, inside) if inside else self.node_hash(node)

    def parent_hash(self, node: int, other: int) -> bytes:
        """The parent hash of a parent node with copath child `other` (section 7.9)."""
        value = self.nodes[node]
        if not isinstance(value, ParentNode):
            raise Malformed("a blank node has no parent hash")
        sibling = self.original_hash(other, frozenset(value.unmerged))
        content = vector(value.encryption_key) + vector(value.parent_hash) + vector(sibling)
        return compute_hash(self.suite, content)

    # --- wire ------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """optional<Node> ratchet_tree<V> (section 12.4.3.3)."""
        if self._encoded is None:
            end = max((i for i, node in enumerate(self.nodes) if node is not None), default=-1) + 1
            self._encoded = vector_of(map(_encode_node, self.nodes[:end]))
        return self._encoded

    @classmethod
    def parse(cls, suite: Suite, data: bytes, max_leaves: int = 1 << 20) -> RatchetTree:
        """Decode and pad with blanks.

        Raises: Malformed; RuleBroken when the last node is blank or a node is of the wrong type.
        """
        nodes = decode(data, lambda reader: _read_nodes(reader, 2 * max_leaves))
        require(bool(nodes) and nodes[-1] is not None, Check.TREE_LAST_NODE)
        good = all(node is None or isinstance(node, ParentNode if i & 1 else LeafNode) for i, node in enumerate(nodes))
        require(good, Check.TREE_SHAPE)
        width = 1
        while width < len(nodes):
            width = 2 * width + 1
        nodes.extend([None] * (width - len(nodes)))
        tree = cls(suite, nodes)
        tree._encoded = data
        return tree


def _encode_node(node: Node | None) -> bytes:
    if node is None:
        return b"\x00"
    return b"\x01" + u8(1 if isinstance(node, LeafNode) else 2) + node.encode()


def _read_nodes(reader: Reader, limit: int) -> list[Node | None]:
    inner = reader.inner()
    nodes: list[Node | None] = []
    while inner.more:
        require(len(nodes) < limit, Check.TREE_SIZE)
        nodes.append(_read_node(inner))
    return nodes


def _read_node(reader: Reader) -> Node | None:
    if not reader.present():
        return None
    kind = reader.u8()
    if kind == 1:
        return LeafNode.read(reader)
    if kind == 2:
        return ParentNode.read(reader)
    raise Malformed("the type of a node is not known")
