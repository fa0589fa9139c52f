"""Many sends and deliveries under one leaf: each is still its own event, and nothing of it can be changed unseen."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbside.audit.batch import (
    ROWS_PER_BATCH,
    Batch,
    BatchHead,
    DeliveredRow,
    MessageRow,
    SentRow,
    build_batch,
    encode_row,
    parse_row_event,
    parse_rows,
    read_batch,
    split_batches,
    verify_rows,
)
from curbside.audit.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from curbside.audit.events import AuditEvent, EventName, ObjectType, parse_event
from curbside.audit.export import build_header, build_line, verify_export
from curbside.audit.merkle import InclusionPath, compute_root, hash_leaf
from curbside.audit.proof import Place, Proven, build_proof, verify_proof
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.errors import CurbsideError, IntegrityError, Malformed, UsageError

SIGNER = Signer("ed25519", SecretBytes(bytes(range(32))))
OTHER = Signer("ed25519", SecretBytes(bytes(range(1, 33))))
KEY = VerifierKey("curbside.audit/0011", SIGNER.public)
WHO = ("u" * 22, "d" * 22, "nurse")
ROOM = "c" * 22

words = st.text("abcXYZ019_.:/{}-", min_size=1, max_size=30)
numbers = st.integers(0, 2**53 - 1)
sent_rows = st.builds(SentRow, numbers, words, words, words, words, numbers, numbers, numbers)
delivered_rows = st.builds(DeliveredRow, numbers, words, words, words, words, numbers, numbers)


def sent(number: int) -> SentRow:
    return SentRow(1_790_000_000_000 + number, *WHO, ROOM, number, 3, 1024)


def delivered(number: int) -> DeliveredRow:
    return DeliveredRow(1_790_000_000_000 + number, *WHO, ROOM, number, number + 1)


def head_of(batch: Batch) -> BatchHead:
    head = read_batch(parse_event(batch.event))
    assert head is not None
    return head


# --- rows ---------------------------------------------------------------------------------------


@given(sent_rows)
def test_a_send_is_written_as_its_event_would_be(row: SentRow) -> None:
    event = AuditEvent(
        at=row.at,
        name=EventName.MESSAGE_SENT,
        actor_user=row.user,
        actor_device=row.device,
        actor_role=row.role,
        object_type=ObjectType.CONVERSATION,
        object_id=row.conversation,
        extra={"epoch": row.epoch, "sequence": row.sequence, "size_bucket": row.size_bucket},
        rule="R-message-send",
    )
    assert encode_row(row) == event.encode()
    assert parse_row_event(encode_row(row)) == event


@given(delivered_rows)
def test_a_delivery_is_written_as_its_event_would_be(row: DeliveredRow) -> None:
    event = AuditEvent(
        at=row.at,
        name=EventName.MESSAGE_DELIVERED,
        actor_user=row.user,
        actor_device=row.device,
        actor_role=row.role,
        object_type=ObjectType.CONVERSATION,
        object_id=row.conversation,
        extra={"from_index": row.first, "to_index": row.last},
        rule="R-message-read",
    )
    assert encode_row(row) == event.encode()
    assert parse_row_event(encode_row(row)) == event


@pytest.mark.parametrize("place", ["user", "device", "role", "conversation"])
def test_a_row_has_no_place_for_free_text(place: str) -> None:
    for text in ('Mrs "Quux"', "x" * 65, "né"):
        with pytest.raises(UsageError):
            encode_row(msgspec.structs.replace(sent(1), **{place: text}))


def test_only_messages_stand_in_a_batch() -> None:
    with pytest.raises(Malformed):
        parse_row_event(AuditEvent(at=1, name=EventName.LOGOUT).encode())
    with pytest.raises(Malformed):
        parse_row_event(encode_row(sent(1)) + b" ")


@given(st.lists(sent_rows | delivered_rows, min_size=1, max_size=40))
def test_rows_come_back_in_order_and_lead_to_the_root(rows: list[MessageRow]) -> None:
    batch = build_batch(rows)
    events = parse_rows(batch.rows)
    assert events == [encode_row(row) for row in rows]
    head = head_of(batch)
    assert (head.count, head.root) == (len(rows), compute_root([hash_leaf(event) for event in events]))
    verify_rows(head, [hash_leaf(event) for event in events])


def test_a_transaction_with_many_rows_leaves_several_batches() -> None:
    rows = [sent(number) for number in range(ROWS_PER_BATCH * 2 + 1)]
    parts = list(split_batches(rows))
    assert [len(part) for part in parts] == [ROWS_PER_BATCH, ROWS_PER_BATCH, 1]
    assert [row for part in parts for row in part] == rows
    assert list(split_batches([])) == []
    for wrong in ([], rows):
        with pytest.raises(UsageError):
            build_batch(wrong)


@pytest.mark.parametrize("rows", [b"", b"\xc1", b"\x91\x01", b"\x91\x92\x07\x01", b"\xff" * 9])
def test_what_is_kept_is_rows_or_an_integrity_error(rows: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_rows(rows)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"count": 2},
        {"root": "A" * 43},
        {"count": 0, "root": "A" * 43},
        {"count": ROWS_PER_BATCH + 1, "root": "A" * 43},
        {"count": 2, "root": "A" * 42},
        {"count": 2, "root": "A" * 42 + "B"},
        {"count": 2, "root": "A" * 43, "epoch": 1},
    ],
)
def test_a_batch_says_how_many_and_their_root_and_nothing_else(extra: dict[str, int | str]) -> None:
    with pytest.raises(Malformed):
        read_batch(AuditEvent(at=1, name=EventName.MESSAGE_BATCH, extra=extra))
    assert read_batch(AuditEvent(at=1, name=EventName.LOGOUT, extra=extra)) is None


def test_a_batch_names_nobody() -> None:
    event = AuditEvent(at=1, name=EventName.MESSAGE_BATCH, actor_user="u", extra={"count": 2, "root": "A" * 43})
    with pytest.raises(Malformed):
        read_batch(event)


# --- exports ------------------------------------------------------------------------------------

ROWS = [sent(1), sent(2), delivered(1), delivered(2), delivered(3)]
BATCH = build_batch(ROWS)
BEFORE = AuditEvent(at=1, name=EventName.APP_STARTED).encode()
AFTER = AuditEvent(at=9, name=EventName.APP_STOPPED).encode()
EVENTS = [BEFORE, BATCH.event, AFTER]
HEAD = sign_checkpoint(Checkpoint(KEY.origin, 3, compute_root([hash_leaf(event) for event in EVENTS]), 10), SIGNER)


def export() -> list[bytes]:
    body = [
        build_line(index, event, hash_leaf(event), BATCH.rows if event == BATCH.event else b"")
        for index, event in enumerate(EVENTS)
    ]
    return [build_header(KEY, [HEAD]), *b"".join(body).splitlines(keepends=True)]


def test_an_export_shows_each_message_on_its_own_line_and_verifies() -> None:
    lines = export()
    assert len(lines) == 1 + 3 + len(ROWS)
    names = [json.loads(line)["event"]["name"] for line in lines[1:]]
    assert names == ["app.started", "message.batch", *["message.sent"] * 2, *["message.delivered"] * 3, "app.stopped"]
    assert [json.loads(line).get("row") for line in lines[1:]] == [None, None, 0, 1, 2, 3, 4, None]
    report = verify_export(lines, KEY)
    assert (report.ok, report.checked, report.covered, report.rows) == (True, 3, 3, 5)


FIRST = 3
"""The place of the first row's line."""


