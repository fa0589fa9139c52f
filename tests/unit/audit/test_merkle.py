"""The Merkle tree against pymerkle's roots, against its own proofs, and against forged proofs."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from curbside.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    InclusionPath,
    build_consistency_proof,
    build_inclusion_proof,
    compute_root,
    hash_leaf,
    hash_node,
    verify_consistency,
    verify_inclusion,
)
from curbside.errors import IntegrityError, UsageError

LEAVES = [hash_leaf(bytes([number])) for number in range(33)]


def test_empty_tree_has_the_hash_of_nothing() -> None:
    assert hashlib.sha256(b"").digest() == EMPTY_ROOT == Frontier().root()


def test_leaf_and_node_prefixes_are_those_of_rfc_9162() -> None:
    assert hash_leaf(b"a") == hashlib.sha256(b"\x00a").digest()
    assert hash_node(b"l", b"r") == hashlib.sha256(b"\x01lr").digest()


def test_roots_equal_pymerkles_at_every_size() -> None:
    other = InmemoryTree(algorithm="sha256")
    frontier = Frontier()
    for number in range(200):
        entry = number.to_bytes(2, "big")
        other.append_entry(entry)
        frontier.append(hash_leaf(entry))
        assert frontier.root() == other.get_root()


@pytest.mark.parametrize("size", range(34))
def test_frontier_survives_encoding(size: int) -> None:
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.append(leaf)
    copy = Frontier.decode(frontier.encode())
    assert (copy.size, copy.root()) == (size, compute_root(LEAVES[:size]))
    copy.append(LEAVES[0])
    assert copy.root() == compute_root([*LEAVES[:size], LEAVES[0]])
    with pytest.raises(IntegrityError):
        Frontier.decode(frontier.encode() + b"x")


@pytest.mark.parametrize("size", range(1, 34))
def test_every_leaf_proves_its_inclusion_and_no_other_place(size: int) -> None:
    leaves = LEAVES[:size]
    root = compute_root(leaves)
    for index, leaf in enumerate(leaves):
        proof = build_inclusion_proof(leaves, index)
        verify_inclusion(leaf, index, size, proof, root)
        for forged in (
            (hash_leaf(b"x"), index, size, proof, root),
            (leaf, index, size, [*proof, root], root),
            (leaf, index, size, proof, hash_leaf(b"x")),
            (leaf, size, size, proof, root),
        ):
            with pytest.raises(IntegrityError):
                verify_inclusion(*forged)
        if size > 1:
            with pytest.raises(IntegrityError):
                verify_inclusion(leaf, (index + 1) % size, size, proof, root)
            with pytest.raises(IntegrityError):
                verify_inclusion(leaf, index, size, proof[:-1], root)


@pytest.mark.parametrize("second", range(1, 34))
def test_every_earlier_head_is_consistent_and_a_fork_is_not(second: int) -> None:
    leaves = LEAVES[:second]
    root = compute_root(leaves)
    for first in range(1, second + 1):
        proof = build_consistency_proof(leaves, first)
        earlier = compute_root(leaves[:first])
        verify_consistency(first, second, earlier, root, proof)
        fork = compute_root([*leaves[: first - 1], hash_leaf(b"fork")])
        for forged in ((first, second, fork, root, proof), (first, second, earlier, fork, proof)):
            with pytest.raises(IntegrityError):
                verify_consistency(*forged)
        with pytest.raises(IntegrityError):
            verify_consistency(first, second, earlier, root, [*proof, root])
        if proof:
            with pytest.raises(IntegrityError):
                verify_consistency(first, second, earlier, root, proof[:-1])


def test_proofs_for_what_is_not_there_are_refused() -> None:
    with pytest.raises(UsageError):
        build_inclusion_proof(LEAVES, len(LEAVES))
    with pytest.raises(UsageError):
        build_consistency_proof(LEAVES, 0)
    with pytest.raises(IntegrityError):
        verify_consistency(3, 4, compute_root(LEAVES[:3]), compute_root(LEAVES[:4]), [])
    with pytest.raises(IntegrityError):
        verify_consistency(0, 1, EMPTY_ROOT, LEAVES[0], [])


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70), st.data())
def test_any_tree_proves_any_leaf(entries: list[bytes], data: st.DataObject) -> None:
    leaves = [hash_leaf(entry) for entry in entries]
    index = data.draw(st.integers(0, len(leaves) - 1))
    verify_inclusion(leaves[index], index, len(leaves), build_inclusion_proof(leaves, index), compute_root(leaves))


@pytest.mark.parametrize("size", range(1, 34))
def test_a_proof_out_of_leaves_that_pass_by_is_the_same_proof(size: int) -> None:
    for index in range(size):
        path = InclusionPath(index, size)
        for leaf in LEAVES[:size]:
            assert path.at < size
            path.append(leaf)
        assert path.proof() == build_inclusion_proof(LEAVES[:size], index)


def test_a_proof_needs_all_leaves_and_a_leaf() -> None:
    path = InclusionPath(0, 2)
    path.append(LEAVES[0])
    with pytest.raises(UsageError):
        path.proof()
    for index in (-1, 2):
        with pytest.raises(UsageError):
            InclusionPath(index, 2)
