"""The four certificates of docs/trust.md: authority, enrolment, user, device. `web/src/core/crypto/x509.ts` is a twin.

`parse_certificate` looks at one certificate alone; whether a chain of them holds is decided in `curbside.policy.chain`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from curbside.crypto import der
from curbside.crypto.kdf import compute_hash
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key, verify_signature
from curbside.errors import Malformed, UsageError
from curbside.ids import DeviceId, UserId, decode_id, encode_id

Kind = Literal["authority", "enrolment", "user", "device"]

CERTIFICATE_BYTES: Final = 2048
"""More than the largest certificate of this profile."""
NAME_CHARS: Final = 64
"""Code points of a name, role, label or organisation (RFC 5280 appendix A.1)."""
KEY_CERT_SIGN: Final = 0x04
DIGITAL_SIGNATURE: Final = 0x80
CLOCK_SLACK_SECONDS: Final = 300
_DAY: Final = 86_400
AUTHORITY_SECONDS: Final = 20 * 365 * _DAY
USER_SECONDS: Final = 10 * 365 * _DAY
DEVICE_SECONDS: Final = 2 * 365 * _DAY

_ED25519: Final = der.element(der.SEQUENCE, bytes.fromhex("06032b6570"))
_VERSION_3: Final = bytes.fromhex("a003020102")
_O: Final = bytes.fromhex("06035504 0a")
_OU: Final = bytes.fromhex("06035504 0b")
_CN: Final = bytes.fromhex("06035504 03")
_SERIAL_NUMBER: Final = bytes.fromhex("06035504 05")
_UID: Final = bytes.fromhex("060a0992268993f22c640101")
_SUBJECTS: Final[dict[tuple[bytes, ...], Kind]] = {
    (_O, _CN): "authority",
    (_O, _OU, _UID): "enrolment",
    (_CN, _UID): "user",
    (_CN, _UID, _SERIAL_NUMBER): "device",
}
_SUBJECT_KEY_ID: Final = bytes.fromhex("551d0e")
_KEY_USAGE: Final = bytes.fromhex("551d0f")
_BASIC_CONSTRAINTS: Final = bytes.fromhex("551d13")
_AUTHORITY_KEY_ID: Final = bytes.fromhex("551d23")
_CRITICAL: Final = frozenset({_KEY_USAGE, _BASIC_CONSTRAINTS})
_KNOWN: Final = _CRITICAL | {_SUBJECT_KEY_ID, _AUTHORITY_KEY_ID}
_HIDDEN: Final = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)
"""Control, invisible and direction-changing characters; joiners stay, since names in some scripts need them."""
_NO_USER: Final = UserId("")
_NO_DEVICE: Final = DeviceId("")


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a certificate is about. A field that its kind does not have is "". role: the OU of an enrolment."""

    organization: str = ""
    role: str = ""
    common_name: str = ""
    user_id: UserId = _NO_USER
    device_id: DeviceId = _NO_DEVICE


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate of our profile that was parsed; nothing about its signature is known yet.

    kind: by the attributes of its subject. subject_der, issuer_der: names as they came. public_key: Ed25519, 32 bytes.
    not_before, not_after: Unix seconds, both inclusive. path_length: -1 when there is none. key_usage: first octet of
    the bit string. authority_key_id: b"" for the authority. tbs: what the signature is over. raw: the certificate.
    """

    kind: Kind
    subject: Subject
    serial: bytes
    subject_der: bytes
    issuer_der: bytes
    public_key: bytes
    not_before: int
    not_after: int
    ca: bool
    path_length: int
    key_usage: int
    subject_key_id: bytes
    authority_key_id: bytes
    tbs: bytes
    signature: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate together with its private key (an Ed25519 seed of 32 bytes)."""

    certificate: Certificate
    key: SecretBytes


@dataclass(frozen=True, slots=True)
class Draft:
    """What goes into a certificate besides its issuer. path_length -1: none. key_usage 0x04 signs certificates."""

    kind: Kind
    subject: Subject
    public_key: bytes
    not_before: int
    not_after: int
    ca: bool
    path_length: int = -1
    key_usage: int = KEY_CERT_SIGN


# --- making -----------------------------------------------------------------------------------


def make_authority(organization: str, now: int) -> Issuer:
    """A new organisation authority: self-signed, 20 years.

    Raises: UsageError when the organisation's name does not fit in a certificate.
    """
    key = generate_signature_key("ed25519")
    public = Signer("ed25519", key).public
    subject = Subject(organization=organization, common_name=organization)
    draft = Draft("authority", subject, public, now, now + AUTHORITY_SECONDS, ca=True)
    return Issuer(build_certificate(draft, key, None), key)


