"""What is turned away before anybody is known: counted in memory, written to the audit log as counts.

Who has no session could otherwise fill the log, one durable event for each bad request. One event for each kind and
sweep says how often; the kinds are few, since reasons are problem codes.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from curbside.audit.events import AuditEvent, EventName, Outcome
from curbside.clock import Clock
from curbside.errors import AccessError, CurbsideError, InvalidMessage, LimitError, TooLarge
from curbside.server.metrics import Metrics
from curbside.server.store.ports import Change, Store

KINDS: Final = 64
"""Kinds counted at once; far above the number of problem codes that can occur here."""


class TurnedAway:
    """Counts refusals by kind."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._counts: Counter[tuple[EventName, str]] = Counter()

    def count(self, error: CurbsideError) -> None:
        """A request was refused that no service saw. Errors of other kinds are not refusals, and are passed over."""
        match error:
            case InvalidMessage() | TooLarge():
                name = EventName.INPUT_REJECTED
            case LimitError():
                name = EventName.RATELIMIT_HIT
            case AccessError():
                name = EventName.ACCESS_DENIED
            case _:
                return
        self._metrics.turned_away.labels(type(error).code).inc()
        kind = (name, type(error).code)
        if kind in self._counts or len(self._counts) < KINDS:
            self._counts[kind] += 1

    async def write(self, store: Store) -> None:
        """Put the counts so far into the log, and begin anew."""
        counts, self._counts = self._counts, Counter()
        if counts:
            now = self._clock.now_ms()
            await store.write(lambda tx: _append(tx, counts, now))


def _append(tx: Change, counts: Counter[tuple[EventName, str]], now: int) -> None:
    for (name, reason), count in sorted(counts.items()):
        event = AuditEvent(name=name, at=now, outcome=Outcome.REFUSED, reason=reason, extra={"count": count})
        tx.append_audit(event)
