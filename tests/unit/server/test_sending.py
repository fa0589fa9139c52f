"""Sends on their way into the store: turns, what is looked at first, and acknowledgements that share a write."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import CurbsideError, StoreUnavailable
from curbside.ids import ConversationId, DeviceId, UserId, decode_id, encode_id
from curbside.mls.codec import u64, vector
from curbside.policy.access import Role, Subject
from curbside.server.acknowledging import Acknowledgements
from curbside.server.groups import SendView, build_head, check_envelope, check_epoch, is_sound
from curbside.server.sending import Sending, SendQueue, SendSink, may_send
from curbside.server.store.ports import Change, Store
from curbside.server.store.records import ConversationRecord, MemberRecord, NewEntry, NewQueueItem
from curbside.server.store.sqlite import SqliteStore, open_sqlite_store
from curbside.wire.frames import Send
from curbside.wire.limits import ENVELOPE_BYTES

GROUP = bytes(range(16))
ROOM = ConversationId(encode_id(GROUP))
MESSAGE = bytes(range(16, 32))
EPOCH = 3
NURSE = Subject(UserId("u" * 22), DeviceId("d" * 22), Role.NURSE)


def sending(room: str, number: int, subject: Subject = NURSE, envelope: bytes = b"") -> Sending:
    return Sending(subject, Send(number, room, MESSAGE, EPOCH, envelope), cast("SendSink", None))


def described(batch: Sequence[Sending]) -> list[tuple[str, int]]:
    return [(each.frame.conversation, each.frame.request) for each in batch]


# --- turns --------------------------------------------------------------------------------------


def test_what_fits_one_batch_is_taken_whole() -> None:
    queue = SendQueue()
    for number in range(3):
        queue.append(sending("a", number))
        queue.append(sending("b", number))
    assert sorted(described(queue.take(6))) == [(room, number) for room in "ab" for number in range(3)]
    assert len(queue) == 0
    assert queue.take(6) == []


def test_a_flood_in_one_conversation_holds_up_no_other() -> None:
    queue = SendQueue()
    for number in range(1000):
        queue.append(sending("flood", number))
    for room in ("a", "b", "c"):
        for number in range(2):
            queue.append(sending(room, number))
    first = described(queue.take(16))
    assert len(first) == 16
    assert {(room, number) for room in "abc" for number in range(2)} <= set(first)
    assert len(queue) == 1006 - 16


def test_every_conversation_has_its_turn_when_there_are_more_than_fit() -> None:
    queue = SendQueue()
    for number in range(3):
        for room in range(50):
            queue.append(sending(str(room), number))
    seen: list[tuple[str, int]] = []
    for _ in range(5):
        seen += described(queue.take(10))
    assert sorted(room for room, _ in seen) == sorted(str(room) for room in range(50))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 9)), max_size=120), st.integers(1, 40))
def test_nothing_is_lost_or_doubled_and_each_conversation_keeps_its_order(
    given_sends: list[tuple[str, int]], most: int
) -> None:
    queue = SendQueue()
    for number, (room, _) in enumerate(given_sends):
        queue.append(sending(room, number))
    taken: list[tuple[str, int]] = []
    while len(queue):
        batch = described(queue.take(most))
        assert 0 < len(batch) <= most
        taken += batch
    assert sorted(number for _, number in taken) == list(range(len(given_sends)))
    for room in "abcdef":
        numbers = [number for name, number in taken if name == room]
        assert numbers == sorted(numbers)


# --- what is looked at first --------------------------------------------------------------------


def envelope(ciphertext: bytes = b"ciphertext" * 10) -> bytes:
    head = b"\x00\x01\x00\x02" + vector(GROUP) + u64(EPOCH) + b"\x01" + vector(MESSAGE)
    return head + vector(b"sender data") + vector(ciphertext)


def view(waiting: tuple[str, ...] = (), epoch: int = EPOCH) -> SendView:
    leaves = MappingProxyType({NURSE.device_id: 0})
    return SendView(ROOM, epoch, leaves, waiting, build_head(GROUP, epoch))


def is_refused(send: Send, against: SendView) -> bool:
    try:
        check_envelope(send, decode_id(against.conversation_id))
        check_epoch(send, against)
    except CurbsideError:
        return True
    return False


@pytest.mark.parametrize("length", [16, 63, 64, 1024, 16_383])
def test_a_sound_envelope_needs_no_other_check(length: int) -> None:
    assert is_sound(Send(1, ROOM, MESSAGE, EPOCH, envelope(bytes(length))), view())


@given(st.data())
def test_what_is_called_sound_passes_all_checks(data: st.DataObject) -> None:
    """Whatever is done to an envelope: the short way says yes only where the long way does."""
    raw = bytearray(envelope(data.draw(st.binary(max_size=80))))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 4))
    changed = bytes(raw[: len(raw) - cut]) + data.draw(st.binary(max_size=3))
    message_id = data.draw(st.sampled_from([MESSAGE, MESSAGE[:-1], bytes(16)]))
    send = Send(1, ROOM, message_id, data.draw(st.sampled_from([EPOCH, EPOCH - 1, EPOCH + 1])), changed)
    against = data.draw(st.sampled_from([view(), view(("waits",)), view(epoch=EPOCH + 1)]))
    if is_sound(send, against):
        assert not is_refused(send, against)


def test_vectors_in_a_longer_form_than_needed_are_not_sound() -> None:
    raw = envelope(b"x" * 5).replace(b"\x05xxxxx", b"\x40\x05xxxxx")
    assert not is_sound(Send(1, ROOM, MESSAGE, EPOCH, raw), view())


def test_what_is_too_large_or_of_another_group_is_not_sound() -> None:
    assert not is_sound(Send(1, ROOM, MESSAGE, EPOCH, envelope(bytes(ENVELOPE_BYTES))), view())
    other = SendView(ROOM, EPOCH, {}, (), build_head(bytes(16), EPOCH))
    assert not is_sound(Send(1, ROOM, MESSAGE, EPOCH, envelope()), other)


def test_only_members_whose_role_may_send_pass_unchecked() -> None:
    for role in Role:
        member = Subject(NURSE.user_id, NURSE.device_id, role)
        assert may_send(sending(ROOM, 1, member, envelope()), view())
    stranger = Subject(NURSE.user_id, DeviceId("x" * 22), Role.PHYSICIAN)
    assert not may_send(sending(ROOM, 1, stranger, envelope()), view())


# --- acknowledgements ---------------------------------------------------------------------------


class Counting:
    """A store that counts writes, and fails those it is told to."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.writes = 0
        self.failing = 0

    async def write(self, change: Any) -> Any:
        self.writes += 1
        if self.failing:
            self.failing -= 1
            raise StoreUnavailable
        return await self._store.write(change)


