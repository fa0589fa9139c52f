"""GET /v1/people and /v1/people/{user_id}."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from curbside.policy.access import Subject
from curbside.server.directory import DirectoryService
from curbside.wire import bodies


@get("/v1/people", opt={"rule": "R-people-list"})
async def list_people(
    subject: NamedDependency[Subject],
    directory: NamedDependency[DirectoryService],
    beginning: Annotated[str, QueryParameter(name="query")] = "",
    after: FromQuery[str] = "",
) -> bodies.People:
    """One page of the directory, by name."""
    return await directory.list_people(subject, beginning, after)


@get("/v1/people/{user_id:str}", opt={"rule": "R-people-read"})
async def get_person(
    user_id: FromPath[str], subject: NamedDependency[Subject], directory: NamedDependency[DirectoryService]
) -> bodies.Person:
    """One person."""
    return await directory.get_person(subject, user_id)
