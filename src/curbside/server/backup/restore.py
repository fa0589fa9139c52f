"""A new organisation's folder out of a backup: configuration, a new database key, database, attachments.

Everything is made in a folder beside the target, or in one transaction of an empty PostgreSQL database, and gets its
name when all of it has been checked: every hash on the way in, counts and sums of all tables as the new database gives
them back, the audit log against its checkpoints. What fails leaves the target as it was.

What a restore changes on purpose, after the sums were compared:

- sessions, sign-ins and used proofs end: everybody signs in again;
- numbers that are never used twice go on far above those of the backup, so that a device which knows later ones than
  the backup had does not take new queue items for old ones;
- uploads that were not complete begin anew: their pieces are not in backups;
- for each device that was in a conversation it is noted where the conversation's log ended (`server.restored`), so that
  a device which knows more is told, instead of silently passing over what others write in the same places.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from curbside.audit.checkpoint import VerifierKey
from curbside.audit.events import EventName
from curbside.clock import Clock
from curbside.crypto.secret import SecretBytes
from curbside.errors import BackupRefused, ConfigError, IntegrityError
from curbside.ids import ConversationId
from curbside.server.backup.create import Progress, as_number, record
from curbside.server.backup.sealing import Body, TablePart
from curbside.server.backup.settings import build_config
from curbside.server.backup.verify import Contents, VerifyRequest
from curbside.server.config import load_config
from curbside.server.database import open_store
from curbside.server.database_key import create_key_file, load_database_key
from curbside.server.keys import find_audit_key
from curbside.server.log_check import list_checkpoints, verify_log
from curbside.server.organization import AUTHORITY_CERTIFICATE, CHECKPOINTS, CONFIG, DATA, DATABASE_KEY
from curbside.server.restored import note_restored
from curbside.server.store.ports import Change
from curbside.server.store.postgres_open import PostgresSettings
from curbside.server.store.postgres_tables import create_postgres_target
from curbside.server.store.sqlite_tables import create_sqlite_target
from curbside.server.store.tables import Row, Table, TableWriter, match_tables, reorder, sum_rows

SKIPPED_NUMBERS: Final = 1 << 32
"""More than a server gives away in the time between two backups."""
_FOREVER: Final = 1 << 60
_UPLOAD_SECONDS: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """source: the place and the private key. folder: new or empty. database_url: of an empty PostgreSQL database; None:
    an encrypted SQLite file in the folder."""

    source: VerifyRequest
    folder: Path
    database_url: SecretBytes | None = None


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was restored. rto: seconds it took. rpo: seconds between the state in the backup and now: what was written
    since is lost. newest_age: age of the newest entry of any conversation, None if there is none.
    log_entries: of the audit log, all of them verified; log_covered: those under signed checkpoints."""

    number: int
    folder: str
    engine: str
    rows: int
    tables: dict[str, int]
    blobs: int
    missing: tuple[str, ...]
    log_entries: int
    log_covered: int
    is_pinned: bool
    rto: float
    rpo: int
    newest_age: int | None


