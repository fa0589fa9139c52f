"""One suite for every store, blobs: uploads that several nodes continue, claims of the sweep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from test_store import ENGINES, new_id

from curbside.ids import BlobId, ConversationId, DeviceId
from curbside.server.store.ports import Store
from curbside.server.store.records import BlobRecord, PieceRecord


@pytest_asyncio.fixture(params=sorted(ENGINES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = ENGINES[request.param].open(tmp_path)
    yield opened
    await opened.close()


async def begin_upload(store: Store, size: int = 100, expires_at: int = 50) -> BlobRecord:
    record = BlobRecord(
        BlobId(new_id()), ConversationId(new_id()), DeviceId(new_id()), size, 0, bytes(32), 1, expires_at
    )
    await store.write(lambda tx: tx.blobs.add_blob(record))
    return record


async def test_an_upload_grows_by_pieces_from_one_hand_at_a_time(store: Store) -> None:
    record = await begin_upload(store)
    blob = record.blob_id
    assert await store.read(lambda view: view.blobs.count_blob_bytes(record.conversation_id)) == 100
    first, second = PieceRecord(blob, 0, 40, "one"), PieceRecord(blob, 40, 10, "two")
    assert await store.write(lambda tx: tx.blobs.add_piece(first, 60))
    for late in (
        PieceRecord(blob, 0, 30, "again"),
        PieceRecord(blob, 41, 9, "gap"),
        PieceRecord(BlobId("x"), 0, 1, "-"),
    ):
        assert not await store.write(lambda tx, piece=late: tx.blobs.add_piece(piece, 99))  # type: ignore[misc]
    assert await store.write(lambda tx: tx.blobs.add_piece(second, 70))
    assert await store.read(lambda view: view.blobs.list_pieces(blob)) == [first, second]
    assert await store.read(lambda view: view.blobs.list_piece_names(["two", "again", "x"])) == ["two"]
    found = await store.read(lambda view: view.blobs.find_blob(blob))
    assert found is not None
    assert (found.offset, found.expires_at) == (50, 70)
    await store.write(lambda tx: tx.blobs.reset_upload(blob, 80))
    assert await store.read(lambda view: view.blobs.list_pieces(blob)) == []
    assert await store.write(lambda tx: tx.blobs.add_piece(first, 80))


async def test_an_upload_is_completed_once_and_then_neither_grows_nor_expires(store: Store) -> None:
    record = await begin_upload(store)
    blob = record.blob_id
    assert await store.write(lambda tx: tx.blobs.add_piece(PieceRecord(blob, 0, 40, "one"), 60))
    assert await store.write(lambda tx: tx.blobs.complete_blob(blob, 55))
    assert not await store.write(lambda tx: tx.blobs.complete_blob(blob, 56))
    assert not await store.write(lambda tx: tx.blobs.add_piece(PieceRecord(blob, 100, 1, "more"), 60))
    await store.write(lambda tx: tx.blobs.reset_upload(blob, 99))
    assert not await store.write(lambda tx: tx.blobs.end_upload(blob, 99))
    found = await store.read(lambda view: view.blobs.find_blob(blob))
    assert found is not None
    assert (found.offset, found.completed_at) == (100, 55)
    assert await store.read(lambda view: view.blobs.list_pieces(blob)) == []


async def test_an_upload_that_expired_ends_once_and_one_that_goes_on_does_not(store: Store) -> None:
    record = await begin_upload(store)
    blob = record.blob_id
    assert await store.read(lambda view: view.blobs.list_expired_uploads(49, 10)) == []
    assert await store.read(lambda view: view.blobs.list_expired_uploads(50, 10)) == [record]
    assert await store.write(lambda tx: tx.blobs.add_piece(PieceRecord(blob, 0, 40, "one"), 60))
    assert not await store.write(lambda tx: tx.blobs.end_upload(blob, 59))
    assert await store.write(lambda tx: tx.blobs.end_upload(blob, 60))
    assert not await store.write(lambda tx: tx.blobs.end_upload(blob, 60))
    assert await store.read(lambda view: view.blobs.find_blob(blob)) is None
    assert await store.read(lambda view: view.blobs.list_piece_names(["one"])) == []


async def test_blobs_are_listed_between_two_names(store: Store) -> None:
    records = sorted([await begin_upload(store) for _ in range(5)], key=lambda record: record.blob_id)
    names = [record.blob_id for record in records]
    assert await store.read(lambda view: view.blobs.list_blobs("", None, 10)) == records
    assert await store.read(lambda view: view.blobs.list_blobs(names[1], names[3], 10)) == records[2:4]
    assert await store.read(lambda view: view.blobs.list_blobs(names[1], None, 2)) == records[2:4]


async def test_a_step_of_the_sweep_is_claimed_by_one(store: Store) -> None:
    claims = [store.write(lambda tx: tx.blobs.claim_sweep(100, 160)) for _ in range(4)]
    assert sorted(await asyncio.gather(*claims), key=str) == ["", None, None, None]
    await store.write(lambda tx: tx.blobs.advance_sweep("abc", 130))
    assert await store.write(lambda tx: tx.blobs.claim_sweep(129, 200)) is None
    assert await store.write(lambda tx: tx.blobs.claim_sweep(130, 200)) == "abc"
    assert await store.write(lambda tx: tx.blobs.claim_sweep(200, 300)) == "abc", "whoever claimed it died"
