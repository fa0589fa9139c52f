"""Attachments' ciphertext: uploads in parts, resuming, hashes, ranges, members only, no room, expiry."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from running import GENEROUS, Person, Running

from curbside.audit.events import EventName
from curbside.clock import ManualClock
from curbside.crypto.random import random_bytes
from curbside.ids import encode_base64url, encode_id
from curbside.mls.group import CommitRequest, Group
from curbside.server.blob_store import INSTALLATION
from curbside.wire import bodies, limits

PART = limits.BLOB_CHUNK_BYTES
START = 1_790_000_000


async def begin_upload(person: Person, group: Group, data: bytes, sha256: bytes | None = None) -> str:
    """A new upload's id."""
    digest = sha256 or hashlib.sha256(data).digest()
    body = bodies.NewBlob(encode_id(group.group_id), len(data), encode_base64url(digest))
    return str((await person.post("/v1/blobs", body)).json()["blob_id"])


async def put(person: Person, blob_id: str, offset: int, data: bytes) -> Any:
    """One part; the answer whatever it is."""
    headers = {"upload-offset": str(offset), "content-type": "application/octet-stream"}
    return await person.request("PATCH", f"/v1/blobs/{blob_id}", data, headers)


async def upload(person: Person, group: Group, data: bytes) -> str:
    """A whole upload."""
    blob_id = await begin_upload(person, group, data)
    for offset in range(0, len(data), PART):
        answer = await put(person, blob_id, offset, data[offset : offset + PART])
        assert answer.status_code == 200, answer.text
    assert answer.json()["complete"] is True
    return blob_id


def objects_of(running: Running) -> set[str]:
    """Names in the blobs folder, but for the sign of whose it is, which the sweep leaves."""
    return {path.name for path in running.config.blobs_path.iterdir()} - {INSTALLATION}


def code_of(response: Any) -> str:
    """The problem's code."""
    return str(response.json()["type"].rpartition(":")[2])


async def test_a_member_downloads_what_another_uploaded(running: Running, alice: Person, bob: Person) -> None:
    group = await alice.begin()
    await alice.add(group, bob)
    data = random_bytes(2 * PART + 12345)
    blob_id = await upload(alice, group, data)
    answer = await bob.get(f"/v1/blobs/{blob_id}")
    assert answer.content == data
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["cache-control"] == "no-store"
    assert objects_of(running) == {blob_id}
    events = [event.name for event in running.events()]
    assert EventName.ATTACHMENT_UPLOADED in events
    assert events[-1] == EventName.ATTACHMENT_DOWNLOADED


async def test_ranges_are_honoured(alice: Person) -> None:
    group = await alice.begin()
    data = random_bytes(5000)
    blob_id = await upload(alice, group, data)
    for header, first, last in (
        ("bytes=0-99", 0, 99),
        ("bytes=4000-", 4000, 4999),
        ("bytes=4990-9999", 4990, 4999),
        ("bytes=-5", 4995, 4999),
    ):
        answer = await alice.get(f"/v1/blobs/{blob_id}", headers={"range": header})
        assert answer.status_code == 206
        assert answer.content == data[first : last + 1]
        assert answer.headers["content-range"] == f"bytes {first}-{last}/5000"
    for header in ("bytes=9000-", "bytes=-0", "lines=1-2", "bytes=5-1", "bytes=1-2,4-5", "bytes=-"):
        answer = await alice.get(f"/v1/blobs/{blob_id}", headers={"range": header})
        assert (answer.status_code, answer.content) == (200, data)


async def test_a_condition_on_a_range_that_cannot_be_told_gives_everything(alice: Person) -> None:
    data = random_bytes(100)
    blob_id = await upload(alice, await alice.begin(), data)
    headers = {"range": "bytes=0-9", "if-range": '"another version"'}
    answer = await alice.get(f"/v1/blobs/{blob_id}", headers=headers)
    assert (answer.status_code, answer.content) == (200, data)


