"""The audit log's keeper: signed checkpoints, their copy off the box, and exports while the server runs.

Appending is the store's part, inside the transaction of the access itself. The Merkle tree is defined by the leaf
hashes that are kept with the events; only its right edge at the last checkpoint is saved, so a checkpoint hashes each
leaf since then once, and sending a message pays for one leaf hash.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from curbside.audit.batch import parse_rows, read_batch
from curbside.audit.checkpoint import Checkpoint, VerifierKey, sign_checkpoint, verify_checkpoint
from curbside.audit.events import AuditEvent, EventName, Extra, ObjectType, Outcome, parse_event
from curbside.audit.export import Report, build_header, build_line
from curbside.audit.merkle import Frontier, InclusionPath
from curbside.audit.proof import Place, build_proof
from curbside.clock import Clock
from curbside.crypto.kdf import compute_hash
from curbside.errors import IntegrityError, InvalidMessage, NotFound, StorageFull
from curbside.policy.access import Subject
from curbside.server.keys import ServerKeys
from curbside.server.store.ports import Change, Store
from curbside.server.store.records import AuditRecord, CheckpointRecord

BATCH: Final = 200
"""Entries in one read; of these each may stand for 512 messages."""
LEAVES: Final = 5000
"""Leaf hashes in one read."""
EXPORTED_CHECKPOINTS: Final = 1000
"""Checkpoints in an export at most, evenly spread; each narrows where a rewritten entry lies."""
_FRONTIER: Final = "audit.frontier"
_NETWORK: Final = "audit.network"


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """every_seconds, every_events: when a checkpoint is due. file: where each one is appended as text, on another
    machine's share if possible; None: nowhere."""

    every_seconds: int = 300
    every_events: int = 10_000
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody at the server's own command line; known by having the database key, not by an account."""

    name: str = "operator"