async def test_acknowledgements_that_wait_share_a_write() -> None:
    store = open_sqlite_store(":memory:", SecretBytes(bytes(32)))
    devices = [DeviceId(encode_id(random_bytes(16))) for _ in range(60)]

    def prepare(tx: Change) -> None:
        tx.delivery.create_conversation(ConversationRecord(ROOM, 0, 0, 1), b"")
        members = [MemberRecord(device, UserId("u" * 22), leaf, 1) for leaf, device in enumerate(devices)]
        tx.delivery.add_members(ROOM, members)
        entries = [NewEntry(0, cast("Any", random_bytes(16)), 1, b"") for _ in range(5)]
        tx.delivery.append_entries(ROOM, 0, entries)
        tx.delivery.add_queue_items([NewQueueItem(device, 0, ROOM, 1, b"") for device in devices])

    await store.write(prepare)
    counting = Counting(store)
    acks = Acknowledgements(cast("Store", counting))
    await asyncio.gather(*(acks.add(device, {ROOM: 3}, 2**63) for device in devices))
    assert counting.writes <= 2
    for device in devices:
        cursors = await store.read(lambda found, device=device: found.delivery.list_cursors(device))
        assert cursors == {ROOM: 3}
        assert await store.read(lambda found, device=device: found.delivery.read_queue(device, 0, 9)) == []
    await acks.add(devices[0], {ROOM: 2**64}, 0)
    assert await store.read(lambda found: found.delivery.list_cursors(devices[0])) == {ROOM: 5}
    await store.close()


async def test_a_write_that_fails_fails_those_who_wait_for_it_and_no_later_ones() -> None:
    store = open_sqlite_store(":memory:", SecretBytes(bytes(32)))
    counting = Counting(store)
    counting.failing = 1
    acks = Acknowledgements(cast("Store", counting))
    results = await asyncio.gather(
        *(acks.add(DeviceId("d" * 22), {ROOM: 1}, 0) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(result, StoreUnavailable) for result in results)
    await acks.add(DeviceId("d" * 22), {ROOM: 1}, 0)
    await store.close()
