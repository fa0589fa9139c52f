"""Readiness: whether a request would be served now, and how the parts are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from curbside.clock import Clock
from curbside.errors import CurbsideError, StoreUnavailable
from curbside.server.store.ports import Store
from curbside.wire.bodies import Health

KEPT_MS: Final = 2_000
"""An answer is given again for this long: anyone may ask, and each look costs a durable write."""
BLOB_SECONDS: Final = 2.0
"""The storage of attachments gets this long to answer."""
OK: Final = "ok"
DRAINING: Final = "draining"
_LATE: Final = "late"


async def _look_at_nothing() -> None: ...


class HealthService:
    """Called by the route of readiness and by whoever looks at the counts.

    [Note: what makes a node unready] A store that takes no writes, and a shutdown. Attachments' storage and the bus are
    shared by all nodes: without them all would be taken out of service at once, though messages still pass.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        describe_bus: Callable[[], str] = lambda: "",
        look_at_blobs: Callable[[], Awaitable[object]] = _look_at_nothing,
    ) -> None:
        """describe_bus: how the bus between nodes is; "" when there is none. look_at_blobs: raises when it is away."""
        self._describe_bus = describe_bus
        self._look_at_blobs = look_at_blobs
        self._store = store
        self._clock = clock
        self._checked_at = -KEPT_MS
        self._error: CurbsideError | None = None
        self._blobs = OK
        self._is_draining = False
        self._lock = asyncio.Lock()

    def drain(self) -> None:
        """From now on the server is not ready."""
        self._is_draining = True

    async def look(self) -> dict[str, str]:
        """Each part as "ok", "degraded", "late", "draining", or the problem code of what is wrong with it."""
        async with self._lock:
            now = self._clock.now_ms()
            if now - self._checked_at >= KEPT_MS:
                self._error, self._blobs = await self._ask_store(), await self._ask_blobs()
                self._checked_at = now
        checks = {"store": OK if self._error is None else self._error.code, "blobs": self._blobs}
        if bus := self._describe_bus():
            checks["bus"] = bus
        if self._is_draining:
            checks["server"] = DRAINING
        return checks

    async def check(self) -> Health:
        """`status` is "degraded" while something is wrong that lets messages pass.

        Raises: StoreUnavailable, StorageFull, IntegrityError; member `checks` as `look` tells them.
        """
        checks = await self.look()
        if self._is_draining:
            raise StoreUnavailable("the server stops", checks=checks)
        if self._error is not None:
            raise type(self._error)(self._error.detail, checks=checks)
        return Health(OK if set(checks.values()) == {OK} else "degraded", checks)

    async def _ask_store(self) -> CurbsideError | None:
        try:
            await self._store.check()
        except CurbsideError as error:
            return error
        return None

    async def _ask_blobs(self) -> str:
        try:
            async with asyncio.timeout(BLOB_SECONDS):
                await self._look_at_blobs()
        except TimeoutError:
            return _LATE
        except CurbsideError as error:
            return error.code
        return OK
