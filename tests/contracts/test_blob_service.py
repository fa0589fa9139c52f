"""Attachments on every pair of store and storage, by two nodes: uploads, downloads, faults, the sweep."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import obstore
import pytest
import pytest_asyncio
from obstore.store import LocalStore, S3Store
from postgres import database_of
from s3 import bucket_of, s3_server
from test_store import KEY, new_id

from curbside.audit.events import EventName, parse_event
from curbside.clock import ManualClock
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import BlobCorrupt, ConfigError, NotFound, OffsetConflict, StoreUnavailable
from curbside.ids import BlobId, ConversationId, DeviceId, UserId, encode_base64url
from curbside.policy.access import Role, Subject
from curbside.server.blob_opening import open_blob_store
from curbside.server.blob_settings import BlobSettings
from curbside.server.blob_store import INSTALLATION, STEP_BYTES, BlobStore, name_piece
from curbside.server.blob_sweep import LEASE_SECONDS, ROUND_SECONDS, STEP_SECONDS, BlobSweep, SweepReport
from curbside.server.blobs import BlobService
from curbside.server.config import Config, KeyGiven
from curbside.server.ranges import WHOLE, AskedRange
from curbside.server.store.ports import Change, Store
from curbside.server.store.postgres import open_postgres_store
from curbside.server.store.postgres_open import PostgresSettings
from curbside.server.store.records import ConversationRecord, MemberRecord
from curbside.server.store.sqlite import open_sqlite_store
from curbside.wire.bodies import BlobUpload, NewBlob
from curbside.wire.limits import BLOB_CHUNK_BYTES

PART = BLOB_CHUNK_BYTES
GRACE = 3600


@dataclass
class Node:
    """One server process's share: it knows of the others only by the store and the storage."""

    store: Store
    objects: BlobStore
    service: BlobService
    sweep: BlobSweep


