"""Key packages: POST and GET /v1/key-packages, POST /v1/people/{user_id}/key-packages/claim."""

from __future__ import annotations

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from curbside.policy.access import Subject
from curbside.server.key_packages import KeyPackageService
from curbside.wire import bodies


@post("/v1/key-packages", status_code=204, opt={"rule": "R-key-packages-publish"})
async def publish_key_packages(
    data: JSONBody[bodies.KeyPackages],
    subject: NamedDependency[Subject],
    key_packages: NamedDependency[KeyPackageService],
) -> None:
    """Keep more key packages of the asking device."""
    await key_packages.publish(subject, data)


@get("/v1/key-packages", opt={"rule": "R-key-packages-count"})
async def count_key_packages(
    subject: NamedDependency[Subject], key_packages: NamedDependency[KeyPackageService]
) -> bodies.KeyPackageCount:
    """How many of the asking device's key packages are left."""
    return await key_packages.count(subject)


@post("/v1/people/{user_id:str}/key-packages/claim", status_code=200, opt={"rule": "R-key-packages-claim"})
async def claim_key_packages(
    user_id: FromPath[str], subject: NamedDependency[Subject], key_packages: NamedDependency[KeyPackageService]
) -> bodies.ClaimedKeyPackages:
    """One key package of each active device of a person."""
    return await key_packages.claim(subject, user_id)
