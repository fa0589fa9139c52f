"""The bus dies, freezes, never was; nodes are killed, drained, restarted: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
from cluster import Cluster, Node, describe, move, until
from running import Person, Wire
from test_nodes import meet, read_entries
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from curbside.crypto.random import random_bytes
from curbside.ids import encode_id
from curbside.mls.group import Group
from curbside.wire import frames

QUICK = {"BUS_SWEEP_SECONDS": "2.0", "BUS_POLL_SECONDS": "0.5"}


async def join(node: Node, name: str) -> Person:
    return await Person.join(node, name)  # type: ignore[arg-type] - has what is asked of it


async def exchange(group: Group, here: Wire, there: Wire) -> None:
    """Three messages that arrive."""
    for _ in range(3):
        stored = await here.say(group, b"still there?")
        assert isinstance(stored, frames.StoredItem), stored
        (entry,) = await read_entries(there, 1)
        assert entry.sequence == stored.sequence


async def test_without_its_bus_a_cluster_asks_the_store(cluster: Cluster) -> None:
    """NATS is killed and comes back; then it freezes, which nobody tells."""
    assert cluster.nats is not None
    first, second = cluster.nodes
    alice, bob = await join(first, "Alice Ang"), await join(second, "Bob Berg")
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    await exchange(group, alice_wire, bob_wire)
    cluster.nats.kill()
    await until(lambda: [node.bus() for node in cluster.nodes] == ["degraded"] * 2, "both notice; both are ready")
    found = second.metric("curbside_watch_found_total")
    await exchange(group, alice_wire, bob_wire)
    assert second.metric("curbside_watch_found_total") > found, describe(second)
    cluster.nats.start()
    await until(lambda: [node.bus() for node in cluster.nodes] == ["ok"] * 2, "both have the bus again")
    heard = second.metric("curbside_bus_heard_total")
    await exchange(group, alice_wire, bob_wire)
    await until(lambda: second.metric("curbside_bus_heard_total") > heard, "the bus carries again")
    cluster.nats.freeze()
    await exchange(group, alice_wire, bob_wire)
    await until(lambda: [node.bus() for node in cluster.nodes] == ["degraded"] * 2, "both notice the silence")
    await exchange(group, alice_wire, bob_wire)
    cluster.nats.thaw()
    await until(lambda: [node.bus() for node in cluster.nodes] == ["ok"] * 2, "and that it is over")
    await exchange(group, alice_wire, bob_wire)
    for person in (alice, bob):
        await person.close()


async def test_with_no_bus_at_all_everything_crosses_by_the_store(own_folder: Path) -> None:
    """Messages, commits, Welcomes, the end of a device, its newer connection."""
    with Cluster(own_folder, nats=False, **QUICK) as cluster:
        first, second = cluster.nodes
        assert [node.bus() for node in cluster.nodes] == ["degraded"] * 2
        alice, bob = await join(first, "Alice Ang"), await join(second, "Bob Berg")
        group, joined, alice_wire, bob_wire = await meet(alice, bob)
        await exchange(group, alice_wire, bob_wire)
        await exchange(joined, bob_wire, alice_wire)
        await move(bob, first)
        newer = await bob.connect()
        closing = await bob_wire.receive(frames.Closing)
        assert closing.code == "duplicate_request"
        await newer.sync()
        await move(bob, second)
        assert (await bob.request("DELETE", f"/v1/devices/{bob.device_id}")).status_code == 204
        closing = await newer.receive(frames.Closing)
        assert closing.code == "device_revoked"
        (entry,) = await read_entries(alice_wire, 1)
        assert entry.kind == frames.KIND_PROPOSAL
        for person in (alice, bob):
            await person.close()


Connect = Callable[[], Awaitable[Wire]]
GONE = (ConnectionClosed, OSError, TimeoutError)


class Sender:
    """Sends one message after another by whatever node takes it, and again what was not acknowledged.

    faults: what must never happen.
    """

    def __init__(self, person: Person, group: Group) -> None:
        self.person, self.group = person, group
        self.acknowledged: dict[bytes, int] = {}
        self.faults: list[str] = []
        self.is_done = False
        self._waiting: tuple[bytes, bytes] | None = None

    async def run(self, connect: Connect) -> None:
        """connect: makes a new stream."""
        while not self.is_done or self._waiting is not None:
            wire = await try_to(connect)
            if wire is not None:
                with contextlib.suppress(*GONE):
                    await self._send(wire)
            await asyncio.sleep(0.05)

    async def _send(self, wire: Wire) -> None:
        while not self.is_done or self._waiting is not None:
            if self._waiting is None:
                message_id = random_bytes(16)
                self._waiting = message_id, self.group.encrypt(b"x", message_id)
            message_id, envelope = self._waiting
            answer = await wire.send_envelope(self.group, message_id, self.group.epoch, envelope)
            if not isinstance(answer, frames.StoredItem):
                if answer.code not in ("draining", "store_unavailable"):
                    self.faults.append(answer.code)
                return
            self.acknowledged[message_id] = answer.sequence
            self._waiting = None


class Receiver:
    """Follows a conversation by whatever node there is, from its cursor on. faults: what must never happen."""

    def __init__(self, conversation: str) -> None:
        self.conversation = conversation
        self.heard: list[tuple[int, bytes]] = []
        self.cursor = 1
        self.faults: list[str] = []
        self.is_done = False

    async def run(self, connect: Connect) -> None:
        while not self.is_done:
            wire = await try_to(connect)
            if wire is not None:
                with contextlib.suppress(*GONE):
                    await self._follow(wire)
            await asyncio.sleep(0.05)

    async def _follow(self, wire: Wire) -> None:
        await wire.send(frames.Sync({self.conversation: self.cursor}, 0))
        while not self.is_done:
            frame = await asyncio.wait_for(wire.receive(), 2)
            for entry in frame.items if isinstance(frame, frames.Entries) else ():
                if entry.sequence != self.cursor + 1:
                    self.faults.append(f"{entry.sequence} after {self.cursor}")
                self.cursor = entry.sequence
                self.heard.append((entry.sequence, entry.message_id))


async def try_to(connect: Connect) -> Wire | None:
    """A stream that was accepted; None while there is nobody to accept it."""
    try:
        wire = await connect()
    except (*GONE, AssertionError, InvalidStatus, InvalidMessage):  # refused in a word or in none
        return None
    return wire if wire.ready is not None else None


async def go_on(sender: Sender, count: int = 30) -> None:
    """Wait until that many more were acknowledged."""
    wanted = len(sender.acknowledged) + count
    await until(lambda: len(sender.acknowledged) >= wanted, "messages are acknowledged")


async def check_all(cluster: Cluster, sender: Sender, receiver: Receiver) -> None:
    """Every acknowledged message is in the log once, where its sender was told, and was heard once, in order."""
    sender.is_done = True
    await until(lambda: receiver.cursor >= max(sender.acknowledged.values()), "the receiver has everything")
    log = await cluster.read_log(receiver.conversation, 2)
    places = {message_id: sequence for sequence, message_id in log}
    assert [sequence for sequence, _ in log] == list(range(2, len(log) + 2))
    assert len(places) == len(log)
    assert {name: places.get(name) for name in sender.acknowledged} == sender.acknowledged
    assert receiver.heard == log[: len(receiver.heard)]
    assert sender.faults + receiver.faults == []
    receiver.is_done = True


async def through_the_line(cluster: Cluster, person: Person) -> Wire:
    """A stream by the proxy, wherever it leads."""
    person.running = Front(cluster)  # type: ignore[assignment]
    return await person.connect()


class Front:
    """The cluster as its clients see it."""

    def __init__(self, cluster: Cluster) -> None:
        self.url = cluster.line.origin
        self.clock = cluster.clock
        self.authority = cluster.authority
        self.validator = cluster.validator


async def test_nodes_are_killed_and_restarted_one_after_another(own_folder: Path) -> None:
    """A rolling restart under load, first in order, then by kill -9; people come by one address, to no fixed node."""
    with Cluster(own_folder, DRAIN_NOTICE_SECONDS="0.2") as cluster:
        alice, bob = await join(cluster.nodes[0], "Alice Ang"), await join(cluster.nodes[1], "Bob Berg")
        group, _, _, _ = await meet(alice, bob)
        sender, receiver = Sender(alice, group), Receiver(encode_id(group.group_id))
        running = [
            asyncio.create_task(sender.run(lambda: through_the_line(cluster, alice))),
            asyncio.create_task(receiver.run(lambda: through_the_line(cluster, bob))),
        ]
        await go_on(sender)
        for node in cluster.nodes:
            code = await asyncio.to_thread(node.stop)
            assert code == 0, describe(node)
            await go_on(sender)
            await asyncio.to_thread(node.start)
            await go_on(sender)
        for node in cluster.nodes:
            await asyncio.to_thread(node.kill)
            await go_on(sender)
            await asyncio.to_thread(node.start)
            await go_on(sender)
        await check_all(cluster, sender, receiver)
        await asyncio.gather(*running)
        for person in (alice, bob):
            await person.close()


async def test_a_node_that_drains_says_so_first_and_then_lets_go(own_folder: Path) -> None:
    with Cluster(own_folder, DRAIN_NOTICE_SECONDS="2") as cluster:
        first, second = cluster.nodes
        alice, bob = await join(first, "Alice Ang"), await join(second, "Bob Berg")
        group, _, alice_wire, bob_wire = await meet(alice, bob)
        first.terminate()
        await until(lambda: first.ready() is None, "the node is not ready any more")
        await exchange(group, alice_wire, bob_wire)  # and serves all the same
        closing = await alice_wire.receive(frames.Closing)
        assert (closing.code, closing.retry_after) == ("draining", 1000)
        assert await asyncio.to_thread(first.wait) == 0
        await until(lambda: second.metric("curbside_nodes_heard") == 0, "it said good-bye")
        assert second.bus() == "ok", "a node that went in order is not missed"
        await move(alice, second)
        wire = await alice.connect()
        await wire.sync({encode_id(group.group_id): 1})
        assert isinstance(await wire.say(group, b"from elsewhere"), frames.StoredItem)
        for person in (alice, bob):
            await person.close()


async def test_a_forged_or_foreign_message_on_the_bus_changes_nothing(cluster: Cluster) -> None:
    """Somebody on the bus repeats, mixes up and makes up messages."""
    assert cluster.nats is not None
    alice, bob = await join(cluster.nodes[0], "Alice Ang"), await join(cluster.nodes[1], "Bob Berg")
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    other = await nats.connect(cluster.nats.address)
    overheard: list[tuple[str, bytes]] = []

    async def meddle(message: object) -> None:
        subject, data = message.subject, message.data  # type: ignore[attr-defined]
        if (subject, data) in overheard:
            return
        overheard.append((subject, data))
        for again in (data, data[:-1] + bytes([data[-1] ^ 1]), b"", random_bytes(200)):
            if again != b"" or len(overheard) < 50:
                overheard.append((subject, again))
                await other.publish(subject, again)
        await other.publish(overheard[0][0], data)  # elsewhere

    await other.subscribe("curbside.>", cb=meddle)
    await other.flush()
    await exchange(group, alice_wire, bob_wire)
    refused = cluster.nodes[1].metric("curbside_bus_refused_total")
    assert refused > 0
    assert overheard
    secrets = [encode_id(group.group_id).encode(), alice.device_id.encode(), b"Alice", b"entries"]
    assert not any(secret in data or secret in subject.encode() for subject, data in overheard for secret in secrets)
    await other.close()
    await exchange(group, alice_wire, bob_wire)
    name = encode_id(group.group_id)
    assert [sequence for sequence, _ in await cluster.read_log(name)] == list(range(1, 8))
    for person in (alice, bob):
        await person.close()
