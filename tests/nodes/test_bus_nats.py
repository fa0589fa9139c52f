"""The NATS engine of the bus against a real server: what it follows, what it forgets, how it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nats_accounts import write_accounts
from nats_server import NatsServer, nats_server
from self_signed import make_certificate

from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.ids import ConversationId, DeviceId, encode_id
from curbside.server.bus import BusMessage, EntriesAdded, Hello, QueueFilled
from curbside.server.bus_nats import NatsBus, NatsParts
from curbside.server.bus_sealing import BusSealer
from curbside.server.bus_settings import NatsSettings
from curbside.server.logs import build_logger
from curbside.server.metrics import Metrics

KEY = SecretBytes(bytes(32))


class Ears:
    """Writes down what is heard."""

    def __init__(self) -> None:
        self.messages: list[BusMessage] = []
        self.following: list[ConversationId] = []
        self.misses = 0

    def heard(self, message: BusMessage) -> None:
        self.messages.append(message)

    def followed(self, conversation_ids: Sequence[ConversationId]) -> None:
        self.following += conversation_ids

    def missed(self) -> None:
        self.misses += 1


async def until(condition: Callable[[], Any], what: str) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never came true: {what}")


def new_conversation() -> ConversationId:
    return ConversationId(encode_id(random_bytes(16)))


def added(name: ConversationId, first: int, size: int = 10) -> EntriesAdded:
    return EntriesAdded(name, first, first, [bytes(size)], is_handshake=False)


@asynccontextmanager
async def node(server: NatsServer, key: SecretBytes = KEY, **settings: Any) -> AsyncIterator[tuple[NatsBus, Ears]]:
    """One end of the bus, connected."""
    given = NatsSettings(SecretBytes(settings.pop("address", server.address).encode()), **settings)
    bus, ears = NatsBus(NatsParts(given, BusSealer(key), Metrics(), build_logger("error"))), Ears()
    bus.start(ears)
    try:
        await until(lambda: bus.is_up, "the bus is up")
        yield bus, ears
    finally:
        await bus.close()


async def test_a_node_hears_what_it_follows_and_nothing_of_its_own(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        async with node(server) as (alice, alice_ears), node(server) as (bob, bob_ears):
            ward, clinic = new_conversation(), new_conversation()
            bob.follow(ward)
            await until(lambda: bob_ears.following == [ward], "Bob's node follows the ward")
            for message in (added(clinic, 1), added(ward, 1), added(ward, 2), QueueFilled(DeviceId("d" * 22))):
                alice.publish(message)
            await until(lambda: len(bob_ears.messages) >= 2, "both arrive")
            together = EntriesAdded(ward, 1, 2, [bytes(10)] * 2, is_handshake=False)
            assert bob_ears.messages == [together, QueueFilled(DeviceId("d" * 22))]
            assert alice_ears.messages == []
            bob.unfollow(ward)
            bob.follow(clinic)
            await until(lambda: bob_ears.following == [ward, clinic], "Bob's node follows the clinic")
            alice.publish(added(ward, 3))
            alice.publish(added(clinic, 2))
            await until(lambda: len(bob_ears.messages) == 3, "one more arrives")
            assert bob_ears.messages[-1] == added(clinic, 2)


async def test_nodes_of_another_database_are_not_heard(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        async with node(server, SecretBytes(bytes([1] * 32))) as (other, _), node(server) as (ours, ears):
            other.publish(Hello("other", is_leaving=False))
            async with node(server) as (neighbour, _):
                neighbour.publish(Hello("neighbour", is_leaving=False))
                await until(lambda: ears.messages, "the neighbour is heard")
            assert ears.messages == [Hello("neighbour", is_leaving=False)]
            assert ours.is_up


async def test_it_comes_back_and_follows_again(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        async with node(server) as (alice, _), node(server) as (bob, ears):
            ward = new_conversation()
            bob.follow(ward)
            await until(lambda: ears.following == [ward], "it follows")
            server.kill()
            await until(lambda: not alice.is_up and not bob.is_up, "both notice")
            alice.publish(added(ward, 1))  # nobody hears this: the store has it
            late = new_conversation()
            bob.follow(late)
            server.start()
            await until(lambda: alice.is_up and bob.is_up, "both are back")
            await until(lambda: sorted(ears.following[1:]) == sorted([ward, late]), "it follows again, and says so")
            alice.publish(added(ward, 2))
            alice.publish(added(late, 1))
            await until(lambda: len(ears.messages) == 2, "both arrive")
            assert ears.messages == [added(ward, 2), added(late, 1)]


async def test_what_waits_for_a_frozen_server_is_bounded(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        async with node(server) as (alice, _):
            server.freeze()
            ward, metrics = new_conversation(), alice._parts.metrics
            for number in range(0, 200_000, 2):  # with gaps, so that they are not told together
                alice.publish(added(ward, number, 1000))
                if number % 2000 == 0:
                    await asyncio.sleep(0)
            dropped = metrics.registry.get_sample_value("curbside_bus_dropped_total")
            assert dropped is not None
            assert dropped > 50_000
            await until(lambda: not alice.is_up, "the silence is noticed")
            server.thaw()
            await until(lambda: alice.is_up, "and its end")


async def test_a_node_that_cannot_log_in_is_never_up(tmp_path: Path) -> None:
    config, credentials = write_accounts(tmp_path / "accounts")
    with nats_server(tmp_path, "--config", str(config)) as server:
        async with (
            node(server, credentials=credentials) as (alice, _),
            node(server, credentials=credentials) as (bob, ears),
        ):
            alice.publish(Hello("alice", is_leaving=False))
            await until(lambda: ears.messages, "the other is heard")
            assert bob.is_up
        _, foreign = write_accounts(tmp_path / "others")
        for given in ({}, {"credentials": foreign}):
            settings = NatsSettings(SecretBytes(server.address.encode()), **given)
            stranger = NatsBus(NatsParts(settings, BusSealer(KEY), Metrics(), build_logger("error")))
            stranger.start(Ears())
            for _ in range(100):
                await asyncio.sleep(0.01)
                assert not stranger.is_up
            await stranger.close()


async def test_tls_is_verified_and_never_left_out(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    pem, key = made.chain, made.key
    with nats_server(tmp_path / "tls", "--tls", "--tlscert", str(pem), "--tlskey", str(key)) as server:
        address = server.address.replace("nats://", "tls://")
        async with (
            node(server, address=address, ca=pem) as (alice, _),
            node(server, address=address, ca=pem) as (_, ears),
        ):
            alice.publish(Hello("alice", is_leaving=False))
            await until(lambda: ears.messages, "the other is heard")
        await stays_down(NatsSettings(SecretBytes(address.encode())))
    with nats_server(tmp_path / "plain") as plain:
        await stays_down(NatsSettings(SecretBytes(plain.address.replace("nats://", "tls://").encode()), ca=pem))


async def stays_down(settings: NatsSettings) -> None:
    bus = NatsBus(NatsParts(settings, BusSealer(KEY), Metrics(), build_logger("error")))
    bus.start(Ears())
    for _ in range(100):
        await asyncio.sleep(0.01)
        assert not bus.is_up
    await bus.close()