def _renumber(line: bytes, row: int) -> bytes:
    value = json.loads(line)
    old = f'"row":{value["row"]}'.encode()
    assert old in line
    return line.replace(old, f'"row":{row}'.encode())


def changed(lines: list[bytes]) -> list[bytes]:
    assert b'"epoch":3' in lines[FIRST]
    return [*lines[:FIRST], lines[FIRST].replace(b'"epoch":3', b'"epoch":4'), *lines[FIRST + 1 :]]


def dropped(lines: list[bytes]) -> list[bytes]:
    return [*lines[:FIRST], *lines[FIRST + 1 :]]


def dropped_and_renumbered(lines: list[bytes]) -> list[bytes]:
    rest = [_renumber(line, row) for row, line in enumerate(lines[FIRST + 1 : FIRST + 5])]
    return [*lines[:FIRST], *rest, lines[-1]]


def dropped_all(lines: list[bytes]) -> list[bytes]:
    return [*lines[:FIRST], lines[-1]]


def swapped(lines: list[bytes]) -> list[bytes]:
    return [*lines[:FIRST], lines[FIRST + 1], lines[FIRST], *lines[FIRST + 2 :]]


def swapped_and_renumbered(lines: list[bytes]) -> list[bytes]:
    pair = [_renumber(lines[FIRST + 1], 0), _renumber(lines[FIRST], 1)]
    return [*lines[:FIRST], *pair, *lines[FIRST + 2 :]]


