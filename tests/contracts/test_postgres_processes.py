"""Two processes write everything at once to one PostgreSQL, whose connections are cut and which restarts."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres import database_of, postgres_server
from test_postgres import ask
from test_store import KEY, begin, new_id
from test_store_identity import device, user

from curbside.audit.merkle import Frontier
from curbside.crypto.secret import SecretBytes
from curbside.ids import ConversationId, DeviceId
from curbside.server.store.ports import Change, Store
from curbside.server.store.postgres import open_postgres_store
from curbside.server.store.postgres_open import PostgresSettings
from curbside.server.store.records import KeyPackageRecord, QueueRecord

PROCESSES = 2
CUTS = 12
_CUT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'curbside' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 3"""
_LOAD = Path(__file__).parent.parent / "support" / "store_load.py"


async def prepare(store: Store, url: SecretBytes) -> dict[str, Any]:
    """Conversations, devices to end, a device with many key packages."""
    names = [await begin(store) for _ in range(8)]
    person = user()
    devices = [device(person) for _ in range(60)]
    giver = devices[-1].device_id

    def change(tx: Change) -> None:
        tx.identity.add_user(person, b"record")
        for each in devices:
            tx.identity.add_device(each)
        tx.identity.add_key_packages([KeyPackageRecord(giver, b"%d" % number) for number in range(3000)])

    await store.write(change)
    return {
        "url": url.reveal().decode(),
        "key": KEY.reveal().hex(),
        "conversations": names,
        "devices": [each.device_id for each in devices[:-1]],
        "giver": giver,
        "reader": new_id(),
    }


class Watcher:
    """Looks on: what a device reads from its queue, and the audit log as it was seen at some moments."""

    def __init__(self, store: Store, reader: DeviceId) -> None:
        self._store = store
        self._reader = reader
        self.queue: list[QueueRecord] = []
        self.heads: list[tuple[int, bytes]] = []

    async def look(self) -> None:
        """Once."""
        after = self.queue[-1].position if self.queue else 0
        self.queue += await self._store.read(lambda view: view.delivery.read_queue(self._reader, after, 10**6))
        leaves = await self._store.read(lambda view: view.audit.read_leaf_hashes(0, 10**7))
        self.heads.append((len(leaves), compute_root(leaves)))

    async def look_on(self) -> None:
        """Until it is cancelled, whatever happens to the database."""
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - the database is away
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)


def compute_root(leaves: list[bytes]) -> bytes:
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


async def disturb(settings: PostgresSettings, watcher: Watcher, mode: str) -> None:
    """Cut connections, restart the server, cut connections; between any two a look at what is there succeeds."""
    for number in range(CUTS):
        if number == CUTS // 2:
            await asyncio.to_thread(postgres_server().restart, mode)
        else:
            assert ask(settings, _CUT)
        seen = len(watcher.heads)
        while len(watcher.heads) < seen + 2:  # noqa: ASYNC110 - other processes are waited for
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_two_processes_through_lost_connections_and_a_restart(tmp_path: Path, mode: str) -> None:
    settings = PostgresSettings(database_of(tmp_path), is_shared=True)
    store = open_postgres_store(settings, KEY)
    plan = await prepare(store, settings.url)
    (tmp_path / "plan").write_text(json.dumps(plan))
    watcher = Watcher(store, DeviceId(plan["reader"]))
    watching = asyncio.create_task(watcher.look_on())
    processes = [
        subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, str(_LOAD), str(tmp_path / "plan"), str(tmp_path / f"told{number}")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        await disturb(settings, watcher, mode)
        await asyncio.gather(*(asyncio.to_thread(process.communicate, "stop\n") for process in processes))
    finally:
        for process in processes:
            process.kill()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert [process.returncode for process in processes] == [0] * PROCESSES
    await watcher.look()
    told = [json.loads((tmp_path / f"told{number}").read_text()) for number in range(PROCESSES)]
    await check_logs(store, plan, told)
    await check_audit(store, watcher, told)
    await check_once(watcher, plan, told, settings)
    await store.close()


async def check_logs(store: Store, plan: dict[str, Any], told: list[dict[str, Any]]) -> None:
    """Gap-free; each acknowledged message once, at its place; a sender's messages in its order."""
    places = {message_id: tuple(place) for each in told for message_id, place in each["places"].items()}
    stored: dict[str, tuple[str, int]] = {}
    commits = set()
    for name in plan["conversations"]:
        rows = await store.read(
            lambda view, name=name: view.delivery.read_entries(ConversationId(name), 0, 10**9, 10**7)  # type: ignore[misc]
        )
        assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
        ids = [row.message_id.hex() for row in rows]
        assert len(ids) == len(set(ids)), "nothing is there twice"
        stored |= {row.message_id.hex(): (name, row.sequence) for row in rows if row.kind == 0}
        commits |= {(name, epoch, row.sequence) for epoch, row in enumerate(row for row in rows if row.kind == 1)}
    assert stored == places, "what was acknowledged is there, and nothing else"
    assert commits == {tuple(commit) for each in told for commit in each["commits"]}
    for sent in (sent for each in told for sent in each["in_order"]):
        for name in plan["conversations"]:
            own = [places[message_id][1] for message_id in sent if places[message_id][0] == name]
            assert own == sorted(own)


async def check_audit(store: Store, watcher: Watcher, told: list[dict[str, Any]]) -> None:
    """Each event of what was acknowledged once, none of what was refused; the log only ever grew at its end."""
    records = await store.read(lambda view: view.audit.read_events(0, 10**7))
    assert [record.sequence for record in records] == list(range(len(records)))
    assert all(record.leaf_hash == hashlib.sha256(b"\0" + record.event).digest() for record in records)
    markers = [json.loads(record.event)["object_id"] for record in records]
    assert sorted(markers) == sorted(marker for each in told for marker in each["kept"])
    assert not set(markers) & {marker for each in told for marker in each["lost"]}
    leaves = [record.leaf_hash for record in records]
    assert len(watcher.heads) > CUTS
    for size, root in watcher.heads[:: max(1, len(watcher.heads) // 20)] + watcher.heads[-1:]:
        assert compute_root(leaves[:size]) == root


async def check_once(
    watcher: Watcher, plan: dict[str, Any], told: list[dict[str, Any]], settings: PostgresSettings
) -> None:
    """Each key package went to one, each device was ended by one, and each Welcome was read."""
    claimed = [package for each in told for package in each["claimed"]]
    assert len(claimed) == len(set(claimed)) > 0
    revoked = [device_id for each in told for device_id in each["revoked"]]
    assert len(revoked) == len(set(revoked)) > 0
    with psycopg.connect(settings.url.reveal().decode()) as connection:
        rows = connection.execute("SELECT device_id FROM devices WHERE revoked_at = 7").fetchall()
        assert {device_id for (device_id,) in rows} == set(revoked)
        found = connection.execute("SELECT position FROM queue_items ORDER BY position").fetchall()
    assert [item.position for item in watcher.queue] == [position for (position,) in found]
    assert len(found) == sum(len(each["commits"]) for each in told)
