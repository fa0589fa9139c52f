"""Blobs: attachments' ciphertext, uploaded in pieces that can be resumed, read by the conversation's members alone.

A piece is an object of its own, and a row of the store says that it counts; so any node can go on with an upload. The
last one makes the pieces into one object, if the hash of the whole fits. Bytes without a row are never served.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from curbside.audit.events import EventName, Extra, ObjectType, size_bucket
from curbside.clock import Clock
from curbside.crypto.random import random_bytes
from curbside.errors import (
    BlobCorrupt,
    CurbsideError,
    Malformed,
    NotFound,
    OffsetConflict,
    StorageFull,
    TooLarge,
    Unavailable,
)
from curbside.ids import BlobId, ConversationId, decode_base64url, decode_id, encode_id
from curbside.policy.access import Relation, Subject, check_access
from curbside.server.blob_store import STEP_BYTES, BlobStore, name_piece
from curbside.server.config import Config
from curbside.server.ranges import WHOLE, AskedRange
from curbside.server.recording import About, Actor, Recorder
from curbside.server.store.ports import Change, Store, View
from curbside.server.store.records import BlobRecord, PieceRecord
from curbside.wire import limits as sizes
from curbside.wire.bodies import BlobLocation, BlobUpload, NewBlob

JOINS: Final = 4
"""Uploads that are completed at once; each holds some 16 MiB at most."""


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes first to last (both included) of a blob of `size` bytes. has_location: the rest may be had by a link."""

    size: int
    first: int
    last: int
    has_location: bool
    body: AsyncIterator[bytes]


