"""One suite for every store: what a server asks of a database that others write to as well."""

from __future__ import annotations

import asyncio

import pytest
from test_store import append, begin, entry, new_id
from test_store_identity import enrol, store  # noqa: F401 - a fixture

from curbside.ids import ConversationId, DeviceId
from curbside.server.store.ports import Store
from curbside.server.store.records import DeviceRecord, NewQueueItem, SessionRecord


def session(device: DeviceRecord, token_hash: bytes) -> SessionRecord:
    return SessionRecord(token_hash, device.user_id, device.device_id, 1, 100)


async def test_many_conversations_are_found_at_once(store: Store) -> None:  # noqa: F811
    first, second = await begin(store), await begin(store)
    await append(store, first, entry(), entry())
    stranger = ConversationId(new_id())
    found = await store.read(lambda view: view.watch.find_conversations([first, second, stranger]))
    assert {name: record.last_sequence for name, record in found.items()} == {first: 2, second: 0}
    assert found[first] == await store.read(lambda view: view.delivery.find_conversation(first))


async def test_a_queue_ends_at_its_last_item(store: Store) -> None:  # noqa: F811
    busy, idle = DeviceId(new_id()), DeviceId(new_id())
    items = [NewQueueItem(busy, 0, ConversationId(new_id()), 1, b"welcome") for _ in range(3)]
    positions = await store.write(lambda tx: tx.delivery.add_queue_items(items))
    assert await store.read(lambda view: view.watch.find_queue_ends([busy, idle])) == {busy: positions[-1]}


async def test_streams_are_counted_on_and_on(store: Store) -> None:  # noqa: F811
    _, phone = await enrol(store)
    await store.write(lambda tx: tx.identity.add_session(session(phone, b"one")))
    assert await store.read(lambda view: view.watch.find_streams([b"one", b"other"])) == {b"one": 0}
    counting = [store.write(lambda tx: tx.watch.count_stream(phone.device_id)) for _ in range(4)]
    assert sorted(await asyncio.gather(*counting)) == [1, 2, 3, 4]
    assert await store.read(lambda view: view.watch.find_streams([b"one"])) == {b"one": 4}


@pytest.mark.parametrize("ending", ["signed out", "revoked"])
async def test_a_session_that_is_over_is_not_found(store: Store, ending: str) -> None:  # noqa: F811
    _, phone = await enrol(store)
    _, other = await enrol(store)
    await store.write(lambda tx: tx.identity.add_session(session(phone, b"one")))
    await store.write(lambda tx: tx.identity.add_session(session(other, b"two")))
    if ending == "signed out":
        await store.write(lambda tx: tx.identity.end_session(b"one"))
    else:
        await store.write(lambda tx: tx.identity.revoke_device(phone.device_id, 9))
    assert set(await store.read(lambda view: view.watch.find_streams([b"one", b"two"]))) == {b"two"}
