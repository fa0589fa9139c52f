"""Sign-in, sessions and revocation over HTTP and the stream, against a running server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from running import Person, Running

from curbside.clock import ManualClock, SystemClock
from curbside.crypto import opaque
from curbside.crypto.jose import ProofRequest, make_proof
from curbside.crypto.sign import generate_signature_key
from curbside.errors import WrongPassphrase
from curbside.ids import decode_base64url, encode_base64url
from curbside.wire import bodies, frames


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    server = Running(tmp_path, ManualClock(SystemClock().now())).start()
    yield server
    server.stop()


async def sign_in(person: Person, passphrase: str) -> bodies.Session:
    """OPAQUE over HTTP."""
    started = opaque.start_login(passphrase)
    start = bodies.SigninStart(person.newcomer.user_id, person.newcomer.device_id, encode_base64url(started.message))
    person.newcomer.session = None
    answer = (await person.post("/v1/signin/start", start)).json()
    done = opaque.complete_login(passphrase, started.state, decode_base64url(answer["opaque_response"]))
    finish = bodies.SigninFinish(answer["signin_id"], encode_base64url(done.finalization))
    session = await person.post("/v1/signin/finish", finish)
    person.newcomer.session = msgspec.json.decode(session.content, type=bodies.Session)
    return person.newcomer.session


async def test_sign_in_gives_a_session_and_sign_out_ends_it(running: Running) -> None:
    alice = await Person.join(running)
    await sign_in(alice, alice.newcomer.passphrase)
    devices = (await alice.get("/v1/devices")).json()["devices"]
    assert [(device["label"], device["current"]) for device in devices] == [("ward phone", True)]
    assert (await alice.request("DELETE", "/v1/session")).status_code == 204
    problem = await alice.problem("GET", "/v1/devices")
    assert (problem["status"], problem["type"]) == (401, "urn:curbside:problem:not_authenticated")
    await alice.close()


async def test_a_wrong_passphrase_is_slowed_down_with_a_time_to_wait(running: Running) -> None:
    alice, bob = await Person.join(running), await Person.join(running, "Bob")
    for _ in range(6):
        with pytest.raises(WrongPassphrase):
            await sign_in(alice, "not the passphrase at all")
    started = opaque.start_login("x")
    start = bodies.SigninStart(alice.newcomer.user_id, alice.newcomer.device_id, encode_base64url(started.message))
    response = await alice.request("POST", "/v1/signin/start", msgspec.json.encode(start))
    assert response.status_code == 429
    assert response.json()["retry_after"] == 1
    assert response.headers["retry-after"] == "1"
    await sign_in(bob, bob.newcomer.passphrase)
    running.clock.advance(1)  # type: ignore[attr-defined]
    await sign_in(alice, alice.newcomer.passphrase)
    await alice.close()
    await bob.close()


async def test_a_stolen_token_is_worth_nothing(running: Running) -> None:
    alice = await Person.join(running)
    uri, now = running.url + "/v1/devices", running.clock.now()
    thief = generate_signature_key("ed25519")
    authorization = {"authorization": f"DPoP {alice.token}"}
    bearer = {"authorization": f"Bearer {alice.token}"}
    stolen = {"dpop": make_proof(thief, ProofRequest("GET", uri, now, alice.token))}
    for headers in (bearer, authorization, authorization | stolen, stolen):
        problem = await alice.problem("GET", "/v1/devices", headers=headers, proof=False)
        assert problem["status"] == 401
    assert running.events()[-1].reason == "dpop.key"
    await alice.get("/v1/devices")
    await alice.close()


async def test_a_proof_cannot_be_replayed_or_moved(running: Running) -> None:
    alice = await Person.join(running)
    headers = alice.proof_headers("GET", "/v1/devices")
    assert (await alice.request("GET", "/v1/devices", headers=headers, proof=False)).status_code == 200
    replayed = await alice.problem("GET", "/v1/devices", headers=headers, proof=False)
    assert replayed["check"] == "dpop.replay"
    moved = await alice.problem("GET", "/v1/people", headers=alice.proof_headers("GET", "/v1/devices"), proof=False)
    assert moved["check"] == "dpop.uri"
    proof = make_proof(
        alice.newcomer.api_key,
        ProofRequest("GET", "https://evil.example/v1/devices", running.clock.now(), alice.token),
    )
    foreign = {"authorization": f"DPoP {alice.token}", "dpop": proof}
    assert (await alice.problem("GET", "/v1/devices", headers=foreign, proof=False))["check"] == "dpop.uri"
    await alice.close()


async def test_a_stream_proof_needs_this_connections_challenge(running: Running) -> None:
    alice = await Person.join(running)
    replayed = await alice.connect(nonce=b"n" * 32)
    assert replayed.ready is None
    foreign = await alice.connect(key=generate_signature_key("ed25519"))
    assert foreign.ready is None
    wire = await alice.connect()
    assert wire.ready is not None
    for each in (replayed, foreign, wire):
        await each.close()
    await alice.close()


async def test_revoking_a_device_ends_token_and_stream_at_once(running: Running) -> None:
    alice, chief = await Person.join(running), await Person.join(running, "Carol", "administrator")
    bob = await Person.join(running, "Bob")
    wire = await alice.connect()
    path = f"/v1/devices/{alice.device_id}"
    assert (await bob.problem("DELETE", path))["status"] == 404
    assert (await chief.request("DELETE", path)).status_code == 204
    closing = await wire.receive(frames.Closing)
    assert closing.code == "device_revoked"
    assert (await alice.problem("GET", "/v1/devices"))["status"] == 401
    started = opaque.start_login(alice.newcomer.passphrase)
    start = bodies.SigninStart(alice.newcomer.user_id, alice.newcomer.device_id, encode_base64url(started.message))
    alice.newcomer.session = None
    answer = (await alice.post("/v1/signin/start", start)).json()
    finish = bodies.SigninFinish(answer["signin_id"], encode_base64url(bytes(64)))
    assert (await alice.problem("POST", "/v1/signin/finish", finish))["type"].endswith(":device_revoked")
    for person in (alice, bob, chief):
        await person.close()


async def test_a_silent_session_ends_and_says_so(running: Running) -> None:
    alice = await Person.join(running)
    running.clock.advance(15 * 60)  # type: ignore[attr-defined]
    assert (await alice.problem("GET", "/v1/devices"))["check"] == "session.expired"
    await sign_in(alice, alice.newcomer.passphrase)
    await alice.get("/v1/devices")
    await alice.close()
