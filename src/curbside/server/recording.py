"""Recorder: audit events of the services, with who asked and when filled in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from curbside.audit.events import AuditEvent, EventName, Extra, ObjectType, Outcome, PurposeOfUse
from curbside.clock import Clock
from curbside.errors import CurbsideError
from curbside.ids import DeviceId, UserId
from curbside.policy.access import Subject
from curbside.policy.decision import Decision

_REASON_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class About:
    """What an event is about. refused: the name when it was refused; None: the same name."""

    name: EventName
    rule: str = ""
    object_type: ObjectType = ObjectType.NONE
    object_id: str = ""
    extra: dict[str, Extra] = field(default_factory=dict)
    refused: EventName | None = None
    purpose: PurposeOfUse = PurposeOfUse.NONE


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it, as far as it is known."""

    user_id: str = ""
    device_id: str = ""
    role: str = ""

    @classmethod
    def of(cls, subject: Subject) -> Actor:
        """An authenticated device."""
        return cls(subject.user_id, subject.device_id, subject.role)

    @classmethod
    def claimed(cls, user_id: UserId, device_id: DeviceId) -> Actor:
        """Somebody who says so, and has not proved it."""
        return cls(user_id, device_id)


NOBODY: Final = Actor()
AUTHORITY: Final = Actor(role="authority")
SERVER: Final = Actor(role="server")
"""The delivery service itself, as the groups' external sender."""


class Recorder:
    """Makes events; the caller puts them into its transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def done(self, about: About, actor: Actor) -> AuditEvent:
        """It was done."""
        return self._make(about, actor, about.name, Outcome.OK, "")

    def refused(self, about: About, actor: Actor) -> Callable[[CurbsideError], AuditEvent]:
        """For `Store.write`: the event that a refusal leaves."""
        return lambda error: self._refusal(about, actor, error)

    def denied(self, decision: Decision, actor: Actor, about: About) -> AuditEvent:
        """An access rule said no before anything was looked up."""
        return self._make(about, actor, EventName.ACCESS_DENIED, Outcome.REFUSED, decision.reason)

    def _refusal(self, about: About, actor: Actor, error: CurbsideError) -> AuditEvent:
        reason = str(error.members.get("check") or error.code)[:_REASON_CHARS]
        outcome = Outcome.REFUSED if type(error).status < 500 else Outcome.FAILED
        return self._make(about, actor, about.refused or about.name, outcome, reason)

    def _make(self, about: About, actor: Actor, name: EventName, outcome: Outcome, reason: str) -> AuditEvent:
        return AuditEvent(
            name=name,
            at=self._clock.now_ms(),
            actor_user=actor.user_id,
            actor_device=actor.device_id,
            actor_role=actor.role,
            object_type=about.object_type,
            object_id=about.object_id,
            outcome=outcome,
            reason=reason,
            rule=about.rule,
            extra=about.extra,
            purpose_of_use=about.purpose,
        )
