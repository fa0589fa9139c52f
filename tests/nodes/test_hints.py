"""What a node does with the bus's messages when they are doubled, out of order, incomplete or beside the truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from postgres import database_of
from running import Person, Running, Wire
from test_nodes import read_entries
from ward import eventually

from curbside.audit.events import EventName
from curbside.crypto.random import random_bytes
from curbside.ids import ConversationId, DeviceId, encode_id
from curbside.mls.group import Group
from curbside.server.bus import BusMessage, DeviceEnded, EntriesAdded, Hello, QueueFilled, Signalled, StreamOpened
from curbside.server.fanout import Listener, encode_entry
from curbside.server.node_settings import Bus
from curbside.wire import frames


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    """Two servers on one database without NATS, which hardly ever look into it by themselves."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    shared = {
        "database_url": database_of(tmp_path),
        "blobs_folder": tmp_path / "blobs",
        "bus": Bus(shared=True, poll_seconds=4, sweep_seconds=4),
    }
    first = Running(folders[0], **shared).start()
    second = Running(folders[1], **shared, database_key=first.config.database_key)
    second.authority = first.authority
    (second.config.data_folder / "authority.der").write_bytes(first.authority.certificate.raw)
    second.start()
    yield first, second
    second.stop()
    first.stop()


def hear(node: Running, *messages: BusMessage) -> None:
    """As if the bus had brought them."""

    async def take() -> None:
        services = node.app.services
        assert services is not None
        for message in messages:
            services.nodes.heard(message)

    node.call(take)


async def meet(alice: Person, bob: Person) -> tuple[Group, Wire, Wire]:
    """A conversation of two, both caught up."""
    group = await alice.begin()
    added = await alice.add(group, bob)
    name = encode_id(group.group_id)
    wires = [await person.connect() for person in (alice, bob)]
    for wire in wires:
        await wire.sync({name: added.sequence})
    return group, wires[0], wires[1]


async def find_listener(node: Running, person: Person) -> Listener | None:
    """The device's connection, as delivery sees it."""
    services = node.app.services
    assert services is not None
    return services.fanout.find_listener(DeviceId(person.device_id))


async def test_hints_in_any_order_become_a_log_in_order(nodes: tuple[Running, Running]) -> None:
    here, there = nodes
    alice, bob = await Person.join(there, "Alice Ang"), await Person.join(here, "Bob Berg")
    group, alice_wire, bob_wire = await meet(alice, bob)
    name = ConversationId(encode_id(group.group_id))
    for number in range(10):
        assert isinstance(await alice_wire.say(group, b"%d" % number), frames.StoredItem)
    services = there.app.services
    assert services is not None
    rows = there.call(lambda: services.store.read(lambda view: view.delivery.read_entries(name, 1, 100, 100)))
    told = {row.sequence: encode_entry(row) for row in rows}

    def added(first: int, last: int) -> EntriesAdded:
        return EntriesAdded(name, first, last, [told[n] for n in range(first, last + 1)], is_handshake=False)

    hear(here, added(2, 3), added(2, 2), added(3, 3))  # twice
    heard = await read_entries(bob_wire, 2)
    hear(here, added(5, 5), added(4, 4))  # overtaken
    heard += await read_entries(bob_wire, 2)
    hear(here, added(8, 8))  # 6 and 7 were lost
    heard += await read_entries(bob_wire, 3 if len(heard) == 4 else 7 - len(heard))
    hear(here, EntriesAdded(name, 9, 9, [], is_handshake=False), added(6, 7), added(2, 11))  # too large; late; again
    heard += await read_entries(bob_wire, 10 - len(heard))
    assert [entry.sequence for entry in heard] == list(range(2, 12))
    assert [entry.envelope for entry in heard] == [row.envelope for row in rows]
    delivered = {
        sequence
        for event in here.events()
        if event.name == EventName.MESSAGE_DELIVERED and event.actor_device == bob.device_id
        for sequence in range(int(event.extra["from_index"]), int(event.extra["to_index"]) + 1)
        if event.object_id == name
    }
    assert delivered >= set(range(2, 12))
    for person in (alice, bob):
        await person.close()


async def test_hints_give_no_right_and_end_nothing_that_lasts(nodes: tuple[Running, Running]) -> None:
    here, there = nodes
    alice, bob = await Person.join(there, "Alice Ang"), await Person.join(here, "Bob Berg")
    carol = await Person.join(here, "Carol Chen")
    group, alice_wire, bob_wire = await meet(alice, bob)
    name = ConversationId(encode_id(group.group_id))
    carol_wire = await carol.connect()
    await carol_wire.send(frames.Sync({name: 0}, 0))  # a stranger who listens
    refused = await carol_wire.receive(frames.Refused)
    assert refused.code == "not_found"
    made_up = frames.Entry(name, 2, frames.KIND_APPLICATION, random_bytes(16), 1, b"made up")
    user = alice.newcomer.user_id
    hear(
        here,
        EntriesAdded(name, 9, 9, [], is_handshake=False),  # there is no such entry
        EntriesAdded(name, 7, 7, [msgspec.msgpack.encode(made_up)], is_handshake=False),  # nor this one
        DeviceEnded(DeviceId(bob.device_id)),  # it has not
        StreamOpened(DeviceId(bob.device_id), 0),  # an old one
        QueueFilled(DeviceId(bob.device_id)),  # it is empty
        Signalled(name, user, DeviceId(carol.device_id), frames.SIGNAL_TYPING, here.clock.now_ms()),  # no member
        Signalled(name, user, DeviceId(alice.device_id), frames.SIGNAL_TYPING, 1),  # long over
        Signalled(name, user, DeviceId(alice.device_id), 77, here.clock.now_ms()),  # no such kind
        Hello("x" * 22, is_leaving=True),
    )
    listener = await find_listener(here, bob)
    assert listener is not None
    await eventually(lambda: listener.is_live(name))  # it looked, found nothing more, and waits again
    stored = await alice_wire.say(group, b"the truth")
    (entry,) = await read_entries(bob_wire, 1)
    assert (entry.sequence, stored.sequence) == (2, 2)
    assert entry.envelope != b"made up"
    assert await bob_wire.sync({name: 2}) == []
    assert not any(isinstance(frame, frames.Entries) for frame in await carol_wire.sync())
    for person in (alice, bob, carol):
        await person.close()


async def test_a_device_that_is_over_is_looked_up(nodes: tuple[Running, Running]) -> None:
    here, there = nodes
    bob = await Person.join(here, "Bob Berg")
    wire = await bob.connect()
    await wire.sync()
    services = there.app.services
    assert services is not None
    device_id = DeviceId(bob.device_id)
    there.call(lambda: services.store.write(lambda tx: tx.identity.revoke_device(device_id, there.clock.now())))
    hear(here, DeviceEnded(device_id))
    closing = await wire.receive(frames.Closing)
    assert closing.code == "device_revoked"
    await bob.close()
