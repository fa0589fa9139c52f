"""Who asks: dependencies that the handlers name by parameter.

    authenticated: Authenticated    session and proof hold, and the route's rule has something for this role
    subject: Subject                the same, only who it is
    call: ProvedCall                sign-up and sign-in: a proof without a session

The application provides `public_urls`, `sessions` and `audit` (see `app`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from litestar import Request
from litestar.di import NamedDependency

from curbside.audit.events import EventName
from curbside.clock import Clock
from curbside.errors import NotAuthenticated
from curbside.policy.access import Subject, build_refusal, decide_role
from curbside.server.audit_service import AuditService
from curbside.server.identity import ProvedCall
from curbside.server.recording import About, Actor, Recorder
from curbside.server.sessions import Authenticated, ProvedRequest, SessionService, parse_authorization
from curbside.server.turned_away import TurnedAway

MISSING: Final = "dpop.form"
"""The check that a request without a proof fails."""
AnyRequest = Request[Any, Any, Any]


def build_uri(public_urls: Sequence[str], host: str, path: str) -> str:
    """The `htu` a client must have signed: one of our own origins, the one it used if that is one, and the path."""
    origin = next((url for url in public_urls if urlsplit(url).netloc == host), public_urls[0])
    return origin + path


async def provide_authenticated(
    request: AnyRequest,
    public_urls: NamedDependency[tuple[str, ...]],
    sessions: NamedDependency[SessionService],
    audit: NamedDependency[AuditService],
    clock: NamedDependency[Clock],
    turned_away: NamedDependency[TurnedAway],
) -> Authenticated:
    """Check session, proof and role.

    Raises: NotAuthenticated; PolicyDenied or NotFound when the route's rule has nothing for the role.
    """
    try:
        who = await sessions.authenticate(_read_proved(request, public_urls))
    except NotAuthenticated as error:
        if error.members.get("check") in (None, MISSING):  # others are in the log, with the session's name
            turned_away.count(error)
        raise
    decision = decide_role(str(request.route_handler.opt.get("rule", "")), who.subject)
    if not decision.allow:
        about = About(EventName.ACCESS_DENIED, decision.rule)
        await audit.record(Recorder(clock).denied(decision, Actor.of(who.subject), about))
        raise build_refusal(decision)
    return who


async def provide_subject(authenticated: NamedDependency[Authenticated]) -> Subject:
    """Who asks."""
    return authenticated.subject


async def provide_call(
    request: AnyRequest, public_urls: NamedDependency[tuple[str, ...]], turned_away: NamedDependency[TurnedAway]
) -> ProvedCall:
    """The proof of a request that has no session yet.

    Raises: NotAuthenticated when there is none.
    """
    host = request.headers.get("host", "")
    try:
        return ProvedCall(build_uri(public_urls, host, request.url.path), _get_proof(request))
    except NotAuthenticated as error:
        turned_away.count(error)
        raise


def _read_proved(request: AnyRequest, public_urls: Sequence[str]) -> ProvedRequest:
    return ProvedRequest(
        method=request.method,
        uri=build_uri(public_urls, request.headers.get("host", ""), request.url.path),
        token=parse_authorization(request.headers.get("authorization", "")),
        proof=_get_proof(request),
    )


def _get_proof(request: AnyRequest) -> str:
    """RFC 9449 section 4.3: exactly one DPoP header."""
    proofs = request.headers.getall("dpop", [])
    if len(proofs) != 1:
        raise NotAuthenticated(check=MISSING)
    return proofs[0]
