"""GET /v1/audit/checkpoint, /v1/audit/events and /v1/audit/export, for privacy officers and administrators."""

from __future__ import annotations

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Stream

from curbside.audit.events import AuditEvent
from curbside.policy.access import Subject
from curbside.server.audit_service import AuditService, parse_records


class IndexedEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event and its place in the log, from 0. row: of a send or a delivery that shares the entry with others."""

    index: int
    event: AuditEvent
    row: int | None = None


class AuditEvents(msgspec.Struct, frozen=True):
    """GET /v1/audit/events?start=…&limit=…; `next` is where to go on, -1 at the end."""

    events: list[IndexedEvent]
    next: int


@get("/v1/audit/checkpoint", opt={"rule": "R-audit-checkpoint"}, media_type="text/plain")
async def get_checkpoint(subject: NamedDependency[Subject], audit: NamedDependency[AuditService]) -> str:
    """A signed checkpoint of the log as it stands (C2SP tlog-checkpoint)."""
    return (await audit.get_signed_checkpoint(subject)).decode()


@get("/v1/audit/events", opt={"rule": "R-audit-read"})
async def list_audit_events(
    subject: NamedDependency[Subject],
    audit: NamedDependency[AuditService],
    start: FromQuery[int] = 0,
    limit: FromQuery[int] = 100,
) -> AuditEvents:
    """Events of at most `limit` entries from index `start`, oldest first; an entry may hold up to 512 messages."""
    found = parse_records(await audit.view_events(subject, start, limit))
    events = [IndexedEvent(each.index, each.event, each.row) for each in found]
    return AuditEvents(events, found[-1].index + 1 if found else -1)


@get("/v1/audit/export", opt={"rule": "R-audit-export"})
async def export_audit(subject: NamedDependency[Subject], audit: NamedDependency[AuditService]) -> Stream:
    """The whole log as verifiable JSON lines."""
    return Stream(audit.export(subject), media_type="application/x-ndjson")