async def test_an_upload_resumes_where_it_stopped(running: Running, alice: Person) -> None:
    group = await alice.begin()
    data = random_bytes(PART + 100)
    blob_id = await begin_upload(alice, group, data)
    await put(alice, blob_id, 0, data[:1000])
    for wrong in (0, 999, 1001):
        conflict = await put(alice, blob_id, wrong, data[1000:2000])
        assert (conflict.status_code, code_of(conflict), conflict.json()["offset"]) == (409, "offset_conflict", 1000)
    running.stop()
    running.start()
    head = await alice.request("HEAD", f"/v1/blobs/{blob_id}")
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("1000", str(len(data)))
    assert (await alice.problem("GET", f"/v1/blobs/{blob_id}"))["status"] == 404
    answer = await put(alice, blob_id, 1000, data[1000:])
    assert answer.json()["complete"] is True
    assert (await alice.get(f"/v1/blobs/{blob_id}")).content == data


async def test_a_flipped_bit_is_found_and_the_upload_begins_anew(running: Running, alice: Person) -> None:
    group = await alice.begin()
    data = random_bytes(3000)
    blob_id = await begin_upload(alice, group, data)
    flipped = data[:1500] + bytes([data[1500] ^ 1]) + data[1501:]
    corrupt = await put(alice, blob_id, 0, flipped)
    assert (corrupt.status_code, code_of(corrupt)) == (422, "blob_corrupt")
    assert (await alice.problem("GET", f"/v1/blobs/{blob_id}"))["status"] == 404
    assert objects_of(running) == set()
    head = await alice.request("HEAD", f"/v1/blobs/{blob_id}")
    assert head.headers["upload-offset"] == "0"
    assert (await put(alice, blob_id, 0, data)).json()["complete"] is True
    assert running.events()[-1].name == EventName.ATTACHMENT_UPLOADED


async def test_a_stored_file_that_was_cut_is_not_served(running: Running, alice: Person) -> None:
    group = await alice.begin()
    blob_id = await upload(alice, group, random_bytes(3000))
    path = running.config.blobs_path / blob_id
    path.write_bytes(path.read_bytes()[:2000])
    assert (await alice.problem("GET", f"/v1/blobs/{blob_id}"))["type"].endswith(":blob_corrupt")
    path.unlink()
    assert (await alice.problem("GET", f"/v1/blobs/{blob_id}"))["type"].endswith(":blob_corrupt")


async def test_only_members_read_and_only_the_uploader_writes(running: Running, alice: Person, bob: Person) -> None:
    group = await alice.begin()
    data = random_bytes(100)
    blob_id = await upload(alice, group, data)
    unknown = encode_id(random_bytes(16))
    answers = [await bob.problem("GET", f"/v1/blobs/{name}") for name in (blob_id, unknown)]
    assert [(answer["status"], answer["detail"]) for answer in answers] == [(404, "Not found.")] * 2
    pending = await begin_upload(alice, group, data)
    await alice.add(group, bob)
    assert (await bob.get(f"/v1/blobs/{blob_id}")).content == data
    assert code_of(await put(bob, pending, 0, data)) == "not_found"
    assert (await bob.request("HEAD", f"/v1/blobs/{pending}")).status_code == 404
    staged = group.stage_commit(CommitRequest(removes=(1,)), running.clock.now())
    await alice.commit(group, staged.commit)
    assert (await bob.problem("GET", f"/v1/blobs/{blob_id}"))["status"] == 404
    body = bodies.NewBlob(encode_id(group.group_id), 5, encode_base64url(bytes(32)))
    assert (await bob.problem("POST", "/v1/blobs", body))["status"] == 404
    refusals = [event for event in running.events() if event.name == EventName.ATTACHMENT_REFUSED]
    assert {event.actor_device for event in refusals} == {bob.device_id}
    assert len(refusals) == 6


