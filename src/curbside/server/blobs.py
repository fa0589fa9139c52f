"""Blobs: attachments' ciphertext, uploaded in parts that can be resumed, read by the conversation's members alone.

A part lies in the object store under the blob's id and its offset until the upload is whole; then the parts are joined
under the id alone, if their hash fits. What the store's row says is what counts: bytes without a row are never served.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from curbside.audit.events import EventName, ObjectType, size_bucket
from curbside.clock import Clock
from curbside.crypto.random import random_bytes
from curbside.errors import (
    BlobCorrupt,
    CurbsideError,
    Malformed,
    NotFound,
    OffsetConflict,
    StorageFull,
    StoreUnavailable,
    TooLarge,
)
from curbside.ids import BlobId, ConversationId, decode_base64url, decode_id, encode_id
from curbside.policy.access import Relation, Subject, check_access
from curbside.server.config import Limits
from curbside.server.recording import About, Actor, Recorder
from curbside.server.store.ports import Change, Store, View
from curbside.server.store.records import BlobRecord
from curbside.wire import limits as sizes
from curbside.wire.bodies import BlobUpload, NewBlob

SWEPT: Final = 100
LOCKS_KEPT: Final = 4_096
_NO_ROOM: Final = ("os error 28", "os error 27", "os error 122", "No space left")
"""ENOSPC, EFBIG, EDQUOT as the object store tells them."""


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes first to last (both included) of a blob of `size` bytes."""

    size: int
    first: int
    last: int
    body: AsyncIterator[bytes]


