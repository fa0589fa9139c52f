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


@pytest.mark.parametrize("seed", range(100, 102))
async def test_who_is_added_in_the_middle_of_trouble_sees_what_came_after(seed: int, tmp_path: Path) -> None:
    async with World(seed, tmp_path) as world:
        alice, bob, olga = [await world.invite(name) for name in ("alice", "bob", "olga")]
        talk = await world.gather(alice, [bob])
        people = {"alice": alice, "bob": bob}
        for _ in range(60):
            await world.step_of(world.dice.choice(list(people.values())), talk)
        while not world.is_in(olga, talk):
            await world.add_late(alice, talk, olga)
            for _ in range(60):
                await world.step_of(world.dice.choice(list(people.values())), talk)
            await world.settle()
        people["olga"] = olga
        for _ in range(80):
            await world.step_of(world.dice.choice(list(people.values())), talk)
        await world.settle()
        world.check()
        assert len(olga.transcript(talk)) > 5