class BlobService:
    """Called by the routes of blobs. objects: where the bytes lie."""

    def __init__(self, store: Store, objects: BlobStore, clock: Clock, config: Config) -> None:
        self._store = store
        self._objects = objects
        self._clock = clock
        self._limits = config.limits
        self._link_seconds = config.blobs.presign_seconds
        self._recorder = Recorder(clock)
        self._joining = asyncio.Semaphore(JOINS)

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
        puts the upload back to its beginning; StorageFull, StoreUnavailable: the same bytes may be sent again.
        """
        record = await self._get_own(subject, blob_id)
        if record.completed_at or offset != record.offset:
            raise OffsetConflict(offset=record.offset)
        if not data:
            raise Malformed("an upload's part has at least one byte")
        if len(data) > sizes.BLOB_CHUNK_BYTES or offset + len(data) > record.size:
            raise TooLarge(limit=min(sizes.BLOB_CHUNK_BYTES, record.size - offset))
        held = offset + len(data)
        if held == record.size:
            # Its offset stands before this last part until the whole is there: a crash or a full disk in between
            # leaves an upload that can be finished.
            await self._complete(subject, record, data)
        else:
            await self._add_piece(record, data)
        return BlobUpload(record.blob_id, held, sizes.BLOB_CHUNK_BYTES, held == record.size)

    async def _add_piece(self, record: BlobRecord, data: bytes) -> None:
        """The object first, then its row: what was answered is there."""
        name = name_piece(record.blob_id, record.offset, encode_id(random_bytes(16)))
        piece = PieceRecord(record.blob_id, record.offset, len(data), name)
        await self._objects.put(name, data)
        expires_at = self._clock.now() + self._limits.upload_seconds
        if not await self._store.write(lambda tx: tx.blobs.add_piece(piece, expires_at)):
            await self._remove([name])
            raise await self._find_conflict(record.blob_id)

    async def _complete(self, subject: Subject, record: BlobRecord, data: bytes) -> None:
        about = About(
            EventName.ATTACHMENT_UPLOADED,
            "R-blob-upload",
            ObjectType.BLOB,
            record.blob_id,
            {"conversation": record.conversation_id, "size_bucket": size_bucket(record.size)},
            refused=EventName.ATTACHMENT_REFUSED,
        )
        actor = Actor.of(subject)
        pieces = await self._store.read(lambda view: view.blobs.list_pieces(record.blob_id))
        if sum(piece.size for piece in pieces) != record.offset:  # another request was quicker
            raise await self._find_conflict(record.blob_id)
        async with self._joining:
            parts = self._read_pieces(pieces, data)
            try:
                fits = await self._objects.put_verified(record.blob_id, parts, record.size, record.sha256)
            except _PieceGone:
                raise await self._begin_anew(record, pieces) from None
        if not fits:
            event = self._recorder.refused(about, actor)(BlobCorrupt())
            await self._reset(record, lambda tx: tx.append_audit(event))
            await self._remove([piece.name for piece in pieces])
            raise BlobCorrupt

        def complete(tx: Change) -> bool:
            if not tx.blobs.complete_blob(record.blob_id, self._clock.now()):
                return False
            tx.append_audit(self._recorder.done(about, actor))
            return True

        if not await self._store.write(complete):
            raise await self._find_conflict(record.blob_id)
        await self._remove([piece.name for piece in pieces])

    async def _read_pieces(self, pieces: list[PieceRecord], data: bytes) -> AsyncIterator[bytes]:
        for piece in pieces:
            found = await self._objects.read(piece.name, 0, piece.size - 1)
            if found is None or len(found[1]) != piece.size:
                raise _PieceGone
            yield found[1]
        yield data

    async def _begin_anew(self, record: BlobRecord, pieces: list[PieceRecord]) -> CurbsideError:
        """A piece is not there: another node was quicker and removed them, or the storage lost it."""
        conflict = await self._find_conflict(record.blob_id)
        if not isinstance(conflict, OffsetConflict) or conflict.members["offset"] != record.offset:
            return conflict
        await self._reset(record)
        await self._remove([piece.name for piece in pieces])
        return OffsetConflict(offset=0)

    async def _reset(self, record: BlobRecord, also: Callable[[Change], None] = lambda tx: None) -> None:
        expires_at = self._clock.now() + self._limits.upload_seconds

        def reset(tx: Change) -> None:
            tx.blobs.reset_upload(record.blob_id, expires_at)
            also(tx)

        await self._store.write(reset)

    async def _find_conflict(self, blob_id: BlobId) -> CurbsideError:
        """What to tell a client whose part was not taken: where its upload stands now."""
        now = await self._store.read(lambda view: view.blobs.find_blob(blob_id))
        return NotFound() if now is None else OffsetConflict(offset=now.offset)

    # --- downloading --------------------------------------------------------------------------

    async def open(self, subject: Subject, blob_id: str, asked: AskedRange = WHOLE) -> Download:
        """A blob's bytes for a member of its conversation.

        The hash of a whole blob is compared before its last bytes are given.

        Raises: NotFound, also for who is no member and for an upload that is not complete; BlobCorrupt;
        StoreUnavailable.
        """
        record = await self._authorize_download(subject, blob_id, {})
        first, last = asked.resolve(record.size)
        beginning = await self._read_step(record, first, last)
        is_whole = len(beginning) == record.size
        if is_whole and hashlib.sha256(beginning).digest() != record.sha256:
            raise BlobCorrupt("the stored file is another one")
        has_location = self._link_seconds > 0 and last + 1 < record.size
        return Download(record.size, first, last, has_location, self._stream(record, first, last, beginning))

    async def locate(self, subject: Subject, blob_id: str) -> BlobLocation:
        """A link of short life to a blob, for a member of its conversation; url "": there are no links here.

        Raises: NotFound, as `open`; StoreUnavailable.
        """
        record = await self._authorize_download(subject, blob_id, {"result": "link"})
        url = await self._objects.sign(record.blob_id, self._link_seconds) if self._link_seconds else None
        expires_at = self._clock.now() + self._link_seconds
        return BlobLocation(url or "", record.size, expires_at)

    async def _authorize_download(self, subject: Subject, blob_id: str, extra: dict[str, Extra]) -> BlobRecord:
        decode_id(blob_id)
        about = About(
            EventName.ATTACHMENT_DOWNLOADED,
            "R-blob-read",
            ObjectType.BLOB,
            blob_id,
            extra,
            refused=EventName.ATTACHMENT_REFUSED,
        )

        def change(tx: Change) -> BlobRecord:
            record = tx.blobs.find_blob(BlobId(blob_id))
            if record is None or not record.completed_at:
                raise NotFound
            _check_member(tx, "R-blob-read", subject, record.conversation_id)
            tx.append_audit(self._recorder.done(about, Actor.of(subject)))
            return record

        return await self._store.write(change, self._recorder.refused(about, Actor.of(subject)))

    async def _stream(self, record: BlobRecord, first: int, last: int, beginning: bytes) -> AsyncIterator[bytes]:
        is_whole = last - first + 1 == record.size
        digest, step = hashlib.sha256(), beginning
        while True:
            first += len(step)
            digest.update(step)
            if is_whole and first > last and digest.digest() != record.sha256:
                raise BlobCorrupt("the stored file is another one")
            yield step
            if first > last:
                return
            step = await self._read_step(record, first, last)

    async def _read_step(self, record: BlobRecord, first: int, last: int) -> bytes:
        last = min(last, first + STEP_BYTES - 1)
        found = await self._objects.read(record.blob_id, first, last)
        if found is None:
            raise BlobCorrupt("the stored file is not there")
        size, data = found
        if size != record.size or len(data) != last - first + 1:
            raise BlobCorrupt("the stored file has another size")
        return data

    # --- rows and objects ---------------------------------------------------------------------

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

    async def _remove(self, names: list[str]) -> None:
        """What is left when the storage cannot be reached is removed by the sweep."""
        with suppress(Unavailable):
            await self._objects.delete(names)


class _PieceGone(Exception):
    """A piece that a row names is not in the storage."""


def _check_member(view: View, rule: str, subject: Subject, conversation_id: ConversationId) -> None:
    members = view.delivery.list_members(conversation_id)
    is_member = any(member.device_id == subject.device_id for member in members)
    check_access(rule, subject, Relation.MEMBER if is_member else Relation.NONE)


def _show(record: BlobRecord) -> BlobUpload:
    return BlobUpload(record.blob_id, record.offset, sizes.BLOB_CHUNK_BYTES, bool(record.completed_at))
