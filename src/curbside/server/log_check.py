"""Whether the audit log, as the store holds it, fits every checkpoint that was signed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from curbside.audit.checkpoint import VerifierKey
from curbside.audit.export import Report, build_header, build_line, verify_export
from curbside.server.store.ports import AuditView

BATCH: Final = 200


def verify_log(audit: AuditView, key: VerifierKey, kept: Sequence[bytes] = ()) -> Report:
    """Recompute the whole log, inside one look at the store. kept: checkpoints kept elsewhere.

    Without any checkpoint there is nothing to compare with, and the report's reason is "no_checkpoint".
    """
    return verify_export(_lines(audit, key), key, kept)


def list_checkpoints(audit: AuditView) -> list[bytes]:
    """The signed texts of all checkpoints, oldest first."""
    bodies: list[bytes] = []
    after = -1
    while rows := audit.list_checkpoints(after, BATCH):
        bodies += [row.body for row in rows]
        after = rows[-1].size
    return bodies


def _lines(audit: AuditView, key: VerifierKey) -> Iterator[bytes]:
    yield build_header(key, list_checkpoints(audit))
    at = 0
    while rows := audit.read_events(at, BATCH):
        for row in rows:
            yield from build_line(row.sequence, row.event, row.leaf_hash, row.rows).splitlines(keepends=True)
        at = rows[-1].sequence + 1
