"""One more backup, of a server that may go on running.

The database is read in one snapshot; attachments follow, which never change. The manifest is written last: a backup
that was cut short leaves objects that nobody names, and the next one writes over them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

import curbside
from curbside.audit.events import AuditEvent, EventName, ObjectType, Outcome
from curbside.clock import Clock
from curbside.crypto.random import random_bytes
from curbside.errors import ConfigError, CurbsideError, StorageFull, StoreUnavailable
from curbside.server.audit_service import AuditService, AuditSettings, Operator
from curbside.server.backup.chain import find_chain, make_receipt, read_receipts
from curbside.server.backup.objects import BYTES, MOST_BYTES, ROWS, Objects, cut_rows
from curbside.server.backup.place import FolderPlace, Place, name_manifest
from curbside.server.backup.recipient import print_of
from curbside.server.backup.sealing import (
    FORMAT,
    BlobPart,
    Body,
    Head,
    IndexKeys,
    Manifest,
    Parts,
    TablePart,
    build_manifest,
    parse_manifest,
)
from curbside.server.backup.settings import describe_settings
from curbside.server.blob_opening import open_blob_store
from curbside.server.blob_store import BlobStore
from curbside.server.config import Config
from curbside.server.database import open_snapshot, open_store
from curbside.server.database_key import load_database_key
from curbside.server.keys import ServerKeys, prepare_keys
from curbside.server.store.ports import Change, Store
from curbside.server.store.tables import Row, RowSum, Table, TableReader

LAST_BACKUP: Final = "backup.last"
"""Setting: when the last backup was made (8 bytes, Unix seconds), and its number (8 bytes)."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is of it."""


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """recipient: the public key that opens the backup. receipts: a line is added to this file, best elsewhere."""

    place: Place
    recipient: bytes
    receipts: Path | None = None


@dataclass(frozen=True, slots=True)
class BackupResult:
    """What was done. objects: of the whole backup. new_objects, new_bytes: written now. is_increment: it could build on
    an earlier one. missing: attachments that are damaged or gone on the server itself."""

    number: int
    created_at: int
    rows: int
    blobs: int
    objects: int
    new_objects: int
    new_bytes: int
    seconds: float
    manifest: str
    is_increment: bool
    missing: tuple[str, ...]


@dataclass(slots=True)
class _Content:
    """What a backup is made of, while it is made. wanted: attachments that the database tells of."""

    tables: list[TablePart] = field(default_factory=list)
    blobs: list[BlobPart] = field(default_factory=list)
    wanted: list[tuple[str, int, bytes]] = field(default_factory=list)
    newest_ms: int = 0
    missing: list[str] = field(default_factory=list)


async def create_backup(config: Config, request: BackupRequest, clock: Clock, progress: Progress) -> BackupResult:
    """Make a backup of the organisation that this configuration serves. Leaves an audit event, also when it fails.

    Raises: ConfigError; BackupRefused when what is in the place already cannot be trusted; StoreUnavailable;
    StorageFull; IntegrityError.
    """
    _check_apart(config, request)
    store = open_store(config, is_server=False)
    try:
        keys = await prepare_keys(store, None)
        await AuditService(store, clock, keys, AuditSettings(file=config.audit.checkpoint_file)).make_checkpoint()
        try:
            result = await _Run(config, request, keys, clock, progress).create()
        except CurbsideError as error:
            await record(store, clock, EventName.BACKUP_FAILED, error.code, 0)
            raise
        await _remember(store, clock, result)
        return result
    finally:
        await store.close()


