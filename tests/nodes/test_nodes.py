"""Two nodes, one organisation: whatever happens on one is known on the other, and nothing is lost or said twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest_asyncio
from cluster import Cluster, Node, move, until
from running import Person, Wire

from curbside.audit.events import EventName
from curbside.crypto.kdf import compute_hash
from curbside.crypto.random import random_bytes
from curbside.ids import decode_base64url, encode_base64url, encode_id
from curbside.mls.group import CommitRequest, Group
from curbside.wire import bodies, frames


@pytest_asyncio.fixture
async def alice(cluster: Cluster) -> AsyncIterator[Person]:
    """On the first node."""
    person = await Person.join(cluster.nodes[0], "Alice Ang")  # type: ignore[arg-type]
    yield person
    await person.close()


@pytest_asyncio.fixture
async def bob(cluster: Cluster) -> AsyncIterator[Person]:
    """On the second node."""
    person = await Person.join(cluster.nodes[1], "Bob Berg")  # type: ignore[arg-type]
    yield person
    await person.close()


async def meet(alice: Person, bob: Person) -> tuple[Group, Group, Wire, Wire]:
    """A conversation of two, both connected and caught up; the Welcome came while Bob was connected."""
    bob_wire = await bob.connect()
    await bob_wire.sync()
    group = await alice.begin()
    appended = await alice.add(group, bob)
    name = encode_id(group.group_id)
    alice_wire = await alice.connect()
    await alice_wire.sync({name: appended.sequence})
    queue = await bob_wire.receive(frames.QueueItems)
    joined = bob.welcome(queue.items[0])
    assert await bob_wire.sync({name: queue.items[0].sequence}, queue.items[0].position) == []
    return group, joined, alice_wire, bob_wire


async def read_entries(wire: Wire, count: int) -> list[frames.Entry]:
    """The next entries that come live, in as many frames as it takes; signals between them are passed over."""
    found: list[frames.Entry] = []
    while len(found) < count:
        frame = await wire.receive()
        if isinstance(frame, frames.Entries):
            found += frame.items
    return found


def told(node: Node) -> float:
    """How often a node had to find out in the store what the bus had not told it."""
    return node.metric("curbside_watch_found_total")


async def test_a_message_crosses_and_its_delivery_is_recorded(cluster: Cluster, alice: Person, bob: Person) -> None:
    group, joined, alice_wire, bob_wire = await meet(alice, bob)
    refused = cluster.nodes[1].metric("curbside_bus_refused_total")
    for number in range(5):
        stored = await alice_wire.say(group, b"pupils equal? %d" % number)
        (entry,) = await read_entries(bob_wire, 1)
        assert entry.sequence == stored.sequence
        assert joined.receive(entry.envelope, bob.running.clock.now()).data == b"pupils equal? %d" % number
    delivered = [
        (event.extra["from_index"], event.extra["to_index"])
        for event in await cluster.events()
        if event.name == EventName.MESSAGE_DELIVERED
        and event.actor_device == bob.device_id
        and event.object_id == encode_id(group.group_id)
    ]
    heard = {n for first, last in delivered for n in range(int(first), int(last) + 1)}
    assert heard == set(range(2, 7)), "each entry that Bob got is in the log, whether it came live or was read"
    assert cluster.nodes[1].metric("curbside_bus_heard_total") > 0
    assert cluster.nodes[1].metric("curbside_bus_refused_total") == refused


async def test_both_send_at_once_and_both_have_one_order(cluster: Cluster, alice: Person, bob: Person) -> None:
    group, joined, alice_wire, bob_wire = await meet(alice, bob)
    name, count = encode_id(group.group_id), 40
    reads = sum(node.metric("curbside_log_reads_total") for node in cluster.nodes)
    sent: dict[bytes, int] = {}

    async def send(wire: Wire, sender: Group) -> list[tuple[int, bytes]]:
        """Sends all, hears all: own sequences from Stored, the other's from Entries."""
        ids = {number: random_bytes(16) for number in range(1000, 1000 + count)}
        for number, message_id in ids.items():
            envelope = sender.encrypt(b"x", message_id)
            await wire.send(frames.Send(number, name, message_id, sender.epoch, envelope))
        heard: list[tuple[int, bytes]] = []
        stored = 0
        while stored < count or len(heard) < count:
            frame = await wire.receive()
            if isinstance(frame, frames.Stored):
                stored += len(frame.items)
                sent.update({ids[item.request]: item.sequence for item in frame.items})
            elif isinstance(frame, frames.Entries):
                heard += [(entry.sequence, entry.message_id) for entry in frame.items]
        return heard

    by_alice, by_bob = await asyncio.gather(send(alice_wire, group), send(bob_wire, joined))
    log = await cluster.read_log(name, 2)
    assert [sequence for sequence, _ in log] == list(range(2, 2 + 2 * count))
    assert {message_id: sequence for sequence, message_id in log} == sent
    for heard in (by_alice, by_bob):
        assert heard == sorted(heard), "in order"
        assert len(heard) == len(set(heard)) == count, "each of the other's once"
    reads = sum(node.metric("curbside_log_reads_total") for node in cluster.nodes) - reads
    assert reads <= count / 8, "what overtook something waited for it"