def added(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], _renumber(lines[-2], 5), lines[-1]]


def moved_to_another_entry(lines: list[bytes]) -> list[bytes]:
    line = lines[FIRST].replace(b'"index":1', b'"index":0')
    return [*lines[:2], line, lines[2], *lines[FIRST + 1 :]]


def made_an_entry(lines: list[bytes]) -> list[bytes]:
    event = encode_row(ROWS[0])
    return [*lines[:FIRST], build_line(1, event, hash_leaf(event)), *lines[FIRST + 1 :]]


def of_another_kind(lines: list[bytes]) -> list[bytes]:
    value = build_line(1, AFTER, hash_leaf(AFTER)).replace(b"}\n", b',"row":0}\n')
    leaf = json.loads(value)["leaf"]
    return [*lines[:FIRST], value.replace(f'"leaf":"{leaf}",'.encode(), b""), *lines[FIRST + 1 :]]


def in_an_old_export(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b"audit-export/2", b"audit-export/1"), *lines[1:]]


def cut(lines: list[bytes]) -> list[bytes]:
    return lines[: FIRST + 2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed, "rows_changed"),
        (dropped, "row_missing_or_moved"),
        (dropped_and_renumbered, "row_missing_or_moved"),
        (dropped_all, "row_missing_or_moved"),
        (swapped, "row_missing_or_moved"),
        (swapped_and_renumbered, "rows_changed"),
        (added, "row_missing_or_moved"),
        (moved_to_another_entry, "row_missing_or_moved"),
        (made_an_entry, "row_missing_or_moved"),
        (of_another_kind, "row_malformed"),
        (in_an_old_export, "entry_malformed"),
        (cut, "truncated"),
    ],
)
def test_a_row_that_was_touched_is_found(change: Callable[[list[bytes]], list[bytes]], reason: str) -> None:
    report = verify_export(change(export()), KEY)
    assert (report.ok, report.reason) == (False, reason)
    assert report.bad_index in ((1, 2) if change is added else (1,))


def test_a_batch_that_was_made_anew_with_its_rows_is_found_by_the_checkpoint() -> None:
    forged = build_batch([sent(1), sent(3), *ROWS[2:]])
    lines = export()
    fresh = build_line(1, forged.event, hash_leaf(forged.event), forged.rows)
    report = verify_export([*lines[:2], *fresh.splitlines(keepends=True), lines[-1]], KEY)
    assert (report.ok, report.reason) == (False, "root_differs")


