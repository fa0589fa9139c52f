"""OPAQUE: the steps fit together, and what must fail fails alike."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbside.crypto import opaque
from curbside.crypto.secret import SecretBytes
from curbside.errors import Malformed, UsageError, WrongPassphrase
from curbside.ids import UserId, encode_id

ASA, BOB = UserId(encode_id(b"a" * 16)), UserId(encode_id(b"b" * 16))
SETUP = opaque.make_server_setup()
SERVER = opaque.OpaqueServer(SETUP)
PASSPHRASE = "purple otter drinks coffee"


def register(passphrase: str = PASSPHRASE, user: UserId = ASA) -> tuple[bytes, SecretBytes]:
    start = opaque.start_registration(passphrase)
    done = opaque.finish_registration(passphrase, start.state, SERVER.respond_registration(user, start.message))
    return opaque.accept_registration(done.record), done.export_key


RECORD, EXPORT_KEY = register()


def sign_in(passphrase: str, record: bytes | None = RECORD, user: UserId = ASA) -> opaque.LoggedIn:
    start = opaque.start_login(passphrase)
    answer = SERVER.respond_login(user, record, start.message)
    done = opaque.complete_login(passphrase, start.state, answer.response)
    assert opaque.finish_login(answer.state, done.finalization).is_same(done.session_key)
    return done


def test_right_passphrase_signs_in_and_gives_the_same_export_key() -> None:
    first, second = sign_in(PASSPHRASE), sign_in(PASSPHRASE)
    assert first.export_key.is_same(EXPORT_KEY)
    assert second.export_key.is_same(EXPORT_KEY)
    assert not first.session_key.is_same(second.session_key)


def test_another_spelling_of_the_same_text_signs_in() -> None:
    record, _ = register("\u00c5ngstr\u00f6m and the \ufb01ne sea")
    sign_in("A\u030angstro\u0308m and the fine sea", record)


@pytest.mark.parametrize("passphrase", ["", "purple otter drinks coffeE", PASSPHRASE + " "])
def test_wrong_passphrase_is_refused(passphrase: str) -> None:
    with pytest.raises(WrongPassphrase):
        sign_in(passphrase)


def test_record_of_another_user_is_refused() -> None:
    with pytest.raises(WrongPassphrase):
        sign_in(PASSPHRASE, RECORD, BOB)


def test_unknown_user_gets_an_answer_that_looks_the_same_and_never_opens() -> None:
    start = opaque.start_login(PASSPHRASE)
    known = SERVER.respond_login(ASA, RECORD, start.message)
    unknown = SERVER.respond_login(BOB, None, start.message)
    assert len(known.response) == len(unknown.response) == 320
    assert len(known.state) == len(unknown.state)
    with pytest.raises(WrongPassphrase):
        opaque.complete_login(PASSPHRASE, start.state, unknown.response)


def test_unknown_user_gets_the_same_oprf_answer_each_time() -> None:
    """Else asking twice with one request would tell who exists: RFC 9807 section 6.3.2.2."""
    start = opaque.start_login(PASSPHRASE)
    first, second = (SERVER.respond_login(BOB, None, start.message).response[:32] for _ in range(2))
    assert first == second


def test_server_setup_survives_a_restart() -> None:
    again = opaque.OpaqueServer(SecretBytes(SETUP.reveal()))
    start = opaque.start_login(PASSPHRASE)
    answer = again.respond_login(ASA, RECORD, start.message)
    done = opaque.complete_login(PASSPHRASE, start.state, answer.response)
    opaque.finish_login(SecretBytes(answer.state.reveal()), done.finalization)


def test_finalization_of_another_sign_in_is_refused() -> None:
    start = opaque.start_login(PASSPHRASE)
    answer = SERVER.respond_login(ASA, RECORD, start.message)
    with pytest.raises(WrongPassphrase):
        opaque.finish_login(answer.state, sign_in(PASSPHRASE).finalization)


def test_garbage_is_refused_with_a_typed_error() -> None:
    start = opaque.start_registration(PASSPHRASE)
    with pytest.raises(Malformed):
        SERVER.respond_registration(ASA, b"garbage")
    with pytest.raises(Malformed):
        opaque.finish_registration(PASSPHRASE, start.state, b"garbage")
    with pytest.raises(Malformed):
        opaque.accept_registration(b"garbage")
    with pytest.raises(UsageError):
        opaque.OpaqueServer(SecretBytes(b"garbage"))


@settings(max_examples=30)
@given(st.binary(max_size=400) | st.binary(min_size=96, max_size=96))
def test_any_request_is_answered_or_refused_with_a_typed_error(request: bytes) -> None:
    with pytest.raises((Malformed, WrongPassphrase)):
        opaque.finish_login(SERVER.respond_login(ASA, RECORD, request).state, request[:64])


def test_secrets_are_not_shown() -> None:
    start = opaque.start_login(PASSPHRASE)
    answer = SERVER.respond_login(ASA, RECORD, start.message)
    assert repr(start.state.reveal()) not in repr(start)
    assert repr(answer.state.reveal()) not in repr(answer)
