"""The WebSocket through the real port: broken frames, half-open and slow peers, endings, what a slow head costs."""

from __future__ import annotations

import asyncio
import gc
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from raw_socket import RawSocket, make_frame
from running import GENEROUS, WAIT, Person, Running, Wire
from test_delivery import forge, meet

from curbside.crypto.random import random_bytes
from curbside.ids import encode_id
from curbside.mls.group import Group
from curbside.server.connection import Connection
from curbside.server.stream import Stream
from curbside.server.websocket import FIRST_FRAME_BYTES, WebSocketProtocol
from curbside.wire import frames, limits

SYNC = msgspec.msgpack.encode(frames.Sync({}, 0))


async def when(condition: Any) -> None:
    """Returns when it holds."""
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110  the server is in another thread
            await asyncio.sleep(0.01)


# --- the handshake --------------------------------------------------------------------------------


async def test_what_is_no_handshake_is_refused(running: Running) -> None:
    cases: list[tuple[int, dict[str, Any]]] = [
        (403, {"path": "/v1/other"}),
        (403, {"path": "/v1/stream/more"}),
        (400, {"sec_websocket_key": None}),
        (400, {"sec_websocket_key": "short"}),
        (426, {"sec_websocket_version": None}),
        (426, {"sec_websocket_version": "8"}),
        (400, {"host": "evil.example"}),
        (403, {"origin": "https://evil.example"}),
    ]
    for status, changes in cases:
        socket = await RawSocket.dial(running)
        found = await socket.ask(running, **changes)
        assert (found == status) or (status in (400, 426) and found in (400, 426)), changes
        await socket.read_end()
        await socket.close()
    await when(lambda: not sockets_of(running))


async def test_no_extension_and_no_subprotocol_is_taken(running: Running) -> None:
    socket = await RawSocket.dial(running)
    asked = {"sec_websocket_extensions": "permessage-deflate", "sec_websocket_protocol": "chat"}
    headers = running.url.removeprefix("http://")
    socket.write(
        f"GET /v1/stream?x=1 HTTP/1.1\r\nhost: {headers}\r\nupgrade: websocket\r\nconnection: keep-alive, Upgrade\r\n"
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n".encode()
        + "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in asked.items()).encode()
        + b"\r\n"
    )
    head = (await asyncio.wait_for(socket.reader.readuntil(b"\r\n\r\n"), WAIT)).lower()
    assert head.startswith(b"http/1.1 101")
    assert b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in head
    assert b"extensions" not in head
    assert b"sec-websocket-protocol" not in head
    assert isinstance(await socket.receive(), frames.Challenge)
    await socket.close()


# --- broken frames --------------------------------------------------------------------------------

