"""Vital signs: what is looked up when somebody asks for the counts, so that nothing on a message's way keeps them."""

from __future__ import annotations

from dataclasses import dataclass

from curbside.clock import Clock
from curbside.errors import CurbsideError
from curbside.server.connection import Connection
from curbside.server.delivery import DeliveryService
from curbside.server.fanout import Fanout
from curbside.server.health import OK, HealthService
from curbside.server.metrics import Metrics
from curbside.server.store.ports import Store, View
from curbside.server.store.records import CheckpointRecord


@dataclass(frozen=True, slots=True)
class VitalSigns:
    """Sets the gauges of Metrics.vitals."""

    store: Store
    delivery: DeliveryService
    fanout: Fanout
    health: HealthService
    clock: Clock
    metrics: Metrics

    async def refresh(self) -> None:
        """Look at everything. What cannot be looked at keeps its last value; `store_up` tells why."""
        vitals = self.metrics.vitals
        checks = await self.health.look()
        vitals.store_up.set(checks["store"] == OK)
        vitals.blobs_up.set(checks["blobs"] == OK)
        vitals.ready.set(checks["store"] == OK and "server" not in checks)
        vitals.store_waiting.set(self.store.waiting)
        vitals.sends_waiting.set(self.delivery.waiting)
        waiting = [each.backlog_bytes for each in self.fanout.list_listeners() if isinstance(each, Connection)]
        vitals.streams_waiting.set(sum(1 for size in waiting if size))
        vitals.backlog_bytes.set(sum(waiting))
        try:
            events, last = await self.store.read(_look_at_log)
        except CurbsideError:
            return
        vitals.audit_events.set(events)
        vitals.audit_unsigned.set(events - (last.size if last is not None else 0))
        vitals.checkpoint_age.set(max(0, self.clock.now() - last.created_at) if last is not None else 0)


def _look_at_log(view: View) -> tuple[int, CheckpointRecord | None]:
    return view.audit.count_events(), view.audit.find_latest_checkpoint()
