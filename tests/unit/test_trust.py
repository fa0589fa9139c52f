"""The trust chain on a device: chains, people, successors, invites, safety numbers; every check id by name."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbside.client.trust import compute_safety_number, verify_invite
from curbside.errors import InviteExpired, Malformed, UntrustedDevice, UsageError
from curbside.ids import UserId, decode_base64url, encode_id
from curbside.policy.chain import UNKNOWN_DEVICE, ChainVerifier, VerifiedDevice, parse_authority, verify_successor
from curbside.wire.bodies import Invite
from curbside.wire.invite_link import InviteLink, encode_invite_link, parse_invite_link

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "trust"
CHAINS: dict[str, Any] = json.loads((FOLDER / "chains.json").read_text("utf-8"))
INVITES: dict[str, Any] = json.loads((FOLDER / "invites.json").read_text("utf-8"))
NUMBERS: dict[str, Any] = json.loads((FOLDER / "safety_numbers.json").read_text("utf-8"))
AUTHORITY = decode_base64url(CHAINS["authority"])
CHECKS = {
    "trust.chain.length",
    "trust.chain.parse",
    "trust.chain.issuer",
    "trust.chain.signature",
    "trust.chain.constraints",
    "trust.user.match",
    "trust.role.known",
    "trust.enrolment.window",
    "trust.user.validity",
    "trust.device.validity",
    "trust.device.key",
    "trust.successor.user",
    "trust.invite.authority",
    "trust.invite.key",
}


def raw(certificates: list[str]) -> list[bytes]:
    return [decode_base64url(certificate) for certificate in certificates]


def verify(case: dict[str, Any], verifier: ChainVerifier) -> VerifiedDevice:
    return verifier.verify_device(raw(case["certificates"]), decode_base64url(case["leaf_key"]), case["now"])


GOOD = CHAINS["chains"][0]


def test_every_check_of_the_table_has_a_case() -> None:
    cases = [*CHAINS["chains"], *CHAINS["successors"], *INVITES["answers"]]
    assert {case["check"] for case in cases} - {None} == CHECKS


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("case", CHAINS["chains"], ids=lambda case: case["reason"])
def test_chains(case: dict[str, Any], warm: bool) -> None:
    verifier = ChainVerifier(AUTHORITY)
    if warm:
        verify(GOOD, verifier)
    if case["check"] is None:
        device = verify(case, verifier)
        for name, value in CHAINS["expected"].items():
            found = getattr(device, name)
            assert found == (decode_base64url(value) if isinstance(found, bytes) else value)
        return
    for _ in range(2):
        with pytest.raises(UntrustedDevice) as refused:
            verify(case, verifier)
        assert refused.value.check == case["check"]
        assert refused.value.device in (CHAINS["expected"]["device_label"], CHAINS["expected"]["name"], UNKNOWN_DEVICE)


def test_refusal_names_the_device() -> None:
    case = next(case for case in CHAINS["chains"] if case["check"] == "trust.device.key")
    with pytest.raises(UntrustedDevice) as refused:
        verify(case, ChainVerifier(AUTHORITY))
    assert refused.value.device == "Ward phone 3"
    with pytest.raises(UntrustedDevice) as unknown:
        ChainVerifier(AUTHORITY).verify_device([b"", b"", b""], b"", 0)
    assert unknown.value.device == UNKNOWN_DEVICE


@pytest.mark.parametrize("number", range(len(CHAINS["people"])))
def test_people(number: int) -> None:
    case = CHAINS["people"][number]
    verifier = ChainVerifier(AUTHORITY)
    verify(GOOD, verifier)
    if case["check"] is None:
        user = verifier.verify_user(raw(case["certificates"]), case["now"])
        expected = CHAINS["expected"]
        assert (user.user_id, user.name, user.role) == (expected["user_id"], expected["name"], expected["role"])
        return
    with pytest.raises(UntrustedDevice) as refused:
        verifier.verify_user(raw(case["certificates"]), case["now"])
    assert refused.value.check == case["check"]


@pytest.mark.parametrize("number", range(len(CHAINS["successors"])))
def test_successors(number: int) -> None:
    case = CHAINS["successors"][number]
    verifier = ChainVerifier(AUTHORITY)
    old, new = (verifier.identify(raw(case[name])) for name in ("old", "new"))
    if case["check"] is None:
        verify_successor(old, new)
        return
    with pytest.raises(UntrustedDevice) as refused:
        verify_successor(old, new)
    assert refused.value.check == case["check"]


def test_another_authority_is_not_believed() -> None:
    evil = next(case for case in INVITES["answers"] if case["reason"] == "another authority")
    verifier = ChainVerifier(decode_base64url(evil["invite"]["authority_certificate"]))
    with pytest.raises(UntrustedDevice) as refused:
        verify(GOOD, verifier)
    assert refused.value.check == "trust.chain.issuer"


def test_only_an_authority_is_pinned() -> None:
    for certificate in (b"garbage", *raw(GOOD["certificates"])):
        with pytest.raises(UntrustedDevice):
            parse_authority(certificate)


def test_cache_is_bounded_and_refused_chains_are_not_kept() -> None:
    verifier = ChainVerifier(AUTHORITY, capacity=1)
    person = raw(CHAINS["people"][0]["certificates"])
    for _ in range(3):
        verify(GOOD, verifier)
        verifier.verify_user(person, GOOD["now"])
    assert len(verifier._known) == 1
    fresh = ChainVerifier(AUTHORITY)
    for case in CHAINS["chains"]:
        if case["check"] not in (None, "trust.user.validity", "trust.device.validity", "trust.device.key"):
            with pytest.raises(UntrustedDevice):
                verify(case, fresh)
    assert not fresh._known


@given(st.integers(0, 2), st.data())
def test_a_changed_byte_is_refused(position: int, data: st.DataObject) -> None:
    chain = raw(GOOD["certificates"])
    changed = bytearray(chain[position])
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    chain[position] = bytes(changed)
    with pytest.raises(UntrustedDevice):
        VERIFIER.verify_device(chain, decode_base64url(GOOD["leaf_key"]), GOOD["now"])


VERIFIER = ChainVerifier(AUTHORITY)


# --- invites --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", INVITES["links"], ids=lambda case: case["origin"])
def test_links_are_read_and_written(case: dict[str, Any]) -> None:
    link = parse_invite_link(case["text"])
    assert (link.origin, link.invite_id) == (case["origin"], case["invite_id"])
    assert link.enrolment_seed.reveal() == decode_base64url(case["enrolment_seed"])
    assert link.authority_key == decode_base64url(case["authority_key"])
    assert encode_invite_link(link) == case["text"].strip()
    assert repr(link.enrolment_seed.reveal()) not in repr(link)


@pytest.mark.parametrize("number", range(len(INVITES["refused_links"])))
def test_other_links_are_refused(number: int) -> None:
    with pytest.raises(Malformed):
        parse_invite_link(INVITES["refused_links"][number])


@given(st.text(max_size=100), st.integers(0, 150))
def test_any_text_is_refused(text: str, at: int) -> None:
    with pytest.raises(Malformed):
        parse_invite_link(text)
    good = INVITES["links"][0]["text"]
    with contextlib.suppress(Malformed):
        parse_invite_link(good[:at] + text + good[at:])


def test_a_link_has_a_usable_origin_and_whole_keys() -> None:
    link = parse_invite_link(INVITES["links"][0]["text"])
    for origin in ("http://chat.olaf.example", "https://a.example/", "https://A.example", "", "https://" + "a" * 500):
        with pytest.raises(UsageError):
            encode_invite_link(InviteLink(origin, link.invite_id, link.enrolment_seed, link.authority_key))
    with pytest.raises(UsageError):
        encode_invite_link(InviteLink(link.origin, link.invite_id, link.enrolment_seed, b"short"))


@pytest.mark.parametrize("case", INVITES["answers"], ids=lambda case: case["reason"])
def test_answers_to_a_link(case: dict[str, Any]) -> None:
    link, invite = parse_invite_link(case["link"]), Invite(**case["invite"])
    if case["error"]:
        with pytest.raises(InviteExpired) as expired:
            verify_invite(link, invite, case["now"])
        assert expired.value.code == case["error"]
    elif case["check"]:
        with pytest.raises(UntrustedDevice) as refused:
            verify_invite(link, invite, case["now"])
        assert (refused.value.check, refused.value.device) == (case["check"], "invite")
    else:
        verified = verify_invite(link, invite, case["now"])
        good = INVITES["answers"][0]["invite"]
        assert (verified.organization, verified.user_id, verified.role, verified.expires_at) == (
            good["organization"],
            good["user_id"],
            good["role"],
            good["expires_at"],
        )
        assert verified.enrolment.key.is_same(link.enrolment_seed)
        assert verified.authority.public_key == link.authority_key


# --- safety numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(NUMBERS["cases"])))
def test_safety_numbers(number: int) -> None:
    case = NUMBERS["cases"][number]
    users = [(UserId(user["user_id"]), decode_base64url(user["key"])) for user in case["users"]]
    shown = compute_safety_number(users)
    assert shown == case["number"]
    assert [len(group) for group in shown.split(" ")] == [5] * 12
    assert shown.replace(" ", "").isdigit()


def test_safety_number_changes_with_either_key() -> None:
    asa, bob = UserId(encode_id(b"a" * 16)), UserId(encode_id(b"b" * 16))
    numbers = {
        compute_safety_number([(asa, one), (bob, other)])
        for one in (b"1" * 32, b"2" * 32)
        for other in (b"1" * 32, b"2" * 32)
    }
    assert len(numbers) == 4
    with pytest.raises(UsageError):
        compute_safety_number([(asa, b"short")])
