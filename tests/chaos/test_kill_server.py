"""kill -9 at any moment: what was acknowledged is there, nothing is there twice, the audit log holds.

CHAOS_KILLS says how many kills, CHAOS_SEED which moments.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from load import Load
from serving_process import ServingProcess
from trial import KILLS, SEED

from curbside.client.device import Device
from curbside.wire import frames

HASTY_KILLS = 6
HASTY = (str(Path(__file__).with_name("hasty_server.py")),)
PASSPHRASE = "violet kettle marching 47 otters"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServingProcess]:
    made = ServingProcess(tmp_path / "ward")
    made.start()
    yield made
    made.close()


async def kill_and_restart(server: ServingProcess, dice: random.Random) -> None:
    """Wait a moment that the dice choose, kill, start again."""
    await asyncio.sleep(0.05 + dice.random() * 0.8)
    server.kill()
    await asyncio.to_thread(server.start)


async def test_what_was_acknowledged_survives_every_kill(server: ServingProcess) -> None:
    dice = random.Random(SEED)
    load = await Load.begin(server)
    running = load.start()
    try:
        for _ in range(KILLS):
            await load.wait_for(50)
            await kill_and_restart(server, dice)
            assert await load.faults(complete=False) == [], f"after kill {server.kills}, seed {SEED}"
        assert await load.finish(running) == [], f"in the end, seed {SEED}"
        assert server.kills == KILLS
        assert len(load.ledger.told) > KILLS * 50
        assert load.ledger.missing() == []
        assert not [r for s in load.senders for r in s.refusals if r.code != "store_unavailable"]
    finally:
        await load.close(running)
    assert server.stop() == 0
    assert "verified" in server.verify_audit().lower()


async def test_devices_lose_nothing_to_kills_and_show_one_order(server: ServingProcess, tmp_path: Path) -> None:
    """Real devices: each line once, in the same order on both, however often the server died under them."""
    dice = random.Random(SEED + 1)
    joined = [
        await Device.join(tmp_path / f"{name}.vault", server.link(), name, PASSPHRASE) for name in ("Ang", "Berg")
    ]
    async with joined[0] as ang, joined[1] as berg:
        arriving = berg.events()
        conversation = await ang.start_conversation([berg.user_id])
        async with asyncio.timeout(30):
            assert (await anext(arriving)).kind == "joined"
        stop = asyncio.Event()
        said: dict[str, list[str]] = {"Ang": [], "Berg": []}

        async def talk(device: Device) -> None:
            while not stop.is_set():
                text = f"{device.name} {len(said[device.name])}"
                await device.send_text(conversation, text)
                said[device.name].append(text)
                await asyncio.sleep(0.02)

        talking = [asyncio.create_task(talk(device)) for device in (ang, berg)]
        for _ in range(max(2, KILLS // 2)):
            await kill_and_restart(server, dice)
        stop.set()
        await asyncio.gather(*talking)
        everything = sorted(said["Ang"] + said["Berg"])

        def seen(device: Device) -> list[str]:
            messages = device.messages(conversation, limit=100_000)
            return [m.text for m in messages if m.kind == "text" and m.sequence]

        deadline = asyncio.get_running_loop().time() + 60
        while not sorted(seen(ang)) == everything == sorted(seen(berg)):
            assert asyncio.get_running_loop().time() < deadline, (len(everything), len(seen(ang)), len(seen(berg)))
            await asyncio.sleep(0.05)
        assert seen(ang) == seen(berg)
        assert len(everything) > 20
        for name, lines in said.items():
            assert [line for line in seen(ang) if line.startswith(name)] == lines


async def test_a_server_that_answers_too_early_is_caught(tmp_path: Path) -> None:
    """The same check fails, within a few kills, on a server that acknowledges before it commits."""
    server = ServingProcess(tmp_path / "ward", HASTY)
    dice = random.Random(SEED)
    try:
        server.start()
        load = await Load.begin(server)
        running = load.start()
        try:
            faults: list[str] = []
            while not faults and server.kills < HASTY_KILLS:
                await load.wait_for(20)
                await asyncio.sleep(dice.random() * 0.5)
                server.kill()
                log = await server.read_log(load.senders[0].conversation, load.first)
                faults = load.ledger.check(log, first=load.first, complete=False)
                await asyncio.to_thread(server.start)
        finally:
            await load.close(running)
    finally:
        server.close()
    assert any("acknowledged" in fault for fault in faults), f"not caught in {server.kills} kills"


async def test_a_stop_under_load_says_goodbye_and_loses_nothing(server: ServingProcess) -> None:
    """Who listens hears why. A sender in full flow may find the connection gone before it has read the farewell (TCP
    drops what is unread when the other side still has our bytes unread); it does as on a farewell: come back."""
    load = await Load.begin(server)
    running = load.start()
    try:
        await load.wait_for(100)
        wire = await load.reader.connect()
        assert await asyncio.to_thread(server.stop) == 0
        closing = await wire.receive(frames.Closing)
        assert (closing.code, closing.retry_after > 0) == ("draining", True)
        await asyncio.to_thread(server.start)
        assert await load.faults(complete=False) == []
        assert await load.finish(running) == []
        assert {c.code for sender in load.senders for c in sender.closings} <= {"draining"}
    finally:
        await load.close(running)
    assert server.stop() == 0
    assert "verified" in server.verify_audit().lower()
