"""GET /v1/openapi.json."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from litestar import get
from litestar.di import NamedDependency


@runtime_checkable
class DescriptionSource(Protocol):
    """Whoever knows all routes."""

    def get_document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        ...


@get("/v1/openapi.json", opt={"rule": "R-openapi"}, media_type="application/json")
async def get_description(description: NamedDependency[DescriptionSource]) -> dict[str, Any]:
    """The description of this interface (OpenAPI 3.1)."""
    return description.get_document()