class BlobService:
    """Called by the routes of blobs and by the sweeper."""

    def __init__(self, store: Store, folder: Path, clock: Clock, limits: Limits) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._store = store
        self._folder = folder
        self._objects = LocalStore(str(folder), automatic_cleanup=True)
        self._clock = clock
        self._limits = limits
        self._recorder = Recorder(clock)
        self._locks: OrderedDict[BlobId, asyncio.Lock] = OrderedDict()

    # --- uploading ----------------------------------------------------------------------------

    async def create(self, subject: Subject, body: NewBlob) -> BlobUpload:
        """Begin an upload.

        Raises: NotFound when the caller's device is not in the conversation; TooLarge; StorageFull; Malformed.
        """
        decode_id(body.conversation_id)
        sha256 = decode_base64url(body.sha256)
        if len(sha256) != 32 or body.size < 1:
            raise Malformed("a blob has at least one byte, and a hash of 32 bytes")
        if body.size > self._limits.blob_bytes:
            raise TooLarge(limit=self._limits.blob_bytes)
        now = self._clock.now()
        record = BlobRecord(
            blob_id=BlobId(encode_id(random_bytes(16))),
            conversation_id=ConversationId(body.conversation_id),
            uploader=subject.device_id,
            size=body.size,
            offset=0,
            sha256=sha256,
            created_at=now,
            expires_at=now + self._limits.upload_seconds,
        )
        about = About(
            EventName.ATTACHMENT_UPLOADED,
            "R-blob-create",
            ObjectType.CONVERSATION,
            record.conversation_id,
            refused=EventName.ATTACHMENT_REFUSED,
        )

        def change(tx: Change) -> None:
            _check_member(tx, "R-blob-create", subject, record.conversation_id)
            held = tx.blobs.count_blob_bytes(record.conversation_id)
            if held + record.size > self._limits.conversation_blob_bytes:
                raise StorageFull("the conversation's attachments take up all their room")
            tx.blobs.add_blob(record)

        await self._store.write(change, self._recorder.refused(about, Actor.of(subject)))
        return _show(record)

    async def get_upload(self, subject: Subject, blob_id: str) -> tuple[BlobUpload, int]:
        """How far the caller's own upload is, and its size in the end, in bytes. Raises: NotFound; Malformed."""
        record = await self._get_own(subject, blob_id)
        return _show(record), record.size

    async def append(self, subject: Subject, blob_id: str, offset: int, data: bytes) -> BlobUpload:
        """Add bytes at `offset`; the last ones complete the blob.

        Raises: NotFound; OffsetConflict (offset); TooLarge; BlobCorrupt when the hash does not fit, which
        puts the upload back to its beginning; StorageFull, StoreUnavailable.
        """
        decode_id(blob_id)
        async with self._lock(BlobId(blob_id)):
            record = await self._get_own(subject, blob_id)
            if record.completed_at or offset != record.offset:
                raise OffsetConflict(offset=record.offset)
            if not data:
                raise Malformed("an upload's part has at least one byte")
            if len(data) > sizes.BLOB_CHUNK_BYTES or offset + len(data) > record.size:
                raise TooLarge(limit=min(sizes.BLOB_CHUNK_BYTES, record.size - offset))
            await self._put(_part(record.blob_id, offset), data)
            held, expires_at = offset + len(data), self._clock.now() + self._limits.upload_seconds
            if held == record.size:
                # Its offset stands before this last part until the whole is there: a crash or a full disk in between
                # leaves an upload that can be finished.
                await self._complete(subject, record)
            else:
                await self._store.write(lambda tx: tx.blobs.set_blob_offset(record.blob_id, held, expires_at))
            return BlobUpload(record.blob_id, held, sizes.BLOB_CHUNK_BYTES, held == record.size)

    async def _complete(self, subject: Subject, record: BlobRecord) -> None:
        about = About(
            EventName.ATTACHMENT_UPLOADED,
            "R-blob-upload",
            ObjectType.BLOB,
            record.blob_id,
            {"conversation": record.conversation_id, "size_bucket": size_bucket(record.size)},
            refused=EventName.ATTACHMENT_REFUSED,
        )
        actor = Actor.of(subject)
        parts = await self._list_parts(record.blob_id)
        is_whole = await self._join(record, parts)
        if not is_whole:
            event = self._recorder.refused(about, actor)(BlobCorrupt())
            expires_at = self._clock.now() + self._limits.upload_seconds

            def reset(tx: Change) -> None:
                tx.blobs.set_blob_offset(record.blob_id, 0, expires_at)
                tx.append_audit(event)

            await self._store.write(reset)
            await self._delete([record.blob_id, *parts])
            raise BlobCorrupt

        def complete(tx: Change) -> None:
            tx.blobs.complete_blob(record.blob_id, self._clock.now())
            tx.append_audit(self._recorder.done(about, actor))

        await self._store.write(complete)
        await self._delete(parts)

    async def _join(self, record: BlobRecord, parts: list[str]) -> bool:
        """Write the parts as one object; whether size and hash fit."""
        digest, size = hashlib.sha256(), 0
        try:
            async with obstore.open_writer_async(self._objects, record.blob_id) as writer:
                for part in parts:
                    data = bytes(await (await obstore.get_async(self._objects, part)).bytes_async())
                    digest.update(data)
                    size += len(data)
                    await writer.write(data)
            await asyncio.to_thread(_sync, self._folder / record.blob_id)
        except (BaseError, OSError) as error:
            raise _map_object_error(error) from error
        return size == record.size and digest.digest() == record.sha256

    # --- downloading --------------------------------------------------------------------------

    async def open(self, subject: Subject, blob_id: str, first: int = 0, last: int | None = None) -> Download:
        """A blob's bytes for a member of its conversation. last: included; None: to the end.

        Raises: NotFound, also for who is no member and for an upload that is not complete; BlobCorrupt.
        """
        decode_id(blob_id)
        about = About(
            EventName.ATTACHMENT_DOWNLOADED,
            "R-blob-read",
            ObjectType.BLOB,
            blob_id,
            refused=EventName.ATTACHMENT_REFUSED,
        )

        def change(tx: Change) -> BlobRecord:
            record = tx.blobs.find_blob(BlobId(blob_id))
            if record is None or not record.completed_at:
                raise NotFound
            _check_member(tx, "R-blob-read", subject, record.conversation_id)
            tx.append_audit(self._recorder.done(about, Actor.of(subject)))
            return record

        record = await self._store.write(change, self._recorder.refused(about, Actor.of(subject)))
        try:
            found = await obstore.head_async(self._objects, record.blob_id)
        except FileNotFoundError:
            raise BlobCorrupt("the stored file is not there") from None
        except (BaseError, OSError) as error:
            raise _map_object_error(error) from error
        if found["size"] != record.size:
            raise BlobCorrupt("the stored file has another size")
        end = record.size - 1 if last is None else min(last, record.size - 1)
        if first > end:
            first, end = 0, record.size - 1
        return Download(record.size, first, end, self._stream(record.blob_id, first, end))

    async def _stream(self, blob_id: BlobId, first: int, last: int) -> AsyncIterator[bytes]:
        found = await obstore.get_async(self._objects, blob_id, options={"range": (first, last + 1)})
        async for chunk in found.stream(min_chunk_size=64 * 1024):
            yield bytes(chunk)

    # --- sweeping -----------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Remove uploads that nobody continued; how many."""

        def question(view: View) -> list[BlobRecord]:
            return view.blobs.list_expired_uploads(self._clock.now(), SWEPT)

        expired = await self._store.read(question)
        for record in expired:
            async with self._lock(record.blob_id):
                await self._delete([record.blob_id, *await self._list_parts(record.blob_id)])
                blob_id = record.blob_id
                await self._store.write(lambda tx, gone=blob_id: tx.blobs.delete_blob(gone))  # type: ignore[misc]
        return len(expired)

    # --- objects ------------------------------------------------------------------------------

    async def _get_own(self, subject: Subject, blob_id: str) -> BlobRecord:
        decode_id(blob_id)
        about = About(EventName.ATTACHMENT_REFUSED, "R-blob-upload", ObjectType.BLOB, blob_id)

        def question(view: View) -> BlobRecord | None:
            return view.blobs.find_blob(BlobId(blob_id))

        record = await self._store.read(question)
        try:
            is_own = record is not None and record.uploader == subject.device_id
            check_access("R-blob-upload", subject, Relation.OWN if is_own else Relation.NONE)
            if record is None:
                raise NotFound
        except CurbsideError as error:
            event = self._recorder.refused(about, Actor.of(subject))(error)
            await self._store.write(lambda tx: tx.append_audit(event))
            raise
        return record

    async def _put(self, name: str, data: bytes) -> None:
        try:
            await obstore.put_async(self._objects, name, data)
        except (BaseError, OSError) as error:
            raise _map_object_error(error) from error

    async def _list_parts(self, blob_id: BlobId) -> list[str]:
        names: list[str] = []
        async for page in obstore.list(self._objects, prefix=f"{blob_id}.parts"):
            names += [str(found["path"]) for found in page]
        return sorted(names)

    async def _delete(self, names: list[str]) -> None:
        for name in names:
            try:
                await obstore.delete_async(self._objects, name)
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                raise _map_object_error(error) from error

    def _lock(self, blob_id: BlobId) -> asyncio.Lock:
        lock = self._locks.setdefault(blob_id, asyncio.Lock())
        self._locks.move_to_end(blob_id)
        while len(self._locks) > LOCKS_KEPT and not next(iter(self._locks.values())).locked():
            self._locks.popitem(last=False)
        return lock


def _check_member(view: View, rule: str, subject: Subject, conversation_id: ConversationId) -> None:
    members = view.delivery.list_members(conversation_id)
    is_member = any(member.device_id == subject.device_id for member in members)
    check_access(rule, subject, Relation.MEMBER if is_member else Relation.NONE)


def _show(record: BlobRecord) -> BlobUpload:
    return BlobUpload(record.blob_id, record.offset, sizes.BLOB_CHUNK_BYTES, bool(record.completed_at))


def _part(blob_id: BlobId, offset: int) -> str:
    return f"{blob_id}.parts/{offset:012d}"


def _map_object_error(error: Exception) -> CurbsideError:
    text = str(error)
    return StorageFull() if any(sign in text for sign in _NO_ROOM) else StoreUnavailable()


def _sync(path: Path) -> None:
    for target in (path, path.parent):
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
