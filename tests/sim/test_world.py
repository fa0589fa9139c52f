"""The simulation: whatever breaks, nothing is lost, doubled or out of order."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import World

SEEDS = range(6)
STEPS = 250


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_doubled_or_reordered(seed: int, tmp_path: Path) -> None:
    async with World(seed, tmp_path) as world:
        alice, bob, fiona = [await world.invite(name) for name in ("alice", "bob", "fiona")]
        ward = await world.invite("ward", "bot")
        await world.gather(alice, [bob, fiona, ward])
        await world.gather(bob, [alice, fiona, ward])
        for _ in range(STEPS):
            await world.step()
        await world.settle()
        world.check()
        assert len(world.said) > 30
