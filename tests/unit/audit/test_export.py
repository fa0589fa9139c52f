"""Checkpoints and exports: what a stranger sees when somebody changed the log."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from curbside.audit.checkpoint import (
    Checkpoint,
    VerifierKey,
    parse_verifier_key,
    sign_checkpoint,
    split_checkpoints,
    verify_checkpoint,
)
from curbside.audit.events import AuditEvent, EventName
from curbside.audit.export import build_header, build_line, verify_export
from curbside.audit.merkle import compute_root, hash_leaf
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.errors import BadSignature, Malformed

SIGNER = Signer("ed25519", SecretBytes(bytes(range(32))))
OTHER = Signer("ed25519", SecretBytes(bytes(range(1, 33))))
KEY = VerifierKey("curbside.audit/0011", SIGNER.public)
EVENTS = [AuditEvent(name=EventName.LOGOUT, at=number, actor_user="a" * 22).encode() for number in range(20)]
LEAVES = [hash_leaf(event) for event in EVENTS]


def head(size: int, events: list[bytes] = EVENTS, signer: Signer = SIGNER) -> bytes:
    root = compute_root([hash_leaf(event) for event in events[:size]])
    return sign_checkpoint(Checkpoint(KEY.origin, size, root, 1_790_000_000_000), signer)


def body(events: list[bytes]) -> list[bytes]:
    return [build_line(index, event, hash_leaf(event)) for index, event in enumerate(events)]


HEADER = build_header(KEY, [head(0), head(8), head(20)])
GOOD = [HEADER, *body(EVENTS)]


def test_an_untouched_export_verifies() -> None:
    report = verify_export(GOOD, KEY)
    assert (report.ok, report.checked, report.covered, report.reason, report.is_pinned) == (True, 20, 20, "ok", True)
    assert not verify_export(GOOD).is_pinned


def test_entries_after_the_last_checkpoint_are_read_but_not_covered() -> None:
    report = verify_export([build_header(KEY, [head(8)]), *body(EVENTS)], KEY)
    assert (report.ok, report.checked, report.covered) == (True, 20, 8)


def edited(lines: list[bytes]) -> list[bytes]:
    changed = EVENTS[5].replace(b'"at":5', b'"at":6')
    return [*lines[:6], build_line(5, changed, LEAVES[5]), *lines[7:]]


def edited_with_its_leaf(lines: list[bytes]) -> list[bytes]:
    changed = EVENTS[5].replace(b'"at":5', b'"at":6')
    return [*lines[:6], build_line(5, changed, hash_leaf(changed)), *lines[7:]]


def deleted(lines: list[bytes]) -> list[bytes]:
    return [*lines[:6], *lines[7:]]


def deleted_and_renumbered(lines: list[bytes]) -> list[bytes]:
    return [lines[0], *body([*EVENTS[:10], *EVENTS[11:]])]


def inserted(lines: list[bytes]) -> list[bytes]:
    return [*lines[:6], lines[5], *lines[6:]]


def swapped(lines: list[bytes]) -> list[bytes]:
    return [*lines[:6], lines[7], lines[6], *lines[8:]]


def swapped_and_renumbered(lines: list[bytes]) -> list[bytes]:
    return [lines[0], *body([*EVENTS[:2], EVENTS[3], EVENTS[2], *EVENTS[4:]])]


def truncated(lines: list[bytes]) -> list[bytes]:
    return lines[:-3]


def garbled(lines: list[bytes]) -> list[bytes]:
    return [*lines[:6], b"{}\n", *lines[7:]]


def not_an_event(lines: list[bytes]) -> list[bytes]:
    return [*lines[:6], build_line(5, b'{"at":1}', hash_leaf(b'{"at":1}')), *lines[7:]]


@pytest.mark.parametrize(
    ("change", "index", "before", "reason"),
    [
        (edited, 5, 6, "entry_changed"),
        (edited_with_its_leaf, 0, 8, "root_differs"),
        (deleted, 5, 6, "entry_missing_or_moved"),
        (deleted_and_renumbered, 19, 20, "truncated"),
        (inserted, 5, 6, "entry_repeated_or_moved"),
        (swapped, 5, 6, "entry_missing_or_moved"),
        (swapped_and_renumbered, 0, 8, "root_differs"),
        (truncated, 17, 20, "truncated"),
        (garbled, 5, 6, "line_malformed"),
        (not_an_event, 5, 6, "entry_malformed"),
    ],
)
def test_the_first_wrong_entry_is_named(
    change: Callable[[list[bytes]], list[bytes]], index: int, before: int, reason: str
) -> None:
    report = verify_export(change(GOOD), KEY)
    assert (report.ok, report.bad_index, report.bad_before, report.reason) == (False, index, before, reason)


def test_an_insertion_that_is_renumbered_shows_in_the_root() -> None:
    lines = [HEADER, *body([*EVENTS[:10], EVENTS[0], *EVENTS[10:]])]
    report = verify_export(lines, KEY)
    assert (report.reason, report.bad_index, report.bad_before) == ("root_differs", 8, 20)


def test_a_log_rewritten_with_another_key_is_refused_when_the_key_is_pinned() -> None:
    forged_key = VerifierKey(KEY.origin, OTHER.public)
    forged = [build_header(forged_key, [head(20, signer=OTHER)]), *body(EVENTS)]
    assert verify_export(forged).ok
    assert verify_export(forged, KEY).reason == "other_key"


def test_a_shortened_log_with_a_fresh_head_is_refused_by_a_kept_checkpoint() -> None:
    shorter = [build_header(KEY, [head(12)]), *body(EVENTS[:12])]
    assert verify_export(shorter, KEY).ok
    report = verify_export(shorter, KEY, kept=[head(20)])
    assert (report.ok, report.reason, report.bad_index) == (False, "truncated", 12)


def test_a_rewritten_log_with_fresh_heads_is_refused_by_a_kept_checkpoint() -> None:
    events = [*EVENTS[:3], EVENTS[0], *EVENTS[4:]]
    rewritten = [build_header(KEY, [head(20, events)]), *body(events)]
    assert verify_export(rewritten, KEY).ok
    assert verify_export(rewritten, KEY, kept=[head(8)]).reason == "root_differs"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "header_malformed"),
        (b"{}\n", "header_malformed"),
        (HEADER.replace(b"export/2", b"export/3"), "header_malformed"),
        (build_header(KEY, []), "no_checkpoint"),
        (build_header(KEY, [head(8, signer=OTHER)]), "checkpoint_signature"),
        (build_header(KEY, [b"nothing"]), "checkpoint_signature"),
    ],
)
def test_a_header_that_proves_nothing_is_refused(header: bytes, reason: str) -> None:
    report = verify_export([header, *body(EVENTS)], KEY)
    assert (report.ok, report.reason, report.bad_index) == (False, reason, None)


def test_checkpoint_reads_back_and_has_the_form_of_a_signed_note() -> None:
    signed = head(8)
    assert verify_checkpoint(signed, KEY) == Checkpoint(KEY.origin, 8, compute_root(LEAVES[:8]), 1_790_000_000_000)
    lines = signed.decode().split("\n")
    assert lines[0] == KEY.origin
    assert lines[1] == "8"
    assert lines[4] == ""
    assert lines[5].startswith(f"— {KEY.origin} ")


def test_a_changed_checkpoint_does_not_verify() -> None:
    with pytest.raises(BadSignature):
        verify_checkpoint(head(8).replace(b"\n8\n", b"\n9\n"), KEY)
    with pytest.raises(BadSignature):
        verify_checkpoint(head(8), VerifierKey("another/log", SIGNER.public))
    for wrong in (b"", b"\xff", head(8) + b"x", head(8).replace(b"\n8\n", b"\n08\n"), head(8).replace(b"=\n", b"B\n")):
        with pytest.raises((Malformed, BadSignature)):
            verify_checkpoint(wrong, KEY)


def test_a_checkpoint_whose_base64_has_another_spelling_is_malformed() -> None:
    signature = head(8).decode().split(" ")[-1].strip()
    short = base64.b64encode(base64.b64decode(signature)[:-1]).decode()
    root = head(8).decode().split("\n")[2]
    loose = root[:-2] + chr(ord(root[-2]) + 1) + "="
    for old, new in ((signature, short), (signature, signature + "="), (root, loose)):
        with pytest.raises(Malformed):
            verify_checkpoint(head(8).replace(old.encode(), new.encode()), KEY)


def test_verifier_key_reads_back_and_other_text_is_refused() -> None:
    text = KEY.encode()
    assert parse_verifier_key(text + "\n") == KEY
    for wrong in ("", "a+b+c", text.replace("0011", "0012"), text[:-4], text + "AAAA"):
        with pytest.raises(Malformed):
            parse_verifier_key(wrong)


def test_a_file_of_checkpoints_is_split() -> None:
    assert split_checkpoints(head(0) + head(8) + b"\n" + head(20)) == [head(0), head(8), head(20)]
    assert split_checkpoints(b"") == []
    with pytest.raises(Malformed):
        split_checkpoints(head(0) + b"rest")
