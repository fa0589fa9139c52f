"""The sweep of blobs: uploads that nobody continues end, and objects and rows are compared, a page at a time.

Any number of nodes may call it: a step of the comparison is claimed in the store, and a node that dies with a claim
loses it after LEASE_SECONDS. Removing what another node removes at the same moment does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from curbside.clock import Clock
from curbside.crypto.random import random_bytes
from curbside.errors import ConfigError, Unavailable
from curbside.ids import encode_id
from curbside.server.blob_store import INSTALLATION, BlobStore, StoredObject, is_blob, is_piece
from curbside.server.store.ports import Change, Store, View
from curbside.server.store.records import BlobRecord, PieceRecord

SWEPT: Final = 100
"""Uploads ended in one call."""
LEASE_SECONDS: Final = 600
LOOK_SECONDS: Final = 60
STEP_SECONDS: Final = 5
ROUND_SECONDS: Final = 6 * 3600
UNFINISHED_SECONDS: Final = 24 * 3600
"""A write to the storage that is older was given up: requests last minutes at most."""
_SETTING: Final = "installation"


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Counts. ended: uploads; orphans: objects without a row; unfinished: writes; damaged: rows whose object is not
    there or has another size; blocked: 1 when the storage does not let us look for unfinished writes."""

    ended: int = 0
    orphans: int = 0
    unfinished: int = 0
    damaged: int = 0
    blocked: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to do."""
        return self == SweepReport()


class BlobSweep:
    """Called by the app now and then. orphan_seconds: age at which an object without a row goes."""

    def __init__(self, store: Store, objects: BlobStore, clock: Clock, orphan_seconds: int) -> None:
        self._store = store
        self._objects = objects
        self._clock = clock
        self._orphan_seconds = orphan_seconds
        self._look_at = 0
        """When to ask for a step again: a claim is a write, and nearly always in vain."""

    async def sweep(self) -> SweepReport:
        """End uploads that expired; do the next step of the comparison when it is due.

        Raises: StoreUnavailable; ConfigError when the objects belong to another installation, and then nothing of
        them was removed.
        """
        ended = await self._end_uploads()
        now = self._clock.now()
        if now < self._look_at:
            return SweepReport(ended)
        self._look_at = now + LOOK_SECONDS
        after = await self._store.write(lambda tx: tx.blobs.claim_sweep(now, now + LEASE_SECONDS))
        if after is None:
            return SweepReport(ended)
        await self._check_installation()
        unfinished, blocked = (0, 0) if after else await self._end_unfinished(now - UNFINISHED_SECONDS)
        through, orphans, damaged = await self._compare(after)
        await self._objects.delete([found.name for found in orphans])
        due_at = now + (STEP_SECONDS if through else ROUND_SECONDS)
        await self._store.write(lambda tx: tx.blobs.advance_sweep(through, due_at))
        self._look_at = min(self._look_at, due_at)
        return SweepReport(ended, len(orphans), unfinished, damaged, blocked)

    async def _end_unfinished(self, before: int) -> tuple[int, int]:
        """Not every storage has, or grants, what this needs; the rest of the round does not wait for it."""
        try:
            return await self._objects.end_unfinished(before), 0
        except Unavailable:
            return 0, 1

    async def _end_uploads(self) -> int:
        now = self._clock.now()
        expired = await self._store.read(lambda view: view.blobs.list_expired_uploads(now, SWEPT))
        ended = 0
        for record in expired:
            pieces = await self._end_upload(record, now)
            if pieces is not None:
                ended += 1
                # A join whose end nobody heard may have left the whole, too.
                await self._objects.delete([record.blob_id, *(piece.name for piece in pieces)])
        return ended

    async def _end_upload(self, record: BlobRecord, now: int) -> list[PieceRecord] | None:
        """Its pieces; None when it went on, or another node ended it."""

        def end(tx: Change) -> list[PieceRecord] | None:
            pieces = tx.blobs.list_pieces(record.blob_id)
            return pieces if tx.blobs.end_upload(record.blob_id, now) else None

        return await self._store.write(end)

    async def _compare(self, after: str) -> tuple[str, list[StoredObject], int]:
        """The last name that this step compared ("" at the end of the round), objects without a row, and how many rows
        lack their object. Rows are read after the objects."""
        limit = self._objects.page_size
        page = await self._objects.list_after(after)
        through = page[-1].name if len(page) == limit else ""
        pieces = [found.name for found in page if is_piece(found.name)]

        def question(view: View) -> tuple[list[BlobRecord], set[str]]:
            return view.blobs.list_blobs(after, through or None, limit), set(view.blobs.list_piece_names(pieces))

        rows, known = await self._store.read(question)
        if len(rows) == limit:  # more rows than objects: the storage lost some
            through = rows[-1].blob_id
            page = [found for found in page if found.name <= through]
        known |= {row.blob_id for row in rows}
        oldest = self._clock.now() - self._orphan_seconds
        orphans = [
            found
            for found in page
            if (is_blob(found.name) or is_piece(found.name)) and found.name not in known and found.modified_at <= oldest
        ]
        held = {found.name: found.size for found in page}
        damaged = 0
        for row in rows:
            if row.completed_at and held.get(row.blob_id) != row.size:
                # It may have been completed since the page was listed.
                found_now = await self._objects.find(row.blob_id)
                damaged += found_now is None or found_now.size != row.size
        return through, orphans, damaged

    async def _check_installation(self) -> None:
        """The objects are this database's own: another one's would look like orphans."""
        made = encode_id(random_bytes(16)).encode()

        def claim(tx: Change) -> bytes:
            found = tx.identity.find_setting(_SETTING)
            if found is None:
                tx.identity.put_setting(_SETTING, made)
            return found or made

        own = await self._store.read(lambda view: view.identity.find_setting(_SETTING))
        own = own if own is not None else await self._store.write(claim)
        found = await self._objects.read(INSTALLATION, 0, 63)
        if found is None:
            await self._objects.put(INSTALLATION, own)
        elif found[1] != own:
            raise ConfigError("blobs: the storage holds another installation's attachments")
