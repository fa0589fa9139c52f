"""POST /v1/signin/start and /v1/signin/finish, DELETE /v1/session."""

from __future__ import annotations

from litestar import delete, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from curbside.errors import NotAuthenticated
from curbside.server.identity import IdentityService, ProvedCall
from curbside.server.sessions import Authenticated, SessionService
from curbside.server.turned_away import TurnedAway
from curbside.wire import bodies


@post("/v1/signin/start", status_code=200, opt={"rule": "R-signin"})
async def start_signin(
    data: JSONBody[bodies.SigninStart],
    identity: NamedDependency[IdentityService],
    call: NamedDependency[ProvedCall],
    turned_away: NamedDependency[TurnedAway],
) -> bodies.SigninStarted:
    """Sign in, first step (RFC 9807 section 6), by a device that proves its key."""
    try:
        return await identity.start_signin(data, call)
    except NotAuthenticated as error:
        turned_away.count(error)
        raise


@post("/v1/signin/finish", status_code=200, opt={"rule": "R-signin"})
async def finish_signin(
    data: JSONBody[bodies.SigninFinish],
    identity: NamedDependency[IdentityService],
    call: NamedDependency[ProvedCall],
    turned_away: NamedDependency[TurnedAway],
) -> bodies.Session:
    """Sign in, last step: a session bound to the device's key."""
    try:
        return await identity.finish_signin(data, call)
    except NotAuthenticated as error:
        turned_away.count(error)
        raise


@delete("/v1/session", status_code=204, opt={"rule": "R-session-end"})
async def end_session(authenticated: NamedDependency[Authenticated], sessions: NamedDependency[SessionService]) -> None:
    """Sign out."""
    await sessions.end_session(authenticated)