def test_rows_that_cannot_be_read_are_missing_from_the_export_and_found() -> None:
    line = build_line(1, BATCH.event, hash_leaf(BATCH.event), BATCH.rows[:-3])
    assert line.count(b"\n") == 1
    lines = export()
    report = verify_export([*lines[:2], line, lines[-1]], KEY)
    assert (report.ok, report.reason, report.bad_index) == (False, "row_missing_or_moved", 1)


def test_an_export_from_before_there_were_batches_still_verifies() -> None:
    root = compute_root([hash_leaf(BEFORE), hash_leaf(AFTER)])
    header = build_header(KEY, [sign_checkpoint(Checkpoint(KEY.origin, 2, root, 10), SIGNER)])
    old = header.replace(b"curbside-audit-export/2", b"curbside-audit-export/1")
    assert old != header
    lines = [old, *(build_line(index, event, hash_leaf(event)) for index, event in enumerate((BEFORE, AFTER)))]
    report = verify_export(lines, KEY)
    assert (report.ok, report.checked, report.rows) == (True, 2, 0)


# --- proofs -------------------------------------------------------------------------------------


def prove(index: int, row: int | None = None) -> bytes:
    path = InclusionPath(index, len(EVENTS))
    for event in EVENTS:
        path.append(hash_leaf(event))
    return build_proof(KEY, HEAD, Place(index, EVENTS[index], path.proof()), parse_rows(BATCH.rows), row)


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_each_message_can_be_proven_by_itself(row: int) -> None:
    proven = verify_proof(prove(1, row), KEY)
    assert (proven.event.encode(), proven.index, proven.row) == (encode_row(ROWS[row]), 1, row)
    assert (proven.checkpoint.size, proven.is_pinned) == (3, True)
    others = [encode_row(each) for number, each in enumerate(ROWS) if number != row]
    assert not any(other in prove(1, row) for other in others)


@pytest.mark.parametrize("index", range(3))
def test_each_entry_can_be_proven_by_itself(index: int) -> None:
    proven = verify_proof(prove(index))
    assert (proven.event.encode(), proven.index, proven.row, proven.is_pinned) == (EVENTS[index], index, None, False)


def _edit(data: bytes, change: Callable[[dict[str, object]], object]) -> bytes:
    value = json.loads(data)
    change(value)
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _set(place: str, value: object) -> Callable[[dict[str, object]], object]:
    def change(proof: dict[str, object]) -> None:
        at: dict[str, object] = proof
        *way, last = place.split(".")
        for step in way:
            at = at[step]  # type: ignore[assignment]
        at[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("event.extra.sequence", 7),
        _set("event.actor_user", "v" * 22),
        _set("index", 0),
        _set("index", 3),
        _set("path", []),
        _set("path", ["A" * 43, "A" * 43]),
        _set("path", ["not base64url!"]),
        _set("batch.row", 1),
        _set("batch.row", 5),
        _set("batch.path", []),
        _set("batch.event.extra.count", 4),
        _set("batch.event.extra.root", "A" * 43),
        _set("batch.event", json.loads(AFTER)),
        _set("batch", None),
        _set("format", "curbside-audit-proof/0"),
        _set("checkpoint", HEAD.decode().replace("\n3\n", "\n4\n")),
        _set("key", VerifierKey(KEY.origin, OTHER.public).encode()),
        _set("more", 1),
    ],
)
def test_a_proof_that_was_touched_proves_nothing(change: Callable[[dict[str, object]], object]) -> None:
    whole = _edit(prove(1, 0), lambda proof: None)
    assert isinstance(verify_proof(whole, KEY), Proven)
    with pytest.raises((Malformed, IntegrityError, CurbsideError)):
        verify_proof(_edit(whole, change))


def test_a_proof_of_another_log_is_refused() -> None:
    with pytest.raises(CurbsideError):
        verify_proof(prove(1, 0), VerifierKey(KEY.origin, OTHER.public))


def test_there_is_no_proof_of_a_row_that_is_not_there() -> None:
    for row in (-1, len(ROWS)):
        with pytest.raises(UsageError):
            prove(1, row)
