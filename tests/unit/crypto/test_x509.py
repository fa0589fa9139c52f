"""Certificates: the vectors, another library's opinion, and bytes changed at random."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from curbside.crypto import der
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.x509 import (
    Certificate,
    Draft,
    Issuer,
    Subject,
    build_certificate,
    make_authority,
    make_device_certificate,
    make_enrolment,
    make_user_certificate,
    parse_certificate,
    verify_certificate,
)
from curbside.errors import BadSignature, InvalidMessage, Malformed, UsageError
from curbside.ids import DeviceId, UserId, decode_base64url, encode_base64url, encode_id

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[3] / "vectors" / "trust" / "certificates.json").read_text("utf-8")
)
GOOD = [decode_base64url(case["der"]) for case in VECTORS["good"]]
NOW = 1_780_000_000
USER = UserId(encode_id(bytes(16)))
DEVICE = DeviceId(encode_id(b"\xff" * 16))


def make_chain() -> tuple[Issuer, Issuer, Issuer, Certificate]:
    authority = make_authority("Ward 7", NOW)
    enrolment = make_enrolment(authority, USER, "nurse", NOW + 3600, NOW)
    key = generate_signature_key("ed25519")
    user = Issuer(make_user_certificate(enrolment, Signer("ed25519", key).public, "Asa", NOW), key)
    device_key = Signer("ed25519", generate_signature_key("ed25519")).public
    return authority, enrolment, user, make_device_certificate(user, device_key, "Phone", DEVICE, NOW)


@pytest.mark.parametrize("case", VECTORS["good"], ids=lambda case: case["fields"]["kind"])
def test_vectors_are_read_and_written(case: dict[str, Any]) -> None:
    raw = decode_base64url(case["der"])
    certificate = parse_certificate(raw)
    for name, value in case["fields"].items():
        found = getattr(certificate, name)
        if name == "subject":
            assert found == Subject(**value)
        else:
            assert (encode_base64url(found) if isinstance(found, bytes) else found) == value
    draft = dict(case["draft"], subject=Subject(**case["draft"]["subject"]))
    draft["public_key"] = decode_base64url(draft["public_key"])
    issuer = None if case["issuer"] is None else parse_certificate(decode_base64url(case["issuer"]))
    seed = SecretBytes(decode_base64url(case["signing_seed"]))
    assert build_certificate(Draft(**draft), seed, issuer, decode_base64url(case["serial"])).raw == raw


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["reason"])
def test_what_is_not_of_the_profile_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_certificate(decode_base64url(case["der"]))


def test_unknown_extension_that_is_not_critical_is_ignored() -> None:
    certificate = parse_certificate(decode_base64url(VECTORS["unknown_extension_ignored"]))
    assert certificate.kind == "device"
    assert certificate.key_usage == 0x80


def test_made_chain_verifies_and_lasts_as_long_as_the_table_says() -> None:
    authority, enrolment, user, device = make_chain()
    verify_certificate(authority.certificate, authority.certificate.public_key)
    verify_certificate(enrolment.certificate, authority.certificate.public_key)
    verify_certificate(user.certificate, enrolment.certificate.public_key)
    verify_certificate(device, user.certificate.public_key)
    year = 365 * 86_400
    assert authority.certificate.not_after == NOW + 20 * year
    assert (enrolment.certificate.not_before, enrolment.certificate.not_after) == (NOW - 300, NOW + 3600)
    assert (user.certificate.not_before, user.certificate.not_after) == (NOW - 300, NOW + 10 * year)
    assert (device.not_before, device.not_after) == (NOW - 300, NOW + 2 * year)
    assert device.subject == Subject(common_name="Phone", user_id=USER, device_id=DEVICE)
    assert enrolment.certificate.subject == Subject(organization="Ward 7", role="nurse", user_id=USER)


def test_user_certificate_never_begins_before_its_enrolment() -> None:
    _, enrolment, user, _ = make_chain()
    earliest = enrolment.certificate.not_before
    made = make_user_certificate(enrolment, user.certificate.public_key, "Asa", earliest + 10)
    assert made.not_before == earliest


def test_signature_of_another_key_is_refused() -> None:
    authority, enrolment, _, device = make_chain()
    with pytest.raises(BadSignature):
        verify_certificate(device, enrolment.certificate.public_key)
    with pytest.raises(BadSignature):
        verify_certificate(enrolment.certificate, enrolment.certificate.public_key)
    verify_certificate(enrolment.certificate, authority.certificate.public_key)


@pytest.mark.parametrize("name", ["", " Asa", "Asa ", "A\nB", "A\u202eB", "x" * 65, "\ud800"])
def test_names_that_deceive_are_not_certified(name: str) -> None:
    _, enrolment, user, _ = make_chain()
    with pytest.raises(UsageError):
        make_user_certificate(enrolment, bytes(32), name, NOW)
    with pytest.raises(UsageError):
        make_device_certificate(user, bytes(32), name, DEVICE, NOW)


def test_serial_numbers_differ() -> None:
    authority, enrolment, user, device = make_chain()
    certificates = [authority.certificate, enrolment.certificate, user.certificate, device]
    assert len({certificate.serial for certificate in certificates}) == 4


def agree_with_other_library(raw: bytes) -> None:
    """What we accept, `cryptography` accepts as well and reads alike."""
    ours, theirs = parse_certificate(raw), x509.load_der_x509_certificate(raw)
    assert (
        theirs.public_bytes_raw() if hasattr(theirs, "public_bytes_raw") else theirs.tbs_certificate_bytes == ours.tbs
    )
    assert theirs.signature == ours.signature
    assert int(theirs.not_valid_before_utc.timestamp()) == ours.not_before
    assert int(theirs.not_valid_after_utc.timestamp()) == ours.not_after
    assert theirs.serial_number == int.from_bytes(ours.serial, "big")
    assert theirs.subject.public_bytes() == ours.subject_der
    names = [attribute.value for attribute in theirs.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    assert names == ([ours.subject.common_name] if ours.subject.common_name else [])
    constraints = theirs.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, ours.ca)
    assert constraints.value.path_length == (None if ours.path_length < 0 else ours.path_length)
    usage = theirs.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature == bool(ours.key_usage & 0x80)
    assert usage.value.key_cert_sign == bool(ours.key_usage & 0x04)
    identifier = theirs.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert identifier == ours.subject_key_id


# `cryptography` counts bytes against the limit of 64 characters; it reads the name all the same.
COUNTS_BYTES = pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning")


@COUNTS_BYTES
@pytest.mark.parametrize("raw", GOOD)
def test_another_library_reads_the_same(raw: bytes) -> None:
    agree_with_other_library(raw)


@COUNTS_BYTES
@given(st.sampled_from(GOOD), st.data())
def test_changed_bytes_are_refused_or_read_as_another_library_does(raw: bytes, data: st.DataObject) -> None:
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    try:
        certificate = parse_certificate(bytes(changed))
    except InvalidMessage:
        return
    if certificate.subject.common_name.isprintable():
        agree_with_other_library(bytes(changed))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse_certificate(raw)


@given(st.integers(-631_152_000, 253_402_300_799))
def test_times_survive(seconds: int) -> None:
    reader = der.Reader(der.write_time(seconds))
    assert der.read_time(reader) == seconds
    reader.finish()


@pytest.mark.parametrize("seconds", [-631_152_001, 253_402_300_800])
def test_times_without_a_form_are_not_written(seconds: int) -> None:
    with pytest.raises((UsageError, OverflowError)):
        der.write_time(seconds)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 255, 256, 65_535])
def test_lengths_survive(length: int) -> None:
    reader = der.Reader(der.element(der.OCTET_STRING, bytes(length)))
    assert reader.take(der.OCTET_STRING) == bytes(length)
    reader.finish()


def test_element_beyond_its_limit_is_not_written() -> None:
    with pytest.raises(UsageError):
        der.element(der.OCTET_STRING, bytes(65_536))


@pytest.mark.parametrize("raw", ["", "04", "0401", "048100", "04817f", "0482007f", "04820001", "0480", "0483000001"])
def test_bad_lengths_are_refused(raw: str) -> None:
    with pytest.raises(Malformed):
        der.Reader(bytes.fromhex(raw)).take(der.OCTET_STRING)


def test_secret_seed_is_not_shown() -> None:
    authority = make_authority("Ward 7", NOW)
    seed = authority.key.reveal()
    shown = repr(authority)
    assert repr(seed) not in shown
    assert seed.hex() not in shown
    assert base64.b64encode(seed).decode() not in shown
