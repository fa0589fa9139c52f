"""Verifying backups without restoring them, and reading what is in one.

Without the private key: that every object of every backup is there, byte for byte as it was written. With it: that each
object opens, that rows and attachments are whole, and that counts and sums are those that were taken from the server.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curbside.audit.checkpoint import VerifierKey
from curbside.clock import Clock
from curbside.errors import BackupRefused, IntegrityError
from curbside.server.backup.chain import Chain, get_chain, read_receipts
from curbside.server.backup.create import Progress
from curbside.server.backup.place import Place, name_object
from curbside.server.backup.recipient import BackupKey
from curbside.server.backup.sealing import BlobPart, Body, Manifest, TablePart, check_object, open_body, open_object
from curbside.server.store.tables import Row, RowSum, encode_row, split_rows


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """key: opens the contents too; None: bytes and chain only. audit_key: pinned in place of the key file's.

    receipts: kept elsewhere; what is missing of them was taken away. most_age: seconds that the newest backup may be
    old. number: of the backup that is opened; None: the newest.
    """

    place: Place
    key: BackupKey | None = None
    audit_key: VerifierKey | None = None
    receipts: Path | None = None
    most_age: int | None = None
    number: int | None = None

    def read_chain(self) -> Chain:
        """The place's chain, under the pinned key. Raises: as `get_chain`."""
        pinned = self.audit_key or (self.key.audit_key if self.key else None)
        return get_chain(self.place, pinned, read_receipts(self.receipts) if self.receipts else ())


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was looked at. is_opened: with the private key. is_pinned: the signing key was known from elsewhere."""

    backups: int
    newest: int
    created_at: int
    age: int
    objects: int
    bytes: int
    rows: int
    blobs: int
    missing: tuple[str, ...]
    is_opened: bool
    is_pinned: bool
    seconds: float


def verify_backups(request: VerifyRequest, clock: Clock, progress: Progress) -> VerifyResult:
    """Verify all backups of a place, and open one of them if there is a key.

    Raises: BackupRefused, naming what is wrong; ConfigError when there is no backup; StoreUnavailable.
    """
    began = time.monotonic()
    chain = request.read_chain()
    age = max(0, clock.now() - chain.newest.head.created_at)
    if request.most_age is not None and age > request.most_age:
        raise BackupRefused(f"the newest backup is {age} seconds old, more than {request.most_age}", age=age)
    chosen = chain.get(request.number)
    digests = sorted({digest for manifest in chain.manifests for digest in manifest.head.objects})
    size = 0
    for done, digest in enumerate(digests):
        sealed = request.place.read(name_object(digest))
        check_object(digest, sealed)
        size += len(sealed)
        progress("objects", done + 1, len(digests))
    rows = blobs = 0
    missing: tuple[str, ...] = ()
    if request.key is not None:
        body, rows, blobs = _open_all(request.place, request.key, chosen, progress)
        missing = tuple(body.missing)
    return VerifyResult(
        backups=len(chain.manifests),
        newest=chain.newest.head.number,
        created_at=chain.newest.head.created_at,
        age=age,
        objects=len(digests),
        bytes=size,
        rows=rows,
        blobs=blobs,
        missing=missing,
        is_opened=request.key is not None,
        is_pinned=chain.is_pinned,
        seconds=round(time.monotonic() - began, 3),
    )


def _open_all(place: Place, key: BackupKey, manifest: Manifest, progress: Progress) -> tuple[Body, int, int]:
    contents = Contents(place, key, manifest)
    body, done = contents.body, 0
    for part in body.tables:
        for _ in contents.read_rows(part):
            done += 1
            if not done % 1000:
                progress("rows", done, sum(each.rows for each in body.tables))
    for at, blob in enumerate(body.blobs):
        for _ in contents.read_blob(blob):
            pass
        progress("attachments", at + 1, len(body.blobs))
    return body, done, len(body.blobs)


class Contents:
    """What is in one backup. Everything it hands out was checked against the signed manifest, ends included."""

    def __init__(self, place: Place, key: BackupKey, manifest: Manifest) -> None:
        self._place, self._key, self._manifest = place, key, manifest
        self.body = open_body(key, manifest)

    def read_rows(self, part: TablePart) -> Iterator[Row]:
        """A table's rows. Raises: BackupRefused, at the end too, when they are not those that were counted."""
        total = RowSum()
        for at in part.objects:
            try:
                rows = split_rows(self._open(at))
            except IntegrityError as error:
                raise error if isinstance(error, BackupRefused) else BackupRefused(error.detail) from error
            for row in rows:
                total.add(encode_row(row))
                yield row
        if total.count != part.rows or total.encode() != part.sum:
            raise BackupRefused(f"the rows of {part.name} are not those that were counted")

    def read_blob(self, part: BlobPart) -> Iterator[bytes]:
        """An attachment's ciphertext. Raises: BackupRefused, at the end too."""
        digest, size = hashlib.sha256(), 0
        for at in part.objects:
            piece = self._open(at)
            digest.update(piece)
            size += len(piece)
            yield piece
        if size != part.size or digest.digest() != part.sha256:
            raise BackupRefused("an attachment is not the one that was counted")

    def _open(self, at: int) -> bytes:
        head = self._manifest.head
        digest = head.objects[at]
        return open_object(self._key, head.place_id, digest, self._place.read(name_object(digest)))
