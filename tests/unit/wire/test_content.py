"""Message content against the draft's examples and the vectors shared with TypeScript."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest

from curbside.errors import CurbsideError, Malformed, TooLarge
from curbside.wire import cbor, content, status

VECTORS = Path(__file__).resolve().parents[3] / "vectors" / "content"
DRAFT_IDS: dict[str, str] = json.loads((VECTORS / "draft" / "message_ids.json").read_text())


def _load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def _named(vectors: list[dict[str, Any]]) -> list[Any]:
    assert vectors, "no vectors"
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


# --- the draft ------------------------------------------------------------------------------------


def test_every_example_of_the_draft_is_tried() -> None:
    examples = {path.name for path in (VECTORS / "draft").glob("*.cbor")}
    assert len(DRAFT_IDS) >= 14
    assert examples == DRAFT_IDS.keys() | {"implied-original.cbor"}


@pytest.mark.parametrize("name", sorted(DRAFT_IDS))
def test_an_example_of_the_draft_comes_back_as_the_same_bytes(name: str) -> None:
    data = (VECTORS / "draft" / name).read_bytes()
    message = content.decode(data)
    assert content.encode(message) == data


@pytest.mark.parametrize("name", sorted(DRAFT_IDS))
def test_an_example_of_the_draft_has_the_draft_s_message_id(name: str) -> None:
    data = (VECTORS / "draft" / name).read_bytes()
    extensions = content.decode(data).extensions
    sender, room = extensions[1], extensions[2]
    assert isinstance(sender, str)
    assert isinstance(room, str)
    assert content.message_id(data, sender, room).hex() == DRAFT_IDS[name]


def test_derived_values_are_no_message() -> None:
    with pytest.raises(Malformed):
        content.decode((VECTORS / "draft" / "implied-original.cbor").read_bytes())


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("original.cbor", content.Kind.TEXT, "Hi everyone, we just shipped release 2.0. __Good  work__!"),
        ("reaction.cbor", content.Kind.REACTION, "Reaction: ❤"),
        ("multipart-2.cbor", content.Kind.REACTION, "Reaction: ❤\n🥳\n🤞"),
        ("edit.cbor", content.Kind.EDIT, "Right on! _Congratulations_ y'all!"),
        ("delete.cbor", content.Kind.DELETE, "Message deleted."),
        ("unlike.cbor", content.Kind.DELETE, "Message deleted."),
        ("attachment.cbor", content.Kind.ATTACHMENT, "File: 2 hours of key signing video"),
        ("conferencing.cbor", content.Kind.SESSION, "Join the Foo 118 conference"),
    ],
)
def test_an_example_of_the_draft_is_read_as_what_it_is(name: str, kind: content.Kind, text: str) -> None:
    message = content.decode((VECTORS / "draft" / name).read_bytes())
    assert (content.kind(message), content.fallback_text(message)) == (kind, text)


# --- our vectors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", _named(_load("valid.json")))
def test_a_valid_message_reads_as_described(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    message = content.decode(data)
    assert content.encode(message) == data
    assert content.kind(message) == vector["kind"]
    assert content.body_text(message) == vector["body_text"]
    assert content.fallback_text(message) == vector["fallback_text"]
    sender, room = content.user_uri("alice"), content.conversation_uri("ward")
    assert content.message_id(data, sender, room).hex() == vector["message_id"]


@pytest.mark.parametrize("vector", _named(_load("invalid.json")))
def test_an_invalid_message_is_refused_with_its_code(vector: dict[str, Any]) -> None:
    with pytest.raises(CurbsideError) as caught:
        content.decode(bytes.fromhex(vector["hex"]))
    assert caught.value.code == vector["error"]


@pytest.mark.parametrize("vector", _named(_load("reports.json")["valid"]))
def test_a_valid_report_reads_as_described(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    report = status.decode_report(data)
    assert [[message.hex(), found] for message, found in report] == vector["statuses"]
    assert status.encode_report(report) == data


@pytest.mark.parametrize("vector", _named(_load("reports.json")["invalid"]))
def test_an_invalid_report_is_refused_with_its_code(vector: dict[str, Any]) -> None:
    with pytest.raises(CurbsideError) as caught:
        status.decode_report(bytes.fromhex(vector["hex"]))
    assert caught.value.code == vector["error"]


@pytest.mark.parametrize("data", _load("cbor.json")["valid"])
def test_deterministic_cbor_comes_back_as_the_same_bytes(data: str) -> None:
    assert cbor.encode(cbor.decode(bytes.fromhex(data))).hex() == data


@pytest.mark.parametrize("data", _load("cbor.json")["valid"])
def test_another_cbor_library_reads_what_ours_calls_deterministic(data: str) -> None:
    cbor2.loads(bytes.fromhex(data))


@pytest.mark.parametrize("data", _load("cbor.json")["invalid"])
def test_other_cbor_is_refused(data: str) -> None:
    with pytest.raises(Malformed):
        cbor.decode(bytes.fromhex(data))


# --- limits ---------------------------------------------------------------------------------------


def _filled(length: int) -> content.Message:
    return content.message(content.SinglePart(content.PLAIN, bytes(length)), salt=bytes(16))


def test_a_message_of_just_the_limit_goes_through_and_one_octet_more_does_not() -> None:
    overhead = len(content.encode(_filled(60_000))) - 60_000
    full = content.encode(_filled(content.MESSAGE_BYTES - overhead))
    assert len(full) == content.MESSAGE_BYTES
    assert content.decode(full).salt == bytes(16)
    with pytest.raises(TooLarge) as caught:
        content.encode(_filled(content.MESSAGE_BYTES - overhead + 1))
    assert caught.value.members == {"limit": content.MESSAGE_BYTES}


def test_a_preview_over_its_limit_is_refused() -> None:
    external = content.ExternalPart("image/webp", "curbside-blob:1")
    preview = content.SinglePart("image/webp", bytes(content.THUMBNAIL_BYTES + 1))
    with pytest.raises(TooLarge):
        content.photo(external, 1, 1, thumbnail=preview)


@pytest.mark.parametrize(
    "message",
    [
        content.Message(salt=bytes(15)),
        content.Message(salt=bytes(16), replaces=bytes(32)),
        content.Message(salt=bytes(16), topic_id=bytes(4097)),
        content.Message(salt=bytes(16), expires=content.Expiry(True, 2**31)),
        content.Message(salt=bytes(16), extensions={0: 1}),
        content.Message(salt=bytes(16), extensions={"\ud800": 1}),
        content.Message(salt=bytes(16), extensions={2**53: 1}),
        content.Message(salt=bytes(16), extensions={-7: ((((1,),),),)}),
        content.Message(salt=bytes(16), extensions={-7: 2**64}),
        content.Message(salt=bytes(16), extensions={content.Priority.KEY: 1}),
        content.Message(salt=bytes(16), body=content.SinglePart("text/plain", b"", 256)),
        content.Message(salt=bytes(16), body=content.ExternalPart("text/plain", "")),
        content.Message(salt=bytes(16), body=content.MultiPart(content.Semantics.CHOOSE_ONE, (content.NullPart(),))),
        content.text("x", clinical=[content.Priority(-1)]),
    ],
    ids=range(14),
)
def test_what_decode_would_refuse_is_not_encoded(message: content.Message) -> None:
    with pytest.raises(Malformed):
        content.encode(message)


def test_an_absolute_expiry_years_from_now_is_refused_when_the_time_is_known() -> None:
    message = content.text("x", expires=content.Expiry(False, 2_000_000_000))
    content.check_expiry(message, 2_000_000_000 - 86_400)
    for now in (1_900_000_000, 2_100_000_000):
        with pytest.raises(Malformed):
            content.check_expiry(message, now)


def test_a_uri_too_long_for_a_message_id_is_refused() -> None:
    data = content.encode(content.text("x"))
    with pytest.raises(Malformed):
        content.message_id(data, "u" * 65536, "r")


@pytest.mark.parametrize(
    ("value", "depth"),
    [({True: 1}, 3), ({1.5: 1}, 3), ({"a": object()}, 3), (cbor.Simple(24), 3), (cbor.Tag(2, b"\1"), 3), ([[[]]], 2)],
)
def test_what_has_no_deterministic_form_is_not_encoded(value: Any, depth: int) -> None:
    with pytest.raises(Malformed):
        cbor.encode(value, depth)


def test_parts_nested_too_deeply_are_not_encoded() -> None:
    part: content.Part = content.NullPart()
    for _ in range(4):
        part = content.MultiPart(content.Semantics.PROCESS_ALL, (part, content.NullPart()))
    with pytest.raises(Malformed):
        content.encode(content.message(part))


def test_a_report_over_the_size_of_a_message_is_refused() -> None:
    with pytest.raises(TooLarge):
        status.decode_report(bytes(content.MESSAGE_BYTES + 1))


# --- habits ---------------------------------------------------------------------------------------


def test_two_messages_of_the_same_text_have_different_salts() -> None:
    assert content.text("same").salt != content.text("same").salt


def test_no_content_shows_in_a_message_s_text_form() -> None:
    secret = "CANARY-7"
    patient, part = content.Patient(secret), content.ExternalPart(secret, secret, filename=secret)
    message = content.photo(part, 1, 1, secret, clinical=[patient])
    shown = [message, message.body, patient, part, content.text_part(secret), *content.attachments(message)]
    assert all(secret not in repr(item) + str(item) for item in shown)


def test_an_edit_of_an_extension_keeps_what_this_version_does_not_know() -> None:
    newer = content.Message(salt=bytes(16), extensions={-4250: {1: "later"}, "vendor": 1})
    message = content.decode(content.encode(content.with_extensions(newer, content.Priority(content.URGENT))))
    assert message.extensions == {-4201: {1: 2}, -4250: {1: "later"}, "vendor": 1}
    assert content.find_extension(message, content.Priority) == content.Priority(content.URGENT)


def test_a_picture_s_preview_is_found_only_where_there_is_one() -> None:
    external = content.ExternalPart("image/webp", "curbside-blob:1")
    message = content.message(external, clinical=[content.Picture(0, 2, 3, preview=9)])
    (found,) = content.attachments(message)
    assert (found.width, found.height, found.preview) == (2, 3, None)
