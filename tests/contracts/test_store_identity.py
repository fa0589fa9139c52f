"""One suite for every store, the second half: people, devices, sessions, key packages, checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from test_store import ENGINES, new_id

from curbside.crypto.random import random_bytes
from curbside.errors import DuplicateRequest
from curbside.ids import ConversationId, DeviceId, InviteId, UserId
from curbside.server.store.ports import Change, Store
from curbside.server.store.records import (
    CheckpointRecord,
    ConversationRecord,
    DeviceRecord,
    InviteRecord,
    KeyPackageRecord,
    MemberRecord,
    NewQueueItem,
    SessionRecord,
    SigninRecord,
    UserRecord,
)


@pytest_asyncio.fixture(params=sorted(ENGINES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = ENGINES[request.param].open(tmp_path)
    yield opened
    await opened.close()


def user(name: str = "Alice Ang", user_id: str = "") -> UserRecord:
    return UserRecord(UserId(user_id or new_id()), name, "nurse", b"certificate", b"enrolment", 7)


def device(owner: UserRecord, created_at: int = 8) -> DeviceRecord:
    return DeviceRecord(DeviceId(new_id()), owner.user_id, "phone", b"certificate", bytes(32), created_at, 9)


async def enrol(store: Store) -> tuple[UserRecord, DeviceRecord]:
    """A person with a device, in the store."""
    person = user()
    phone = device(person)

    def change(tx: Change) -> None:
        tx.identity.add_user(person, b"record")
        tx.identity.add_device(phone)

    await store.write(change)
    return person, phone


async def test_settings_are_replaced(store: Store) -> None:
    for value in (b"one", b"", b"\x00two"):
        await store.write(lambda tx, value=value: tx.identity.put_setting("name", value))  # type: ignore[misc]
        assert await store.read(lambda view: view.identity.find_setting("name")) == value
    assert await store.read(lambda view: view.identity.find_setting("other")) is None


async def test_an_invite_is_used_once(store: Store) -> None:
    record = InviteRecord(InviteId(new_id()), UserId(new_id()), "nurse", b"enrolment", 1, 2)
    await store.write(lambda tx: tx.identity.add_invite(record))
    with pytest.raises(DuplicateRequest):
        await store.write(lambda tx: tx.identity.add_invite(record))
    uses = [store.write(lambda tx: tx.identity.use_invite(record.invite_id, 5)) for _ in range(5)]
    assert sorted(await asyncio.gather(*uses)) == [False] * 4 + [True]
    found = await store.read(lambda view: view.identity.find_invite(record.invite_id))
    assert found is not None
    assert found.used_at == 5
    assert not await store.write(lambda tx: tx.identity.use_invite(InviteId(new_id()), 5))


async def test_people_and_devices_come_back_as_they_were(store: Store) -> None:
    person, phone = await enrol(store)
    second = device(person, 9)
    await store.write(lambda tx: tx.identity.add_device(second))
    for taken in (
        lambda tx: tx.identity.add_user(person, b"other"),
        lambda tx: tx.identity.add_device(phone),
    ):
        with pytest.raises(DuplicateRequest):
            await store.write(taken)
    assert await store.read(lambda view: view.identity.find_user(person.user_id)) == person
    assert await store.read(lambda view: view.identity.find_opaque_record(person.user_id)) == b"record"
    assert await store.read(lambda view: view.identity.find_opaque_record(UserId(new_id()))) is None
    assert await store.read(lambda view: view.identity.list_devices(person.user_id)) == [phone, second]
    await store.write(lambda tx: tx.identity.touch_device(phone.device_id, 99))
    found = await store.read(lambda view: view.identity.find_device(phone.device_id))
    assert found is not None
    assert found.last_seen_at == 99


async def test_people_are_listed_by_name_without_regard_to_case(store: Store) -> None:
    names = ["bob", "Alice", "alice", "Ängel", "Zoë", "Bob Berg", "_x", "Éva", "100%", "a_b"]
    people = [user(name, f"{number:022d}") for number, name in enumerate(names)]

    def change(tx: Change) -> None:
        for person in people:
            tx.identity.add_user(person, b"")

    await store.write(change)
    everybody = await store.read(lambda view: view.identity.list_users("", None, 100))
    expected = ["100%", "_x", "a_b", "Alice", "alice", "bob", "Bob Berg", "Zoë", "Ängel", "Éva"]
    assert [person.name for person in everybody] == expected
    for start in range(len(everybody)):
        after = everybody[start].user_id
        page = await store.read(lambda view, after=after: view.identity.list_users("", after, 3))  # type: ignore[misc]
        assert page == everybody[start + 1 : start + 4]
    for query, found in (
        ("BOB", ["bob", "Bob Berg"]),
        ("%", ["100%"]),
        ("_", ["_x", "a_b"]),
        ("ä", []),
        ("Ä", ["Ängel"]),
    ):
        listed = await store.read(lambda view, query=query: view.identity.list_users(query, None, 9))  # type: ignore[misc]
        assert [person.name for person in listed] == found
    assert await store.read(lambda view: view.identity.list_users("", UserId(new_id()), 9)) == []


async def test_a_revoked_device_keeps_nothing(store: Store) -> None:
    person, phone = await enrol(store)
    session = SessionRecord(bytes(32), person.user_id, phone.device_id, 1, 50)

    def change(tx: Change) -> None:
        tx.identity.add_session(session)
        tx.identity.add_key_packages([KeyPackageRecord(phone.device_id, b"package")])
        tx.delivery.add_queue_items([NewQueueItem(phone.device_id, 0, ConversationId(new_id()), 1, b"welcome")])

    await store.write(change)
    assert await store.read(lambda view: view.identity.find_session(session.token_hash)) == session
    assert await store.write(lambda tx: tx.identity.revoke_device(phone.device_id, 60))
    assert not await store.write(lambda tx: tx.identity.revoke_device(phone.device_id, 70))
    found = await store.read(lambda view: view.identity.find_device(phone.device_id))
    assert found is not None
    assert found.revoked_at == 60
    assert await store.read(lambda view: view.identity.find_session(session.token_hash)) is None
    assert await store.read(lambda view: view.identity.count_key_packages(phone.device_id)) == 0
    assert await store.read(lambda view: view.delivery.read_queue(phone.device_id, 0, 9)) == []


async def test_revoked_devices_that_are_still_in_a_conversation_are_found(store: Store) -> None:
    people = [await enrol(store) for _ in range(4)]
    devices = [phone.device_id for _, phone in people]
    name = ConversationId(new_id())
    members = [MemberRecord(phone.device_id, person.user_id, leaf, 1) for leaf, (person, phone) in enumerate(people)]

    def change(tx: Change) -> None:
        tx.delivery.create_conversation(ConversationRecord(name, 0, 0, 7), b"group")
        tx.delivery.add_members(name, members)
        tx.delivery.end_members(name, devices[2:3], 5)
        for each in devices[:3]:
            tx.identity.revoke_device(each, 60)

    await store.write(change)
    expected = sorted((phone.device_id, person.user_id) for person, phone in people[:2])
    first = await store.read(lambda view: view.delivery.list_left_behind(DeviceId(""), 1))
    rest = await store.read(lambda view: view.delivery.list_left_behind(first[0][0], 9))
    assert first + rest == expected


async def test_sessions_sign_ins_and_proofs_end(store: Store) -> None:
    person, phone = await enrol(store)
    sessions = [SessionRecord(bytes([n]) * 32, person.user_id, phone.device_id, 1, 10 * n) for n in (1, 2, 3)]
    signins = [SigninRecord(new_id(), person.user_id, phone.device_id, 10 * n, b"state %d" % n) for n in (1, 2)]

    def change(tx: Change) -> None:
        for session in sessions:
            tx.identity.add_session(session)
        for signin in signins:
            tx.identity.add_signin(signin)

    await store.write(change)
    assert await store.write(lambda tx: tx.identity.use_proof(b"proof", 10))
    assert not await store.write(lambda tx: tx.identity.use_proof(b"proof", 10))
    assert await store.write(lambda tx: tx.identity.take_expired_sessions(9, 9)) == []
    assert await store.write(lambda tx: tx.identity.take_expired_sessions(10, 9)) == sessions[:1]
    assert await store.write(lambda tx: tx.identity.take_expired_sessions(10, 9)) == []
    assert await store.write(lambda tx: tx.identity.take_expired_signins(10, 9)) == signins[:1]
    await store.write(lambda tx: tx.identity.delete_expired_proofs(9))
    assert not await store.write(lambda tx: tx.identity.use_proof(b"proof", 10))
    await store.write(lambda tx: tx.identity.delete_expired_proofs(10))
    assert await store.write(lambda tx: tx.identity.take_signin(signins[0].signin_id)) is None
    assert await store.write(lambda tx: tx.identity.take_signin(signins[1].signin_id)) == signins[1]
    assert await store.write(lambda tx: tx.identity.take_signin(signins[1].signin_id)) is None
    assert await store.write(lambda tx: tx.identity.use_proof(b"proof", 20))
    await store.write(lambda tx: tx.identity.end_session(sessions[1].token_hash))
    left = [
        await store.read(lambda view, key=session.token_hash: view.identity.find_session(key))  # type: ignore[misc]
        for session in sessions
    ]
    assert left == [None, None, sessions[2]]


async def test_what_is_over_is_taken_by_one_caller_and_a_part_at_a_time(store: Store) -> None:
    person, phone = await enrol(store)
    ended = [SessionRecord(random_bytes(32), person.user_id, phone.device_id, 1, 5) for _ in range(40)]

    def add(tx: Change) -> None:
        for session in ended:
            tx.identity.add_session(session)

    await store.write(add)
    parts = await asyncio.gather(
        *(store.write(lambda tx: tx.identity.take_expired_sessions(5, 7)) for _ in range(6)),
    )
    assert [len(part) for part in parts] == [7, 7, 7, 7, 7, 5]
    key = lambda session: session.token_hash  # noqa: E731
    assert sorted((session for part in parts for session in part), key=key) == sorted(ended, key=key)


async def test_key_packages_are_handed_out_once_and_the_last_resort_again(store: Store) -> None:
    _, phone = await enrol(store)
    packages = [KeyPackageRecord(phone.device_id, b"%d" % n) for n in range(3)]
    resorts = [KeyPackageRecord(phone.device_id, b"last %d" % n, is_last_resort=True) for n in range(2)]
    await store.write(lambda tx: tx.identity.add_key_packages([resorts[0], *packages, resorts[1]]))
    assert await store.read(lambda view: view.identity.count_key_packages(phone.device_id)) == 3
    claims = [store.write(lambda tx: tx.identity.claim_key_package(phone.device_id)) for _ in range(5)]
    assert await asyncio.gather(*claims) == [b"0", b"1", b"2", b"last 1", b"last 1"]
    assert await store.write(lambda tx: tx.identity.claim_key_package(DeviceId(new_id()))) is None


async def test_checkpoints_are_listed_by_size(store: Store) -> None:
    records = [CheckpointRecord(size, bytes(32), 1, b"body %d" % size) for size in (3, 10, 200)]
    assert await store.read(lambda view: view.audit.find_latest_checkpoint()) is None

    def change(tx: Change) -> None:
        for record in reversed(records):
            tx.audit.add_checkpoint(record)

    await store.write(change)
    assert await store.read(lambda view: view.audit.list_checkpoints(3, 9)) == records[1:]
    assert await store.read(lambda view: view.audit.list_checkpoints(0, 2)) == records[:2]
    assert await store.read(lambda view: view.audit.find_latest_checkpoint()) == records[2]