class Ward:
    """A conversation with one member, two nodes, and a look past our code into the storage."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.clock = ManualClock(int(time.time()))
        is_s3 = kind == "postgres-s3"
        blobs = s3_server().settings(bucket_of(folder), timeout_seconds=30.0) if is_s3 else BlobSettings()
        self.config = Config(
            data_folder=folder, public_urls=("http://localhost",), database_key=KeyGiven(KEY), blobs=blobs
        )
        self.beside: S3Store | LocalStore
        self.nodes = [self.open_node(), self.open_node()]
        self.beside = s3_server().client(bucket_of(folder)) if is_s3 else LocalStore(str(folder / "blobs"))
        self.conversation = ConversationId(new_id())
        self.alice = Subject(UserId(new_id()), DeviceId(new_id()), Role.NURSE)

    def open_node(self, seconds: float = 30.0) -> Node:
        """Another node. An encrypted file has one process: there the nodes share it. seconds: its patience with S3."""
        if self.kind == "postgres-s3":
            store: Store = open_postgres_store(PostgresSettings(database_of(self.folder)), KEY)
        else:
            store = self.nodes[0].store if hasattr(self, "nodes") else self._open_file()
        blobs = msgspec.structs.replace(self.config.blobs, timeout_seconds=seconds)
        objects = open_blob_store(msgspec.structs.replace(self.config, blobs=blobs))
        sweep = BlobSweep(store, objects, self.clock, GRACE)
        return Node(store, objects, BlobService(store, objects, self.clock, self.config), sweep)

    def _open_file(self) -> Store:
        if not hasattr(self, "_file"):
            self._file = open_sqlite_store(str(self.folder / "store.db"), KEY)
        return self._file

    async def begin(self) -> None:
        """The conversation."""

        def change(tx: Change) -> None:
            tx.delivery.create_conversation(ConversationRecord(self.conversation, 0, 0, 7), b"group")
            tx.delivery.add_members(self.conversation, [MemberRecord(self.alice.device_id, self.alice.user_id, 0, 1)])

        await self.nodes[0].store.write(change)

    async def create(self, data: bytes) -> str:
        """A new upload."""
        digest = encode_base64url(hashlib.sha256(data).digest())
        upload = await self.nodes[0].service.create(self.alice, NewBlob(self.conversation, len(data), digest))
        return upload.blob_id

    async def append(self, node: int, blob_id: str, data: bytes, first: int) -> BlobUpload:
        """The part of `data` that begins there."""
        return await self.nodes[node].service.append(self.alice, blob_id, first, data[first : first + PART])

    async def upload(self, data: bytes) -> str:
        """A whole attachment, by both nodes in turn."""
        blob_id = await self.create(data)
        for number, first in enumerate(range(0, len(data), PART)):
            await self.append(number % 2, blob_id, data, first)
        return blob_id

    async def offset(self, blob_id: str) -> int:
        """Where an upload stands."""
        return (await self.nodes[1].service.get_upload(self.alice, blob_id))[0].offset

    async def download(self, blob_id: str, asked: AskedRange = WHOLE) -> bytes:
        """What a member gets."""
        found = await self.nodes[1].service.open(self.alice, blob_id, asked)
        return b"".join([step async for step in found.body])

    async def names(self) -> set[str]:
        """All objects, but for the sign of whose they are."""
        return {found.name for found in await self.nodes[0].objects.list_after("")} - {INSTALLATION}

    async def events(self) -> list[EventName]:
        """The audit log."""
        records = await self.nodes[0].store.read(lambda view: view.audit.read_events(0, 1000))
        return [parse_event(record.event).name for record in records]

    async def close(self) -> None:
        """Close all stores."""
        for store in {id(node.store): node.store for node in self.nodes}.values():
            await store.close()


@pytest_asyncio.fixture(params=["sqlite-disk", "postgres-s3"])
async def ward(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ward]:
    opened = Ward(tmp_path, request.param)
    await opened.begin()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Ward]:
    """The pair whose storage is another process."""
    opened = Ward(tmp_path, "postgres-s3")
    await opened.begin()
    yield opened
    await opened.close()


# --- uploads ------------------------------------------------------------------------------------


async def test_another_node_goes_on_with_an_upload(ward: Ward) -> None:
    data = random_bytes(2 * PART + 999)
    blob_id = await ward.create(data)
    assert (await ward.append(0, blob_id, data, 0)).offset == PART
    assert await ward.offset(blob_id) == PART
    assert (await ward.append(1, blob_id, data, PART)).offset == 2 * PART
    for wrong in (0, PART, 2 * PART - 1, 2 * PART + 1):
        with pytest.raises(OffsetConflict) as conflict:
            await ward.append(0, blob_id, data, wrong)
        assert conflict.value.members["offset"] == 2 * PART
    assert (await ward.append(1, blob_id, data, 2 * PART)).complete
    assert await ward.download(blob_id) == data
    assert await ward.names() == {blob_id}
    with pytest.raises(OffsetConflict):
        await ward.append(0, blob_id, data, 2 * PART)


async def test_one_part_sent_to_both_nodes_at_once_counts_once(ward: Ward) -> None:
    data = random_bytes(2 * PART)
    blob_id = await ward.create(data)
    # A client that gave up waiting sends another cut of the same bytes elsewhere.
    short = ward.nodes[1].service.append(ward.alice, blob_id, 0, data[:1000])
    answers = await asyncio.gather(ward.append(0, blob_id, data, 0), short, return_exceptions=True)
    done = [answer.offset for answer in answers if isinstance(answer, BlobUpload)]
    refused = [answer.members["offset"] for answer in answers if isinstance(answer, OffsetConflict)]
    assert len(done) == len(refused) == 1
    assert done == refused == [await ward.offset(blob_id)]
    held = done[0]
    while held < len(data):
        held = (await ward.append(0, blob_id, data, held)).offset
    assert await ward.download(blob_id) == data
    assert await ward.names() == {blob_id}


@pytest.mark.parametrize("size", [PART, 2 * PART, 10 * PART])
async def test_the_last_part_sent_to_both_nodes_at_once_completes_once(ward: Ward, size: int) -> None:
    data = random_bytes(size)
    blob_id = await ward.create(data)
    for first in range(0, size - PART, PART):
        await ward.append(0, blob_id, data, first)
    last = [ward.append(node, blob_id, data, size - PART) for node in (0, 1, 0)]
    answers = await asyncio.gather(*last, return_exceptions=True)
    assert all(isinstance(answer, BlobUpload | OffsetConflict) for answer in answers), answers
    assert sum(isinstance(answer, BlobUpload) for answer in answers) == 1
    assert {answer.members["offset"] for answer in answers if isinstance(answer, OffsetConflict)} <= {size}
    assert (await ward.events()).count(EventName.ATTACHMENT_UPLOADED) == 1
    assert await ward.download(blob_id) == data
    assert await ward.names() == {blob_id}


async def test_a_last_part_that_comes_just_after_another_is_no_damaged_file(ward: Ward) -> None:
    """It found the upload open, and its pieces gone."""
    data = random_bytes(2 * PART)
    blob_id = await ward.create(data)
    await ward.append(0, blob_id, data, 0)
    before = await ward.nodes[1].store.read(lambda view: view.blobs.find_blob(BlobId(blob_id)))
    assert before is not None
    await ward.append(0, blob_id, data, PART)
    with pytest.raises(OffsetConflict) as caught:
        await ward.nodes[1].service._complete(ward.alice, before, data[PART:])
    assert caught.value.members["offset"] == len(data)
    assert await ward.download(blob_id) == data


@pytest.mark.parametrize("size", [5000, 9 * PART])
async def test_a_hash_that_does_not_fit_leaves_nothing(ward: Ward, size: int) -> None:
    data = random_bytes(size)
    changed = data[:100] + bytes([data[100] ^ 1]) + data[101:]
    blob_id = await ward.create(data)
    for first in range(0, size - PART, PART):
        await ward.append(0, blob_id, changed, first)
    with pytest.raises(BlobCorrupt):
        await ward.append(1, blob_id, changed, max(size - PART, 0))
    assert await ward.names() == set()
    assert await ward.offset(blob_id) == 0
    with pytest.raises(NotFound):
        await ward.download(blob_id)
    for first in range(0, size, PART):
        await ward.append(1, blob_id, data, first)
    assert await ward.download(blob_id) == data


async def test_a_node_that_died_before_it_could_say_so_is_made_good(ward: Ward) -> None:
    data = random_bytes(9 * PART)
    blob_id = await ward.create(data)
    for first in range(0, 8 * PART, PART):
        await ward.append(0, blob_id, data, first)
    await obstore.put_async(ward.beside, blob_id, data)  # the whole was written, its row was not
    with pytest.raises(NotFound):
        await ward.download(blob_id)
    assert (await ward.append(1, blob_id, data, 8 * PART)).complete
    assert await ward.download(blob_id) == data
    assert await ward.names() == {blob_id}


async def test_a_piece_that_the_storage_lost_is_sent_again(ward: Ward) -> None:
    data = random_bytes(2 * PART)
    blob_id = await ward.create(data)
    await ward.append(0, blob_id, data, 0)
    (piece,) = await ward.names()
    await obstore.delete_async(ward.beside, piece)
    with pytest.raises(OffsetConflict) as conflict:
        await ward.append(1, blob_id, data, PART)
    assert conflict.value.members["offset"] == 0
    for first in (0, PART):
        await ward.append(0, blob_id, data, first)
    assert await ward.download(blob_id) == data


# --- downloads ----------------------------------------------------------------------------------


async def test_ranges_have_exact_edges(ward: Ward) -> None:
    size = 2 * STEP_BYTES + 3
    data = random_bytes(size)
    blob_id = await ward.upload(data)
    edges = (0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, size - 1)
    for first in edges:
        for last in (*(edge for edge in edges if edge >= first), size, 10**11, None):
            end = size if last is None else last + 1
            assert await ward.download(blob_id, AskedRange(first, last)) == data[first:end]
    for count in (1, STEP_BYTES, size, 10**11):
        assert await ward.download(blob_id, AskedRange(None, count)) == data[-count:]
    for beyond in (AskedRange(size), AskedRange(size + 5, size + 9), AskedRange(None, 0)):
        assert await ward.download(blob_id, beyond) == data


@pytest.mark.parametrize("size", [1000, 3 * STEP_BYTES])
async def test_a_stored_object_that_was_changed_is_found(ward: Ward, size: int) -> None:
    data = random_bytes(size)
    blob_id = await ward.upload(data)
    await obstore.put_async(ward.beside, blob_id, data[:-1] + bytes([data[-1] ^ 1]))
    given = bytearray()

    async def read() -> None:
        found = await ward.nodes[0].service.open(ward.alice, blob_id)
        async for step in found.body:
            given.extend(step)

    with pytest.raises(BlobCorrupt):
        await read()
    assert len(given) < size
    for damaged in (data[:-1], data + b"x"):
        await obstore.put_async(ward.beside, blob_id, damaged)
        for asked in (WHOLE, AskedRange(0, 9)):
            with pytest.raises(BlobCorrupt):
                await ward.download(blob_id, asked)
    await obstore.delete_async(ward.beside, blob_id)
    with pytest.raises(BlobCorrupt):
        await ward.download(blob_id)


# --- faults of the storage ----------------------------------------------------------------------


async def test_storage_killed_during_an_upload_costs_nothing(cloud: Ward) -> None:
    data = random_bytes(10 * PART)
    blob_id = await cloud.create(data)
    for first in range(0, 4 * PART, PART):
        await cloud.append(0, blob_id, data, first)
    with s3_server().down():
        for node in (0, 1):
            with pytest.raises(StoreUnavailable):
                await cloud.append(node, blob_id, data, 4 * PART)
        assert await cloud.offset(blob_id) == 4 * PART
    for first in range(4 * PART, 9 * PART, PART):
        await cloud.append(1, blob_id, data, first)
    with s3_server().down(), pytest.raises(StoreUnavailable):
        await cloud.append(1, blob_id, data, 9 * PART)
    assert (await cloud.append(0, blob_id, data, 9 * PART)).complete
    assert await cloud.download(blob_id) == data
    assert blob_id in await cloud.names()


async def test_storage_that_does_not_answer_is_not_waited_for_long(cloud: Ward) -> None:
    data = random_bytes(PART + 5)
    blob_id = await cloud.create(data)
    await cloud.append(0, blob_id, data, 0)
    done = await cloud.upload(data)
    hasty = cloud.open_node(seconds=2.0)
    with s3_server().paused():
        async with asyncio.timeout(60):
            with pytest.raises(StoreUnavailable):
                await hasty.service.append(cloud.alice, blob_id, PART, data[PART:])
            with pytest.raises(StoreUnavailable):
                await hasty.service.open(cloud.alice, done)
            with pytest.raises(StoreUnavailable):
                await hasty.sweep.sweep()
    await hasty.store.close()
    assert await cloud.offset(blob_id) == PART
    assert (await cloud.append(1, blob_id, data, PART)).complete
    assert await cloud.download(blob_id) == await cloud.download(done) == data


# --- the sweep ----------------------------------------------------------------------------------


async def sweep_both(ward: Ward) -> SweepReport:
    """Both nodes at once; what they did together."""
    reports = await asyncio.gather(*(node.sweep.sweep() for node in ward.nodes))
    sums = [
        sum(getattr(each, name) for each in reports)
        for name in ("ended", "orphans", "unfinished", "damaged", "blocked")
    ]
    return SweepReport(*sums)


async def test_objects_and_rows_are_compared_by_one_node_at_a_time(ward: Ward) -> None:
    data = random_bytes(PART + 1)
    done, going, gone = await ward.upload(data), await ward.create(data), await ward.upload(data)
    await ward.append(0, going, data, 0)
    kept = await ward.names() - {gone}
    await obstore.delete_async(ward.beside, gone)
    orphans = {new_id(), name_piece(BlobId(going), 0, new_id()), name_piece(BlobId(new_id()), 0, new_id())}
    foreign = {"somebody-else", "folder/file"}
    for name in orphans | foreign:
        await obstore.put_async(ward.beside, name, b"left over")
    assert await sweep_both(ward) == SweepReport(damaged=1), "they are too young to be orphans"
    assert await ward.names() == kept | orphans | foreign
    assert await sweep_both(ward) == SweepReport(), "the next round is not due"
    ward.clock.advance(ROUND_SECONDS)
    assert await sweep_both(ward) == SweepReport(orphans=3, damaged=1)
    assert await ward.names() == kept | foreign
    assert await ward.download(done) == data
    assert (await ward.append(1, going, data, PART)).complete


async def test_a_round_goes_page_by_page_and_survives_its_node(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    for node in ward.nodes:
        monkeypatch.setattr(node.objects._medium, "page_size", 4)  # type: ignore[misc]
    names = [new_id() for _ in range(11)]
    for name in names:
        await obstore.put_async(ward.beside, name, b"left over")
    ward.clock.advance(GRACE + 60)
    now = ward.clock.now()
    assert await ward.nodes[0].store.write(lambda tx: tx.blobs.claim_sweep(now, now + LEASE_SECONDS)) == ""
    assert await sweep_both(ward) == SweepReport(), "the node that died had the claim"
    ward.clock.advance(LEASE_SECONDS)
    removed = 0
    for _ in range(20):
        removed += (await sweep_both(ward)).orphans
        ward.clock.advance(5)
    assert removed == 11
    assert await ward.nodes[0].objects.find(names[0]) is None


async def test_a_storage_that_lost_everything_is_told_row_by_row(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ward.nodes[0].objects._medium, "page_size", 3)  # type: ignore[misc]
    lost = [await ward.upload(random_bytes(100)) for _ in range(10)]
    kept = await ward.upload(random_bytes(100))
    for name in lost:
        await obstore.delete_async(ward.beside, name)
    damaged = 0
    for _ in range(20):
        damaged += (await ward.nodes[0].sweep.sweep()).damaged
        ward.clock.advance(STEP_SECONDS)
    assert damaged == 10
    assert await ward.names() == {kept}


async def test_uploads_that_nobody_continues_end_with_their_pieces(ward: Ward) -> None:
    data = random_bytes(2 * PART)
    left, going = await ward.create(data), await ward.create(data)
    await ward.append(0, left, data, 0)
    ward.clock.advance(ward.config.limits.upload_seconds - 1)
    await ward.append(0, going, data, 0)
    ward.clock.advance(1)
    assert (await sweep_both(ward)).ended == 1
    with pytest.raises(NotFound):
        await ward.append(1, left, data, PART)
    assert (await ward.append(1, going, data, PART)).complete
    assert await ward.names() == {going}


async def test_a_storage_without_lists_of_unfinished_writes_is_swept_all_the_same(
    cloud: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = new_id()
    await obstore.put_async(cloud.beside, orphan, b"left over")
    cloud.clock.advance(GRACE + 60)
    wrong = msgspec.structs.replace(cloud.config.blobs, secret_access_key=SecretBytes(b"another"))
    node = cloud.nodes[0]
    # The storage refuses our own signed requests, and those alone.
    monkeypatch.setattr(node.objects._medium, "_secret", wrong.read_secret())
    assert await node.sweep.sweep() == SweepReport(orphans=1, blocked=1)
    assert await cloud.names() == set()


async def test_another_installation_s_objects_are_left_alone(ward: Ward) -> None:
    await sweep_both(ward)
    await obstore.put_async(ward.beside, INSTALLATION, new_id().encode())
    orphan = new_id()
    await obstore.put_async(ward.beside, orphan, b"theirs")
    ward.clock.advance(ROUND_SECONDS + GRACE)
    with pytest.raises(ConfigError):
        await ward.nodes[0].sweep.sweep()
    assert await ward.names() == {orphan}


# --- links --------------------------------------------------------------------------------------


async def test_links_are_off_unless_they_are_switched_on(ward: Ward) -> None:
    data = random_bytes(PART + 1)
    blob_id = await ward.upload(data)
    location = await ward.nodes[0].service.locate(ward.alice, blob_id)
    assert (location.url, location.size) == ("", PART + 1)
    found = await ward.nodes[0].service.open(ward.alice, blob_id, AskedRange(0, 9))
    assert not found.has_location
