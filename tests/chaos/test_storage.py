"""A full disk, a database that another process holds: refused by name, nothing acknowledged is lost, it heals."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from load import Load
from serving_process import SERVE, ServingProcess
from trial import KILLS, run_trial

SMALL_DISK_MIB = 12
ROOMY_DISK_MIB = 256
BALLAST_MIB = 6
BLOCKS = (bytes(1 << 20), bytes(4096))
CRAMPED = (str(Path(__file__).with_name("cramped_server.py")),)


@contextmanager
def mount_disk(folder: Path, mib: int) -> Iterator[Path | None]:
    """A file system with room for little; None where this process may not mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """Full after a few hundred messages."""
    with mount_disk(tmp_path / "disk", SMALL_DISK_MIB) as disk:
        yield disk


@pytest.fixture
def roomy_disk(tmp_path: Path) -> Iterator[Path | None]:
    """Full when something else fills it."""
    with mount_disk(tmp_path / "disk", ROOMY_DISK_MIB) as disk:
        yield disk


def fill_up(ballast: Path) -> None:
    """Take every block that is left."""
    with ballast.open("ab", buffering=0) as file:
        for block in BLOCKS:
            with suppress(OSError):
                while file.write(block) == len(block):
                    pass


async def refusals(load: Load, code: str) -> None:
    """Returns when every sender was refused with this code."""
    async with asyncio.timeout(90):
        while not all(any(r.code == code for r in sender.refusals) for sender in load.senders):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def fill_and_heal(server: ServingProcess, fill: Callable[[], object], make_room: Callable[[], object]) -> None:
    """Send until the store is full, make room, go on to the end.

    Nobody can read meanwhile: a reading that cannot be written into the audit log is refused.
    """
    load = await Load.begin(server)
    running = load.start()
    try:
        await load.wait_for(50)
        fill()
        await refusals(load, "storage_full")
        before = len(load.ledger.told)
        make_room()
        await load.wait_for(100)
        assert await load.finish(running) == []
        assert len(load.ledger.told) > before
        assert {r.code for sender in load.senders for r in sender.refusals} == {"storage_full"}
    finally:
        await load.close(running)
    assert server.stop() == 0
    server.start()
    assert server.stop() == 0
    assert "verified" in server.verify_audit().lower()


async def test_a_full_disk_refuses_by_name_and_heals(tmp_path: Path, small_disk: Path | None) -> None:
    """A real full file system; without the right to mount one, SQLite's own bound on the size of a database."""
    fill: Callable[[], object]
    if small_disk is None:
        server = ServingProcess(tmp_path / "ward", CRAMPED)
        fill, make_room = (server.folder / "full").touch, (server.folder / "full").unlink
    else:
        server = ServingProcess(small_disk / "ward", SERVE)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(BALLAST_MIB << 20))
        fill, make_room = small_disk.stat, ballast.unlink
    server.start()
    try:
        await fill_and_heal(server, fill, make_room)
    finally:
        server.close()


async def test_a_database_that_may_not_grow_refuses_by_name_and_heals(tmp_path: Path) -> None:
    """The same where the engine itself says that it is full."""
    server = ServingProcess(tmp_path / "ward", CRAMPED)
    server.start()
    try:
        await fill_and_heal(server, (server.folder / "full").touch, (server.folder / "full").unlink)
    finally:
        server.close()


async def test_kills_while_the_disk_is_full(tmp_path: Path, roomy_disk: Path | None) -> None:
    if roomy_disk is None:
        server = ServingProcess(tmp_path / "ward", CRAMPED)
        full = server.folder / "full"
    else:
        server = ServingProcess(roomy_disk / "ward", SERVE)
        full = roomy_disk / "ballast"

    async def kill(dice: random.Random) -> None:
        await asyncio.sleep(dice.random() * 0.3)
        fill_up(full) if roomy_disk else full.touch()
        await asyncio.sleep(dice.random() * 0.8)
        server.kill()
        full.unlink()
        await asyncio.to_thread(server.start)

    server.start()
    try:
        load = await run_trial(server, kill, frozenset({"storage_full", "store_unavailable"}))
    finally:
        server.close()
    assert server.kills == KILLS
    refused = {r.code for sender in load.senders for r in sender.refusals}
    assert "storage_full" in refused, "it was full now and then; the engine does not always know why it failed"


async def test_a_database_that_another_process_holds(tmp_path: Path) -> None:
    server = ServingProcess(tmp_path / "ward")
    server.start()
    load = await Load.begin(server)
    running = load.start()
    try:
        await load.wait_for(20)
        with server.locked_database():
            await refusals(load, "store_unavailable")
            told = len(load.ledger.told)
            await asyncio.sleep(0.5)
            assert len(load.ledger.told) == told, "something was acknowledged while nothing could be written"
        await load.wait_for(50)
        assert await load.finish(running) == []
        assert {r.code for sender in load.senders for r in sender.refusals} == {"store_unavailable"}
    finally:
        await load.close(running)
        server.close()
