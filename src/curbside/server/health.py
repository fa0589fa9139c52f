"""Readiness: whether a request would be served now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from curbside.clock import Clock
from curbside.errors import CurbsideError, StoreUnavailable
from curbside.server.store.ports import Store
from curbside.wire.bodies import Health

KEPT_MS: Final = 2_000
"""An answer is given again for this long: anyone may ask, and each look costs a durable write."""


class HealthService:
    """Called by the route of readiness."""

    def __init__(self, store: Store, clock: Clock, describe_bus: Callable[[], str] = lambda: "") -> None:
        """describe_bus: how the bus between nodes is; "" when there is none. It never makes a node unready."""
        self._describe_bus = describe_bus
        self._store = store
        self._clock = clock
        self._checked_at = -KEPT_MS
        self._error: CurbsideError | None = None
        self._is_draining = False

    def drain(self) -> None:
        """From now on the server is not ready."""
        self._is_draining = True

    async def check(self) -> Health:
        """Raises: StoreUnavailable, StorageFull, IntegrityError."""
        if self._is_draining:
            raise StoreUnavailable("the server stops")
        now = self._clock.now_ms()
        if now - self._checked_at >= KEPT_MS:
            self._checked_at = now
            try:
                await self._store.check()
                self._error = None
            except CurbsideError as error:
                self._error = error
        if self._error is not None:
            raise self._error
        bus = self._describe_bus()
        return Health("ok", {"store": "ok", "bus": bus} if bus else {"store": "ok"})