async def test_commits_on_either_node_are_followed_on_both(cluster: Cluster, alice: Person, bob: Person) -> None:
    group, joined, alice_wire, bob_wire = await meet(alice, bob)
    carol = await Person.join(cluster.nodes[1], "Carol Chen")  # type: ignore[arg-type]
    now = alice.running.clock.now()
    staged = joined.stage_commit(CommitRequest(), now)  # Bob's node moves on; Alice's has the former epoch in memory
    await bob.commit(joined, staged.commit)
    joined.commit_accepted(staged)
    (entry,) = await read_entries(alice_wire, 1)
    assert entry.kind == frames.KIND_COMMIT
    group.receive(entry.envelope, now)
    late = await alice_wire.say(group, b"in the new epoch")
    (heard,) = [each for each in await read_entries(bob_wire, 2) if each.kind == frames.KIND_APPLICATION]
    assert heard.sequence == late.sequence
    carol_wire = await carol.connect()
    await carol_wire.sync()
    added = await alice.add(group, carol)
    (entry,) = await read_entries(bob_wire, 1)
    joined.receive(entry.envelope, now)
    queue = await carol_wire.receive(frames.QueueItems)
    third = carol.welcome(queue.items[0])
    assert await carol_wire.sync({encode_id(group.group_id): added.sequence}, queue.items[0].position) == []
    stored = await carol_wire.say(third, b"hello, ward")
    assert isinstance(stored, frames.StoredItem), stored
    assert [entry.sequence for entry in await read_entries(alice_wire, 2)] == [added.sequence, stored.sequence]
    assert [entry.sequence for entry in await read_entries(bob_wire, 1)] == [stored.sequence]
    await carol.close()


