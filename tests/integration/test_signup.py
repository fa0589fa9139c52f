"""Sign-up over HTTP against a running server: what a client sees, and what it sees when something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from enrolment import DAY, Newcomer
from running import Person, Running

from curbside.clock import ManualClock, SystemClock
from curbside.crypto.random import random_bytes
from curbside.crypto.x509 import make_enrolment
from curbside.ids import InviteId, UserId, encode_base64url, encode_id
from curbside.wire import bodies


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    clock = ManualClock(SystemClock().now())
    server = Running(tmp_path, clock).start()
    yield server
    server.stop()


async def deposit(running: Running, seconds: int = DAY) -> Person:
    """Somebody with an invite that the server has."""
    now = running.clock.now()
    user_id = UserId(encode_id(random_bytes(16)))
    enrolment = make_enrolment(running.authority, user_id, "nurse", now + seconds, now)
    newcomer = Newcomer(InviteId(encode_id(random_bytes(16))), user_id, "nurse", enrolment, "Alice Ang")
    person = Person(running, newcomer, httpx.AsyncClient(base_url=running.url))
    body = bodies.NewInvite(newcomer.invite_id, encode_base64url(enrolment.certificate.raw))
    await person.post("/v1/invites", body, proof=False)
    return person


async def test_a_person_signs_up_and_is_in_the_directory(running: Running) -> None:
    alice = await Person.join(running, "Alice Ang", "physician")
    found = (await alice.get("/v1/people?query=alice")).json()
    assert [(each["name"], each["role"]) for each in found["people"]] == [("Alice Ang", "physician")]
    assert found["next"] == ""
    organization = (await alice.get("/v1/organization", proof=False)).json()
    assert organization["authority_certificate"] == encode_base64url(running.authority.certificate.raw)
    assert (await alice.get("/v1/key-packages")).json() == {"available": 2}
    await alice.close()


async def test_used_expired_and_unknown_invites_are_told_apart(running: Running) -> None:
    alice = await Person.join(running)
    path = f"/v1/invites/{alice.newcomer.invite_id}"
    assert (await alice.problem("GET", path, proof=False))["type"].endswith(":invite_used")
    bob = await deposit(running, seconds=60)
    path = f"/v1/invites/{bob.newcomer.invite_id}"
    assert (await bob.get(path, proof=False)).json()["role"] == "nurse"
    running.clock.advance(61)  # type: ignore[attr-defined]
    late = await bob.problem("GET", path, proof=False)
    assert (late["status"], late["type"]) == (410, "urn:curbside:problem:invite_expired")
    assert late["next_step"] == "Ask the person who invited you for a new one."
    unknown = await bob.problem("GET", f"/v1/invites/{encode_id(bytes(16))}", proof=False)
    assert (unknown["status"], unknown["type"]) == (404, "urn:curbside:problem:not_found")
    await alice.close()
    await bob.close()


async def test_sign_up_without_a_proof_is_refused(running: Running) -> None:
    alice = await deposit(running)
    body = alice.newcomer.signup_body(running.clock.now(), b"record")
    problem = await alice.problem("POST", "/v1/signup/finish", body, proof=False)
    assert (problem["status"], problem["check"]) == (401, "dpop.form")
    await alice.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"invite_id": 3}', b'{"invite_id":"x","opaque_request":"","more":1}', b"\xff"],
)
async def test_a_body_that_cannot_be_read_is_malformed(running: Running, content: bytes) -> None:
    alice = await deposit(running)
    problem = await alice.problem("POST", "/v1/signup/start", content, proof=False)
    assert problem["type"] == "urn:curbside:problem:malformed"
    await alice.close()
