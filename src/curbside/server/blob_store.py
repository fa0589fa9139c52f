"""Objects: where attachments' ciphertext lies. One kind of code for this machine's disk and for S3-compatible storage.

    <blob id>                            a whole attachment; its hash fitted before it was written
    <blob id>.parts/<offset>-<word>      a piece of an upload; no two attempts share a name
    installation                         whose objects these are

Every object is written once, under a name that was free, and never changed. What is not in a row of the store is
removed by the sweep (server.blob_sweep) after a time of grace.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import AsyncIterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, S3Store

from curbside.errors import CurbsideError, IntegrityError, StorageFull, StoreUnavailable
from curbside.ids import BlobId

INSTALLATION: Final = "installation"
STEP_BYTES: Final = 1024 * 1024
"""Read and handed on at once, so that a slow reader holds no connection to the storage."""
SINGLE_BYTES: Final = 8 * 1024 * 1024
"""Up to this size an object is written by one conditional request, above it as a multipart upload."""
MULTIPART_BYTES: Final = 5 * 1024 * 1024
"""One part of it; S3 allows no smaller ones but the last."""
_BLOB = re.compile(r"[A-Za-z0-9_-]{22}\Z")
_PIECE = re.compile(r"[A-Za-z0-9_-]{22}\.parts/\d{12}-[A-Za-z0-9_-]{22}\Z")
_NO_ROOM: Final = re.compile(
    r"os error (28|27|122)\b|No space left|status code: 507|<Code>(InsufficientStorage|QuotaExceeded|XMinioStorageFull"
    "|XMinioAdminBucketQuotaExceeded|StorageFull)"
)
"""ENOSPC, EFBIG, EDQUOT and their likes, as the object store's library tells them."""

_BEYOND: Final = re.compile("status code: 416|InvalidRange")
"""A range that begins behind the end."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object. size: bytes. modified_at: Unix seconds of the storage's clock."""

    name: str
    size: int
    modified_at: int


class Medium(Protocol):
    """What differs between the places where objects lie."""

    @property
    def objects(self) -> S3Store | LocalStore:
        """The library's own store."""
        ...

    attributes: dict[str, str] | None
    page_size: int
    """Objects of one step of the sweep."""
    is_ordered: bool
    """Whether objects are listed by name."""

    async def settle(self, name: str) -> None:
        """Make an object that was just written survive a power cut."""

    async def sign(self, name: str, seconds: int) -> str | None:
        """A URL under which anybody may read the object for so long; None: there is none. Raises: StoreUnavailable."""
        ...

    async def end_unfinished(self, before: int) -> int:
        """Remove writes of objects that were begun before then and never finished; how many.

        Raises: StoreUnavailable.
        """
        ...