def make_enrolment(authority: Issuer, user_id: UserId, role: str, not_after: int, now: int) -> Issuer:
    """A new enrolment key for one invite; its seed goes into the invite link and nowhere else. Unix seconds.

    Raises: UsageError.
    """
    key = generate_signature_key("ed25519")
    subject = Subject(organization=authority.certificate.subject.organization, role=role, user_id=user_id)
    public = Signer("ed25519", key).public
    draft = Draft("enrolment", subject, public, now - CLOCK_SLACK_SECONDS, not_after, ca=True, path_length=1)
    return Issuer(build_certificate(draft, authority.key, authority.certificate), key)


def make_user_certificate(enrolment: Issuer, public_key: bytes, name: str, now: int) -> Certificate:
    """The certificate of a user's root key, for the user whom the enrolment names; 10 years from `now`.

    It begins a little earlier, for clocks that differ, but not before the enrolment (trust.enrolment.window).

    Raises: UsageError when the name is empty, too long or has characters that cannot be seen.
    """
    subject = Subject(common_name=name, user_id=enrolment.certificate.subject.user_id)
    start = max(now - CLOCK_SLACK_SECONDS, enrolment.certificate.not_before)
    draft = Draft("user", subject, public_key, start, now + USER_SECONDS, ca=True, path_length=0)
    return build_certificate(draft, enrolment.key, enrolment.certificate)


def make_device_certificate(user: Issuer, public_key: bytes, label: str, device_id: DeviceId, now: int) -> Certificate:
    """The certificate of a device of this user; its key becomes the leaf's signature key. Two years.

    Raises: UsageError.
    """
    subject = Subject(common_name=label, user_id=user.certificate.subject.user_id, device_id=device_id)
    start = now - CLOCK_SLACK_SECONDS
    draft = Draft("device", subject, public_key, start, now + DEVICE_SECONDS, ca=False, key_usage=DIGITAL_SIGNATURE)
    return build_certificate(draft, user.key, user.certificate)


def build_certificate(draft: Draft, key: SecretBytes, issuer: Certificate | None, serial: bytes = b"") -> Certificate:
    """Sign a draft with the issuer's key; no issuer: self-signed. serial: 16 bytes, random unless given.

    Raises: UsageError when the draft has no form in our profile.
    """
    name = _write_name(draft.kind, draft.subject)
    tbs = der.element(
        der.SEQUENCE,
        _VERSION_3,
        der.element(der.INTEGER, serial or _random_serial()),
        _ED25519,
        name if issuer is None else issuer.subject_der,
        der.element(der.SEQUENCE, der.write_time(draft.not_before), der.write_time(draft.not_after)),
        name,
        der.element(der.SEQUENCE, _ED25519, der.element(der.BIT_STRING, b"\x00", draft.public_key)),
        _write_extensions(draft, issuer),
    )
    signature = der.element(der.BIT_STRING, b"\x00", Signer("ed25519", key).sign(tbs))
    try:
        return parse_certificate(der.element(der.SEQUENCE, tbs, _ED25519, signature))
    except Malformed as error:
        raise UsageError(f"no certificate of our profile: {error.detail}") from error


def key_id(public_key: bytes) -> bytes:
    """The subject key identifier of a key: the first 20 bytes of its SHA-256."""
    return compute_hash("sha256", public_key)[:20]


def _random_serial() -> bytes:
    serial = random_bytes(16)
    return bytes((serial[0] & 0x3F | 0x40,)) + serial[1:]


def _write_name(kind: Kind, subject: Subject) -> bytes:
    values = {
        _O: subject.organization,
        _OU: subject.role,
        _CN: subject.common_name,
        _UID: subject.user_id,
        _SERIAL_NUMBER: decode_id(subject.device_id).hex() if kind == "device" else "",
    }
    attributes = next(types for types, its_kind in _SUBJECTS.items() if its_kind == kind)
    return der.element(der.SEQUENCE, *(_write_attribute(oid, values[oid]) for oid in attributes))


def _write_attribute(oid: bytes, value: str) -> bytes:
    tag = der.PRINTABLE_STRING if oid == _SERIAL_NUMBER else der.UTF8_STRING
    try:
        text = value.encode()
    except UnicodeEncodeError:
        raise UsageError("a name that has no UTF-8 form") from None
    return der.element(der.SET, der.element(der.SEQUENCE, oid, der.element(tag, text)))


