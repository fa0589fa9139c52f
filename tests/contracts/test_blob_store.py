"""One suite for every place where attachments may lie: what server.blob_store promises, on disk and on real S3."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import obstore
import pytest
from obstore.store import LocalStore, S3Store
from s3 import bucket_of, s3_server

from curbside.clock import SystemClock
from curbside.crypto.random import random_bytes
from curbside.errors import IntegrityError, NotFound, StoreUnavailable
from curbside.ids import BlobId, encode_id
from curbside.server.blob_store import MULTIPART_BYTES, SINGLE_BYTES, BlobStore, is_blob, is_piece, name_piece
from curbside.server.blob_store_disk import DiskMedium
from curbside.server.blob_store_s3 import S3Medium

MIB = 1024 * 1024


@dataclass
class Place:
    """A place for objects, opened as often as asked; `beside` reaches it past our code."""

    open: Callable[[Path], BlobStore]
    beside: Callable[[Path], S3Store | LocalStore]


def open_s3(folder: Path) -> BlobStore:
    return BlobStore(S3Medium(s3_server().settings(bucket_of(folder)), SystemClock()))


PLACES = {
    "disk": Place(
        lambda folder: BlobStore(DiskMedium(folder / "blobs")), lambda folder: LocalStore(str(folder / "blobs"))
    ),
    "s3": Place(open_s3, lambda folder: s3_server().client(bucket_of(folder))),
}
"""Every place; a new one joins here and passes all of this."""


@pytest.fixture(params=sorted(PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param]


@pytest.fixture
def blobs(place: Place, tmp_path: Path) -> BlobStore:
    return place.open(tmp_path)


@pytest.fixture
def beside(place: Place, blobs: BlobStore, tmp_path: Path) -> S3Store | LocalStore:
    return place.beside(tmp_path)


def new_name() -> str:
    return encode_id(random_bytes(16))


async def parts_of(data: bytes, size: int = MIB) -> AsyncIterator[bytes]:
    for first in range(0, len(data), size):
        yield data[first : first + size]


async def names_of(blobs: BlobStore) -> list[str]:
    return [found.name for found in await blobs.list_after("")]


async def test_an_object_is_written_once_and_read_by_ranges(blobs: BlobStore) -> None:
    name, data = new_name(), random_bytes(10_000)
    assert await blobs.find(name) is None
    assert await blobs.read(name, 0, 0) is None
    before = int(time.time())
    await blobs.put(name, data)
    await blobs.put(name, data)  # the same request again, since its answer was lost
    with pytest.raises(IntegrityError):
        await blobs.put(name, random_bytes(10_000))
    with pytest.raises(IntegrityError):
        await blobs.put(name, data[:-1])
    found = await blobs.find(name)
    assert found is not None
    assert (found.name, found.size) == (name, 10_000)
    assert before - 5 <= found.modified_at <= time.time() + 5
    for first, last in ((0, 9_999), (0, 0), (9_999, 9_999), (5, 99), (9_000, 20_000)):
        assert await blobs.read(name, first, last) == (10_000, data[first : last + 1])
    assert await blobs.read(name, 10_000, 10_000) == (10_000, b"")
    assert await blobs.read(name, 50_000, 60_000) == (10_000, b"")


async def test_absent_objects_are_removed_without_complaint(blobs: BlobStore) -> None:
    name = name_piece(BlobId(new_name()), 5, new_name())
    await blobs.put(name, b"piece")
    await blobs.delete([name, name, new_name()])
    assert await names_of(blobs) == []


@pytest.mark.parametrize("size", [1, MIB, SINGLE_BYTES, SINGLE_BYTES + 1, 2 * MULTIPART_BYTES, 16 * MIB + 17])
async def test_a_whole_appears_only_when_size_and_hash_fit(blobs: BlobStore, size: int) -> None:
    name, data = new_name(), random_bytes(size)
    sha256 = hashlib.sha256(data).digest()
    changed = data[:-1] + bytes([data[-1] ^ 1])
    assert not await blobs.put_verified(name, parts_of(changed), size, sha256)
    assert not await blobs.put_verified(name, parts_of(data + b"x"), size, sha256)
    assert not await blobs.put_verified(name, parts_of(data[:-1]), size, sha256)
    assert await names_of(blobs) == []
    assert await blobs.put_verified(name, parts_of(data), size, sha256)
    assert await blobs.read(name, 0, size - 1) == (size, data)
    assert await names_of(blobs) == [name]


@pytest.mark.parametrize("size", [1000, SINGLE_BYTES + MIB])
async def test_a_whole_is_never_replaced(blobs: BlobStore, beside: S3Store | LocalStore, size: int) -> None:
    name, data = new_name(), random_bytes(size)
    sha256 = hashlib.sha256(data).digest()
    writes = [blobs.put_verified(name, parts_of(data), size, sha256) for _ in range(3)]
    assert await asyncio.gather(*writes) == [True] * 3
    other = new_name()
    await obstore.put_async(beside, other, random_bytes(size))
    with pytest.raises(IntegrityError):
        await blobs.put_verified(other, parts_of(data), size, sha256)


async def test_what_its_parts_raise_ends_the_write(blobs: BlobStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield bytes(MIB)
        raise NotFound("a piece is gone")

    with pytest.raises(NotFound):
        await blobs.put_verified(new_name(), broken(), 20 * MIB, bytes(32))
    assert await names_of(blobs) == []


async def test_objects_are_listed_by_name_after_another(
    blobs: BlobStore, beside: S3Store | LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = BlobId(new_name())
    names = [blob, name_piece(blob, 0, new_name()), name_piece(blob, MIB, new_name()), "installation"]
    names += [new_name() for _ in range(8)]
    for name in names:
        await obstore.put_async(beside, name, b"x")
    expected = sorted(names)
    assert await names_of(blobs) == expected
    monkeypatch.setattr(blobs._medium, "page_size", 5)  # type: ignore[misc]
    assert blobs.page_size == 5
    pages: list[list[str]] = [[found.name for found in await blobs.list_after("")]]
    while len(pages[-1]) == 5:
        pages.append([found.name for found in await blobs.list_after(pages[-1][-1])])
    assert [name for page in pages for name in page] == expected


async def test_writes_that_were_given_up_are_removed_after_their_time(
    place: Place, blobs: BlobStore, tmp_path: Path
) -> None:
    now = int(time.time())
    if place is PLACES["disk"]:
        await blobs.put(new_name(), b"finished")
        (tmp_path / "blobs" / f"{new_name()}#1").write_bytes(b"cut short")
        folder = tmp_path / "blobs" / f"{new_name()}.parts"
        folder.mkdir()
        (folder / "000000000000-x#12").write_bytes(b"cut short")
        count = 2
    else:
        medium = blobs._medium
        assert isinstance(medium, S3Medium)
        name = new_name()
        await blobs.put(new_name(), b"finished")
        async with httpx.AsyncClient() as client:
            # Begun as a node that was killed had begun it: our own signed request, with nothing after it.
            await medium._ask(client, "POST", name, {"uploads": ""})
            await medium._ask(client, "POST", "not-ours", {"uploads": ""})
        count = 1
    assert await blobs.end_unfinished(now - 60) == 0
    assert await blobs.end_unfinished(now + 60) == count
    assert await blobs.end_unfinished(now + 60) == 0
    assert len(await names_of(blobs)) == 1


async def test_only_s3_gives_links_and_they_end(place: Place, blobs: BlobStore) -> None:
    name, data = new_name(), random_bytes(5000)
    await blobs.put(name, data)
    url = await blobs.sign(name, 300)
    if place is PLACES["disk"]:
        assert url is None
        return
    assert url is not None
    limit = time.monotonic() + 60
    async with httpx.AsyncClient() as client:
        whole = await client.get(url)
        assert (whole.status_code, whole.content) == (200, data)
        assert whole.headers["content-disposition"] == "attachment"
        assert whole.headers["content-type"] == "application/octet-stream"
        part = await client.get(url, headers={"range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, data[10:20])
        for forged in (
            url.replace(name, new_name()),
            url[:-1] + ("0" if url[-1] != "0" else "1"),
            url.partition("?")[0],
        ):
            assert (await client.get(forged)).status_code == 403
        assert (await client.put(url, content=b"other")).status_code == 403
        short = await blobs.sign(name, 2)
        assert short is not None
        while (await client.get(short)).status_code != 403:
            assert time.monotonic() < limit
            await asyncio.sleep(0.2)
    assert await blobs.read(name, 0, 4999) == (5000, data)


async def test_storage_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    settings = s3_server().settings(bucket_of(tmp_path), endpoint="http://127.0.0.1:1", timeout_seconds=2.0)
    blobs = BlobStore(S3Medium(settings, SystemClock()))
    for ask in (
        lambda: blobs.put(new_name(), b"x"),
        lambda: blobs.put_verified(
            new_name(), parts_of(bytes(9 * MIB)), 9 * MIB, hashlib.sha256(bytes(9 * MIB)).digest()
        ),
        lambda: blobs.find(new_name()),
        lambda: blobs.read(new_name(), 0, 1),
        lambda: blobs.delete([new_name()]),
        lambda: blobs.list_after(""),
        lambda: blobs.end_unfinished(0),
    ):
        with pytest.raises(StoreUnavailable):
            await ask()


async def test_storage_killed_in_the_middle_of_a_whole_leaves_nothing_to_be_taken_for_it(tmp_path: Path) -> None:
    settings = s3_server().settings(bucket_of(tmp_path))
    blobs = BlobStore(S3Medium(settings, SystemClock()))
    name, data = new_name(), random_bytes(20 * MIB)
    sha256 = hashlib.sha256(data).digest()

    async def killing() -> AsyncIterator[bytes]:
        async for part in parts_of(data[: 15 * MIB]):
            yield part
        s3_server().kill()
        async for part in parts_of(data[15 * MIB :]):
            yield part

    try:
        with pytest.raises(StoreUnavailable):
            await blobs.put_verified(name, killing(), len(data), sha256)
    finally:
        s3_server().start()
    assert await blobs.find(name) is None
    assert await blobs.end_unfinished(int(time.time()) - 3600) == 0, "it may be somebody's who is at it"
    assert await blobs.end_unfinished(int(time.time()) + 60) == 1
    assert await blobs.put_verified(name, parts_of(data), len(data), sha256)
    assert await blobs.read(name, 0, len(data)) == (len(data), data)


async def test_a_missing_bucket_is_not_a_missing_object(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(s3_server().settings(bucket_of(tmp_path)), bucket="never-made")
    blobs = BlobStore(S3Medium(settings, SystemClock()))
    for ask in (lambda: blobs.read(new_name(), 0, 1), lambda: blobs.list_after(""), lambda: blobs.end_unfinished(0)):
        with pytest.raises(StoreUnavailable):
            await ask()


async def test_a_wrong_key_is_unavailable_and_nowhere_to_be_read(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("another-SECRET-key\n")
    settings = s3_server().settings(bucket_of(tmp_path), secret_access_key=None, secret_access_key_file=key)
    medium = S3Medium(settings, SystemClock())
    blobs = BlobStore(medium)
    for ask in (lambda: blobs.put(new_name(), b"x"), lambda: blobs.find(new_name()), lambda: blobs.end_unfinished(0)):
        with pytest.raises(StoreUnavailable) as refused:
            await ask()
        assert "SECRET" not in repr(refused.value) + str(refused.value) + repr(refused.value.__cause__)
    assert "SECRET" not in repr(medium.__dict__["_secret"]) + repr(settings)


def test_names_of_objects_are_told_apart() -> None:
    blob, word = BlobId(new_name()), new_name()
    piece = name_piece(blob, 12, word)
    assert piece == f"{blob}.parts/000000000012-{word}"
    assert (is_blob(blob), is_piece(blob), is_blob(piece), is_piece(piece)) == (True, False, False, True)
    for foreign in ("installation", "", blob + "x", piece + "x", "../" + blob, blob + "\n", os.sep + blob):
        assert not is_blob(foreign)
        assert not is_piece(foreign)
