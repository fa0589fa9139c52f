"""Two servers behind a real proxy are restarted one after the other while people talk: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster
from fronts import Certificate, Front, FrontPlan, run_caddy, run_nginx
from running import free_port
from ward import eventually

from curbside.cli.invite import create_invite, upload_invites
from curbside.client.device import Device
from curbside.client.network import Internet

PASSPHRASE = "violet kettle marching 47 otters"


async def restart_all(cluster: Cluster) -> None:
    """As docs/deploy.md says: each when the one before is ready again."""
    for node in cluster.nodes:
        node.terminate()
        assert await asyncio.to_thread(node.wait) == 0
        await asyncio.to_thread(node.start)


async def join(cluster: Cluster, origin: str, trusted: Path, vault: Path) -> Device:
    """Somebody who signs up through the proxy."""
    invite = create_invite(cluster.authority, origin, "nurse", 3600, cluster.clock.now())
    await upload_invites(origin, [invite.deposit], str(trusted))
    return await Device.join(vault, invite.link, vault.name, PASSPHRASE, network=Internet(str(trusted)))


@pytest.mark.parametrize("run", [run_nginx, run_caddy])
async def test_a_rolling_restart_loses_nothing(
    run: Callable[[FrontPlan], Front], tmp_path: Path, root: Path, certificate: Certificate
) -> None:
    port = free_port()
    origin = f"https://localhost:{port}"
    cluster = Cluster(tmp_path / "own", nodes=2, PROXY_TRUSTED="127.0.0.1", DRAIN_NOTICE_SECONDS="0.5")
    cluster._more["PUBLIC_URLS"] = " ".join([origin, *(node.url for node in cluster.nodes)])
    work = tmp_path / "front"
    work.mkdir()
    plan = FrontPlan(root / "deploy/proxies", work, port, tuple(node.port for node in cluster.nodes), certificate)
    with cluster, run(plan):
        ada = await join(cluster, origin, certificate.chain, tmp_path / "ada")
        bea = await join(cluster, origin, certificate.chain, tmp_path / "bea")
        async with ada, bea:
            await ada.connection.wait_caught_up()
            await bea.connection.wait_caught_up()
            group = await ada.start_conversation([bea.user_id], title="Ward 4")
            restarting = asyncio.create_task(restart_all(cluster))
            said: list[str] = []
            while not restarting.done() or len(said) < 20:
                said.append(f"line {len(said)}")
                await ada.send_text(group, said[-1])
                await asyncio.sleep(0.1)
            await restarting

            def heard(device: Device) -> list[str]:
                known = {each.id for each in device.conversations()}
                found = device.messages(group, limit=10_000) if group in known else []
                return [message.text for message in found if message.text.startswith("line ")]

            await eventually(lambda: len(heard(bea)) >= len(said), 120)
            assert heard(bea) == said
            assert heard(ada) == said
