"""Sessions: a token is worth nothing without the device's key, and ends when it should."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from enrolment import ORIGIN, START, Hospital

from curbside.audit.events import EventName
from curbside.crypto.jose import Proof, ProofRequest, make_proof
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.errors import NotAuthenticated
from curbside.server.sessions import ProvedRequest, find_session, hash_token, parse_authorization
from curbside.server.store.ports import View


@pytest_asyncio.fixture
async def hospital(tmp_path: Path) -> AsyncIterator[Hospital]:
    opened = await Hospital.open(tmp_path)
    yield opened
    await opened.close()


async def check_of(hospital: Hospital, request: ProvedRequest) -> str:
    """Which check refuses the request, and that the log says the same."""
    with pytest.raises(NotAuthenticated) as refused:
        await hospital.sessions.authenticate(request)
    check = str(refused.value.members.get("check", ""))
    if check:
        assert (await hospital.events())[-1].reason == check
    return check


async def test_a_stolen_token_is_useless_with_another_key(hospital: Hospital) -> None:
    alice = await hospital.join()
    stolen = alice.request(START, key=generate_signature_key("ed25519"))
    assert await check_of(hospital, stolen) == "dpop.key"
    event = (await hospital.events())[-1]
    assert (event.name, event.actor_user, event.outcome.value) == (EventName.ACCESS_DENIED, alice.user_id, 4)


async def test_a_stolen_token_is_useless_to_a_colleague_with_a_session(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    assert alice.session is not None
    request = bob.request(START, token=alice.session.token)
    assert await check_of(hospital, request) == "dpop.key"


async def test_a_proof_works_once(hospital: Hospital) -> None:
    alice = await hospital.join()
    request = alice.request(START)
    await hospital.sessions.authenticate(request)
    assert await check_of(hospital, request) == "dpop.replay"
    hospital.clock.advance(119)
    await hospital.identity.sweep()
    assert await check_of(hospital, request) == "dpop.replay"
    hospital.clock.advance(300)
    await hospital.identity.sweep()
    assert await check_of(hospital, request) == "dpop.time"


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"signed_uri": "https://evil.example/v1/devices"}, "dpop.uri"),
        ({"signed_uri": ORIGIN + "/v1/people"}, "dpop.uri"),
        ({"signed_method": "DELETE"}, "dpop.method"),
        ({"signed_token": "another"}, "dpop.token"),
        ({"signed_token": ""}, "dpop.token"),
    ],
)
async def test_a_proof_for_something_else_is_refused(hospital: Hospital, changes: dict[str, str], check: str) -> None:
    alice = await hospital.join()
    assert await check_of(hospital, alice.request(START, **changes)) == check


@pytest.mark.parametrize("skew", [-121, 121])
async def test_a_proof_of_another_time_is_refused(hospital: Hospital, skew: int) -> None:
    alice = await hospital.join()
    assert await check_of(hospital, alice.request(START + skew)) == "dpop.time"


async def test_garbage_is_no_proof_and_an_unknown_token_no_session(hospital: Hospital) -> None:
    alice = await hospital.join()
    good = alice.request(START)
    assert await check_of(hospital, ProvedRequest("GET", good.uri, good.token, "a.b.c")) == "dpop.form"
    assert await check_of(hospital, alice.request(START, token="x" * 43)) == ""


async def test_a_stream_proof_needs_the_challenge(hospital: Hospital) -> None:
    alice = await hospital.join()
    assert alice.session is not None
    uri, token = ORIGIN + "/v1/stream", alice.session.token
    proof = make_proof(alice.api_key, ProofRequest("GET", uri, START, token, b"n" * 32))
    assert await check_of(hospital, ProvedRequest("GET", uri, token, proof, b"o" * 32)) == "dpop.nonce"
    who = await hospital.sessions.authenticate(ProvedRequest("GET", uri, token, proof, b"n" * 32))
    assert who.subject.device_id == alice.device_id


async def test_a_session_ends_after_twelve_hours_whatever_happens(hospital: Hospital) -> None:
    alice = await hospital.join()
    for _ in range(12 * 6 - 1):
        hospital.clock.advance(600)
        await hospital.authenticate(alice)
    hospital.clock.advance(600)
    assert await check_of(hospital, alice.request(hospital.clock.now())) == "session.expired"
    assert (await hospital.events())[-1].name is EventName.SESSION_EXPIRED


async def test_a_session_ends_after_fifteen_silent_minutes(hospital: Hospital) -> None:
    alice = await hospital.join()
    hospital.clock.advance(899)
    await hospital.authenticate(alice)
    hospital.clock.advance(900)
    assert await check_of(hospital, alice.request(hospital.clock.now())) == "session.expired"


async def test_a_stream_keeps_the_session_alive(hospital: Hospital) -> None:
    alice = await hospital.join()
    for _ in range(4):
        hospital.clock.advance(800)
        hospital.sessions.see(alice.device_id, hospital.clock.now())
    await hospital.authenticate(alice)
    device = await hospital.store.read(lambda view: view.identity.find_device(alice.device_id))
    assert device is not None
    assert device.last_seen_at == START + 3200


async def test_open_streams_are_signs_of_life_a_part_at_a_time(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    hospital.clock.advance(800)
    await hospital.sessions.touch_all([alice.device_id])
    hospital.clock.advance(30)
    await hospital.sessions.touch_all([alice.device_id])
    device = await hospital.store.read(lambda view: view.identity.find_device(alice.device_id))
    assert device is not None
    assert device.last_seen_at == START + 800
    hospital.clock.advance(100)
    await hospital.authenticate(alice)
    assert await check_of(hospital, bob.request(hospital.clock.now())) == "session.expired"


async def test_signing_out_ends_this_session_alone(hospital: Hospital) -> None:
    alice = await hospital.join()
    first = alice.session
    await hospital.sign_in(alice)
    await hospital.sessions.end_session(await hospital.authenticate(alice))
    assert await check_of(hospital, alice.request(START)) == ""
    assert (await hospital.event_names())[-1] == "auth.logout"
    alice.session = first
    await hospital.authenticate(alice)


async def test_revoking_a_device_ends_its_sessions_at_once_and_calls_back(hospital: Hospital) -> None:
    alice = await hospital.join()
    heard: list[tuple[str, str]] = []

    async def hear(user_id: str, device_id: str) -> None:
        heard.append((user_id, device_id))

    hospital.devices.on_device_revoked.append(hear)
    subject = await hospital.subject(alice)
    await hospital.devices.revoke_device(subject, alice.device_id)
    assert await check_of(hospital, alice.request(START)) == ""
    assert heard == [(alice.user_id, alice.device_id)]
    assert (await hospital.event_names())[-2:] == ["device.revoked", "session.revoked"]
    await hospital.devices.revoke_device(subject, alice.device_id)
    assert len(heard) == 2, "who was not asked to remove it the first time is asked now"
    assert (await hospital.event_names()).count("device.revoked") == 1


async def test_a_session_that_ends_between_look_and_use_is_refused(hospital: Hospital) -> None:
    alice = await hospital.join()
    request = alice.request(START)
    hashed = hash_token(request.token)
    found = await hospital.store.read(lambda view: find_session(view, hashed))
    assert found is not None
    await hospital.store.write(lambda tx: tx.identity.end_session(hashed))
    proof = Proof(Signer("ed25519", alice.api_key).public, "j" * 22, START)
    with pytest.raises(NotAuthenticated) as refused:
        await hospital.store.write(lambda tx: hospital.sessions.admit(tx, found, proof))
    assert refused.value.members["check"] == "session.ended"


async def test_the_database_holds_no_token(hospital: Hospital) -> None:
    alice = await hospital.join()
    assert alice.session is not None
    token = alice.session.token

    def find(view: View) -> bool:
        record = view.identity.find_session(hash_token(token))
        return record is not None and token.encode() not in record.token_hash

    assert await hospital.store.read(find)


async def test_expired_sessions_are_swept_with_a_trace(hospital: Hospital) -> None:
    alice = await hospital.join()
    assert alice.session is not None
    hospital.clock.advance(12 * 3600)
    await hospital.identity.sweep()
    assert (await hospital.event_names())[-1] == "session.expired"
    assert await hospital.store.read(lambda view: view.identity.find_session(hash_token(alice.session.token))) is None


@pytest.mark.parametrize("header", ["", "Bearer abc", "dpop abc", "DPoP"])
def test_only_the_dpop_scheme_carries_a_token(header: str) -> None:
    with pytest.raises(NotAuthenticated):
        parse_authorization(header)
    assert parse_authorization("DPoP abc") == "abc"