async def test_two_commits_of_one_epoch_on_two_nodes_have_one_winner(alice: Person, bob: Person) -> None:
    group, joined, _alice_wire, _bob_wire = await meet(alice, bob)
    now, name = alice.running.clock.now(), encode_id(group.group_id)
    staged = [group.stage_commit(CommitRequest(), now), joined.stage_commit(CommitRequest(), now)]
    answers = await asyncio.gather(
        *(
            person.request(
                "POST",
                f"/v1/conversations/{name}/commits",
                msgspec.json.encode(person.commit_body(whose, each.commit)),
            )
            for person, whose, each in zip((alice, bob), (group, joined), staged, strict=True)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (lost,) = [answer.json() for answer in answers if answer.status_code == 409]
    assert lost["current_epoch"] == 2


async def test_a_removed_device_hears_nothing_more_on_the_other_node(alice: Person, bob: Person) -> None:
    group, joined, alice_wire, bob_wire = await meet(alice, bob)
    staged = group.stage_commit(CommitRequest(removes=(1,)), alice.running.clock.now())
    appended = await alice.commit(group, staged.commit)
    group.commit_accepted(staged)
    await alice_wire.say(group, b"not for Bob")
    (entry,) = await read_entries(bob_wire, 1)
    assert (entry.sequence, entry.kind) == (appended.sequence, frames.KIND_COMMIT)
    refused = await bob_wire.say(joined, b"am I still there?")
    assert refused.code in ("not_found", "stale_epoch")
    frames_after = await bob_wire.sync({encode_id(group.group_id): 0})
    heard = [entry.sequence for frame in frames_after if isinstance(frame, frames.Entries) for entry in frame.items]
    assert max(heard) == appended.sequence


async def test_a_revoked_device_is_hung_up_on_wherever_it_is(cluster: Cluster, alice: Person, bob: Person) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    await move(bob, cluster.nodes[0])  # who revokes is somewhere else than the stream
    answer = await bob.request("DELETE", f"/v1/devices/{bob.device_id}")
    assert answer.status_code == 204, answer.text
    closing = await bob_wire.receive()
    while not isinstance(closing, frames.Closing):
        closing = await bob_wire.receive()
    assert closing.code == "device_revoked"
    (entry,) = await read_entries(alice_wire, 1)
    assert entry.kind == frames.KIND_PROPOSAL, "its removal waits to be committed"
    assert (await alice_wire.say(group, b"too early")).code == "pending_proposals"


async def test_a_proposal_made_on_one_node_is_committed_on_the_other(
    cluster: Cluster, alice: Person, bob: Person
) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    await bob_wire.say(_, b"warms the memory of Bob's node")
    await read_entries(alice_wire, 1)
    assert (await bob.request("DELETE", f"/v1/devices/{bob.device_id}")).status_code == 204
    (proposal,) = await read_entries(alice_wire, 1)
    now = alice.running.clock.now()
    group.receive(proposal.envelope, now)
    staged = group.stage_commit(CommitRequest(), now)
    appended = await alice.commit(group, staged.commit)
    group.commit_accepted(staged)
    assert appended.epoch == group.epoch
    assert isinstance(await alice_wire.say(group, b"alone"), frames.StoredItem)


async def test_a_sign_out_ends_the_stream_on_the_other_node(cluster: Cluster, bob: Person) -> None:
    wire = await bob.connect()
    await wire.sync()
    await move(bob, cluster.nodes[0])
    assert (await bob.request("DELETE", "/v1/session")).status_code == 204
    closing = await wire.receive(frames.Closing)
    assert closing.code == "not_authenticated"


async def test_the_newest_connection_of_a_device_is_the_one(cluster: Cluster, bob: Person) -> None:
    for number in (0, 1, 0):
        await move(bob, cluster.nodes[number])
        former = bob.wires[-1] if bob.wires else None
        wire = await bob.connect()
        await wire.sync()
        if former is not None:
            closing = await former.receive(frames.Closing)
            assert (closing.code, closing.retry_after) == ("duplicate_request", -1)
    await until(lambda: sum(node.metric("curbside_streams_open") for node in cluster.nodes) == 1, "one stream is open")


async def test_typing_and_presence_cross_and_are_kept_nowhere(cluster: Cluster, alice: Person, bob: Person) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    name = encode_id(group.group_id)
    before = len(await cluster.events())
    for kind, lasts in ((frames.SIGNAL_TYPING, 6000), (frames.SIGNAL_STOPPED, 0), (frames.SIGNAL_HERE, 30000)):
        await alice_wire.send(frames.Signal(name, kind))
        heard = await bob_wire.receive(frames.Signals)
        assert heard.items == [frames.SignalItem(name, alice.newcomer.user_id, alice.device_id, kind, lasts)]
    await bob_wire.send(frames.Signal(name, frames.SIGNAL_TYPING))
    assert [item.device_id for item in (await alice_wire.receive(frames.Signals)).items] == [bob.device_id]
    names = {event.name for event in (await cluster.events())[before:]}
    assert not {name for name in names if "signal" in str(name) or "typing" in str(name)}
    assert len(await cluster.read_log(name)) == 1, "the log has the commit alone"


async def test_a_stranger_is_not_seen_typing(cluster: Cluster, alice: Person, bob: Person) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    carol = await Person.join(cluster.nodes[1], "Carol Chen")  # type: ignore[arg-type]
    carol_wire = await carol.connect()
    name = encode_id(group.group_id)
    await carol_wire.send(frames.Sync({name: 0}, 0))
    await carol_wire.send(frames.Signal(name, frames.SIGNAL_TYPING))
    await bob_wire.send(frames.Signal(name, frames.SIGNAL_TYPING))
    heard = await alice_wire.receive(frames.Signals)
    assert [item.device_id for item in heard.items] == [bob.device_id], "Carol's came first, and was dropped"
    seen = await carol_wire.sync()
    assert not any(isinstance(frame, frames.Signals) for frame in seen)
    await carol.close()


async def test_a_sign_in_and_an_upload_go_on_elsewhere(cluster: Cluster, alice: Person, bob: Person) -> None:
    group, _, _alice_wire, _bob_wire = await meet(alice, bob)
    data = random_bytes(3 * 4096)
    new = bodies.NewBlob(encode_id(group.group_id), len(data), encode_base64url(compute_hash("sha256", data)))
    made = (await alice.post("/v1/blobs", new)).json()
    for part in range(3):
        await move(alice, cluster.nodes[part % 2])
        headers = {"upload-offset": str(part * 4096), "content-type": "application/offset+octet-stream"}
        path = f"/v1/blobs/{made['blob_id']}"
        answer = await alice.request("PATCH", path, data[part * 4096 : (part + 1) * 4096], headers)
        assert answer.status_code < 300, answer.text
    await move(bob, cluster.nodes[0])
    assert (await bob.get(f"/v1/blobs/{made['blob_id']}")).content == data
    assert decode_base64url(made["blob_id"])