def _write_extensions(draft: Draft, issuer: Certificate | None) -> bytes:
    depth = der.element(der.INTEGER, bytes((draft.path_length,))) if draft.path_length >= 0 else b""
    constraints = der.element(der.SEQUENCE, der.TRUE if draft.ca else b"", depth)
    unused = (draft.key_usage & -draft.key_usage).bit_length() - 1
    extensions = [
        _write_extension(_BASIC_CONSTRAINTS, constraints),
        _write_extension(_KEY_USAGE, der.element(der.BIT_STRING, bytes((unused, draft.key_usage)))),
        _write_extension(_SUBJECT_KEY_ID, der.element(der.OCTET_STRING, key_id(draft.public_key))),
    ]
    if issuer is not None:
        identifier = der.element(0x80, issuer.subject_key_id)
        extensions.append(_write_extension(_AUTHORITY_KEY_ID, der.element(der.SEQUENCE, identifier)))
    return der.element(0xA3, der.element(der.SEQUENCE, *extensions))


def _write_extension(oid: bytes, value: bytes) -> bytes:
    critical = der.TRUE if oid in _CRITICAL else b""
    return der.element(der.SEQUENCE, der.element(der.OBJECT_ID, oid), critical, der.element(der.OCTET_STRING, value))


# --- reading ----------------------------------------------------------------------------------


def verify_certificate(certificate: Certificate, public_key: bytes) -> None:
    """Verify a certificate's signature under its issuer's key.

    Raises: BadSignature; Malformed when `public_key` is no Ed25519 key.
    """
    verify_signature("ed25519", public_key, certificate.tbs, certificate.signature)


def parse_certificate(raw: bytes) -> Certificate:
    """Read one certificate of our profile, in its one spelling. Its signature is not looked at.

    Raises: Malformed.
    """
    if len(raw) > CERTIFICATE_BYTES:
        raise Malformed("a certificate is too long")
    outer = der.Reader(raw)
    whole = outer.inner(der.SEQUENCE)
    outer.finish()
    tbs = whole.take_whole(der.SEQUENCE)
    _expect(whole.take_whole(der.SEQUENCE) == _ED25519, "another signature algorithm than Ed25519")
    signature = _read_bits(whole, 64)
    whole.finish()

    fields = der.Reader(tbs).inner(der.SEQUENCE)
    _expect(fields.take_whole(0xA0) == _VERSION_3, "not version 3")
    serial = fields.take(der.INTEGER)
    _expect(len(serial) == 16 and 0 < serial[0] < 0x80, "a serial number that is not 16 bytes and positive")
    _expect(fields.take_whole(der.SEQUENCE) == _ED25519, "another signature algorithm than Ed25519")
    issuer_der = fields.take_whole(der.SEQUENCE)
    _read_subject(issuer_der)
    validity = fields.inner(der.SEQUENCE)
    not_before, not_after = der.read_time(validity), der.read_time(validity)
    validity.finish()
    subject_der = fields.take_whole(der.SEQUENCE)
    kind, subject = _read_subject(subject_der)
    key = fields.inner(der.SEQUENCE)
    _expect(key.take_whole(der.SEQUENCE) == _ED25519, "another key than Ed25519")
    public_key = _read_bits(key, 32)
    key.finish()
    extensions = _read_extensions(fields, kind)
    fields.finish()
    _expect(extensions.subject_key_id == key_id(public_key), "a key identifier of another key")
    return Certificate(
        kind=kind,
        subject=subject,
        serial=serial,
        subject_der=subject_der,
        issuer_der=issuer_der,
        public_key=public_key,
        not_before=not_before,
        not_after=not_after,
        ca=extensions.ca,
        path_length=extensions.path_length,
        key_usage=extensions.key_usage,
        subject_key_id=extensions.subject_key_id,
        authority_key_id=extensions.authority_key_id,
        tbs=tbs,
        signature=signature,
        raw=raw,
    )


def _expect(good: bool, what: str) -> None:
    if not good:
        raise Malformed(f"certificate: {what}")


def _read_bits(reader: der.Reader, length: int) -> bytes:
    content = reader.take(der.BIT_STRING)
    _expect(len(content) == length + 1 and content[0] == 0, "a key or signature of another length")
    return content[1:]


