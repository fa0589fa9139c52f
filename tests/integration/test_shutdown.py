"""Stopping: streams hear why, what was accepted is durable, a second server cannot take the folder meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import Person, Running
from test_delivery import forge, meet

from curbside.audit.events import EventName
from curbside.crypto.random import random_bytes
from curbside.errors import StoreUnavailable
from curbside.ids import ConversationId, encode_id
from curbside.server.database_key import lock_data_folder
from curbside.server.store.sqlite import open_sqlite_store
from curbside.wire import frames


async def test_streams_are_told_to_come_back(running: Running, alice: Person) -> None:
    wire = await alice.connect()
    running.stop()
    closing = await wire.receive(frames.Closing)
    assert closing.code == "draining"
    assert closing.retry_after > 0
    running.start()
    assert (await alice.connect()).ready is not None


async def test_what_was_acknowledged_before_a_stop_is_there_after_it(
    running: Running, alice: Person, bob: Person
) -> None:
    group, _, alice_wire, _bob_wire = await meet(alice, bob)
    name = encode_id(group.group_id)
    for request in range(1, 201):
        message_id = random_bytes(16)
        await alice_wire.send(frames.Send(request, name, message_id, 1, forge(group, message_id)))
    first = await alice_wire.receive(frames.Stored)
    running.stop()
    acknowledged = [item.sequence for item in first.items]
    while not isinstance(frame := await alice_wire.receive(), frames.Closing):
        if isinstance(frame, frames.Stored):
            acknowledged += [item.sequence for item in frame.items]
    store = open_sqlite_store(str(running.config.database_path), running.key)
    rows = await store.read(lambda view: view.delivery.read_entries(ConversationId(name), 1, 10_000, 10_000))
    last = await store.read(lambda view: view.audit.read_events(view.audit.count_events() - 1, 1))
    checkpoint = await store.read(lambda view: view.audit.find_latest_checkpoint())
    await store.close()
    kept = [row.sequence for row in rows]
    assert kept == list(range(2, len(kept) + 2))
    assert set(acknowledged) <= set(kept)
    assert EventName.APP_STOPPED.encode() in last[0].event
    assert checkpoint is not None


def test_one_server_a_data_folder(running: Running, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="another server"), lock_data_folder(running.config.data_folder):
        pass
    running.stop()
    with lock_data_folder(running.config.data_folder):
        second = Running.again(running)
        with pytest.raises(RuntimeError):
            second.start()
        second.join()


async def test_a_server_starts_again_on_its_data(running: Running, alice: Person) -> None:
    group = await alice.begin()
    wire = await alice.connect()
    assert (await wire.say(group, b"one")).sequence == 1
    running.stop()
    running.start()
    wire = await alice.connect()
    assert (await wire.say(group, b"two")).sequence == 2
    found = await wire.sync({encode_id(group.group_id): 0})
    assert [entry.sequence for frame in found for entry in frame.items] == [1, 2]