class AuditService:
    """Checkpoints, views and exports. One checkpoint is made at a time in a process; several processes do no harm."""

    def __init__(self, store: Store, clock: Clock, keys: ServerKeys, settings: AuditSettings) -> None:
        self._store = store
        self._clock = clock
        self._keys = keys
        self._settings = settings
        self._lock = asyncio.Lock()

    @property
    def key(self) -> VerifierKey:
        """What checkpoints verify under."""
        return self._keys.audit_key

    async def record(self, event: AuditEvent) -> None:
        """Append an event that has no transaction of its own."""
        await self._store.write(lambda tx: tx.append_audit(event))

    async def record_lifecycle(self, name: EventName, version: str) -> None:
        """app.started, app.stopped."""
        await self.record(AuditEvent(name=name, at=self._clock.now_ms(), extra={"version": version}))

    async def record_network(self, host: str, port: int, public_urls: Sequence[str]) -> None:
        """config.network, when the server listens elsewhere than at its last start."""
        print_now = compute_hash("sha256", " ".join((host, str(port), *public_urls)).encode())

        def compare(tx: Change) -> None:
            if tx.identity.find_setting(_NETWORK) == print_now:
                return
            tx.identity.put_setting(_NETWORK, print_now)
            extra: dict[str, Extra] = {"port": port, "key_print": print_now.hex()[:32]}
            tx.append_audit(AuditEvent(name=EventName.CONFIG_NETWORK, at=self._clock.now_ms(), extra=extra))

        await self._store.write(compare)

    async def record_verified(self, report: Report) -> None:
        """audit.verified: somebody at the command line verified an export."""
        extra: dict[str, Extra] = {"result": report.reason, "tree_size": report.checked}
        await self.record(
            AuditEvent(
                name=EventName.AUDIT_VERIFIED,
                at=self._clock.now_ms(),
                actor_role=Operator().name,
                object_type=ObjectType.LOG,
                outcome=Outcome.OK if report.ok else Outcome.BROKEN,
                extra=extra,
            )
        )

    async def check(self) -> None:
        """Whether the log is at least as long as its last checkpoint; looked at before the first new entry.

        Raises: IntegrityError when entries are gone: stop, and compare with the checkpoints that were kept elsewhere.
        """
        size, last = await self._store.read(
            lambda view: (view.audit.count_events(), view.audit.find_latest_checkpoint())
        )
        if last is not None and size < last.size:
            raise IntegrityError(f"the audit log has {size} entries, but {last.size} were signed")

    # --- checkpoints --------------------------------------------------------------------------

    async def make_checkpoint(self) -> Checkpoint:
        """Sign the log as it stands, keep the checkpoint and write it to the file; the latest one if nothing is new.

        Raises: IntegrityError when the log does not continue the last checkpoint; StorageFull.
        """
        async with self._lock:
            tree, last = await self._read_tree()
            if last is not None and last.size == tree.size:
                return verify_checkpoint(last.body, self.key)
            head = Checkpoint(self.key.origin, tree.size, tree.root(), self._clock.now_ms())
            body = sign_checkpoint(head, self._keys.audit)
            record = CheckpointRecord(head.size, head.root, head.at // 1000, body)
            if await self._store.write(lambda tx: _keep_checkpoint(tx, record, tree)) and self._settings.file:
                await asyncio.to_thread(_append_file, self._settings.file, body)
            return head

    async def get_signed_checkpoint(self, actor: Subject | Operator) -> bytes:
        """The signed text of a checkpoint of the log as it stands; leaves an audit.viewed event first."""
        size = await self.count()
        await self.record(self._about_log(EventName.AUDIT_VIEWED, actor, size, size))
        await self.make_checkpoint()
        last = await self._store.read(lambda view: view.audit.find_latest_checkpoint())
        if last is None:
            raise IntegrityError("the audit log lost its checkpoint")
        return last.body

    async def is_due(self) -> bool:
        """Whether enough was appended, or enough time went by, for another checkpoint."""
        size, last = await self._store.read(
            lambda view: (view.audit.count_events(), view.audit.find_latest_checkpoint())
        )
        if last is None:
            return size > 0
        waited = self._clock.now() - last.created_at
        return size - last.size >= self._settings.every_events or (
            size > last.size and waited >= self._settings.every_seconds
        )

    async def _read_tree(self) -> tuple[Frontier, CheckpointRecord | None]:
        saved, last = await self._store.read(
            lambda view: (view.identity.find_setting(_FRONTIER), view.audit.find_latest_checkpoint())
        )
        tree = Frontier.decode(saved) if saved is not None else Frontier()
        if last is not None and (tree.size != last.size or tree.root() != last.root_hash):
            raise IntegrityError("the audit log's saved edge is not that of its last checkpoint")
        while leaves := await self._store.read(lambda view: view.audit.read_leaf_hashes(tree.size, LEAVES)):
            for leaf_hash in leaves:
                tree.append(leaf_hash)
        return tree, last

    # --- reading ------------------------------------------------------------------------------

    async def view_events(self, actor: Subject | Operator, start: int, limit: int) -> list[AuditRecord]:
        """At most `limit` (up to BATCH) events from index `start`; leaves an audit.viewed event."""
        found = await self.read_events(max(0, start), max(1, min(limit, BATCH)))
        await self.record_view(actor, start, found[-1].sequence if found else start)
        return found

    async def record_view(self, actor: Subject | Operator, start: int, end: int) -> None:
        """Somebody looks at entries `start` to `end`."""
        await self.record(self._about_log(EventName.AUDIT_VIEWED, actor, start, end))

    async def count(self) -> int:
        """Entries in the log."""
        return await self._store.read(lambda view: view.audit.count_events())

    async def read_events(self, start: int, limit: int) -> list[AuditRecord]:
        """Entries from `start`; leaves no event: for callers who record the look themselves."""
        return await self._store.read(lambda view: view.audit.read_events(start, limit))

    async def export(self, actor: Subject | Operator) -> AsyncIterator[bytes]:
        """The lines of a verifiable export of the whole log up to now; the log may go on growing meanwhile.

        The event audit.exported is the last entry or among the last ones of its own export.
        """
        size = await self.count()
        await self.record(self._about_log(EventName.AUDIT_EXPORTED, actor, 0, size))
        head = await self.make_checkpoint()
        yield build_header(self.key, await self._spread_checkpoints(head.size))
        at = 0
        while at < head.size:
            wanted = min(BATCH, head.size - at)
            rows = await self.read_events(at, wanted)
            if not rows:
                raise IntegrityError("the audit log is shorter than its checkpoint")
            yield b"".join(build_line(row.sequence, row.event, row.leaf_hash, row.rows) for row in rows)
            at = rows[-1].sequence + 1

    async def prove(self, actor: Subject | Operator, index: int, row: int | None) -> bytes:
        """A proof (audit.proof) that the event at `index`, or this row of the batch there, is in the log; leaves an
        audit.viewed event. Reads every leaf hash of the log once.

        Raises: NotFound when there is no such entry or row.
        """
        await self.record(self._about_log(EventName.AUDIT_VIEWED, actor, index, index))
        await self.make_checkpoint()
        last = await self._store.read(lambda view: view.audit.find_latest_checkpoint())
        found = await self.read_events(index, 1) if index >= 0 else []
        if last is None or not found or found[0].sequence != index or index >= last.size:
            raise NotFound
        rows = parse_rows(found[0].rows) if found[0].rows else []
        if row is not None and not 0 <= row < len(rows):
            raise NotFound
        path = InclusionPath(index, last.size)
        while path.at < last.size:
            for leaf_hash in await self._read_leaves(path.at, last.size):
                path.append(leaf_hash)
        place = Place(index, found[0].event, path.proof())
        return build_proof(self.key, last.body, place, rows, row)

    async def _read_leaves(self, start: int, end: int) -> list[bytes]:
        """Raises: IntegrityError when there are none."""
        limit = min(LEAVES, end - start)
        leaves = await self._store.read(lambda view: view.audit.read_leaf_hashes(start, limit))
        if not leaves:
            raise IntegrityError("the audit log is shorter than its checkpoint")
        return leaves

    async def _spread_checkpoints(self, through: int) -> list[bytes]:
        bodies: list[bytes] = []
        after = -1
        while rows := await self._read_checkpoints(after):
            bodies += [row.body for row in rows if row.size <= through]
            after = rows[-1].size
        step = max(1, len(bodies) // EXPORTED_CHECKPOINTS)
        return bodies[:-1:step] + bodies[-1:]

    async def _read_checkpoints(self, after: int) -> list[CheckpointRecord]:
        return await self._store.read(lambda view: view.audit.list_checkpoints(after, BATCH))

    def _about_log(self, name: EventName, actor: Subject | Operator, start: int, end: int) -> AuditEvent:
        is_account = isinstance(actor, Subject)
        return AuditEvent(
            name=name,
            at=self._clock.now_ms(),
            actor_user=actor.user_id if isinstance(actor, Subject) else "",
            actor_device=actor.device_id if isinstance(actor, Subject) else "",
            actor_role=actor.role if isinstance(actor, Subject) else actor.name,
            object_type=ObjectType.LOG,
            extra={"from_index": max(0, start), "to_index": max(0, end)},
            rule=("R-audit-export" if name is EventName.AUDIT_EXPORTED else "R-audit-read") if is_account else "",
        )


@dataclass(frozen=True, slots=True)
class ListedEvent:
    """An event as it is shown. index: of its entry. row: in the batch at this index; None for an entry of its own."""

    index: int
    row: int | None
    event: AuditEvent


def parse_records(records: Sequence[AuditRecord]) -> list[ListedEvent]:
    """The events of stored records; in a batch's place the sends and deliveries that it stands for.

    Raises: IntegrityError when one of them is not what the log writes.
    """
    found: list[ListedEvent] = []
    for record in records:
        try:
            event = parse_event(record.event)
            batch = read_batch(event)
            rows = [] if batch is None else [parse_event(row) for row in parse_rows(record.rows)]
        except InvalidMessage as error:
            raise IntegrityError("the audit log holds an entry that is no event") from error
        if batch is None:
            found.append(ListedEvent(record.sequence, None, event))
        elif len(rows) != batch.count:
            raise IntegrityError("the audit log lost rows of a batch")
        found += [ListedEvent(record.sequence, number, row) for number, row in enumerate(rows)]
    return found


def _keep_checkpoint(tx: Change, record: CheckpointRecord, tree: Frontier) -> bool:
    """Whether this is news: another process may have been faster."""
    last = tx.audit.find_latest_checkpoint()
    if last is not None and last.size >= record.size:
        return False
    tx.audit.add_checkpoint(record)
    tx.identity.put_setting(_FRONTIER, tree.encode())
    return True


def _append_file(path: Path, body: bytes) -> None:
    try:
        with path.open("ab") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageFull("the checkpoint could not be written off the box") from error
