"""Two nodes, PostgreSQL and NATS: each of them ends or falls silent under load, again and again.

CHAOS_KILLS says how often, CHAOS_SEED at which moments.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from clustered import CabledCluster, ClusterUnderLoad
from lines import Line
from postgres import postgres_server
from trial import KILLS, run_trial

AWAY_SECONDS = 1.5
"""How long something stays away at most."""
MAY_REFUSE = frozenset({"store_unavailable"})


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster") as made:
        yield made


@pytest.fixture
def cabled(tmp_path: Path) -> Iterator[CabledCluster]:
    with CabledCluster(tmp_path / "cluster") as made:
        yield made


async def test_a_node_is_killed(cluster: Cluster) -> None:
    async def kill(dice: random.Random) -> None:
        node = dice.choice(cluster.nodes)
        await asyncio.sleep(dice.random() * 0.5)
        node.kill()
        await asyncio.to_thread(node.start)

    await run_trial(ClusterUnderLoad(cluster), kill, MAY_REFUSE)


async def test_nodes_are_drained_and_replaced_one_after_another(cluster: Cluster) -> None:
    turn = 0

    async def replace(dice: random.Random) -> None:
        nonlocal turn
        node = cluster.nodes[turn % len(cluster.nodes)]
        turn += 1
        await asyncio.sleep(dice.random() * 0.3)
        assert await asyncio.to_thread(node.stop) == 0
        await asyncio.to_thread(node.start)

    load = await run_trial(ClusterUnderLoad(cluster), replace)
    assert turn == KILLS
    assert {closing.code for sender in load.senders for closing in sender.closings} == {"draining"}


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_postgresql_is_restarted(cluster: Cluster, mode: str) -> None:
    async def restart(dice: random.Random) -> None:
        await asyncio.sleep(dice.random() * 0.5)
        await asyncio.to_thread(postgres_server().restart, mode)

    await run_trial(ClusterUnderLoad(cluster), restart, MAY_REFUSE)


async def test_nats_is_killed(cluster: Cluster) -> None:
    nats = cluster.nats
    assert nats is not None

    async def kill(dice: random.Random) -> None:
        await asyncio.sleep(dice.random() * 0.5)
        nats.kill()
        await asyncio.sleep(dice.random() * AWAY_SECONDS)
        await asyncio.to_thread(nats.start)

    await run_trial(ClusterUnderLoad(cluster), kill)


async def test_nats_falls_silent(cluster: Cluster) -> None:
    nats = cluster.nats
    assert nats is not None

    async def freeze(dice: random.Random) -> None:
        nats.freeze()
        await asyncio.sleep(dice.random() * AWAY_SECONDS)
        nats.thaw()

    await run_trial(ClusterUnderLoad(cluster), freeze)


async def test_cables_of_one_node_are_cut_or_pulled(cabled: CabledCluster) -> None:
    """The node loses the database or the bus, with a reset or in silence; the other node goes on."""

    async def unplug(dice: random.Random) -> None:
        cable: Line = dice.choice([cabled.cables.database, cabled.cables.bus])
        dice.choice([cable.cut, cable.stall])()
        await asyncio.sleep(dice.random() * AWAY_SECONDS)
        cable.mend()

    await run_trial(ClusterUnderLoad(cabled), unplug, MAY_REFUSE)
