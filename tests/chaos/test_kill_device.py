"""kill -9 of a device between saving and sending: what its person was shown as written arrives once, in order."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_process import ServingProcess

from curbside.client.device import Device

KILLS = int(os.environ.get("CHAOS_KILLS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
SCRIPT = Path(__file__).with_name("sending_device.py")
PASSPHRASE = "violet kettle marching 47 otters"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServingProcess]:
    made = ServingProcess(tmp_path / "ward")
    made.start()
    yield made
    made.close()


def write_and_die(vault: Path, conversation: str, number: int, lines: int) -> list[str]:
    """Run the device until it has written some lines, kill it; all lines that it told of."""
    command = [sys.executable, str(SCRIPT), str(vault), conversation, str(number)]
    environment = {**os.environ, "CURBSIDE_PASSPHRASE": PASSPHRASE}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().rstrip("\n") for _ in range(lines)]
        process.kill()
        told += process.stdout.read().split("\n")
    complete = [line for line in told if line.startswith(f"round {number}, line ")]
    assert len(complete) >= lines
    return complete


async def test_a_device_that_is_killed_sends_what_it_saved_once(server: ServingProcess, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    path = tmp_path / "ang.vault"
    writer = await Device.join(path, server.link(), "Ang", PASSPHRASE)
    reader = await Device.join(tmp_path / "berg.vault", server.link(), "Berg", PASSPHRASE)
    async with writer:
        conversation = await writer.start_conversation([reader.user_id])
    told: list[str] = []
    async with reader:
        for number in range(KILLS):
            lines = 1 + dice.randrange(20)
            told += await asyncio.to_thread(write_and_die, path, conversation, number, lines)
        async with await Device.open(path, PASSPHRASE) as again:
            last = await again.send_text(conversation, "the last line")
            await again.wait_until_sent(last)
            kept = [m.text for m in again.messages(conversation, limit=100_000) if m.kind == "text"]
        arriving = reader.events()
        async with asyncio.timeout(60):
            while "the last line" not in (seen := [m.text for m in reader.messages(conversation, limit=100_000)]):
                await anext(arriving)
    assert seen == kept
    assert len(set(seen)) == len(seen)
    assert [line for line in seen if line in set(told)] == told
    assert len(seen) - len(told) <= KILLS + 1, "a line may be saved and not told, one for each kill"
