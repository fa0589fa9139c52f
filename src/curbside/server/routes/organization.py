"""GET /v1/organization."""

from __future__ import annotations

from litestar import get
from litestar.di import NamedDependency

from curbside.server.directory import DirectoryService
from curbside.wire import bodies


@get("/v1/organization", opt={"rule": "R-organization-read"})
async def get_organization(directory: NamedDependency[DirectoryService]) -> bodies.Organization:
    """The organisation's name and public keys."""
    return directory.describe_organization()
