"""POST /v1/signup/start and /v1/signup/finish."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from curbside.server.identity import IdentityService, ProvedCall
from curbside.wire import bodies


@post("/v1/signup/start", status_code=200, opt={"rule": "R-signup"})
async def start_signup(
    data: JSONBody[bodies.SignupStart], identity: NamedDependency[IdentityService]
) -> bodies.SignupStarted:
    """Register a passphrase, first step (RFC 9807 section 5)."""
    return await identity.start_signup(data)


@post("/v1/signup/finish", status_code=200, opt={"rule": "R-signup"})
async def finish_signup(
    data: JSONBody[bodies.SignupFinish], identity: NamedDependency[IdentityService], call: NamedDependency[ProvedCall]
) -> bodies.Session:
    """Create the user and the first device; uses the invite up."""
    return await identity.finish_signup(data, call)