class BlobStore:
    """Objects on a medium. Called by server.blobs and server.blob_sweep."""

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._objects = medium.objects

    @property
    def medium(self) -> Medium:
        """Where the objects lie."""
        return self._medium

    @property
    def page_size(self) -> int:
        """How many objects to list at once."""
        return self._medium.page_size

    async def put(self, name: str, data: bytes) -> None:
        """Write a new object. Writing the same bytes again is harmless.

        Raises: IntegrityError when other bytes have the name; StorageFull, StoreUnavailable.
        """
        with _mapped():
            try:
                await obstore.put_async(
                    self._objects,
                    name,
                    data,
                    mode="create",
                    use_multipart=False,
                    attributes=self._medium.attributes,
                )
            except AlreadyExistsError:
                # A request whose answer was lost is sent again by the library.
                await self._check_same(name, len(data), hashlib.sha256(data).digest())
            await self._medium.settle(name)

    async def put_verified(self, name: str, parts: AsyncIterator[bytes], size: int, sha256: bytes) -> bool:
        """Write a new object of these parts, if size and hash fit; whether they do. Else nothing is left of it.

        Raises: as `put`, and what `parts` raises.
        """
        checked = _Checked(parts, size, sha256)
        if size <= SINGLE_BYTES:
            data = b"".join([part async for part in checked.parts()])
            if checked.fits:
                await self.put(name, data)
            return checked.fits
        with _mapped():
            if await self.find(name) is not None:  # a node that died before it could say so
                await self._check_same(name, size, sha256)
                return True
            try:
                await obstore.put_async(
                    self._objects,
                    name,
                    checked.whole(),
                    use_multipart=True,
                    chunk_size=MULTIPART_BYTES,
                    max_concurrency=2,
                    attributes=self._medium.attributes,
                )
            except _Unfit:
                return False
            await self._medium.settle(name)
        return True

    async def find(self, name: str) -> StoredObject | None:
        """An object without its bytes. Raises: StoreUnavailable."""
        with _mapped():
            try:
                return _show(await obstore.head_async(self._objects, name))
            except FileNotFoundError:
                return None

    async def read(self, name: str, first: int, last: int) -> tuple[int, bytes] | None:
        """The whole object's size, and its bytes first to last (included) as far as it has them; None: no such object.

        Raises: StoreUnavailable.
        """
        with _mapped():
            try:
                found = await obstore.get_async(self._objects, name, options={"range": (first, last + 1)})
                return int(found.meta["size"]), bytes(await found.bytes_async())
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise StoreUnavailable from error
                return None
            except BaseError as error:
                held = await self.find(name) if _BEYOND.search(str(error)) else None
                if held is None or held.size > first:
                    raise
                return held.size, b""  # a range behind the end is an error of the storage's

    async def delete(self, names: list[str]) -> None:
        """Remove objects; absent ones are no error. Raises: StoreUnavailable."""
        with _mapped():
            for name in names:
                try:
                    await obstore.delete_async(self._objects, name)
                except FileNotFoundError:
                    continue

    async def list_after(self, after: str) -> list[StoredObject]:
        """A page of objects whose names follow `after`, by name; shorter than page_size at the end.

        Raises: StoreUnavailable.
        """
        with _mapped():
            pages = obstore.list(self._objects, offset=after or None, chunk_size=self._medium.page_size)
            if self._medium.is_ordered:
                async for page in pages:
                    return [_show(found) for found in page]
                return []
            every = [_show(found) async for page in pages for found in page]
            return heapq.nsmallest(self._medium.page_size, every, key=lambda found: found.name)

    async def sign(self, name: str, seconds: int) -> str | None:
        """See Medium.sign."""
        with _mapped():
            return await self._medium.sign(name, seconds)

    async def end_unfinished(self, before: int) -> int:
        """See Medium.end_unfinished."""
        with _mapped():
            return await self._medium.end_unfinished(before)

    async def _check_same(self, name: str, size: int, sha256: bytes) -> None:
        found = await self.read(name, 0, size)
        if found is None:
            raise StoreUnavailable
        if found[0] != size or hashlib.sha256(found[1]).digest() != sha256:
            raise IntegrityError("another object has this name")


class _Unfit(Exception):
    """Size or hash do not fit; the write that is under way is given up."""


class _Checked:
    def __init__(self, parts: AsyncIterator[bytes], size: int, sha256: bytes) -> None:
        self._parts, self._size, self._sha256 = parts, size, sha256
        self.fits = False

    async def parts(self) -> AsyncIterator[bytes]:
        digest, held = hashlib.sha256(), 0
        async for part in self._parts:
            digest.update(part)
            held += len(part)
            yield part
        self.fits = held == self._size and digest.digest() == self._sha256

    async def whole(self) -> AsyncIterator[bytes]:
        """The same; the end does not come before the hash fits."""
        async for part in self.parts():
            yield part
        if not self.fits:
            raise _Unfit


def name_piece(blob_id: BlobId, first: int, word: str) -> str:
    """The object of a piece. word: 22 characters that no other attempt has."""
    return f"{blob_id}.parts/{first:012d}-{word}"


def is_blob(name: str) -> bool:
    """Whether an object's name is a whole attachment's."""
    return _BLOB.match(name) is not None


def is_piece(name: str) -> bool:
    """Whether an object's name is an upload's piece's."""
    return _PIECE.match(name) is not None


def map_object_error(error: Exception) -> CurbsideError:
    """What an error of the object store's library means to a caller."""
    return StorageFull() if _NO_ROOM.search(str(error)) else StoreUnavailable()


@contextmanager
def _mapped() -> Any:
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise map_object_error(error) from error


def _show(found: Any) -> StoredObject:
    return StoredObject(str(found["path"]), int(found["size"]), int(found["last_modified"].timestamp()))
