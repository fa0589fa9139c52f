"""The stream's door and manners: handshake, origins, malformed frames, limits, slow readers, replacement, endings."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
import websockets
from running import GENEROUS, WAIT, Person, Running, Wire
from test_delivery import forge, meet

from curbside.audit.events import EventName
from curbside.clock import ManualClock
from curbside.crypto.random import random_bytes
from curbside.crypto.sign import generate_signature_key
from curbside.ids import encode_id
from curbside.mls.group import CommitRequest
from curbside.server.connection import ANSWERS_WAITING
from curbside.wire import frames, limits

START = 1_790_000_000


async def closing_after(person: Person, *raw: bytes | str) -> frames.Closing:
    """How a connection ends after these frames."""
    wire = await person.connect()
    for data in raw:
        await wire.socket.send(data)
    while not isinstance(frame := await wire.receive(), frames.Closing):
        pass
    with pytest.raises(websockets.ConnectionClosed):
        await wire.receive()
    return frame


# --- the door -----------------------------------------------------------------------------------


async def test_a_proof_over_another_nonce_url_key_or_token_opens_nothing(running: Running, alice: Person) -> None:
    for changes in (
        {"nonce": random_bytes(32)},
        {"nonce": b""},
        {"uri": "https://evil.example/v1/stream"},
        {"key": generate_signature_key("ed25519")},
        {"token": "A" * 43},
        {"token": ""},
    ):
        wire = await alice.connect(**changes)
        assert wire.ready is None, changes
        assert wire.closing is not None
        assert wire.closing.code == "not_authenticated"
    assert (await alice.connect()).ready is not None


async def test_the_first_frame_is_authenticate(running: Running, alice: Person) -> None:
    url = "ws" + running.url.removeprefix("http") + "/v1/stream"
    for first in (frames.Sync({}, 0), frames.Authenticate("", "", 99)):
        async with websockets.connect(url, proxy=None) as socket:
            await socket.recv()
            await socket.send(msgspec.msgpack.encode(first))
            closing = msgspec.msgpack.decode(await socket.recv(), type=frames.Closing)
            assert closing.code == "malformed"


async def test_a_foreign_page_and_a_foreign_host_are_refused(running: Running) -> None:
    url = "ws" + running.url.removeprefix("http") + "/v1/stream"
    for headers, status in (
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url, additional_headers=headers, proxy=None)
        assert refused.value.response.status_code == status
    async with websockets.connect(url, additional_headers={"origin": running.url}, proxy=None) as socket:
        assert await socket.recv()


async def test_a_peer_that_does_not_prove_itself_is_dropped(tmp_path: Path) -> None:
    limits_given = msgspec.structs.replace(GENEROUS, handshake_seconds=0.2, unproven_streams=2)
    running = Running(tmp_path, limits=limits_given).start()
    try:
        url = "ws" + running.url.removeprefix("http") + "/v1/stream"
        first, second = await websockets.connect(url, proxy=None), await websockets.connect(url, proxy=None)
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url, proxy=None)
        assert refused.value.response.status_code == 429
        for socket in (first, second):
            await socket.recv()
            closing = msgspec.msgpack.decode(await asyncio.wait_for(socket.recv(), 5), type=frames.Closing)
            assert closing.code == "not_authenticated"
            await socket.close()
        async with websockets.connect(url, proxy=None) as third:
            assert await third.recv()
    finally:
        running.stop()


async def test_another_path_is_no_stream(running: Running) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect("ws" + running.url.removeprefix("http") + "/v1/other", proxy=None)
    assert refused.value.response.status_code == 403


# --- bad frames ---------------------------------------------------------------------------------


async def test_malformed_frames_end_the_connection_with_a_reason(alice: Person) -> None:
    good = msgspec.msgpack.encode(frames.Sync({}, 0))
    cases: list[bytes | str] = [
        b"",
        b"\xc1",
        good[:-1],
        good + b"\x00",
        msgspec.msgpack.encode(["nonsense", 1]),
        msgspec.msgpack.encode(["send", "1", 2, 3, 4, 5]),
        msgspec.msgpack.encode(["sync", {"x": -1}, 0]),
        msgspec.msgpack.encode(["ready", "a", "b", 1]),
        msgspec.msgpack.encode(frames.Authenticate("a", "b", 1)),
        "text",
        b"\xdd" + struct.pack(">I", 2**31),
        b"\x91" * 5000,
    ]
    for case in cases:
        closing = await closing_after(alice, case)
        assert (closing.code, closing.retry_after) == ("malformed", -1), case[:20]


async def test_a_frame_over_the_limit_ends_the_connection(alice: Person) -> None:
    wire = await alice.connect()

    async def talk() -> None:
        """The server may close while the frame is still on its way, or after it."""
        await wire.socket.send(bytes(limits.FRAME_BYTES + 1))
        await wire.receive()

    with pytest.raises(websockets.ConnectionClosed):
        await talk()
    assert wire.socket.close_code == 1009


async def test_too_many_cursors_end_the_connection(alice: Person) -> None:
    cursors = {encode_id(i.to_bytes(16, "big")): 0 for i in range(limits.CURSORS_PER_SYNC + 1)}
    closing = await closing_after(alice, msgspec.msgpack.encode(frames.Sync(cursors, 0)))
    assert closing.code == "too_large"


async def test_a_sync_of_many_unknown_conversations_is_answered_one_by_one(alice: Person) -> None:
    wire = await alice.connect()
    names = [encode_id(random_bytes(16)) for _ in range(600)]
    found = await wire.sync(dict.fromkeys(names, 0) | {"no id": 0})
    assert len(found) == 601
    assert {frame.members["conversation"] for frame in found} == {*names, "no id"}


# --- limits and slow readers ----------------------------------------------------------------------


async def test_a_device_over_its_rate_is_told_to_wait(tmp_path: Path) -> None:
    given = msgspec.structs.replace(GENEROUS, sends_per_second=0.5, sends_burst=3)
    running = Running(tmp_path, limits=given).start()
    try:
        alice = await Person.join(running)
        group = await alice.begin()
        wire = await alice.connect()
        answers = [await wire.say(group, b"hello") for _ in range(5)]
        assert [isinstance(answer, frames.StoredItem) for answer in answers] == [True] * 3 + [False] * 2
        assert answers[4].code == "too_many"
        assert answers[4].members["retry_after"] >= 1
        await alice.close()
    finally:
        running.stop()


async def test_a_slow_reader_costs_bounded_memory_and_misses_nothing(tmp_path: Path) -> None:
    given = msgspec.structs.replace(GENEROUS, pending_bytes=20_000)
    running = Running(tmp_path, limits=given).start()
    try:
        alice, bob = await Person.join(running, "Alice"), await Person.join(running, "Bob")
        group, _, alice_wire, bob_wire = await meet(alice, bob)
        bob_wire.socket.transport.pause_reading()
        name, count = encode_id(group.group_id), 600
        payload = bytes(80_000)
        for request in range(1, count + 1):
            message_id = random_bytes(16)
            envelope = forge(group, message_id)[:-302] + msgspec_vector(payload)
            await alice_wire.send(frames.Send(request, name, message_id, 1, envelope))
        await alice_wire.answer(count)
        held = running.call(lambda: pending_of(running))
        assert held < 200_000
        bob_wire.socket.transport.resume_reading()
        seen: list[int] = []
        while len(seen) < count:
            seen += [entry.sequence for entry in (await bob_wire.receive(frames.Entries)).items]
        assert seen == list(range(2, count + 2))
        await alice.close()
        await bob.close()
    finally:
        running.stop()


async def test_a_peer_that_reads_no_answers_is_not_read_either(running: Running, alice: Person) -> None:
    wire = await alice.connect()
    wire.socket.transport.pause_reading()
    frame = frames.Sync({f"no id {number}": 0 for number in range(5_000)}, 0)

    async def ask() -> None:
        while True:
            await wire.send(frame)

    asking = asyncio.create_task(ask())
    async with asyncio.timeout(WAIT):
        while not running.call(lambda: is_full(running)):
            assert running.call(lambda: answers_of(running)) <= 5_000 + ANSWERS_WAITING
            await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    wire.socket.transport.abort()


async def is_full(running: Running) -> bool:
    """Whether the only connection waits for its peer to read."""
    return any(listener._is_full and not listener._socket.is_writable for listener in listeners_of(running))


async def answers_of(running: Running) -> int:
    """Answers that wait for any connection."""
    return max(len(listener._frames) for listener in listeners_of(running))


def listeners_of(running: Running) -> list[Any]:
    """All connections, as they are inside."""
    services = running.app.services
    assert services is not None
    return services.fanout.list_listeners()


async def test_a_device_follows_no_more_conversations_than_one_sync_can_name(alice: Person) -> None:
    wire = await alice.connect()
    for part in range(2):
        first = part * limits.CURSORS_PER_SYNC
        names = [encode_id((first + number).to_bytes(16, "big")) for number in range(limits.CURSORS_PER_SYNC)]
        await wire.send(frames.Sync(dict.fromkeys(names, 0), 0))
    while isinstance(frame := await wire.receive(), frames.Refused):
        pass
    assert isinstance(frame, frames.Closing)
    assert frame.code == "too_large"


def msgspec_vector(data: bytes) -> bytes:
    """opaque<V> of RFC 9420 for more than 16,383 bytes."""
    return struct.pack(">I", 0x80000000 | len(data)) + data


async def pending_of(running: Running) -> int:
    """Bytes that wait for any connection."""
    services = running.app.services
    assert services is not None
    return max(int(getattr(listener, "_entry_bytes", 0)) for listener in services.fanout.list_listeners())


async def test_two_streams_hear_each_other_in_order_under_load(alice: Person, bob: Person) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    name, count = encode_id(group.group_id), 300

    async def talk(wire: Wire) -> tuple[list[int], list[int]]:
        own: list[int] = []
        heard: list[int] = []
        for request in range(1, count + 1):
            message_id = random_bytes(16)
            await wire.send(frames.Send(request, name, message_id, 1, forge(group, message_id)))
        while len(own) < count or len(heard) < count:
            frame = await wire.receive()
            if isinstance(frame, frames.Stored):
                own += [item.sequence for item in frame.items]
            elif isinstance(frame, frames.Entries):
                heard += [entry.sequence for entry in frame.items]
        return own, heard

    (a_own, a_heard), (b_own, b_heard) = await asyncio.gather(talk(alice_wire), talk(bob_wire))
    assert sorted(a_own + b_own) == list(range(2, 2 * count + 2))
    assert (a_heard, b_heard) == (b_own, a_own)


# --- endings --------------------------------------------------------------------------------------


async def test_a_newer_connection_of_the_device_takes_over(alice: Person) -> None:
    first = await alice.connect()
    second = await alice.connect()
    closing = await first.receive(frames.Closing)
    assert (closing.code, closing.retry_after) == ("duplicate_request", -1)
    assert await second.sync() == []
    group = await alice.begin()
    assert (await second.say(group, b"still here")).sequence == 1


async def test_signing_out_ends_the_stream(alice: Person) -> None:
    wire = await alice.connect()
    response = await alice.request("DELETE", "/v1/session")
    assert response.status_code == 204
    assert (await wire.receive(frames.Closing)).code == "not_authenticated"
    assert (await alice.connect()).ready is None


async def test_a_session_that_is_over_ends_the_stream(tmp_path: Path) -> None:
    clock = ManualClock(START)
    running = Running(tmp_path, clock).start()
    try:
        alice = await Person.join(running)
        wire = await alice.connect()
        clock.advance(running.config.sessions.max_seconds + 1)
        await wire.send(frames.Sync({}, 0))
        assert (await wire.receive(frames.Closing)).code == "not_authenticated"
        await alice.close()
    finally:
        running.stop()


async def test_a_gap_is_healed_by_another_sync(running: Running, alice: Person, bob: Person) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    name = encode_id(group.group_id)
    for text in (b"a", b"b", b"c"):
        await alice_wire.say(group, text)
    seen: list[int] = []
    while len(seen) < 3:
        seen += [entry.sequence for entry in (await bob_wire.receive(frames.Entries)).items]
    again = await bob_wire.sync({name: 2})
    assert [entry.sequence for frame in again for entry in frame.items] == [3, 4]
    await alice_wire.say(group, b"d")
    assert [entry.sequence for entry in (await bob_wire.receive(frames.Entries)).items] == [5]


async def test_own_sends_come_back_on_a_later_sync(alice: Person) -> None:
    group = await alice.begin()
    wire = await alice.connect()
    name = encode_id(group.group_id)
    await wire.sync({name: 0})
    await wire.say(group, b"mine")
    found: list[Any] = await wire.sync({name: 0})
    assert [entry.sequence for frame in found for entry in frame.items] == [1]


async def test_commits_reach_listeners_and_their_deliveries_are_recorded(
    running: Running, alice: Person, bob: Person
) -> None:
    group, joined, alice_wire, bob_wire = await meet(alice, bob)
    staged = group.stage_commit(CommitRequest(), running.clock.now())
    appended = await alice.commit(group, staged.commit)
    for wire in (alice_wire, bob_wire):
        entry = (await wire.receive(frames.Entries)).items[0]
        assert (entry.kind, entry.sequence) == (frames.KIND_COMMIT, appended.sequence)
    joined.receive(staged.commit, running.clock.now())
    assert joined.epoch == 2
    told = {
        event.actor_device
        for event in running.events()
        if event.name == EventName.MESSAGE_DELIVERED and event.extra["to_index"] == appended.sequence
    }
    assert told == {alice.device_id, bob.device_id}
