"""The server on PostgreSQL: the delivery tests again, its start and stop, and a database that restarts under load."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import PASSWORD, database_of, postgres_server
from running import Person, Running, Wire
from test_delivery import (  # noqa: F401 - collected here, with this module's `running`
    forge,
    meet,
    test_a_commit_may_be_repeated_and_not_changed,
    test_a_message_is_acknowledged_and_delivered,
    test_a_removed_device_reads_to_its_removal_and_no_further,
    test_a_retry_after_the_epoch_moved_on_still_finds_its_place,
    test_a_retry_gets_the_same_place_and_a_reused_id_is_refused,
    test_a_send_of_another_epoch_is_told_the_current_one,
    test_catch_up_is_complete_in_order_and_recorded,
    test_strangers_and_unknown_conversations_look_alike,
    test_the_first_commit_of_an_epoch_wins,
    test_the_same_id_twice_in_one_batch_is_stored_once,
)
from test_shutdown import test_a_server_starts_again_on_its_data  # noqa: F401 - as above

from curbside.audit.events import EventName
from curbside.cli.audit import open_audit
from curbside.clock import SystemClock
from curbside.crypto.random import random_bytes
from curbside.crypto.x509 import make_authority
from curbside.ids import ConversationId, encode_id
from curbside.mls.group import Group
from curbside.server.database_key import create_key_file
from curbside.wire import frames


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    server = Running(tmp_path, database_url=database_of(tmp_path)).start()
    yield server
    server.stop()


class Sender:
    """A device that sends without a pause, and again what was refused for a while."""

    def __init__(self, group: Group, wire: Wire) -> None:
        self._group, self._wire = group, wire
        self._open: dict[int, bytes] = {}
        self._request = 0
        self.refused: list[bytes] = []
        self.places: dict[bytes, int] = {}
        """Where each acknowledged message stands."""

    async def send(self, *message_ids: bytes) -> None:
        """Send, without waiting for an answer."""
        for message_id in message_ids:
            self._request += 1
            self._open[self._request] = message_id
            name, envelope = encode_id(self._group.group_id), forge(self._group, message_id)
            await self._wire.send(frames.Send(self._request, name, message_id, 1, envelope))

    @property
    def is_answered(self) -> bool:
        """Whether every send was."""
        return not self._open

    async def hear(self) -> None:
        """Take answers until cancelled."""
        while True:
            frame = await self._wire.receive()
            if isinstance(frame, frames.Refused):
                assert frame.code == "store_unavailable"
                self.refused.append(self._open.pop(frame.request))
            for item in frame.items if isinstance(frame, frames.Stored) else ():
                self.places[self._open.pop(item.request)] = item.sequence


async def test_a_database_that_goes_away_under_load_loses_nothing_acknowledged(
    running: Running, alice: Person, bob: Person
) -> None:
    """What was in a commit that the database did not answer is answered when it is back."""
    group, _, wire, _bob_wire = await meet(alice, bob)
    name, sender, database = ConversationId(encode_id(group.group_id)), Sender(group, wire), postgres_server()
    hearing = asyncio.create_task(sender.hear())
    await sender.send(*(random_bytes(16) for _ in range(300)))
    stopping = asyncio.create_task(asyncio.to_thread(database.stop, "immediate"))
    while not stopping.done():
        await sender.send(random_bytes(16))
        await asyncio.sleep(0.01)
    await stopping
    await asyncio.to_thread(database.start)
    while not hearing.done() and (sender.refused or not sender.is_answered):
        again, sender.refused = sender.refused, []
        await sender.send(*again)
        await asyncio.sleep(0.01)
    assert not hearing.done(), hearing.exception()
    hearing.cancel()
    services = running.app.services
    assert services is not None
    rows = running.call(lambda: services.store.read(lambda view: view.delivery.read_entries(name, 1, 10**6, 10**6)))
    assert [row.sequence for row in rows] == list(range(2, len(rows) + 2))
    assert {row.message_id: row.sequence for row in rows} == sender.places, (
        "each message once, where its sender was told"
    )
    assert sum(event.name == EventName.MESSAGE_SENT for event in running.events()) == len(rows)


async def test_a_server_whose_database_went_away_stops_in_time(running: Running, alice: Person, bob: Person) -> None:
    """Also while a commit that nobody answered is in flight."""
    group, _, wire, _bob_wire = await meet(alice, bob)
    sender, database = Sender(group, wire), postgres_server()
    await sender.send(*(random_bytes(16) for _ in range(300)))
    await asyncio.to_thread(database.stop, "immediate")
    try:
        await sender.send(*(random_bytes(16) for _ in range(10)))
        await asyncio.to_thread(running.stop)
    finally:
        await asyncio.to_thread(database.start)


async def test_the_audit_commands_look_beside_a_running_server(running: Running, alice: Person) -> None:
    await alice.begin()
    async with open_audit(running.config) as beside:
        checkpoint = await beside.make_checkpoint()
    services = running.app.services
    assert services is not None
    latest = running.call(lambda: services.store.read(lambda view: view.audit.find_latest_checkpoint()))
    assert latest is not None
    assert latest.size == checkpoint.size > 0


async def test_a_second_server_on_the_database_does_not_start(running: Running, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    second = Running(
        tmp_path / "other", database_url=running.config.database_url, database_key=running.config.database_key
    )
    second.authority = running.authority
    with pytest.raises(RuntimeError):
        second.start()
    second.join()
    assert second.app.failure is not None
    assert "another server" in second.app.failure.detail


def test_serve_checks_the_database_and_never_shows_its_password(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "authority.der").write_bytes(make_authority("Sankt Elsewhere", SystemClock().now()).certificate.raw)
    create_key_file(tmp_path / "database.key")
    url = database_of(tmp_path).reveal().decode()
    outputs = []
    for database_url in (url, url.replace(PASSWORD, PASSWORD + "x"), url.replace("@127.0.0.1", "@[")):
        config = tmp_path / "curbside.toml"
        config.write_text(
            f"""
            data_folder = "{data}"
            public_urls = ["http://localhost:8443"]
            database_key_file = "{tmp_path}/database.key"
            database_url = "{database_url}"
            """
        )
        command = [sys.executable, "-m", "curbside", "serve", "--config", str(config), "--check"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        outputs.append((done.returncode, done.stdout + done.stderr))
    assert [code == 0 for code, _ in outputs] == [True, False, False]
    assert not any("CANARY" in text for _, text in outputs)
    assert "cannot be reached" in outputs[1][1]
    assert "cannot be read" in outputs[2][1]
