"""Node indices of the array-based tree (RFC 9420 appendix C). Trees are full: 2**d leaves."""

from __future__ import annotations


def level(node: int) -> int:
    """The height of a node; leaves are 0."""
    return (~node & (node + 1)).bit_length() - 1


def node_count(leaves: int) -> int:
    """How many nodes a tree with `leaves` leaves has."""
    return 2 * leaves - 1 if leaves else 0


def root(leaves: int) -> int:
    """The index of the root."""
    return (1 << (node_count(leaves).bit_length() - 1)) - 1


def left(node: int) -> int:
    """The left child of a parent node."""
    return node ^ (1 << (level(node) - 1))


def right(node: int) -> int:
    """The right child of a parent node."""
    return node ^ (3 << (level(node) - 1))


def parent(node: int) -> int:
    """The parent of a node that is not the root."""
    k = level(node)
    return (node | (1 << k)) & ~(1 << (k + 1))


def sibling(node: int) -> int:
    """The other child of the node's parent."""
    above = parent(node)
    return right(above) if node < above else left(above)


def direct_path(node: int, leaves: int) -> list[int]:
    """The nodes above `node`, from its parent to the root."""
    top, path = root(leaves), []
    while node != top:
        node = parent(node)
        path.append(node)
    return path


def is_below(node: int, above: int) -> bool:
    """Whether `node` is `above` or lies in the subtree under it."""
    reach = (1 << level(above)) - 1
    return above - reach <= node <= above + reach


def leaf_range(node: int) -> range:
    """The leaf indices in the subtree under `node`."""
    reach = (1 << level(node)) - 1
    return range((node - reach) // 2, (node + reach) // 2 + 1)


def common_ancestor(left_leaf: int, right_leaf: int) -> int:
    """The lowest node above two leaves (leaf indices)."""
    low, high, k = left_leaf, right_leaf, 0
    while low != high:
        low, high, k = low >> 1, high >> 1, k + 1
    return (low << (k + 1)) + (1 << k) - 1
