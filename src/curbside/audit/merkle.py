"""The Merkle tree of RFC 9162 section 2.1 over SHA-256: append, roots, proofs and their verification.

`Frontier` is the state that appending needs: one hash for each 1 in the binary form of the size (O(log n) bytes).
Proofs are lists of 32-byte hashes, in the order of RFC 9162.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from curbside.crypto.kdf import compute_hash, is_same
from curbside.errors import IntegrityError, UsageError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = compute_hash("sha256", b"")


def hash_leaf(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return compute_hash("sha256", b"\x00" + entry)


def hash_node(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return compute_hash("sha256", b"\x01" + left + right)


class Frontier:
    """The right edge of a tree: its size and the roots of its perfect subtrees, largest first."""

    __slots__ = ("_peaks", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._peaks: list[bytes] = []

    @property
    def size(self) -> int:
        """Leaves appended so far."""
        return self._size

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf; equal subtrees at the edge are joined."""
        self._peaks.append(leaf_hash)
        size = self._size
        while size & 1:
            right = self._peaks.pop()
            self._peaks[-1] = hash_node(self._peaks[-1], right)
            size >>= 1
        self._size += 1

    def root(self) -> bytes:
        """The root hash of the tree as it stands."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = hash_node(peak, root)
        return root

    def encode(self) -> bytes:
        """Eight bytes of size, big-endian, then the peaks."""
        return self._size.to_bytes(8, "big") + b"".join(self._peaks)

    @classmethod
    def decode(cls, data: bytes) -> Frontier:
        """What `encode` wrote.

        Raises: IntegrityError.
        """
        size, peaks = int.from_bytes(data[:8], "big"), data[8:]
        if len(data) < 8 or len(peaks) != size.bit_count() * HASH_BYTES:
            raise IntegrityError("the audit log's frontier does not fit its size")
        frontier = cls()
        frontier._size = size
        frontier._peaks = [peaks[at : at + HASH_BYTES] for at in range(0, len(peaks), HASH_BYTES)]
        return frontier


def compute_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The root hash over these leaves, level by level: an odd hash at the end of a level goes up as it is."""
    if not leaf_hashes:
        return EMPTY_ROOT
    level = list(leaf_hashes)
    while len(level) > 1:
        odd = level[-1:] if len(level) & 1 else []
        level = [hash_node(left, right) for left, right in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0]


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def build_inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """PATH(index, leaves), RFC 9162 section 2.1.3.1.

    Raises: UsageError when there is no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise UsageError("no such leaf")
    if len(leaf_hashes) == 1:
        return []
    half = _split(len(leaf_hashes))
    left, right = leaf_hashes[:half], leaf_hashes[half:]
    if index < half:
        return [*build_inclusion_proof(left, index), compute_root(right)]
    return [*build_inclusion_proof(right, index - half), compute_root(left)]


def list_siblings(index: int, size: int) -> list[tuple[int, int]]:
    """The leaves, first and one past the last, under each hash of an inclusion proof, in the proof's order.

    Raises: UsageError when there is no such leaf.
    """
    if not 0 <= index < size:
        raise UsageError("no such leaf")
    found: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start = middle
    return found[::-1]


class InclusionPath:
    """An inclusion proof out of leaves that pass by once, in order; holds O(log n) hashes."""

    def __init__(self, index: int, size: int) -> None:
        """Raises: UsageError when there is no such leaf."""
        self._siblings = list_siblings(index, size)
        self._trees = {sibling: Frontier() for sibling in self._siblings}
        self._ahead = sorted(self._siblings, reverse=True)
        self._size = size
        self._at = 0

    @property
    def at(self) -> int:
        """Index of the leaf that comes next."""
        return self._at

    def append(self, leaf_hash: bytes) -> None:
        """The next leaf."""
        if self._ahead and self._at >= self._ahead[-1][1]:
            self._ahead.pop()
        if self._ahead and self._at >= self._ahead[-1][0]:
            self._trees[self._ahead[-1]].append(leaf_hash)
        self._at += 1

    def proof(self) -> list[bytes]:
        """The proof, once all leaves of the tree have passed.

        Raises: UsageError before that.
        """
        if self._at < self._size:
            raise UsageError("leaves are missing")
        return [self._trees[sibling].root() for sibling in self._siblings]


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf stands at `index` in the tree of `size` leaves with this root, RFC 9162 section 2.1.3.2.

    Raises: IntegrityError.
    """
    if not 0 <= index < size:
        raise IntegrityError("inclusion proof: no such leaf")
    at, last, computed = index, size - 1, leaf_hash
    for step in proof:
        if last == 0:
            raise IntegrityError("inclusion proof: too long")
        if at & 1 or at == last:
            computed = hash_node(step, computed)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            computed = hash_node(computed, step)
        at, last = at >> 1, last >> 1
    if last != 0 or not is_same(computed, root):
        raise IntegrityError("inclusion proof: does not lead to the root")


def build_consistency_proof(leaf_hashes: Sequence[bytes], first: int) -> list[bytes]:
    """PROOF(first, leaves), RFC 9162 section 2.1.4.1.

    Raises: UsageError when `first` is not within 1 and the number of leaves.
    """
    if not 0 < first <= len(leaf_hashes):
        raise UsageError("no such tree size")
    return _subproof(leaf_hashes, first, True)


def _subproof(leaf_hashes: Sequence[bytes], first: int, is_whole: bool) -> list[bytes]:
    if first == len(leaf_hashes):
        return [] if is_whole else [compute_root(leaf_hashes)]
    half = _split(len(leaf_hashes))
    left, right = leaf_hashes[:half], leaf_hashes[half:]
    if first <= half:
        return [*_subproof(left, first, is_whole), compute_root(right)]
    return [*_subproof(right, first - half, False), compute_root(left)]


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `first` leaves is a prefix of that of `second`, RFC 9162 section 2.1.4.2.

    Raises: IntegrityError.
    """
    if not 0 < first <= second:
        raise IntegrityError("consistency proof: sizes out of order")
    if first == second:
        if proof or not is_same(first_root, second_root):
            raise IntegrityError("consistency proof: two heads for one size")
        return
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        raise IntegrityError("consistency proof: empty")
    _walk_consistency(first - 1, second - 1, path, (first_root, second_root))


def _walk_consistency(at: int, last: int, path: Sequence[bytes], roots: tuple[bytes, bytes]) -> None:
    while at & 1:
        at, last = at >> 1, last >> 1
    older = newer = path[0]
    for step in path[1:]:
        if last == 0:
            raise IntegrityError("consistency proof: too long")
        if at & 1 or at == last:
            older, newer = hash_node(step, older), hash_node(step, newer)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            newer = hash_node(newer, step)
        at, last = at >> 1, last >> 1
    if last != 0 or not (is_same(older, roots[0]) and is_same(newer, roots[1])):
        raise IntegrityError("consistency proof: the later tree does not contain the earlier one")
