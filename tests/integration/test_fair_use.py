"""What one person may take from all others: their key packages, room for conversations, cursors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from running import GENEROUS, Person, Running

from curbside.audit.events import EventName
from curbside.crypto.random import random_bytes
from curbside.ids import encode_id
from curbside.wire import frames

TIGHT = msgspec.structs.replace(
    GENEROUS,
    claims_per_second=0.001,
    claims_burst=2,
    conversations=2,
    cursors_per_second=0.001,
    cursors_burst=10,
)


@pytest_asyncio.fixture
async def people(tmp_path: Path) -> AsyncIterator[list[Person]]:
    """Three of the staff on a server with narrow limits."""
    running = Running(tmp_path, limits=TIGHT).start()
    found = [await Person.join(running, name) for name in ("Alice Ang", "Bob Berg", "Carol Chen")]
    yield found
    for person in found:
        await person.close()
    running.stop()


async def test_key_packages_are_claimed_at_a_rate_for_each_pair_of_people(people: list[Person]) -> None:
    alice, bob, carol = people
    path = f"/v1/people/{bob.newcomer.user_id}/key-packages/claim"
    for _ in range(2):
        await alice.post(path)
    refused = await alice.problem("POST", path)
    assert refused["type"].endswith(":too_many")
    assert refused["retry_after"] > 1
    last = alice.running.events()[-1]
    assert (last.name, last.reason, last.object_id) == (
        EventName.KEY_PACKAGE_CLAIMED,
        "too_many",
        bob.newcomer.user_id,
    )
    await carol.post(path)
    await alice.post(f"/v1/people/{carol.newcomer.user_id}/key-packages/claim")


async def test_a_device_begins_and_joins_so_many_conversations_and_no_more(people: list[Person]) -> None:
    alice, bob, carol = people
    groups = [await alice.begin() for _ in range(2)]
    with pytest.raises(AssertionError, match='"limit":2'):
        await alice.begin()
    assert len((await alice.get("/v1/conversations")).json()["conversations"]) == 2
    for group in groups:
        await alice.add(group, bob)
    third = await carol.begin()
    with pytest.raises(AssertionError, match='"limit":2'):
        await carol.add(third, bob)
    assert len((await bob.get("/v1/conversations")).json()["conversations"]) == 2


async def test_a_frame_costs_as_many_cursors_as_it_names(people: list[Person]) -> None:
    alice, bob, _ = people
    cursors = {encode_id(random_bytes(16)): 1 for _ in range(10)}
    wire, other = await alice.connect(), await bob.connect()
    await wire.send(frames.Acknowledge(cursors, 0))
    await wire.send(frames.Acknowledge({}, 0))
    await wire.sync()
    await wire.send(frames.Acknowledge(dict(list(cursors.items())[:1]), 0))
    closing = await wire.receive(frames.Closing)
    assert closing.code == "too_many"
    assert closing.retry_after > 1000
    assert len(await other.sync(dict(list(cursors.items())[:9]))) == 9
