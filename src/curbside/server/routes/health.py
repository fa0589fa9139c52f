"""GET /v1/health/live and /v1/health/ready."""

from __future__ import annotations

from litestar import get
from litestar.di import NamedDependency

from curbside.server.health import HealthService
from curbside.wire import bodies


@get("/v1/health/live", opt={"rule": "R-health"})
async def get_live() -> bodies.Health:
    """The process answers."""
    return bodies.Health("ok", {})


@get("/v1/health/ready", opt={"rule": "R-health"})
async def get_ready(health: NamedDependency[HealthService]) -> bodies.Health:
    """The store takes writes and the server is not on its way out."""
    return await health.check()