async def test_sizes_are_limited(alice: Person) -> None:
    group = await alice.begin()
    name = encode_id(group.group_id)
    large = bodies.NewBlob(name, limits.BLOB_BYTES + 1, encode_base64url(bytes(32)))
    assert (await alice.problem("POST", "/v1/blobs", large))["type"].endswith(":too_large")
    for size, digest in ((0, bytes(32)), (-1, bytes(32)), (5, bytes(31))):
        body = bodies.NewBlob(name, size, encode_base64url(digest))
        assert (await alice.problem("POST", "/v1/blobs", body))["type"].endswith(":malformed")
    blob_id = await begin_upload(alice, group, bytes(100))
    assert code_of(await put(alice, blob_id, 0, bytes(101))) == "too_large"
    assert code_of(await put(alice, blob_id, 0, b"")) == "malformed"
    assert code_of(await put(alice, blob_id, 0, bytes(PART + 1))) == "too_large"
    assert (await alice.problem("PATCH", f"/v1/blobs/{blob_id}", b"x"))["type"].endswith(":malformed")
    assert (await alice.problem("PATCH", "/v1/blobs/..%2fcurbside.db", b"x"))["status"] in (400, 404)


async def test_a_conversation_s_attachments_have_their_room(tmp_path: Path) -> None:
    given = msgspec.structs.replace(GENEROUS, conversation_blob_bytes=1000)
    running = Running(tmp_path, limits=given).start()
    try:
        alice = await Person.join(running)
        group = await alice.begin()
        await begin_upload(alice, group, bytes(600))
        body = bodies.NewBlob(encode_id(group.group_id), 600, encode_base64url(bytes(32)))
        assert (await alice.problem("POST", "/v1/blobs", body))["type"].endswith(":storage_full")
        await alice.close()
    finally:
        running.stop()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files of this process cannot grow over `size`: the system refuses as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_said_and_the_upload_goes_on_later(alice: Person) -> None:
    group = await alice.begin()
    data = random_bytes(PART)
    blob_id = await begin_upload(alice, group, data)
    with file_size_limit(900_000):
        full = await put(alice, blob_id, 0, data)
    assert (full.status_code, code_of(full)) == (507, "storage_full")
    head = await alice.request("HEAD", f"/v1/blobs/{blob_id}")
    assert head.headers["upload-offset"] == "0"
    assert (await put(alice, blob_id, 0, data)).json()["complete"] is True


async def test_an_upload_that_could_not_be_joined_is_finished_later(running: Running, alice: Person) -> None:
    group = await alice.begin()
    data = random_bytes(PART + 200_000)
    blob_id = await begin_upload(alice, group, data)
    assert (await put(alice, blob_id, 0, data[:PART])).status_code == 200
    with file_size_limit(1_100_000):  # room for each part, none for the whole
        full = await put(alice, blob_id, PART, data[PART:])
    assert code_of(full) == "storage_full"
    head = await alice.request("HEAD", f"/v1/blobs/{blob_id}")
    assert head.headers["upload-offset"] == str(PART)
    assert (await put(alice, blob_id, PART, data[PART:])).json()["complete"] is True
    assert (await alice.get(f"/v1/blobs/{blob_id}")).content == data


async def test_an_upload_that_nobody_continues_is_removed(tmp_path: Path) -> None:
    clock = ManualClock(START)
    running = Running(tmp_path, clock).start()
    try:
        alice = await Person.join(running)
        group = await alice.begin()
        left, done = await begin_upload(alice, group, bytes(100)), await upload(alice, group, bytes(50))
        await put(alice, left, 0, bytes(10))
        services = running.app.services
        assert services is not None
        assert running.call(services.blob_sweep.sweep).ended == 0
        clock.advance(running.config.limits.upload_seconds + 1)
        assert running.call(services.blob_sweep.sweep).ended == 1
        assert objects_of(running) == {done}
        await alice.close()
    finally:
        running.stop()


@pytest.mark.parametrize("offset", ["-1", "1e3", "", "9" * 30])
async def test_offsets_are_numbers(alice: Person, offset: str) -> None:
    group = await alice.begin()
    blob_id = await begin_upload(alice, group, bytes(10))
    answer = await alice.request("PATCH", f"/v1/blobs/{blob_id}", bytes(10), {"upload-offset": offset})
    assert code_of(answer) == "malformed"
