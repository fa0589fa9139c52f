"""What is to be measured: on which backends, how much, and whether the machine lets us."""

from __future__ import annotations

from dataclasses import dataclass

from bench.target import BACKENDS, RELAY

NOISY_SHARE = 0.2
"""A run counts as quiet when others had at most this share of the server's core."""
LOAD_LIMIT_PERCENT = 85.0
"""Above this share of its core the load generator, not the server, may be what is measured."""


@dataclass(frozen=True)
class Plan:
    """is_quick: tiny sizes, one run, no budgets. backends: with or without the relay, which is the reference."""

    is_quick: bool = False
    backends: tuple[str, ...] = BACKENDS
    is_pinned: bool = False

    @property
    def ours(self) -> tuple[str, ...]:
        """The backends without the reference."""
        return tuple(name for name in self.backends if name != RELAY)


@dataclass(frozen=True)
class Sizes:
    """pairs: direct conversations. members: of the group. seconds: of each run. conversations, missed: of the catch-up:
    how many, and messages in each. connections: that are idle; fewer_connections: the same on a shared database. kills:
    of a backend under load."""

    runs: int
    seconds: float
    pairs: int
    members: int
    conversations: int
    missed: int
    connections: int
    fewer_connections: int
    kills: int


FULL = Sizes(
    3, 2.5, pairs=100, members=50, conversations=100, missed=100, connections=2_000, fewer_connections=500, kills=3
)
QUICK = Sizes(1, 0.2, pairs=2, members=3, conversations=2, missed=3, connections=20, fewer_connections=20, kills=1)


def sizes_of(plan: Plan) -> Sizes:
    """How much is done."""
    return QUICK if plan.is_quick else FULL
