"""Message keys: the secret tree and its ratchets, with strict deletion (RFC 9420 section 9). Secret side.

[Note: plan, then spend] Opening a message must not cost a key before the message proved genuine. `plan` computes
a key and everything that has to change, but changes nothing; `spend` makes the change. Between the two the caller
decrypts and verifies. Spending deletes the key, the ratchet secrets before it and the tree secrets above it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, final

from curbside.crypto.suites import Suite
from curbside.errors import Replayed
from curbside.mls import tree_math
from curbside.mls.checks import Check, require
from curbside.mls.codec import Reader, u32, u64, vector, vector_of
from curbside.mls.labels import derive_tree_secret, expand_with_label

HANDSHAKE: Final = 0
APPLICATION: Final = 1
_LABELS: Final = (b"handshake", b"application")
_MAX_GENERATION: Final = 2**32 - 1
_PLACE: Final = struct.Struct(">IBI")
"""Leaf, kind and generation of a saved ratchet."""


@dataclass(frozen=True, slots=True)
class RatchetLimits:
    """How far ahead a sender may be, and how many keys of its skipped messages are kept and how long (seconds)."""

    max_forward: int = 1000
    max_skipped: int = 64
    skipped_seconds: int = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, repr=False)
class SkippedKey:
    """The key of a message that has not come yet: key and nonce only, from which no other key follows."""

    key: bytes
    nonce: bytes
    born: int


@dataclass(frozen=True, slots=True, repr=False)
class Ratchet:
    """The next generation, the secret it comes from, and the skipped keys before it."""

    generation: int
    secret: bytes
    skipped: dict[int, SkippedKey] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """A key with the changes that follow once it is used."""

    generation: int
    key: bytes
    nonce: bytes
    dead_nodes: tuple[int, ...]
    new_nodes: dict[int, bytes]
    ratchets: dict[tuple[int, int], Ratchet]


@final
class SecretTree:
    """The unused secrets of one epoch: tree nodes not yet derived from, and ratchets of leaves seen."""

    __slots__ = ("_nodes", "_ratchets", "leaf_count", "suite")

    def __init__(self, suite: Suite, leaf_count: int, encryption_secret: bytes | None) -> None:
        self.suite = suite
        self.leaf_count = leaf_count
        self._nodes: dict[int, bytes] = {}
        self._ratchets: dict[tuple[int, int], Ratchet] = {}
        if encryption_secret is not None:
            self._nodes[tree_math.root(leaf_count)] = encryption_secret

    def __repr__(self) -> str:
        return "<SecretTree>"

    def _start(self, leaf: int) -> tuple[tuple[int, ...], dict[int, bytes], dict[tuple[int, int], Ratchet]]:
        suite, node = self.suite, 2 * leaf
        path = [node, *tree_math.direct_path(node, self.leaf_count)]
        top = next((i for i, above in enumerate(path) if above in self._nodes), None)
        if top is None:
            raise Replayed
        secret, fresh = self._nodes[path[top]], {}
        for above, below in zip(path[top:0:-1], path[top - 1 :: -1] if top else (), strict=True):
            low, high = tree_math.left(above), tree_math.right(above)
            other = high if below == low else low
            sides = {low: b"left", high: b"right"}
            fresh[other] = expand_with_label(suite, secret, b"tree", sides[other], suite.hash_length)
            secret = expand_with_label(suite, secret, b"tree", sides[below], suite.hash_length)
        ratchets = {
            (leaf, kind): Ratchet(0, expand_with_label(suite, secret, label, b"", suite.hash_length))
            for kind, label in enumerate(_LABELS)
        }
        return (path[top],), fresh, ratchets

    def _key(self, secret: bytes, generation: int) -> tuple[bytes, bytes]:
        suite = self.suite
        key = derive_tree_secret(suite, secret, b"key", generation, suite.key_length)
        return key, derive_tree_secret(suite, secret, b"nonce", generation, suite.nonce_length)

    def _next(self, secret: bytes, generation: int) -> bytes:
        return derive_tree_secret(self.suite, secret, b"secret", generation, self.suite.hash_length)

    def next_generation(self, leaf: int, kind: int) -> int:
        """The generation that the leaf's next message of a kind will have."""
        ratchet = self._ratchets.get((leaf, kind))
        return 0 if ratchet is None else ratchet.generation

    def plan(self, leaf: int, kind: int, generation: int, limits: RatchetLimits, now: int) -> Plan:
        """The key of one message, changing nothing (see the note on top).

        Raises: Replayed when the key is gone; RuleBroken when the generation is too far ahead.
        """
        dead: tuple[int, ...] = ()
        fresh: dict[int, bytes] = {}
        ratchets: dict[tuple[int, int], Ratchet] = {}
        if (leaf, kind) not in self._ratchets:
            dead, fresh, ratchets = self._start(leaf)
        ratchet = ratchets.get((leaf, kind)) or self._ratchets[leaf, kind]
        if generation < ratchet.generation:
            found = ratchet.skipped.get(generation)
            if found is None or now - found.born > limits.skipped_seconds:
                raise Replayed
            kept = {g: s for g, s in ratchet.skipped.items() if g != generation}
            ratchets[leaf, kind] = Ratchet(ratchet.generation, ratchet.secret, kept)
            return Plan(generation, found.key, found.nonce, dead, fresh, ratchets)
        require(generation - ratchet.generation <= limits.max_forward, Check.MESSAGE_FORWARD)
        require(generation < _MAX_GENERATION, Check.MESSAGE_GENERATION)
        secret, skipped = ratchet.secret, dict(ratchet.skipped)
        for earlier in range(ratchet.generation, generation):
            if generation - earlier <= limits.max_skipped:
                skipped[earlier] = SkippedKey(*self._key(secret, earlier), now)
            secret = self._next(secret, earlier)
        while len(skipped) > limits.max_skipped:
            del skipped[min(skipped)]
        key, nonce = self._key(secret, generation)
        ratchets[leaf, kind] = Ratchet(generation + 1, self._next(secret, generation), skipped)
        return Plan(generation, key, nonce, dead, fresh, ratchets)

    def spend(self, plan: Plan) -> None:
        """Make a plan's changes: the key and all it came from are gone."""
        for node in plan.dead_nodes:
            del self._nodes[node]
        self._nodes.update(plan.new_nodes)
        self._ratchets.update(plan.ratchets)

    def expire(self, limits: RatchetLimits, now: int) -> None:
        """Delete skipped keys that are too old."""
        for place, ratchet in self._ratchets.items():
            if ratchet.skipped and any(now - key.born > limits.skipped_seconds for key in ratchet.skipped.values()):
                kept = {g: k for g, k in ratchet.skipped.items() if now - k.born <= limits.skipped_seconds}
                self._ratchets[place] = Ratchet(ratchet.generation, ratchet.secret, kept)

    def copy(self) -> SecretTree:
        """A tree that can be spent apart from this one."""
        twin = SecretTree(self.suite, self.leaf_count, None)
        twin._nodes, twin._ratchets = self._nodes.copy(), self._ratchets.copy()
        return twin

    def without_sender(self, leaf: int) -> SecretTree:
        """What an epoch that is over still needs: nothing of one leaf (one's own), and no handshake ratchets."""
        twin = self.copy()
        if (leaf, HANDSHAKE) not in twin._ratchets:
            dead, fresh, _ = twin._start(leaf)
            twin.spend(Plan(0, b"", b"", dead, fresh, {}))
        twin._ratchets.pop((leaf, APPLICATION), None)
        twin._ratchets = {place: ratchet for place, ratchet in twin._ratchets.items() if place[1] != HANDSHAKE}
        return twin

    def skipped_count(self) -> int:
        """How many skipped keys are kept."""
        return sum(len(ratchet.skipped) for ratchet in self._ratchets.values())

    def encode(self) -> bytes:
        """For saved state."""
        nodes = (u32(node) + vector(secret) for node, secret in sorted(self._nodes.items()))
        ratchets = (
            _PLACE.pack(leaf, kind, ratchet.generation) + vector(ratchet.secret) + _encode_skipped(ratchet)
            for (leaf, kind), ratchet in sorted(self._ratchets.items())
        )
        return u32(self.leaf_count) + vector_of(nodes) + vector_of(ratchets)

    @classmethod
    def read(cls, suite: Suite, reader: Reader) -> SecretTree:
        """Decode. Raises: Malformed."""
        tree = cls(suite, reader.u32(), None)
        tree._nodes = dict(reader.items(lambda inner: (inner.u32(), inner.vector())))
        tree._ratchets = dict(reader.items(_read_ratchet))
        return tree


def _encode_skipped(ratchet: Ratchet) -> bytes:
    if not ratchet.skipped:
        return b"\0"
    return vector_of(
        u32(generation) + vector(skipped.key) + vector(skipped.nonce) + u64(skipped.born)
        for generation, skipped in sorted(ratchet.skipped.items())
    )


def _read_skipped(reader: Reader) -> tuple[int, SkippedKey]:
    return reader.u32(), SkippedKey(reader.vector(), reader.vector(), reader.u64())


def _read_ratchet(reader: Reader) -> tuple[tuple[int, int], Ratchet]:
    place = (reader.u32(), reader.u8())
    return place, Ratchet(reader.u32(), reader.vector(), dict(reader.items(_read_skipped)))