BROKEN: list[tuple[str, int, bytes]] = [
    ("a reserved bit", 1002, make_frame(0xA2, SYNC)),
    ("the bit of compression", 1002, make_frame(0xC2, SYNC)),
    ("an unknown opcode", 1002, make_frame(0x83, SYNC)),
    ("an unknown control frame", 1002, make_frame(0x8B)),
    ("no mask", 1002, make_frame(0x82, SYNC, mask=None)),
    ("a ping in fragments", 1002, make_frame(0x09, b"x")),
    ("a ping that is too long", 1002, make_frame(0x89, bytes(126))),
    ("a continuation of nothing", 1002, make_frame(0x80, SYNC)),
    ("a message within a message", 1002, make_frame(0x02, SYNC) + make_frame(0x82, SYNC)),
    ("a length that is padded", 1002, b"\x82\xfe\x00\x05" + bytes(9)),
    ("a close frame of one byte", 1002, make_frame(0x88, b"\x03")),
    ("a close code that nobody may send", 1002, make_frame(0x88, struct.pack(">H", 1006))),
    ("a close reason that is no text", 1007, make_frame(0x88, b"\x03\xe8\xff")),
    ("a frame over the limit", 1009, make_frame(0x82, bytes(limits.FRAME_BYTES + 1))[:14]),
    ("fragments over the limit", 1009, 3 * make_frame(0x00, bytes(limits.FRAME_BYTES // 2))),
]


async def test_broken_frames_end_the_connection_with_their_code(alice: Person) -> None:
    for name, code, data in BROKEN:
        socket = await RawSocket.prove(alice)
        if name == "fragments over the limit":
            socket.write(make_frame(0x02))
        socket.write(data)
        assert await socket.read_close() == code, name
        socket.write(make_frame(0x88, struct.pack(">H", code)))
        await socket.close()
    assert (await alice.connect()).ready is not None


async def test_messages_in_fragments_with_pings_in_between(alice: Person) -> None:
    socket = await RawSocket.prove(alice)
    socket.write(make_frame(0x02, SYNC[:2]) + make_frame(0x89, b"alive?"))
    assert await socket.read_frame() == (0x8A, b"alive?")
    for at in range(2, len(SYNC)):
        socket.write(make_frame(0x00, SYNC[at : at + 1]))
    socket.write(make_frame(0x8A, b"nobody asked"))
    socket.write(make_frame(0x80))
    assert isinstance(await socket.receive(), frames.CaughtUp)
    await socket.close()


async def test_who_has_proven_nothing_has_little_room(running: Running) -> None:
    for data in (bytes(FIRST_FRAME_BYTES + 1), bytes(2 * FIRST_FRAME_BYTES)):
        socket = await RawSocket.open(running)
        socket.write(make_frame(0x82, data))
        assert await socket.read_close() == 1009
        await socket.close()


async def test_a_frame_that_comes_byte_by_byte(alice: Person) -> None:
    socket = await RawSocket.prove(alice)
    for byte in make_frame(0x82, SYNC):
        socket.write(bytes([byte]))
        await socket.writer.drain()
        await asyncio.sleep(0)
    assert isinstance(await socket.receive(), frames.CaughtUp)
    await socket.close()


# --- endings --------------------------------------------------------------------------------------


async def test_a_close_frame_is_answered_and_the_server_hangs_up_first(running: Running, alice: Person) -> None:
    for payload, code in ((struct.pack(">H", 1000) + b"bye", 1000), (b"", 1005), (struct.pack(">H", 4000), 4000)):
        socket = await RawSocket.prove(alice)
        socket.write(make_frame(0x88, payload))
        assert await socket.read_close() == code
        assert await socket.read_end() == b""
        await socket.close()
    await when(lambda: not streams_of(running))


async def test_why_it_ends_is_heard_while_the_peer_still_sends(running: Running) -> None:
    """A server that closed its socket at once would have the reason deleted by a reset."""
    for _ in range(5):
        socket = await RawSocket.open(running)
        assert isinstance(await socket.receive(), frames.Challenge)
        socket.write(make_frame(0x82, b"\xc1"))
        for _ in range(200):
            socket.write(make_frame(0x82, bytes(10_000)))
        await asyncio.wait_for(socket.writer.drain(), WAIT)
        closing = await socket.receive()
        assert (closing.code, await socket.read_close()) == ("malformed", 1008)
        socket.write(make_frame(0x88, struct.pack(">H", 1008)))
        assert await socket.read_end() == b""
        await socket.close()


async def test_a_peer_that_ignores_the_end_is_cut_off(running: Running) -> None:
    socket = await RawSocket.open(running)
    socket.write(make_frame(0x82, b"\xc1"))
    assert await socket.read_close() == 1008
    assert await socket.read_end() == b""
    await when(lambda: not sockets_of(running))
    await socket.close()


async def test_a_sender_in_full_flow_hears_that_the_server_restarts(running: Running, alice: Person) -> None:
    group = await alice.begin()
    name = encode_id(group.group_id)
    socket = await RawSocket.prove(alice)
    sent = 0

    async def flow() -> None:
        nonlocal sent
        while True:
            sent += 1
            message_id = random_bytes(16)
            socket.send(frames.Send(sent, name, message_id, group.epoch, forge(group, message_id)))
            await socket.writer.drain()
            await asyncio.sleep(0)  # drain alone lets nobody read while the server takes everything

    flowing = asyncio.create_task(flow())
    await when(lambda: sent > 50)
    stopping = asyncio.create_task(asyncio.to_thread(running.stop))
    stored: list[int] = []
    while not isinstance(frame := await socket.receive(), frames.Closing):
        stored += [item.request for item in frame.items]
    assert (frame.code, frame.retry_after) == ("draining", 1000)
    assert await socket.read_close() == 1001
    flowing.cancel()
    await asyncio.gather(flowing, return_exceptions=True)
    socket.write(make_frame(0x88, struct.pack(">H", 1001)))
    assert await socket.read_end() == b""
    await stopping
    assert stored == list(range(1, len(stored) + 1))
    running.start()
    wire = await alice.connect()
    found = await wire.sync({name: 0})
    kept = sum(len(frame.items) for frame in found)
    assert kept >= len(stored)
    await socket.close()


async def test_who_must_leave_is_answered_first(running: Running, alice: Person) -> None:
    group = await alice.begin()
    wire = await alice.connect()
    services, free = running.app.services, threading.Event()
    assert services is not None
    asyncio.run_coroutine_threadsafe(services.store.write(lambda _: free.wait(WAIT)), running._loop)
    await send_many(wire, group, 20)
    await when(lambda: in_flight(running) == 20)
    leaving = asyncio.run_coroutine_threadsafe(services.stream.drain(2.5 * WAIT), running._loop)
    await when(lambda: services.stream.is_draining)
    free.set()
    answered: list[int] = []
    while not isinstance(frame := await wire.receive(), frames.Closing):
        answered += [item.request for item in frame.items]
    assert answered == list(range(1, 21))
    assert frame.code == "draining"
    await asyncio.to_thread(leaving.result, WAIT)


async def send_many(wire: Wire, group: Group, count: int) -> None:
    """Requests from 1 on."""
    for request in range(1, count + 1):
        message_id = random_bytes(16)
        envelope = forge(group, message_id)
        await wire.send(frames.Send(request, encode_id(group.group_id), message_id, group.epoch, envelope))


def in_flight(running: Running) -> int:
    """Sends of all connections that wait for their answers."""
    services = running.app.services
    assert services is not None
    return sum(listener._in_flight for listener in services.fanout.list_listeners())


def sockets_of(running: Running) -> list[Any]:
    """All WebSockets that are not over."""
    return [each for each in list(running.server.server_state.connections) if isinstance(each, WebSocketProtocol)]


def streams_of(running: Running) -> list[Any]:
    """All open streams."""
    services = running.app.services
    assert services is not None
    return list(services.stream.open)


async def test_nothing_stays_of_connections_that_are_over(running: Running, alice: Person) -> None:
    for number in range(60):
        socket = await (RawSocket.open(running) if number % 3 == 0 else RawSocket.prove(alice))
        if number % 3 == 1:
            socket.write(make_frame(0x88))
            await socket.read_end()
        await socket.close()
    await when(lambda: not sockets_of(running))
    assert not streams_of(running)
    gc.collect()
    kinds = (WebSocketProtocol, Stream, Connection)
    assert not [each for each in gc.get_objects() if type(each) in kinds]


# --- half-open, slow and greedy peers ---------------------------------------------------------------


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Running]:
    """A server that asks soon whether somebody lives."""
    given = msgspec.structs.replace(GENEROUS, ping_seconds=0.2, head_seconds=0.5)
    running = Running(tmp_path, limits=given).start()
    yield running
    await asyncio.to_thread(running.stop)


async def test_a_peer_that_answers_no_ping_is_hung_up_on_and_one_that_does_stays(impatient: Running) -> None:
    alice, bob = await Person.join(impatient, "Alice"), await Person.join(impatient, "Bob")
    dead, alive = await RawSocket.prove(alice), await RawSocket.prove(bob)

    async def answer_pings() -> int:
        count = 0
        while count < 8:
            first, payload = await alive.read_frame()
            assert first == 0x89
            alive.write(make_frame(0x8A, payload))
            count += 1
        return count

    answering = asyncio.create_task(answer_pings())
    assert (await dead.read_frame())[0] == 0x89
    assert await dead.read_end() == b""
    assert await answering == 8
    alive.write(make_frame(0x82, SYNC))
    while (found := await alive.read_frame())[0] == 0x89:
        alive.write(make_frame(0x8A))
    assert found[0] == 0x82
    for socket in (dead, alive):
        await socket.close()
    for person in (alice, bob):
        await person.close()


async def test_a_peer_that_does_not_read_is_hung_up_on(impatient: Running) -> None:
    alice = await Person.join(impatient, "Alice")
    wire = await alice.connect()
    wire.socket.transport.pause_reading()
    await when(lambda: not streams_of(impatient))
    wire.socket.transport.abort()
    await alice.close()


async def test_a_slow_head_ends_its_connection(impatient: Running) -> None:
    async def drip(socket: RawSocket, data: bytes) -> None:
        for byte in data:
            socket.write(bytes([byte]))
            await asyncio.sleep(0.05)

    slow = b"GET /v1/health/live HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 100_000
    whole = f"GET /v1/health/live HTTP/1.1\r\nhost: {impatient.url.removeprefix('http://')}\r\n\r\n".encode()
    for before in (b"", whole):
        socket = await RawSocket.dial(impatient)
        socket.write(before)
        if before:
            await asyncio.wait_for(socket.reader.readuntil(b"\r\n\r\n"), WAIT)
        dripping = asyncio.create_task(drip(socket, slow))
        await socket.read_end()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        await socket.close()
    silent = await RawSocket.dial(impatient)
    assert await silent.read_end() == b""
    await silent.close()


async def test_a_peer_that_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    running = Running(tmp_path, limits=msgspec.structs.replace(GENEROUS, pending_bytes=20_000)).start()
    try:
        alice, bob = await Person.join(running, "Alice"), await Person.join(running, "Bob")
        carol = await Person.join(running, "Carol")
        group, _, alice_wire, bob_wire = await meet(alice, bob)
        appended = await alice.add(group, carol)
        name, count = encode_id(group.group_id), 400
        carol_wire = await carol.connect()
        (queue,) = await carol_wire.sync()
        await carol_wire.sync({name: appended.sequence}, queue.items[0].position)
        bob_wire.socket.transport.pause_reading()
        for request in range(1, count + 1):
            message_id = random_bytes(16)
            envelope = forge(group, message_id)[:-302] + struct.pack(">I", 0x80000000 | 60_000) + bytes(60_000)
            await alice_wire.send(frames.Send(request, name, message_id, group.epoch, envelope))
        seen: list[int] = []
        while len(seen) < count:
            seen += [entry.sequence for entry in (await carol_wire.receive(frames.Entries)).items]
        assert seen == list(range(appended.sequence + 1, appended.sequence + count + 1))
        bob_wire.socket.transport.resume_reading()
        late: list[int] = []
        while not late or late[-1] < appended.sequence + count:
            late += [entry.sequence for entry in (await bob_wire.receive(frames.Entries)).items]
        assert late == list(range(appended.sequence, appended.sequence + count + 1))
        for person in (alice, bob, carol):
            await person.close()
    finally:
        running.stop()


async def test_a_commit_is_one_frame_for_each_device(running: Running, alice: Person, bob: Person) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    count = 100
    services, free = running.app.services, threading.Event()
    assert services is not None
    asyncio.run_coroutine_threadsafe(services.store.write(lambda _: free.wait(WAIT)), running._loop)
    await send_many(alice_wire, group, count)
    await when(lambda: in_flight(running) == count)
    free.set()
    answers: list[list[int]] = []
    while sum(map(len, answers)) < count:
        answers.append([item.request for item in (await alice_wire.receive(frames.Stored)).items])
    heard: list[list[int]] = []
    while sum(map(len, heard)) < count:
        heard.append([entry.sequence for entry in (await bob_wire.receive(frames.Entries)).items])
    assert [each for part in answers for each in part] == list(range(1, count + 1))
    assert [each for part in heard for each in part] == list(range(2, count + 2))
    assert len(answers) == len(heard) <= 2  # those that came before the writer was busy, and all others
