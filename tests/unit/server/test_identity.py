"""Sign-up and sign-in: who gets in, who does not, and what is left in the audit log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from enrolment import DAY, ORIGIN, START, Hospital, Newcomer

from curbside.audit.events import EventName
from curbside.crypto import opaque
from curbside.crypto.jose import sign_api_key
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.x509 import make_authority, make_enrolment
from curbside.errors import (
    BadSignature,
    CurbsideError,
    DeviceRevoked,
    DuplicateRequest,
    InviteExpired,
    InviteUsed,
    Malformed,
    NotAuthenticated,
    NotFound,
    RuleBroken,
    TooMany,
    UntrustedDevice,
    WrongPassphrase,
)
from curbside.ids import UserId, decode_base64url, encode_base64url, encode_id
from curbside.wire import bodies


@pytest_asyncio.fixture
async def hospital(tmp_path: Path) -> AsyncIterator[Hospital]:
    opened = await Hospital.open(tmp_path)
    yield opened
    await opened.close()


# --- invites ----------------------------------------------------------------------------------


async def test_invite_shows_certificates_and_role(hospital: Hospital) -> None:
    alice = await hospital.invite("physician")
    shown = await hospital.invites.get_invite(alice.invite_id)
    assert (shown.user_id, shown.role, shown.organization) == (alice.user_id, "physician", "Sankt Elsewhere")
    assert shown.enrolment_certificate == encode_base64url(alice.enrolment.certificate.raw)
    assert shown.authority_certificate == encode_base64url(hospital.authority.certificate.raw)


async def test_the_same_invite_may_be_deposited_twice_but_its_id_not_reused(hospital: Hospital) -> None:
    alice = await hospital.invite()
    body = bodies.NewInvite(alice.invite_id, encode_base64url(alice.enrolment.certificate.raw))
    assert (await hospital.invites.create_invite(body)).invite_id == alice.invite_id
    bob = await hospital.invite()
    with pytest.raises(DuplicateRequest):
        await hospital.invites.create_invite(
            bodies.NewInvite(alice.invite_id, encode_base64url(bob.enrolment.certificate.raw))
        )


async def test_only_the_organisations_authority_can_invite(hospital: Hospital) -> None:
    stranger = make_authority("Sankt Elsewhere", START)
    forged = make_enrolment(stranger, UserId(encode_id(bytes(16))), "administrator", START + DAY, START)
    body = bodies.NewInvite(encode_id(bytes(16)), encode_base64url(forged.certificate.raw))
    with pytest.raises(UntrustedDevice):
        await hospital.invites.create_invite(body)
    assert (await hospital.events())[-1].name is EventName.INVITE_REFUSED


async def test_a_certificate_that_is_no_enrolment_is_no_invite(hospital: Hospital) -> None:
    with pytest.raises(UntrustedDevice):
        await hospital.invites.create_invite(
            bodies.NewInvite(encode_id(bytes(16)), encode_base64url(hospital.authority.certificate.raw))
        )


async def test_an_invite_nobody_made_is_not_found(hospital: Hospital) -> None:
    with pytest.raises(NotFound):
        await hospital.invites.get_invite(encode_id(bytes(16)))
    with pytest.raises(Malformed):
        await hospital.invites.get_invite("x")


async def test_an_expired_invite_opens_nothing(hospital: Hospital) -> None:
    alice = await hospital.invite(seconds=60)
    record = await hospital.register(alice)
    body = alice.signup_body(hospital.clock.now(), record)
    hospital.clock.advance(61)
    with pytest.raises(InviteExpired):
        await hospital.invites.get_invite(alice.invite_id)
    with pytest.raises(InviteExpired):
        await hospital.register(alice)
    with pytest.raises(InviteExpired):
        await hospital.identity.finish_signup(body, alice.call("/v1/signup/finish", hospital.clock.now()))
    assert (await hospital.event_names()).count("invite.refused") == 3


async def test_an_invite_works_once(hospital: Hospital) -> None:
    alice = await hospital.join()
    with pytest.raises(InviteUsed):
        await hospital.invites.get_invite(alice.invite_id)
    thief = Newcomer(alice.invite_id, alice.user_id, alice.role, alice.enrolment, "Mallory")
    body = thief.signup_body(hospital.clock.now(), b"")
    with pytest.raises(InviteUsed):
        await hospital.identity.finish_signup(body, thief.call("/v1/signup/finish", hospital.clock.now()))


async def test_two_who_race_for_one_invite_do_not_both_win(hospital: Hospital) -> None:
    alice = await hospital.invite()
    mallory = Newcomer(alice.invite_id, alice.user_id, alice.role, alice.enrolment, "Mallory")
    now = hospital.clock.now()
    enrolled = []
    for person in (alice, mallory):
        body = person.signup_body(now, await hospital.register(person))
        invite = await hospital.store.read(lambda view: view.identity.find_invite(alice.invite_id))
        call = person.call("/v1/signup/finish", now)
        enrolled.append(hospital.identity._verify_signup(body, call, invite))
    first = await hospital.store.write(lambda tx: hospital.identity._enrol(tx, invite, enrolled[0]))
    assert first.user_id == alice.user_id
    with pytest.raises(InviteUsed):
        await hospital.store.write(lambda tx: hospital.identity._enrol(tx, invite, enrolled[1]))
    assert len(await hospital.store.read(lambda view: view.identity.list_devices(alice.user_id))) == 1


# --- sign-up ----------------------------------------------------------------------------------


async def test_sign_up_makes_user_device_session_and_events(hospital: Hospital) -> None:
    alice = await hospital.join("physician", "Alice Ang")
    assert alice.session is not None
    assert alice.session.expires_at == START + 12 * 3600
    who = await hospital.authenticate(alice)
    assert (who.subject.user_id, who.subject.device_id, who.subject.role.value) == (
        alice.user_id,
        alice.device_id,
        "physician",
    )
    names = await hospital.event_names()
    assert names == [
        "invite.created",
        "invite.used",
        "user.created",
        "device.enrolled",
        "auth.login.ok",
    ]


def _other_device_id(body: bodies.SignupFinish, alice: Newcomer) -> bodies.SignupFinish:
    device_id = encode_id(bytes(16))
    api_public = Signer("ed25519", alice.api_key).public
    signature = encode_base64url(sign_api_key(alice.device_key, device_id, api_public))  # type: ignore[arg-type]
    device = msgspec.structs.replace(body.device, device_id=device_id, api_key_signature=signature)
    return msgspec.structs.replace(body, device=device)


def _other_api_key(body: bodies.SignupFinish, alice: Newcomer) -> bodies.SignupFinish:
    other = encode_base64url(Signer("ed25519", generate_signature_key("ed25519")).public)
    return msgspec.structs.replace(body, device=msgspec.structs.replace(body.device, api_key=other))


def _user_certificate_for_device(body: bodies.SignupFinish, alice: Newcomer) -> bodies.SignupFinish:
    device = msgspec.structs.replace(body.device, device_certificate=body.user_certificate)
    return msgspec.structs.replace(body, device=device)


def _key_package_of_another_suite(body: bodies.SignupFinish, alice: Newcomer) -> bodies.SignupFinish:
    return msgspec.structs.replace(body, key_packages=[alice.key_package(START, suite=3)])


def _key_package_twice(body: bodies.SignupFinish, alice: Newcomer) -> bodies.SignupFinish:
    return msgspec.structs.replace(body, key_packages=[body.key_packages[0]] * 2)


def _no_key_package(body: bodies.SignupFinish, alice: Newcomer) -> bodies.SignupFinish:
    return msgspec.structs.replace(body, last_resort_key_package=body.user_certificate)


def _no_record(body: bodies.SignupFinish, alice: Newcomer) -> bodies.SignupFinish:
    return msgspec.structs.replace(body, opaque_record=encode_base64url(b"record"))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_other_device_id, UntrustedDevice),
        (_other_api_key, BadSignature),
        (_user_certificate_for_device, RuleBroken),
        (_key_package_of_another_suite, RuleBroken),
        (_key_package_twice, RuleBroken),
        (_no_key_package, RuleBroken),
        (_no_record, Malformed),
    ],
)
async def test_a_sign_up_that_does_not_fit_together_leaves_nothing_but_an_event(
    hospital: Hospital, change: object, error: type[CurbsideError]
) -> None:
    alice = await hospital.invite()
    body = alice.signup_body(START, await hospital.register(alice))
    with pytest.raises(error):
        await hospital.identity.finish_signup(change(body, alice), alice.call("/v1/signup/finish", START))  # type: ignore[operator]
    assert await hospital.store.read(lambda view: view.identity.find_user(alice.user_id)) is None
    assert (await hospital.events())[-1].name is EventName.INVITE_REFUSED
    alice.session = await hospital.identity.finish_signup(body, alice.call("/v1/signup/finish", START))


async def test_sign_up_needs_a_proof_by_the_new_device(hospital: Hospital) -> None:
    alice = await hospital.invite()
    body = alice.signup_body(START, await hospital.register(alice))
    for call in (
        alice.call("/v1/signup/finish", START, generate_signature_key("ed25519")),
        alice.call("/v1/signup/finish", START - 121),
        _proof_for_another_route(alice),
    ):
        with pytest.raises(NotAuthenticated):
            await hospital.identity.finish_signup(body, call)


def _proof_for_another_route(alice: Newcomer) -> object:
    call = alice.call("/v1/signup/finish", START)
    return type(call)(ORIGIN + "/v1/signin/finish", call.proof)


async def test_a_key_package_of_another_device_is_refused(hospital: Hospital) -> None:
    alice, bob = await hospital.invite(), await hospital.join(name="Bob")
    body = alice.signup_body(START, await hospital.register(alice))
    stolen = msgspec.structs.replace(body, key_packages=[bob.key_package(START)])
    with pytest.raises(RuleBroken) as refused:
        await hospital.identity.finish_signup(stolen, alice.call("/v1/signup/finish", START))
    assert refused.value.check == "key_package.device"


# --- sign-in ----------------------------------------------------------------------------------


async def test_sign_in_opens_a_session(hospital: Hospital) -> None:
    alice = await hospital.join()
    former = alice.session
    await hospital.sign_in(alice)
    assert alice.session != former
    assert (await hospital.authenticate(alice)).subject.user_id == alice.user_id
    assert (await hospital.events())[-1].extra == {"method": "opaque"}


async def test_a_wrong_passphrase_is_refused_and_shows_in_the_log(hospital: Hospital) -> None:
    alice = await hospital.join()
    with pytest.raises(WrongPassphrase):
        await hospital.sign_in(alice, "kettle orbit walnut eight")
    hospital.clock.advance(61)
    await hospital.identity.sweep()
    last = (await hospital.events())[-1]
    assert (last.name, last.reason, last.actor_user) == (EventName.LOGIN_FAIL, "signin.unfinished", alice.user_id)


async def test_a_forged_finish_is_a_wrong_passphrase(hospital: Hospital) -> None:
    alice = await hospital.join()
    started = opaque.start_login(alice.passphrase)
    answer = await hospital.identity.start_signin(
        bodies.SigninStart(alice.user_id, alice.device_id, encode_base64url(started.message)),
        alice.call("/v1/signin/start", hospital.clock.now()),
    )
    finish = bodies.SigninFinish(answer.signin_id, encode_base64url(bytes(64)))
    with pytest.raises(WrongPassphrase):
        await hospital.identity.finish_signin(finish, alice.call("/v1/signin/finish", START))
    last = (await hospital.events())[-1]
    assert (last.name, last.outcome.value, last.reason) == (EventName.LOGIN_FAIL, 4, "wrong_passphrase")


async def test_the_passphrase_alone_is_not_enough(hospital: Hospital) -> None:
    alice = await hospital.join()
    with pytest.raises(WrongPassphrase):
        await hospital.sign_in(alice, key=generate_signature_key("ed25519"))


async def test_a_finish_works_once_and_for_one_minute(hospital: Hospital) -> None:
    alice = await hospital.join()

    async def begin() -> bodies.SigninFinish:
        started = opaque.start_login(alice.passphrase)
        answer = await hospital.identity.start_signin(
            bodies.SigninStart(alice.user_id, alice.device_id, encode_base64url(started.message)),
            alice.call("/v1/signin/start", hospital.clock.now()),
        )
        done = opaque.complete_login(alice.passphrase, started.state, _raw(answer.opaque_response))
        return bodies.SigninFinish(answer.signin_id, encode_base64url(done.finalization))

    body = await begin()
    await hospital.identity.finish_signin(body, alice.call("/v1/signin/finish", START))
    with pytest.raises(WrongPassphrase):
        await hospital.identity.finish_signin(body, alice.call("/v1/signin/finish", START))
    late = await begin()
    hospital.clock.advance(60)
    with pytest.raises(WrongPassphrase):
        await hospital.identity.finish_signin(late, alice.call("/v1/signin/finish", START + 60))


async def test_a_wrong_clock_does_not_use_the_sign_in_up(hospital: Hospital) -> None:
    alice = await hospital.join()
    started = opaque.start_login(alice.passphrase)
    answer = await hospital.identity.start_signin(
        bodies.SigninStart(alice.user_id, alice.device_id, encode_base64url(started.message)),
        alice.call("/v1/signin/start", hospital.clock.now()),
    )
    done = opaque.complete_login(alice.passphrase, started.state, _raw(answer.opaque_response))
    body = bodies.SigninFinish(answer.signin_id, encode_base64url(done.finalization))
    with pytest.raises(NotAuthenticated) as refused:
        await hospital.identity.finish_signin(body, alice.call("/v1/signin/finish", START + 500))
    assert refused.value.members["check"] == "dpop.time"
    assert (await hospital.identity.finish_signin(body, alice.call("/v1/signin/finish", START))).token


async def test_unknown_user_device_and_revoked_device_get_answers_of_one_form(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    await hospital.devices.revoke_device(await hospital.subject(bob), bob.device_id)
    request = encode_base64url(opaque.start_login(alice.passphrase).message)
    pairs = [
        (alice.user_id, alice.device_id),
        (encode_id(bytes(16)), encode_id(bytes(16))),
        (alice.user_id, encode_id(bytes(16))),
        (alice.user_id, bob.device_id),
        (bob.user_id, bob.device_id),
    ]
    answers = [await start_as(hospital, alice, *pair, request) for pair in pairs]
    answers.append(await start_as(hospital, bob, alice.user_id, alice.device_id, request))
    assert {len(_raw(answer.opaque_response)) for answer in answers} == {320}
    assert {len(answer.signin_id) for answer in answers} == {22}


async def test_a_revoked_device_is_told_so_when_it_proves_itself(hospital: Hospital) -> None:
    alice = await hospital.join()
    await hospital.devices.revoke_device(await hospital.subject(alice), alice.device_id)
    started = opaque.start_login(alice.passphrase)
    answer = await hospital.identity.start_signin(
        bodies.SigninStart(alice.user_id, alice.device_id, encode_base64url(started.message)),
        alice.call("/v1/signin/start", hospital.clock.now()),
    )
    with pytest.raises(WrongPassphrase):
        opaque.complete_login(alice.passphrase, started.state, _raw(answer.opaque_response))
    body = bodies.SigninFinish(answer.signin_id, encode_base64url(bytes(64)))
    with pytest.raises(DeviceRevoked):
        await hospital.identity.finish_signin(body, alice.call("/v1/signin/finish", START))


async def test_guessing_is_slowed_down_for_that_device_alone(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    for _ in range(6):
        with pytest.raises(WrongPassphrase):
            await hospital.sign_in(alice, "a guess that is wrong")
    with pytest.raises(TooMany) as first:
        await hospital.sign_in(alice)
    assert first.value.members == {"retry_after": 1}
    assert (await hospital.events())[-1].name is EventName.THROTTLED
    await hospital.sign_in(bob)
    waits = []
    for _ in range(10):
        hospital.clock.advance(waits[-1] if waits else 1)
        with pytest.raises(WrongPassphrase):
            await hospital.sign_in(alice, "a guess that is wrong")
        with pytest.raises(TooMany) as refused:
            await hospital.sign_in(alice)
        waits.append(refused.value.members["retry_after"])
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    hospital.clock.advance(300)
    await hospital.sign_in(alice)
    await hospital.sign_in(alice)


async def start_as(hospital: Hospital, who: Newcomer, user_id: str, device_id: str, request: str) -> Any:
    """A sign-in's start in the name of that device, with a proof by this person's key."""
    call = who.call("/v1/signin/start", hospital.clock.now())
    return await hospital.identity.start_signin(bodies.SigninStart(user_id, device_id, request), call)


async def test_strangers_guessing_in_a_users_name_do_not_slow_the_user_down(hospital: Hospital) -> None:
    """Bob knows Alice's ids, as colleagues do; he lacks her device's key."""
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    request = encode_base64url(opaque.start_login("guess").message)
    for number in range(25):
        await start_as(hospital, bob, alice.user_id, encode_id(number.to_bytes(16, "big")), request)
        await start_as(hospital, bob, alice.user_id, alice.device_id, request)
    await start_as(hospital, bob, alice.user_id, alice.device_id, request)
    with pytest.raises(TooMany):
        await start_as(hospital, bob, alice.user_id, alice.device_id, request)
    for _ in range(7):
        await hospital.sign_in(alice)


async def test_without_the_devices_key_not_even_the_right_passphrase_can_be_told(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    started = opaque.start_login(alice.passphrase)
    answer = await start_as(hospital, bob, alice.user_id, alice.device_id, encode_base64url(started.message))
    with pytest.raises(WrongPassphrase):
        opaque.complete_login(alice.passphrase, started.state, _raw(answer.opaque_response))


async def test_a_start_needs_a_proof_of_its_own(hospital: Hospital) -> None:
    alice = await hospital.join()
    start = bodies.SigninStart(
        alice.user_id, alice.device_id, encode_base64url(opaque.start_login(alice.passphrase).message)
    )
    call = alice.call("/v1/signin/start", START)
    await hospital.identity.start_signin(start, call)
    wrong = [
        (call, "dpop.replay"),
        (alice.call("/v1/signin/start", START - 121), "dpop.time"),
        (type(call)(call.uri, alice.call("/v1/signin/finish", START).proof), "dpop.uri"),
        (type(call)(call.uri, call.proof[:-4] + "AAAA"), "dpop.signature"),
        (type(call)(call.uri, "a.b.c"), "dpop.form"),
    ]
    for tried, check in wrong * 3:
        with pytest.raises(NotAuthenticated) as refused:
            await hospital.identity.start_signin(start, tried)
        assert refused.value.members["check"] == check
    await hospital.sign_in(alice)


async def test_secrets_do_not_show(hospital: Hospital) -> None:
    assert "Secret" in repr(hospital.keys.opaque_setup)
    assert hospital.keys.opaque_setup.reveal().hex() not in repr(hospital.keys)
    assert hospital.keys.sender.private.reveal().hex() not in repr(hospital.keys)


def _raw(text: str) -> bytes:
    return decode_base64url(text)