@lru_cache(maxsize=1024)
def _read_subject(name: bytes) -> tuple[Kind, Subject]:
    found: dict[bytes, str] = {}
    attributes = der.Reader(name).inner(der.SEQUENCE)
    while attributes.more:
        attribute_set = attributes.inner(der.SET)
        attribute = attribute_set.inner(der.SEQUENCE)
        attribute_set.finish()
        oid = attribute.take_whole(der.OBJECT_ID)
        _expect(oid not in found, "a subject with an attribute twice")
        tag = der.PRINTABLE_STRING if oid == _SERIAL_NUMBER else der.UTF8_STRING
        found[oid] = _read_text(attribute.take(tag))
        attribute.finish()
    kind = _SUBJECTS.get(tuple(found))
    if kind is None:
        raise Malformed("certificate: a subject of no known kind")
    if _UID in found:
        decode_id(found[_UID])
    _expect(kind != "authority" or found[_O] == found[_CN], "an authority with two names")
    return kind, Subject(
        organization=found.get(_O, ""),
        role=found.get(_OU, ""),
        common_name=found.get(_CN, ""),
        user_id=UserId(found.get(_UID, "")),
        device_id=_read_device_id(found[_SERIAL_NUMBER]) if kind == "device" else DeviceId(""),
    )


def _read_text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Malformed("certificate: a name that is not UTF-8") from None
    _expect(1 <= len(text) <= NAME_CHARS, "a name that is empty or too long")
    _expect(not text.startswith(" ") and not text.endswith(" "), "a name that begins or ends with a space")
    _expect(not _HIDDEN.search(text), "a name with characters that cannot be seen")
    return text


def _read_device_id(digits: str) -> DeviceId:
    _expect(len(digits) == 32 and not set(digits) - set("0123456789abcdef"), "a serialNumber that is no device id")
    return DeviceId(encode_id(bytes.fromhex(digits)))


@dataclass(slots=True)
class _Extensions:
    ca: bool = False
    path_length: int = -1
    key_usage: int = 0
    subject_key_id: bytes = b""
    authority_key_id: bytes = b""


def _read_extensions(fields: der.Reader, kind: Kind) -> _Extensions:
    wrapper = fields.inner(0xA3)
    listed = wrapper.inner(der.SEQUENCE)
    wrapper.finish()
    found, seen = _Extensions(), set()
    while listed.more:
        extension = listed.inner(der.SEQUENCE)
        oid = extension.take(der.OBJECT_ID)
        critical = extension.has(der.BOOLEAN)
        _expect(not critical or extension.take_whole(der.BOOLEAN) == der.TRUE, "a flag that is not true")
        value = der.Reader(extension.take(der.OCTET_STRING))
        extension.finish()
        _expect(oid not in seen, "an extension twice")
        seen.add(oid)
        if oid in _KNOWN:
            _expect(critical == (oid in _CRITICAL), "an extension that is wrongly critical or not")
            _read_extension(oid, value, found)
            value.finish()
        else:
            _expect(not critical, "an unknown critical extension")
    expected = _KNOWN - {_AUTHORITY_KEY_ID} if kind == "authority" else _KNOWN
    _expect(seen & _KNOWN == expected, "an extension is missing or out of place")
    return found


def _read_extension(oid: bytes, value: der.Reader, found: _Extensions) -> None:
    if oid == _BASIC_CONSTRAINTS:
        constraints = value.inner(der.SEQUENCE)
        if constraints.has(der.BOOLEAN):
            _expect(constraints.take_whole(der.BOOLEAN) == der.TRUE, "a CA flag that is not true")
            found.ca = True
        if constraints.has(der.INTEGER):
            depth = constraints.take(der.INTEGER)
            _expect(found.ca and len(depth) == 1 and depth[0] < 0x80, "a path length that makes no sense")
            found.path_length = depth[0]
        constraints.finish()
    elif oid == _KEY_USAGE:
        bits = value.take(der.BIT_STRING)
        _expect(len(bits) == 2 and bits[1] > 0 and bits[0] < 8, "a key usage of another form")
        _expect(bits[1] & -bits[1] == 1 << bits[0], "a key usage of another form")
        found.key_usage = bits[1]
    elif oid == _SUBJECT_KEY_ID:
        found.subject_key_id = value.take(der.OCTET_STRING)
    else:
        identifier = value.inner(der.SEQUENCE)
        found.authority_key_id = identifier.take(0x80)
        identifier.finish()
