"""ROLES: each route in each role, on own and others' objects; the answer is what docs/roles.md says, and no other 2xx.

What is expected comes from the access rules; how a route is called comes from CALLS. A route without a call fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from running import Person, Running

from curbside.crypto.kdf import compute_hash
from curbside.crypto.random import random_bytes
from curbside.ids import encode_base64url, encode_id
from curbside.policy.access import RULES, Relation, Role, Subject, decide_access
from curbside.server.interface import ROUTES
from curbside.wire import bodies

ROUTE_IDS = {f"{min(route.http_methods)} {min(route.paths).replace(':str', '')}": route for route in ROUTES}
ABSENT = encode_id(bytes(16))


@dataclass
class World:
    """One person a role, all in the conversation `ours`; a host who made it; strangers in the conversation `theirs`."""

    running: Running
    host: Person
    stranger: Person
    people: dict[Role, Person]
    ours: str
    theirs: str
    blobs: dict[str, str] = field(default_factory=dict)

    async def blob(self, owner: Person, conversation: str) -> str:
        """An uploaded blob."""
        content = b"sealed"
        body = bodies.NewBlob(conversation, len(content), encode_base64url(compute_hash("sha256", content)))
        blob_id = (await owner.post("/v1/blobs", body)).json()["blob_id"]
        await owner.request("PATCH", f"/v1/blobs/{blob_id}", content, {"upload-offset": "0"})
        return str(blob_id)

    async def close(self) -> None:
        for person in (self.host, self.stranger, *self.people.values()):
            await person.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server = Running(Path(tmp_path_factory.mktemp("roles"))).start()
    yield server
    server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(running: Running) -> AsyncIterator[World]:
    host, stranger = await Person.join(running, "Host", "physician"), await Person.join(running, "Stranger", "nurse")
    people = {role: await Person.join(running, f"A {role}", role.value) for role in Role}
    ours, theirs = await host.begin(), await stranger.begin()
    await host.add(ours, *people.values())
    made = World(running, host, stranger, people, encode_id(ours.group_id), encode_id(theirs.group_id))
    made.blobs = {
        "ours": await made.blob(host, made.ours),
        "theirs": await made.blob(stranger, made.theirs),
    }
    yield made
    await made.close()


@dataclass(frozen=True)
class Call:
    """A request. through: statuses that say "you may" (the content may still be refused)."""

    path: str
    body: msgspec.Struct | bytes | None = None
    headers: dict[str, str] | None = None


Make = Callable[[World, Person], Awaitable[Call]]


def plain(path: str, body: msgspec.Struct | None = None) -> Make:
    async def make(world: World, person: Person) -> Call:
        return Call(path, body)

    return make


def about(path: str, find: Callable[[World, Person], str], body: msgspec.Struct | None = None) -> Make:
    async def make(world: World, person: Person) -> Call:
        return Call(path.format(find(world, person)), body)

    return make


def new_blob(which: str) -> Make:
    async def make(world: World, person: Person) -> Call:
        digest = encode_base64url(random_bytes(32))
        return Call("/v1/blobs", bodies.NewBlob(getattr(world, which), 6, digest))

    return make


async def patch_own(world: World, person: Person) -> Call:
    body = bodies.NewBlob(world.ours, 6, encode_base64url(compute_hash("sha256", b"sealed")))
    blob_id = (await person.post("/v1/blobs", body)).json()["blob_id"]
    return Call(f"/v1/blobs/{blob_id}", b"sealed", {"upload-offset": "0"})


async def patch_other(world: World, person: Person) -> Call:
    return Call(f"/v1/blobs/{world.blobs['ours']}", b"sealed", {"upload-offset": "0"})


async def revoke_other(world: World, person: Person) -> Call:
    victim = await Person.join(world.running, "Victim", "nurse")
    await victim.close()
    return Call(f"/v1/devices/{victim.device_id}")


COMMIT = bodies.NewCommit(encode_base64url(bytes(16)), 1, "AAAA", None)
NEW = bodies.NewConversation(ABSENT, "AAAA")
OWN, SHARED, MEMBER, NONE = Relation.OWN, Relation.SHARED, Relation.MEMBER, Relation.NONE
CALLS: dict[str, dict[Relation, Make]] = {
    "GET /v1/audit/checkpoint": {NONE: plain("/v1/audit/checkpoint")},
    "GET /v1/audit/events": {NONE: plain("/v1/audit/events")},
    "GET /v1/audit/export": {NONE: plain("/v1/audit/export")},
    "POST /v1/blobs": {MEMBER: new_blob("ours"), NONE: new_blob("theirs")},
    "PATCH /v1/blobs/{blob_id}": {OWN: patch_own, NONE: patch_other},
    "HEAD /v1/blobs/{blob_id}": {OWN: patch_own, NONE: patch_other},
    "GET /v1/blobs/{blob_id}": {
        MEMBER: about("/v1/blobs/{}", lambda world, _: world.blobs["ours"]),
        NONE: about("/v1/blobs/{}", lambda world, _: world.blobs["theirs"]),
    },
    "GET /v1/blobs/{blob_id}/location": {
        MEMBER: about("/v1/blobs/{}/location", lambda world, _: world.blobs["ours"]),
        NONE: about("/v1/blobs/{}/location", lambda world, _: world.blobs["theirs"]),
    },
    "GET /v1/conversations": {NONE: plain("/v1/conversations")},
    "GET /v1/conversations/{conversation_id}": {
        MEMBER: about("/v1/conversations/{}", lambda world, _: world.ours),
        NONE: about("/v1/conversations/{}", lambda world, _: world.theirs),
    },
    "POST /v1/conversations": {NONE: plain("/v1/conversations", NEW)},
    "POST /v1/conversations/{conversation_id}/commits": {
        MEMBER: about("/v1/conversations/{}/commits", lambda world, _: world.ours, COMMIT),
        NONE: about("/v1/conversations/{}/commits", lambda world, _: world.theirs, COMMIT),
    },
    "GET /v1/devices": {OWN: plain("/v1/devices")},
    "DELETE /v1/devices/{device_id}": {
        NONE: revoke_other,
        OWN: about("/v1/devices/{}", lambda _, person: person.device_id),
    },
    "POST /v1/key-packages": {OWN: plain("/v1/key-packages", bodies.KeyPackages([]))},
    "GET /v1/key-packages": {OWN: plain("/v1/key-packages")},
    "GET /v1/people": {NONE: plain("/v1/people")},
    "GET /v1/people/{user_id}": {
        OWN: about("/v1/people/{}", lambda _, person: person.newcomer.user_id),
        SHARED: about("/v1/people/{}", lambda world, _: world.host.newcomer.user_id),
        NONE: about("/v1/people/{}", lambda world, _: world.stranger.newcomer.user_id),
    },
    "POST /v1/people/{user_id}/key-packages/claim": {
        OWN: about("/v1/people/{}/key-packages/claim", lambda _, person: person.newcomer.user_id),
        SHARED: about("/v1/people/{}/key-packages/claim", lambda world, _: world.host.newcomer.user_id),
        NONE: about("/v1/people/{}/key-packages/claim", lambda world, _: world.stranger.newcomer.user_id),
    },
    "DELETE /v1/session": {OWN: plain("/v1/session")},
}
CONTENT_REFUSED = {"POST /v1/conversations", "POST /v1/conversations/{conversation_id}/commits"}
"""Called with content that is refused once access is given: a real group would change under the other calls."""
ENDS_THE_CALLER = {("DELETE /v1/session", OWN), ("DELETE /v1/devices/{device_id}", OWN)}
PUBLIC: dict[str, tuple[str, msgspec.Struct | None, int]] = {
    "GET /v1/health/live": ("/v1/health/live", None, 200),
    "GET /v1/health/ready": ("/v1/health/ready", None, 200),
    "GET /v1/openapi.json": ("/v1/openapi.json", None, 200),
    "GET /v1/organization": ("/v1/organization", None, 200),
    "GET /v1/invites/{invite_id}": (f"/v1/invites/{ABSENT}", None, 404),
    "POST /v1/invites": ("/v1/invites", bodies.NewInvite(ABSENT, "AAAA"), 400),
    "POST /v1/signup/start": ("/v1/signup/start", bodies.SignupStart(ABSENT, "AAAA"), 404),
    "POST /v1/signup/finish": ("/v1/signup/finish", None, 401),
    "POST /v1/signin/start": ("/v1/signin/start", bodies.SigninStart(ABSENT, ABSENT, "AAAA"), 401),
    "POST /v1/signin/finish": ("/v1/signin/finish", bodies.SigninFinish(ABSENT, "AAAA"), 401),
}
"""Public routes, and what they answer to somebody who has nothing."""
CASES = [
    pytest.param(name, relation, role, id=f"{name} {relation} {role}")
    for name, calls in CALLS.items()
    for relation in calls
    for role in Role
]


def test_every_route_is_called_here() -> None:
    assert set(CALLS) | set(PUBLIC) == set(ROUTE_IDS)
    assert not set(CALLS) & set(PUBLIC)
    for name, route in ROUTE_IDS.items():
        assert RULES[route.opt["rule"]].public == (name in PUBLIC), name


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "relation", "role"), CASES)
async def test_the_answer_is_what_the_rules_say(world: World, name: str, relation: Relation, role: Role) -> None:
    rule = RULES[ROUTE_IDS[name].opt["rule"]]
    person = world.people[role]
    if (name, relation) in ENDS_THE_CALLER:
        person = await Person.join(world.running, f"Another {role}", role.value)
    response = await send(world, name, relation, person)
    decision = decide_access(rule.id, Subject(person.newcomer.user_id, person.newcomer.device_id, role), relation)
    if not decision.allow:
        assert response.status_code == (404 if rule.hides else 403)
    elif name in CONTENT_REFUSED:
        assert response.status_code in (400, 409, 422)
    else:
        assert 200 <= response.status_code < 300, response.text
    if person is not world.people[role]:
        await person.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", CALLS)
async def test_nothing_answers_without_a_session(world: World, name: str) -> None:
    relation, make = next(iter(CALLS[name].items()))
    call = await make(world, world.people[Role.NURSE])
    response = await world.host.request(name.split()[0], call.path, content_of(call), call.headers, proof=False)
    assert response.status_code == 401, relation


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", PUBLIC)
async def test_public_routes_give_nothing_to_somebody_who_has_nothing(world: World, name: str) -> None:
    path, body, status = PUBLIC[name]
    content = b"{}" if body is None and name.startswith("POST") else content_of(Call(path, body))
    response = await world.host.request(name.split()[0], path, content, proof="/signin/" in name)
    assert response.status_code == status, response.text


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("GET /v1/conversations/{conversation_id}", f"/v1/conversations/{ABSENT}"),
        ("POST /v1/conversations/{conversation_id}/commits", f"/v1/conversations/{ABSENT}/commits"),
        ("GET /v1/blobs/{blob_id}", f"/v1/blobs/{ABSENT}"),
        ("GET /v1/blobs/{blob_id}/location", f"/v1/blobs/{ABSENT}/location"),
        ("GET /v1/people/{user_id}", f"/v1/people/{ABSENT}"),
        ("POST /v1/people/{user_id}/key-packages/claim", f"/v1/people/{ABSENT}/key-packages/claim"),
        ("DELETE /v1/devices/{device_id}", f"/v1/devices/{ABSENT}"),
    ],
)
async def test_forbidden_and_absent_look_alike(world: World, name: str, absent: str) -> None:
    patient = world.people[Role.PATIENT]
    call = await CALLS[name][NONE](world, patient)
    method = name.split()[0]
    answers = []
    for path in (call.path, absent):
        response = await patient.request(method, path, content_of(call), call.headers)
        problem = {key: value for key, value in response.json().items() if key != "instance"}
        headers = {key: value for key, value in response.headers.items() if key not in ("date", "x-request-id")}
        answers.append((response.status_code, problem, headers))
    assert answers[0][0] == 404
    assert answers[0] == answers[1]


async def send(world: World, name: str, relation: Relation, person: Person) -> Any:
    call = await CALLS[name][relation](world, person)
    return await person.request(name.split()[0], call.path, content_of(call), call.headers)


def content_of(call: Call) -> bytes | None:
    return call.body if call.body is None or isinstance(call.body, bytes) else msgspec.json.encode(call.body)
