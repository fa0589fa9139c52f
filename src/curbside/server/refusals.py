"""Refusals as audit events: what was asked for, and which rule or check refused it."""

from __future__ import annotations

from dataclasses import dataclass

from curbside.audit.events import AuditEvent, EventName, ObjectType, Outcome
from curbside.clock import Clock
from curbside.errors import CurbsideError, Malformed
from curbside.ids import decode_id
from curbside.policy.access import Subject


@dataclass(frozen=True, slots=True)
class Refusal:
    """Makes the audit event of an error. object_id: as the caller gave it; left out when it is no id.

    rule: the access rule of the request; the error's own check or rule is named instead where it has one.
    """

    name: EventName
    subject: Subject
    object_type: ObjectType
    object_id: str
    rule: str
    clock: Clock

    def __call__(self, error: CurbsideError) -> AuditEvent:
        is_id = _is_id(self.object_id)
        return AuditEvent(
            at=self.clock.now_ms(),
            name=self.name,
            actor_user=self.subject.user_id,
            actor_device=self.subject.device_id,
            actor_role=self.subject.role,
            object_type=self.object_type if is_id else ObjectType.NONE,
            object_id=self.object_id if is_id else "",
            outcome=Outcome.REFUSED,
            reason=error.code,
            rule=str(error.members.get("check") or error.members.get("rule") or self.rule),
        )


def _is_id(text: str) -> bool:
    try:
        decode_id(text)
    except (Malformed, ValueError):
        return False
    return True