class _Run:
    """One run of `create_backup`."""

    def __init__(
        self, config: Config, request: BackupRequest, keys: ServerKeys, clock: Clock, progress: Progress
    ) -> None:
        self._config, self._request, self._keys = config, request, keys
        self._clock, self._progress = clock, progress
        receipts = read_receipts(request.receipts) if request.receipts else []
        self._chain = find_chain(request.place, keys.audit_key, receipts)
        self._index_keys = IndexKeys(load_database_key(config.database_key))
        self._place_id = self._chain.newest.head.place_id if self._chain else random_bytes(16)
        self._old = self._index_keys.open(self._chain.newest) if self._chain else None
        self._objects = Objects(request.place, request.recipient, self._place_id, self._index_keys, self._old)
        self._content = _Content()

    async def create(self) -> BackupResult:
        began = time.monotonic()
        reader = open_snapshot(self._config)
        try:
            taken_at_ms = self._clock.now_ms()
            self._read_tables(reader)
            await self._read_blobs(open_blob_store(self._config))
            body = self._build_body(reader, taken_at_ms)
        finally:
            reader.close()
        manifest = self._write(body)
        return BackupResult(
            number=manifest.head.number,
            created_at=manifest.head.created_at,
            rows=sum(part.rows for part in self._content.tables),
            blobs=len(self._content.blobs),
            objects=len(self._objects.digests),
            new_objects=self._objects.new_objects,
            new_bytes=self._objects.new_bytes,
            seconds=round(time.monotonic() - began, 3),
            manifest=manifest.digest.hex(),
            is_increment=self._old is not None,
            missing=tuple(self._content.missing),
        )

    # --- reading ------------------------------------------------------------------------------

    def _read_tables(self, reader: TableReader) -> None:
        expected = {table.name: reader.count_rows(table) for table in reader.tables}
        whole, done = sum(expected.values()), 0
        for table in reader.tables:
            total, objects = RowSum(), []
            for chunk in cut_rows(self._watch(table, reader), total):
                objects.append(self._objects.put(ROWS, chunk))
                self._progress("rows", done + total.count, whole)
            done += total.count
            self._content.tables.append(
                TablePart(table.name, list(table.columns), total.count, total.encode(), objects)
            )

    def _watch(self, table: Table, reader: TableReader) -> Iterator[Row]:
        """A table's rows; what a backup has to know of them is noted on the way."""
        if table.name == "entries":
            (at,) = table.places(["received_at_ms"])
            for row in reader.read_rows(table):
                self._content.newest_ms = max(self._content.newest_ms, as_number(row[at]))
                yield row
        elif table.name == "blobs":
            blob_id, size, sha256, completed_at = table.places(["blob_id", "size", "sha256", "completed_at"])
            for row in reader.read_rows(table):
                digest = row[sha256]
                if row[completed_at] and isinstance(digest, bytes):
                    self._content.wanted.append((str(row[blob_id]), as_number(row[size]), digest))
                yield row
        else:
            yield from reader.read_rows(table)

    async def _read_blobs(self, blobs: BlobStore) -> None:
        wanted = self._content.wanted
        for done, (blob_id, size, sha256) in enumerate(wanted):
            objects = self._objects.find_blob(sha256)
            if objects is None:
                objects = await self._read_blob(blobs, blob_id, size, sha256)
            if objects is None:
                self._content.missing.append(blob_id)
            else:
                self._content.blobs.append(BlobPart(blob_id, size, sha256, objects))
            self._progress("attachments", done + 1, len(wanted))

    async def _read_blob(self, blobs: BlobStore, blob_id: str, size: int, sha256: bytes) -> list[int] | None:
        """The objects of an attachment; None when it is damaged or not there."""
        digest, at, objects = hashlib.sha256(), 0, []
        while at < size:
            found = await blobs.read(blob_id, at, min(at + MOST_BYTES, size) - 1)
            if found is None or found[0] != size or not found[1]:
                return None
            digest.update(found[1])
            objects.append(self._objects.put(BYTES, found[1]))
            at += len(found[1])
        if digest.digest() != sha256:
            return None
        self._objects.keep_blob(sha256, objects)
        return objects

    # --- writing ------------------------------------------------------------------------------

    def _build_body(self, reader: TableReader, taken_at_ms: int) -> Body:
        order = {digest: at for at, digest in enumerate(sorted(self._objects.digests))}
        places = [order[digest] for digest in self._objects.digests]

        def placed(objects: list[int]) -> list[int]:
            return [places[number] for number in objects]

        content = self._content
        return Body(
            program=curbside.__version__,
            engine=reader.schema.engine,
            schema=reader.schema.version,
            taken_at_ms=taken_at_ms,
            newest_ms=content.newest_ms,
            tables=[msgspec.structs.replace(part, objects=placed(part.objects)) for part in content.tables],
            blobs=[msgspec.structs.replace(part, objects=placed(part.objects)) for part in content.blobs],
            counters=reader.read_counters(),
            authority=self._keys.authority.raw,
            settings=describe_settings(self._config),
            missing=content.missing,
        )

    def _write(self, body: Body) -> Manifest:
        chain, request = self._chain, self._request
        head = Head(
            format=FORMAT,
            place_id=self._place_id,
            number=chain.newest.head.number + 1 if chain else 1,
            created_at=self._clock.now(),
            previous=chain.newest.digest if chain else b"",
            recipient=print_of(request.recipient),
            signer=self._keys.audit_key.encode(),
            objects=sorted(self._objects.digests),
        )
        index = self._objects.index
        data = build_manifest(Parts(head, body, index), request.recipient, self._index_keys, self._keys.audit)
        if not request.place.write_new(name_manifest(head.number), data):
            raise StoreUnavailable("another backup was made meanwhile")
        manifest = parse_manifest(data)
        if request.receipts is not None:
            _append(request.receipts, msgspec.json.encode(make_receipt(manifest)) + b"\n")
        return manifest


async def record(store: Store, clock: Clock, name: EventName, result: str, number: int) -> None:
    """Leave an event about a backup. result: "ok" or a problem's code. number: of the backup; 0: none."""
    event = AuditEvent(
        name=name,
        at=clock.now_ms(),
        actor_role=Operator().name,
        object_type=ObjectType.LOG,
        outcome=Outcome.OK if result == "ok" else Outcome.FAILED,
        extra={"result": result, "sequence": number},
    )
    await store.write(lambda tx: tx.append_audit(event))


async def _remember(store: Store, clock: Clock, result: BackupResult) -> None:
    value = result.created_at.to_bytes(8, "big") + result.number.to_bytes(8, "big")

    def change(tx: Change) -> None:
        tx.identity.put_setting(LAST_BACKUP, value)

    await store.write(change)
    await record(store, clock, EventName.BACKUP_DONE, "ok", result.number)


def as_number(value: object) -> int:
    """A column's value that is an integer; 0 for anything else."""
    return value if isinstance(value, int) else 0


def _check_apart(config: Config, request: BackupRequest) -> None:
    """Raises: ConfigError when the backup would lie in the data that it is a backup of."""
    if not isinstance(request.place, FolderPlace):
        return
    folder = request.place.folder.resolve()
    if folder.is_relative_to(config.data_folder.resolve()) or folder.is_relative_to(config.blobs_path.resolve()):
        raise ConfigError("the backup must not lie in the data folder; best it lies on another machine")


def _append(path: Path, line: bytes) -> None:
    try:
        with path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageFull("the receipt could not be written") from error
