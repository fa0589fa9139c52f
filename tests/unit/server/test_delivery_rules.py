"""What a server checks of an envelope, rates, problems and logs: pure parts of the delivery side."""

from __future__ import annotations

import io
import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbside.clock import ManualClock
from curbside.errors import (
    CurbsideError,
    FutureEpoch,
    IntegrityError,
    InvalidMessage,
    NotFound,
    PendingProposals,
    StaleEpoch,
    StorageFull,
    TooLarge,
    TooMany,
    UsageError,
)
from curbside.ids import ConversationId, encode_id
from curbside.mls.codec import u64, vector
from curbside.server import limits as rates
from curbside.server.groups import SendView, check_envelope, check_epoch, is_id
from curbside.server.limits import RateLimit
from curbside.server.logs import LogEvent, Method, build_logger, find_code, find_place, show_id
from curbside.server.problems import encode_problem
from curbside.wire.frames import Send

GROUP = bytes(range(16))
MESSAGE = bytes(range(16, 32))


def envelope(epoch: int = 3, message_id: bytes = MESSAGE, group: bytes = GROUP) -> bytes:
    head = b"\x00\x01\x00\x02" + vector(group) + u64(epoch) + b"\x01" + vector(message_id)
    return head + vector(b"sender data") + vector(b"ciphertext" * 10)


def send(data: bytes, epoch: int = 3) -> Send:
    return Send(1, encode_id(GROUP), MESSAGE, epoch, data)


def view(epoch: int = 3, waiting: tuple[str, ...] = ()) -> SendView:
    return SendView(ConversationId(encode_id(GROUP)), epoch, MappingProxyType({}), waiting)


def test_an_envelope_is_what_its_send_says() -> None:
    check_envelope(send(envelope()), GROUP)


@given(st.integers(0, len(envelope()) - 1), st.integers(1, 255))
def test_an_envelope_with_a_changed_byte_is_passed_on_or_refused_as_invalid(place: int, change: int) -> None:
    data = bytearray(envelope())
    data[place] ^= change
    head = len(envelope()) - len(vector(b"sender data")) - len(vector(b"ciphertext" * 10))
    try:
        check_envelope(send(bytes(data)), GROUP)
    except InvalidMessage:
        return
    assert place >= head, "the part that the server can check was changed"


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_invalid_message(data: bytes) -> None:
    with pytest.raises((InvalidMessage, TooLarge)):
        check_envelope(send(data), GROUP)


@given(st.integers(0, len(envelope()) - 1))
def test_a_cut_envelope_is_refused(length: int) -> None:
    with pytest.raises(InvalidMessage):
        check_envelope(send(envelope()[:length]), GROUP)


def test_epochs_are_compared_and_waiting_proposals_come_first() -> None:
    check_epoch(send(envelope()), view())
    with pytest.raises(StaleEpoch) as stale:
        check_epoch(send(envelope()), view(epoch=4))
    assert stale.value.members == {"current_epoch": 4}
    with pytest.raises(FutureEpoch):
        check_epoch(send(envelope()), view(epoch=2))
    with pytest.raises(PendingProposals) as waiting:
        check_epoch(send(envelope()), view(waiting=("a", "b")))
    assert waiting.value.members == {"proposals": ["a", "b"]}


@given(st.text(max_size=30))
def test_only_ids_are_ids(text: str) -> None:
    assert not is_id(text) or len(text) == 22
    assert is_id(encode_id(GROUP))


# --- rates ------------------------------------------------------------------------------------------


def test_a_burst_is_spent_and_comes_back_with_time() -> None:
    clock = ManualClock(1_000)
    limit = RateLimit(2.0, 3, clock)
    for _ in range(3):
        limit.take("alice")
    with pytest.raises(TooMany) as refused:
        limit.take("alice")
    assert refused.value.members["retry_after"] == 1
    limit.take("bob")
    clock.advance(0.5)
    limit.check("alice")
    limit.take("alice")
    with pytest.raises(TooMany):
        limit.check("alice")
    clock.advance(3600)
    for _ in range(3):
        limit.take("alice")
    with pytest.raises(TooMany):
        limit.take("alice")


def test_a_clock_that_goes_back_gives_no_credit() -> None:
    clock = ManualClock(1_000)
    limit = RateLimit(1.0, 1, clock)
    limit.take("alice")
    clock.advance(-500)
    with pytest.raises(TooMany):
        limit.take("alice")


def test_keys_are_forgotten_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "KEYS", 10)
    limit = RateLimit(1.0, 1, ManualClock(1_000))
    for number in range(100):
        limit.take(str(number))
    assert len(limit._buckets) == 10


# --- problems and logs ------------------------------------------------------------------------------


def list_errors(kind: type[CurbsideError] = CurbsideError) -> list[type[CurbsideError]]:
    return [found for sub in kind.__subclasses__() for found in [sub, *list_errors(sub)]]


def test_problems_say_nothing_of_our_own_mistakes() -> None:
    for error in (UsageError("the secret reason"), IntegrityError("row 5 of users")):
        status, _, body = encode_problem(error, "r" * 22)
        assert status == 500
        assert b"secret" not in body
        assert b"users" not in body


def test_members_never_hide_the_standard_ones() -> None:
    _, _, body = encode_problem(NotFound(status=200, type="evil", extra=5), "r" * 22)
    found = json.loads(body)
    assert (found["status"], found["type"], found["extra"]) == (404, "urn:curbside:problem:not_found", 5)


def test_waiting_is_also_a_header() -> None:
    assert encode_problem(TooMany(retry_after=7), "")[1]["retry-after"] == "7"
    assert "retry-after" in encode_problem(StorageFull(), "")[1]


def test_every_error_has_a_code_that_can_be_logged() -> None:
    out = io.StringIO()
    log = build_logger("info", out)
    kinds = [kind for kind in list_errors() if kind.code]
    assert len(kinds) > 30
    for kind in kinds:
        log.info(LogEvent.REQUEST, code=find_code(kind.__new__(kind)), status=kind.status)
    assert len(out.getvalue().splitlines()) == len(kinds)


def test_free_text_cannot_be_logged() -> None:
    out = io.StringIO()
    log = build_logger("info", out)
    log.info(LogEvent.REQUEST, method=Method.GET, device=show_id(encode_id(GROUP)), ms=1.5, is_ok=True)
    looks_like_an_id = {"name": "AliceAngOfWardNumber14"}
    for fields in (
        {"name": "Alice"},
        looks_like_an_id,
        {"code": "not_found"},
        {"x": b"bytes"},
        {"x": ["list"]},
        {"x": None},
        {"x": NotFound("secret")},
    ):
        with pytest.raises(UsageError):
            log.info(LogEvent.REQUEST, **fields)
    with pytest.raises(UsageError):
        log.info("a sentence")
    assert len(out.getvalue().splitlines()) == 1
    assert "Alice" not in out.getvalue()
    for text in ("", "Alice", "AliceAngOfWardNumber14 ", "Ä" * 22):
        with pytest.raises(UsageError) as refused:
            show_id(text)
        assert not text or text not in str(refused.value)


def test_a_place_names_lines_and_not_what_was_said() -> None:
    def fail() -> None:
        raise ValueError("the patient's name")

    try:
        fail()
    except ValueError as error:
        place = find_place(error)
    assert place.startswith("ValueError test_delivery_rules.py:")
    assert "patient" not in place
