"""GET and POST /v1/invites."""

from __future__ import annotations

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from curbside.server.invites import InviteService
from curbside.wire import bodies


@get("/v1/invites/{invite_id:str}", opt={"rule": "R-invite-read"})
async def get_invite(invite_id: FromPath[str], invites: NamedDependency[InviteService]) -> bodies.Invite:
    """The certificates of an invite that can still be used."""
    return await invites.get_invite(invite_id)


@post("/v1/invites", status_code=200, opt={"rule": "R-invite-create"})
async def create_invite(data: JSONBody[bodies.NewInvite], invites: NamedDependency[InviteService]) -> bodies.Invite:
    """Deposit an enrolment certificate signed by the organisation authority."""
    return await invites.create_invite(data)