async def restore_backup(request: RestoreRequest, clock: Clock, progress: Progress) -> RestoreResult:
    """Restore one backup. Ends with an audit event in the restored log.

    Raises: BackupRefused; ConfigError when the target is not empty or the backup is newer than this program;
    StoreUnavailable; StorageFull; IntegrityError when the new database does not give back what was put in.
    """
    began = time.monotonic()
    if request.source.key is None:
        raise ConfigError("a restore needs the private key of backups")
    folder = request.folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; a restore overwrites nothing")
    chain = request.source.read_chain()
    manifest = chain.get(request.source.number)
    contents = Contents(request.source.place, request.source.key, manifest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.restoring-", dir=folder.parent))
    try:
        run = _Run(request, contents, chain.signer, clock, progress)
        checked = run.restore(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    config = load_config(folder / CONFIG, {})
    store = open_store(config, is_server=False)
    try:
        await record(store, clock, EventName.BACKUP_RESTORED, "ok", manifest.head.number)
    finally:
        await store.close()
    body, now_ms = contents.body, clock.now_ms()
    return RestoreResult(
        number=manifest.head.number,
        folder=str(folder),
        engine="postgres" if request.database_url else "sqlite",
        rows=sum(part.rows for part in body.tables),
        tables={part.name: part.rows for part in body.tables},
        blobs=len(body.blobs),
        missing=tuple(body.missing),
        log_entries=checked.entries,
        log_covered=checked.covered,
        is_pinned=chain.is_pinned,
        rto=round(time.monotonic() - began, 3),
        rpo=max(0, now_ms - body.taken_at_ms) // 1000,
        newest_age=max(0, now_ms - body.newest_ms) // 1000 if body.newest_ms else None,
    )


@dataclass(frozen=True, slots=True)
class _Log:
    entries: int
    covered: int


class _Run:
    """One run of `restore_backup`."""

    def __init__(
        self, request: RestoreRequest, contents: Contents, signer: VerifierKey, clock: Clock, progress: Progress
    ) -> None:
        self._request, self._contents, self._signer = request, contents, signer
        self._clock, self._progress = clock, progress
        self._done = 0

    @property
    def _body(self) -> Body:
        return self._contents.body

    def restore(self, staging: Path, folder: Path) -> _Log:
        """Make everything in `staging`, then give it its name."""
        self._make_folder(staging, folder)
        key = load_database_key(load_config(staging / CONFIG, {}).database_key)
        writer = self._open_writer(staging, key)
        try:
            self._fill(writer)
            writer.upgrade()
            log = self._check_log(writer)
            self._restore_blobs(staging / DATA / "blobs")
            _write(staging / CHECKPOINTS, b"".join(list_checkpoints(writer.change.audit)))
            self._begin_anew(writer)
            writer.finish()
        finally:
            writer.abandon()
        _write(staging / CONFIG, self._build_config(folder).encode())
        _sync_tree(staging)
        os.rename(staging, folder)
        return log

    def _make_folder(self, staging: Path, folder: Path) -> None:
        for part in (DATABASE_KEY.parent, AUTHORITY_CERTIFICATE.parent, CHECKPOINTS.parent, DATA, DATA / "blobs"):
            (staging / part).mkdir(mode=0o700, exist_ok=True)  # each by itself: the mode is the last one's alone
        create_key_file(staging / DATABASE_KEY)
        _write(staging / AUTHORITY_CERTIFICATE, self._body.authority)
        _write(staging / CONFIG, self._build_config(staging).encode())

    def _build_config(self, folder: Path) -> str:
        return build_config(self._body.settings, folder, self._request.database_url)

    def _open_writer(self, staging: Path, key: SecretBytes) -> TableWriter:
        engine = "postgres" if self._request.database_url else "sqlite"
        version = self._body.schema if self._body.engine == engine else None
        if self._request.database_url is not None:
            return create_postgres_target(PostgresSettings(self._request.database_url), key, version)
        return create_sqlite_target(staging / DATA / "curbside.db", key, version)

    # --- the database -------------------------------------------------------------------------

    def _fill(self, writer: TableWriter) -> None:
        parts = {part.name: part for part in self._body.tables}
        pairs = match_tables([_describe(part) for part in parts.values()], writer.tables)
        order = [table.name for table in writer.tables]
        for source, target in sorted(pairs, key=lambda pair: order.index(pair[1].name)):
            rows = self._watch(self._contents.read_rows(parts[source.name]))
            writer.write_rows(target, reorder(source, target, rows))
        for source, target in pairs:
            found = sum_rows(reorder(target, source, writer.read_rows(target)))
            part = parts[source.name]
            if found.count != part.rows or found.encode() != part.sum:
                raise IntegrityError(f"the new database gives back other rows of {source.name}")

    def _watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        whole = sum(part.rows for part in self._body.tables)
        for row in rows:
            self._done += 1
            if not self._done % 1000:
                self._progress("rows", self._done, whole)
            yield row

    def _check_log(self, writer: TableWriter) -> _Log:
        held = find_audit_key(writer.change.identity)
        if held != self._signer:
            raise BackupRefused("the backup is signed by another key than the one in it")
        report = verify_log(writer.change.audit, held)
        if not report.ok:
            raise BackupRefused(f"the audit log in the backup does not verify: {report.reason}")
        return _Log(report.checked, report.covered)

    def _begin_anew(self, writer: TableWriter) -> None:
        """What must not be as it was; see the module."""
        change = writer.change
        numbered = [table.name for table in writer.tables if table.counter is not None]
        writer.set_counters({name: self._body.counters.get(name, 0) + SKIPPED_NUMBERS for name in numbered})
        change.identity.take_expired_sessions(_FOREVER, _FOREVER)
        change.identity.take_expired_signins(_FOREVER, _FOREVER)
        change.identity.delete_expired_proofs(_FOREVER)
        _reset_uploads(change, self._clock.now())
        by_name = {table.name: table for table in writer.tables}
        ends = {
            as_number(row[0]): (ConversationId(str(row[1])), as_number(row[2]))
            for row in _columns(writer, by_name["conversations"], ("number", "conversation_id", "last_sequence"))
        }
        stays = _columns(writer, by_name["stays"], ("device_id", "conversation"))
        note_restored(change.identity, [(str(device), *ends[as_number(number)]) for device, number in stays])

    # --- attachments --------------------------------------------------------------------------

    def _restore_blobs(self, folder: Path) -> None:
        for done, part in enumerate(self._body.blobs):
            handle = os.open(folder / part.blob_id, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                for piece in self._contents.read_blob(part):
                    file.write(piece)
            self._progress("attachments", done + 1, len(self._body.blobs))


def _describe(part: TablePart) -> Table:
    return Table(part.name, tuple(part.columns), (), ())


def _columns(writer: TableWriter, table: Table, names: tuple[str, ...]) -> list[Row]:
    places = table.places(names)
    return [tuple(row[place] for place in places) for row in writer.read_rows(table)]


def _reset_uploads(change: Change, now: int) -> None:
    for upload in change.blobs.list_expired_uploads(_FOREVER, 1 << 31):
        change.blobs.reset_upload(upload.blob_id, now + _UPLOAD_SECONDS)


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def _sync_tree(top: Path) -> None:
    """Make files and folders durable before they get their name."""
    for folder, _, names in os.walk(top, topdown=False):
        for path in (*(Path(folder) / name for name in names), Path(folder)):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
