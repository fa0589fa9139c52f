"""Audit events: one encoding, a closed vocabulary, and no place for free text."""

from __future__ import annotations

import json

import msgspec
import pytest

from curbside.audit.events import (
    EXTRA_NUMBERS,
    EXTRA_WORDS,
    FHIR_CODINGS,
    AuditEvent,
    EventName,
    ObjectType,
    Outcome,
    PurposeOfUse,
    parse_event,
    size_bucket,
)
from curbside.errors import Malformed, UsageError

SENT = AuditEvent(
    name=EventName.MESSAGE_SENT,
    at=1_790_000_000_123,
    actor_user="a" * 22,
    actor_device="b" * 22,
    actor_role="nurse",
    object_type=ObjectType.CONVERSATION,
    object_id="c" * 22,
    purpose_of_use=PurposeOfUse.TREATMENT,
    rule="R-message-send",
    extra={"size_bucket": 1024, "epoch": 3, "sequence": 7},
)


def test_encoding_is_canonical_json_as_rfc_8785_writes_it() -> None:
    canonical = json.dumps(json.loads(SENT.encode()), sort_keys=True, separators=(",", ":")).encode()
    assert SENT.encode() == canonical
    assert list(AuditEvent.__struct_fields__) == sorted(AuditEvent.__struct_fields__)


def test_what_was_encoded_is_read_back() -> None:
    assert parse_event(SENT.encode()) == SENT
    refused = AuditEvent(
        name=EventName.ACCESS_DENIED, at=0, outcome=Outcome.REFUSED, reason="role", rule="R-audit-read"
    )
    assert parse_event(refused.encode()) == refused
    signed_in = AuditEvent(name=EventName.LOGIN_OK, at=1, extra={"method": "opaque"})
    assert parse_event(signed_in.encode()).extra == {"method": "opaque"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"at":1,"name":"no.such"}',
        b'{"at":1,"name":"auth.logout","note":"x"}',
        b'{"name":"auth.logout","at":1}',
        b'{"at":1, "name":"auth.logout"}',
        b'{"actor_user":"","at":1,"name":"auth.logout"}',
        b'{"at":-1,"name":"auth.logout"}',
        b'{"at":1,"name":"auth.logout","reason":"Mrs Miller"}',
    ],
)
def test_other_spellings_and_strangers_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_event(data)


@pytest.mark.parametrize("field", ["actor_user", "actor_device", "actor_role", "object_id", "reason", "rule"])
@pytest.mark.parametrize("text", ["Mrs Miller", "x" * 65, "a\nb", "ü", "a@b", "word\n"])
def test_no_field_takes_free_text(field: str, text: str) -> None:
    fields = {"name": EventName.LOGOUT, "at": 1, field: text}
    with pytest.raises(UsageError):
        AuditEvent(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "extra",
    [{"note": "x"}, {"count": "seven"}, {"count": True}, {"count": 2**53}, {"cause": 3}, {"cause": "two words"}],
)
def test_extra_takes_only_what_is_on_the_list(extra: dict[str, int | str]) -> None:
    with pytest.raises(UsageError):
        AuditEvent(name=EventName.LOGOUT, at=1, extra=extra)


def test_a_member_of_extra_is_a_number_or_a_word_never_both() -> None:
    assert not EXTRA_NUMBERS & EXTRA_WORDS


def test_every_name_has_a_fhir_coding_and_none_is_left_over() -> None:
    assert set(FHIR_CODINGS) == set(EventName)
    assert all(coding.type.startswith("1101") and coding.action in set("CRUDE") for coding in FHIR_CODINGS.values())


def test_events_are_frozen() -> None:
    with pytest.raises(AttributeError):
        SENT.at = 2  # type: ignore[misc]
    assert msgspec.structs.replace(SENT, at=2).at == 2


@pytest.mark.parametrize(("length", "bucket"), [(0, 1), (1, 1), (2, 2), (3, 4), (1024, 1024), (1025, 2048)])
def test_size_bucket_is_the_next_power_of_two(length: int, bucket: int) -> None:
    assert size_bucket(length) == bucket
