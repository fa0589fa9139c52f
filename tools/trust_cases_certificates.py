"""Cases of certificates, chains, invites and safety numbers for tools/make_trust_vectors.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Final

from curbside.client.trust import compute_safety_number
from curbside.crypto import der
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.crypto.x509 import (
    DIGITAL_SIGNATURE,
    Certificate,
    Draft,
    Issuer,
    Subject,
    build_certificate,
)
from curbside.ids import DeviceId, InviteId, UserId, decode_base64url, encode_base64url, encode_id
from curbside.wire.invite_link import InviteLink, encode_invite_link

NOW: Final = 1_780_000_000
DAY: Final = 86_400
HOSPITAL: Final = "St. Olaf Hospital"
_ED25519: Final = der.element(der.SEQUENCE, bytes.fromhex("06032b6570"))


def digest(label: str) -> bytes:
    return hashlib.sha256(b"curbside trust vector " + label.encode()).digest()


def seed(label: str) -> SecretBytes:
    return SecretBytes(digest(label))


def public(label: str) -> bytes:
    return Signer("ed25519", seed(label)).public


def user_id(label: str) -> UserId:
    return UserId(encode_id(digest(f"user {label}")[:16]))


def device_id(label: str) -> DeviceId:
    return DeviceId(encode_id(digest(f"device {label}")[:16]))


def serial(label: str) -> bytes:
    raw = digest(f"serial {label}")[:16]
    return bytes((raw[0] & 0x3F | 0x40,)) + raw[1:]


def b64(raw: bytes) -> str:
    return encode_base64url(raw)


# --- drafts of the good chain -------------------------------------------------------------------

AUTHORITY: Final = Draft(
    "authority",
    Subject(organization=HOSPITAL, common_name=HOSPITAL),
    public("authority"),
    NOW - 400 * DAY,
    NOW + 20 * 365 * DAY,
    ca=True,
)
ENROLMENT: Final = Draft(
    "enrolment",
    Subject(organization=HOSPITAL, role="nurse", user_id=user_id("asa")),
    public("enrolment"),
    NOW - 30 * DAY - 300,
    NOW - 29 * DAY,
    ca=True,
    path_length=1,
)
USER: Final = Draft(
    "user",
    Subject(common_name="\u00c5sa \u00d6berg", user_id=user_id("asa")),
    public("user"),
    NOW - 30 * DAY,
    NOW + 10 * 365 * DAY,
    ca=True,
    path_length=0,
)
DEVICE: Final = Draft(
    "device",
    Subject(common_name="Ward phone 3", user_id=user_id("asa"), device_id=device_id("phone")),
    public("device"),
    NOW - 30 * DAY - 300,
    NOW + 2 * 365 * DAY,
    ca=False,
    key_usage=DIGITAL_SIGNATURE,
)


def issue(draft: Draft, label: str, issuer: Issuer | None, key: str) -> Issuer:
    """A certificate with the key named `key`, signed by `issuer`."""
    signing = seed(key) if issuer is None else issuer.key
    certificate = build_certificate(draft, signing, issuer.certificate if issuer else None, serial(label))
    return Issuer(certificate, seed(key))


AUTHORITY_ISSUER: Final = issue(AUTHORITY, "authority", None, "authority")


class Chain:
    """The good chain, with any part replaced."""

    def __init__(self, device: Draft = DEVICE, user: Draft = USER, enrolment: Draft = ENROLMENT) -> None:
        self.enrolment = issue(enrolment, "enrolment", AUTHORITY_ISSUER, "enrolment")
        self.user = issue(user, "user", self.enrolment, "user")
        self.device = issue(device, "device", self.user, "device")

    @property
    def raw(self) -> list[bytes]:
        return [self.device.certificate.raw, self.user.certificate.raw, self.enrolment.certificate.raw]


# --- malformed certificates -----------------------------------------------------------------------

_PARTS: Final = ("version", "serial", "algorithm", "issuer", "validity", "subject", "key", "extensions")


def rebuild(certificate: Certificate, signer: str, /, **changed: bytes) -> bytes:
    """The certificate with some of its parts replaced, signed anew by the key of this name."""
    reader = der.Reader(der.Reader(certificate.tbs).take(der.SEQUENCE))
    tags = (0xA0, der.INTEGER, *([der.SEQUENCE] * 5), 0xA3)
    parts = {name: reader.take_whole(tag) for name, tag in zip(_PARTS, tags, strict=True)} | changed
    tbs = der.element(der.SEQUENCE, *parts.values())
    return sign_tbs(tbs, signer)


def sign_tbs(tbs: bytes, key: str) -> bytes:
    signature = Signer("ed25519", seed(key)).sign(tbs)
    return der.element(der.SEQUENCE, tbs, _ED25519, der.element(der.BIT_STRING, b"\x00", signature))


def extension(oid: str, value: bytes, critical: bytes = b"") -> bytes:
    return der.element(
        der.SEQUENCE, der.element(der.OBJECT_ID, bytes.fromhex(oid)), critical, der.element(der.OCTET_STRING, value)
    )


def extensions_of(certificate: Certificate) -> list[bytes]:
    reader = der.Reader(der.Reader(certificate.tbs).take(der.SEQUENCE))
    for tag in (0xA0, der.INTEGER, *([der.SEQUENCE] * 5)):
        reader.take(tag)
    listed = reader.inner(0xA3).inner(der.SEQUENCE)
    found = []
    while listed.more:
        found.append(listed.take_whole(der.SEQUENCE))
    return found


def listed_extensions(*items: bytes) -> bytes:
    return der.element(0xA3, der.element(der.SEQUENCE, *items))


def name(*attributes: tuple[str, int, bytes]) -> bytes:
    sets = (
        der.element(
            der.SET, der.element(der.SEQUENCE, der.element(der.OBJECT_ID, bytes.fromhex(oid)), der.element(tag, text))
        )
        for oid, tag, text in attributes
    )
    return der.element(der.SEQUENCE, *sets)


_CN, _UID, _SN = "550403", "0992268993f22c640101", "550405"


def malformed() -> Iterator[tuple[str, bytes]]:
    """Certificates that are not of our profile, each for one reason."""
    yield from _malformed_forms()
    yield from _malformed_times()
    yield from _malformed_names()
    yield from _malformed_extensions()


def _malformed_forms() -> Iterator[tuple[str, bytes]]:
    device = Chain().device.certificate
    raw = device.raw
    yield "empty", b""
    yield "cut short", raw[:-1]
    yield "a byte after the end", raw + b"\x00"
    yield "length not in its shortest form", b"\x30\x83\x00" + raw[2:]
    yield "indefinite length", b"\x30\x80" + raw[4:] + b"\x00\x00"
    yield "too long", der.element(der.SEQUENCE, bytes(2100))
    yield "version 1", rebuild(device, "user", version=b"")
    yield "version 2", rebuild(device, "user", version=bytes.fromhex("a003020101"))
    for label, number in (
        ("negative serial number", b"\x80" + bytes(15)),
        ("serial number of 15 bytes", b"\x40" + bytes(14)),
        ("serial number with a leading zero", bytes(16)),
    ):
        yield label, rebuild(device, "user", serial=der.element(der.INTEGER, number))
    yield "another algorithm inside", rebuild(device, "user", algorithm=bytes.fromhex("300506032b6571"))
    yield "another algorithm outside", raw.replace(_ED25519 + b"\x03\x41", bytes.fromhex("300506032b65710341"))
    yield "algorithm with parameters", rebuild(device, "user", algorithm=bytes.fromhex("300706032b65700500"))
    short_key = der.element(der.SEQUENCE, _ED25519, der.element(der.BIT_STRING, bytes(32)))
    yield "key of 31 bytes", rebuild(device, "user", key=short_key)


def _malformed_times() -> Iterator[tuple[str, bytes]]:
    device = Chain().device.certificate
    before = der.write_time(device.not_before)
    for label, time in (
        ("UTCTime without seconds", der.element(der.UTC_TIME, b"2606010000Z")),
        ("UTCTime with an offset", der.element(der.UTC_TIME, b"260601000000+0000")),
        ("GeneralizedTime before 2050", der.element(der.GENERALIZED_TIME, b"20260601000000Z")),
        ("the 30th of February", der.element(der.UTC_TIME, b"260230000000Z")),
        ("second 60", der.element(der.UTC_TIME, b"260601000060Z")),
        ("hour 24", der.element(der.UTC_TIME, b"260601240000Z")),
        ("a space in a time", der.element(der.UTC_TIME, b"26060100000 Z")),
    ):
        yield label, rebuild(device, "user", validity=der.element(der.SEQUENCE, before, time))


def _malformed_names() -> Iterator[tuple[str, bytes]]:
    device = Chain().device.certificate
    label, uid = (_CN, der.UTF8_STRING, b"x"), (_UID, der.UTF8_STRING, device.subject.user_id.encode())
    hexid = digest("device phone")[:16].hex().encode()
    number = (_SN, der.PRINTABLE_STRING, hexid)
    for reason, text in (
        ("empty label", b""),
        ("label of 65 characters", b"x" * 65),
        ("label that is not UTF-8", b"\xff\xfe"),
        ("label with an overlong encoding", b"a\xc0\xafb"),
        ("label with a surrogate", b"a\xed\xa0\x80b"),
        ("label with a line break", b"Ward\nphone"),
        ("label with a direction override", "Ward \u202ephone".encode()),
        ("label with an invisible character", "Ward\u200bphone".encode()),
        ("label with a byte order mark", "\ufeffWard".encode()),
        ("label that ends with a space", b"Ward "),
    ):
        yield reason, rebuild(device, "user", subject=name((_CN, der.UTF8_STRING, text), uid, number))
    for reason, attributes in (
        ("label in another string type", ((_CN, der.PRINTABLE_STRING, b"x"), uid, number)),
        ("attributes in another order", (uid, label, number)),
        ("an attribute twice", (label, uid, uid, number)),
        ("serialNumber in capitals", (label, uid, (_SN, der.PRINTABLE_STRING, hexid.upper()))),
        ("user id with padding bits", (label, (_UID, der.UTF8_STRING, b"A" * 21 + b"B"), number)),
    ):
        yield reason, rebuild(device, "user", subject=name(*attributes))
        yield f"issuer: {reason}", rebuild(device, "user", issuer=name(*attributes))
    names = name(("55040a", der.UTF8_STRING, b"One"), (_CN, der.UTF8_STRING, b"Two"))
    yield "an authority with two names", rebuild(AUTHORITY_ISSUER.certificate, "authority", subject=names)


def _malformed_extensions() -> Iterator[tuple[str, bytes]]:
    device = Chain().device.certificate
    constraints, usage, ski, aki = good = extensions_of(device)

    def with_extensions(*items: bytes) -> bytes:
        return rebuild(device, "user", extensions=listed_extensions(*items))

    yield "no extensions", rebuild(device, "user", extensions=b"")
    yield "key identifier missing", with_extensions(constraints, usage, aki)
    yield "authority key identifier missing", with_extensions(constraints, usage, ski)
    yield "an extension twice", with_extensions(*good, aki)
    for label, flag in (
        ("unknown critical extension", der.TRUE),
        ("a flag that says FALSE", bytes.fromhex("010100")),
        ("a flag that says 0x01", bytes.fromhex("010101")),
    ):
        yield label, with_extensions(*good, extension("2a0304", b"\x05\x00", flag))
    long_aki = bytes.fromhex("3016801400") + bytes(19) + b"\x81\x00"
    own_key = der.element(der.OCTET_STRING, device.subject_key_id)
    for label, old, new in (
        ("constraints not critical", constraints, extension("551d13", b"\x30\x00")),
        ("CA flag that says FALSE", constraints, extension("551d13", bytes.fromhex("3003010100"), der.TRUE)),
        ("path length without CA", constraints, extension("551d13", bytes.fromhex("3003020100"), der.TRUE)),
        ("key usage without bits", usage, extension("551d0f", bytes.fromhex("03020000"), der.TRUE)),
        ("key usage with wrong unused bits", usage, extension("551d0f", bytes.fromhex("03020080"), der.TRUE)),
        ("key identifier of another key", ski, extension("551d0e", der.element(der.OCTET_STRING, bytes(20)))),
        ("critical key identifier", ski, extension("551d0e", own_key, der.TRUE)),
        ("issuer in the authority key identifier", aki, extension("551d23", long_aki)),
    ):
        yield label, with_extensions(*(new if item == old else item for item in good))


def describe(certificate: Certificate) -> dict[str, Any]:
    fields = asdict(certificate)
    for field in ("tbs", "raw", "subject_der", "issuer_der", "signature"):
        del fields[field]
    return {key: b64(value) if isinstance(value, bytes) else value for key, value in fields.items()}


def certificates() -> dict[str, Any]:
    """Good certificates with their fields and how to write them again; bad ones with the reason."""
    chain = Chain()
    far = replace(USER, not_after=NOW + 40 * 365 * DAY)
    emoji = replace(DEVICE, subject=replace(DEVICE.subject, common_name="\U0001f4f1" * 64))
    extra = extension("2a0304", b"whatever")
    device = chain.device.certificate
    cases = [
        ("authority", AUTHORITY_ISSUER.certificate, AUTHORITY, "authority", None),
        ("enrolment", chain.enrolment.certificate, ENROLMENT, "authority", AUTHORITY_ISSUER),
        ("user", chain.user.certificate, USER, "enrolment", chain.enrolment),
        ("device", device, DEVICE, "user", chain.user),
        ("user", Chain(user=far).user.certificate, far, "enrolment", chain.enrolment),
        ("device", Chain(device=emoji).device.certificate, emoji, "user", chain.user),
    ]
    return {
        "comment": "good: draft, issuer and serial give exactly der. refused: each is Malformed, for the reason named.",
        "good": [
            {
                "der": b64(certificate.raw),
                "fields": describe(certificate),
                "signing_seed": b64(digest(signing)),
                "issuer": None if issuer is None else b64(issuer.certificate.raw),
                "serial": b64(serial(label)),
                "draft": {**asdict(draft), "public_key": b64(draft.public_key)},
            }
            for label, certificate, draft, signing, issuer in cases
        ],
        "unknown_extension_ignored": b64(
            rebuild(device, "user", extensions=listed_extensions(*extensions_of(device), extra))
        ),
        "refused": [{"reason": reason, "der": b64(raw)} for reason, raw in malformed()],
    }


# --- chains -----------------------------------------------------------------------------------------


def bad_chains() -> Iterator[tuple[str, list[bytes], str]]:
    """(what is wrong, certificates, the check that refuses)."""
    good = Chain()
    device, user, enrolment = good.raw
    yield "no certificate", [], "trust.chain.length"
    yield "without the enrolment", [device, user], "trust.chain.length"
    yield "with the authority", [device, user, enrolment, AUTHORITY_ISSUER.certificate.raw], "trust.chain.length"
    yield "garbage", [b"garbage", user, enrolment], "trust.chain.parse"
    yield "two places changed", [user, device, enrolment], "trust.chain.parse"
    critical = listed_extensions(*extensions_of(good.device.certificate), extension("2a0304", b"", der.TRUE))
    unknown = rebuild(good.device.certificate, "user", extensions=critical)
    yield "unknown critical extension", [unknown, user, enrolment], "trust.chain.parse"
    other = Chain(user=replace(USER, subject=replace(USER.subject, common_name="Somebody Else")))
    yield "issuer of another name", [other.raw[0], user, enrolment], "trust.chain.issuer"
    _, _, _, aki = extensions_of(good.device.certificate)
    stranger = extension("551d23", der.element(der.SEQUENCE, der.element(0x80, bytes(20))))
    items = [stranger if item == aki else item for item in extensions_of(good.device.certificate)]
    wrong_aki = rebuild(good.device.certificate, "user", extensions=listed_extensions(*items))
    yield "issuer of another key identifier", [wrong_aki, user, enrolment], "trust.chain.issuer"
    evil = issue(replace(AUTHORITY, public_key=public("evil")), "evil", None, "evil")
    evil_enrolment = issue(ENROLMENT, "enrolment", evil, "enrolment")
    yield "another organisation's enrolment", [device, user, evil_enrolment.certificate.raw], "trust.chain.issuer"
    for label, position, key in (("device", 0, "evil"), ("user", 1, "evil"), ("enrolment", 2, "evil")):
        forged = list(good.raw)
        forged[position] = rebuild((good.device, good.user, good.enrolment)[position].certificate, key)
        yield f"{label} signed by another key", forged, "trust.chain.signature"
    flipped = bytearray(device)
    flipped[-1] ^= 1
    yield "a bit of the signature changed", [bytes(flipped), user, enrolment], "trust.chain.signature"
    for label, chain in (
        ("device that is a CA", Chain(device=replace(DEVICE, ca=True))),
        ("device that may sign certificates", Chain(device=replace(DEVICE, key_usage=0x84))),
        ("user without a path length", Chain(user=replace(USER, path_length=-1))),
        ("user with path length 1", Chain(user=replace(USER, path_length=1))),
        ("user that is no CA", Chain(user=replace(USER, ca=False, path_length=-1))),
        ("enrolment without a path length", Chain(enrolment=replace(ENROLMENT, path_length=-1))),
        ("enrolment with another key usage", Chain(enrolment=replace(ENROLMENT, key_usage=0x06))),
    ):
        yield label, chain.raw, "trust.chain.constraints"
    bob = user_id("bob")
    yield (
        "device of another user",
        Chain(device=replace(DEVICE, subject=replace(DEVICE.subject, user_id=bob))).raw,
        "trust.user.match",
    )
    yield (
        "enrolment of another user",
        Chain(enrolment=replace(ENROLMENT, subject=replace(ENROLMENT.subject, user_id=bob))).raw,
        "trust.user.match",
    )
    yield (
        "unknown role",
        Chain(enrolment=replace(ENROLMENT, subject=replace(ENROLMENT.subject, role="surgeon"))).raw,
        "trust.role.known",
    )
    late = replace(USER, not_before=ENROLMENT.not_after + 1)
    early = replace(USER, not_before=ENROLMENT.not_before - 1)
    yield "sign-up after the invite ended", Chain(user=late).raw, "trust.enrolment.window"
    yield "sign-up before the invite began", Chain(user=early).raw, "trust.enrolment.window"


def chains() -> dict[str, Any]:
    """Chains with the check that refuses them; null: the chain holds."""
    good = Chain()
    key = b64(public("device"))

    def case(reason: str, raw: list[bytes], check: str | None, **more: Any) -> dict[str, Any]:
        base = {"reason": reason, "certificates": [b64(item) for item in raw], "leaf_key": key, "now": NOW}
        return {**base, "check": check, **more}

    expected = {
        "user_id": user_id("asa"),
        "device_id": device_id("phone"),
        "name": USER.subject.common_name,
        "role": "nurse",
        "device_label": DEVICE.subject.common_name,
        "user_key": b64(public("user")),
        "signature_key": key,
    }
    ended = replace(USER, not_after=NOW - DAY)
    cases = [
        case("good", good.raw, None),
        case("first second of the device", good.raw, None, now=max(USER.not_before, DEVICE.not_before)),
        case("last second of the device", good.raw, None, now=DEVICE.not_after),
        case("invite not over yet", Chain(enrolment=replace(ENROLMENT, not_after=NOW + DAY)).raw, None),
        *(case(reason, raw, check) for reason, raw, check in bad_chains()),
        case("user not valid any more", Chain(user=ended).raw, "trust.user.validity"),
        case("user not valid yet", good.raw, "trust.user.validity", now=USER.not_before - 1),
        case("device not valid any more", good.raw, "trust.device.validity", now=DEVICE.not_after + 1),
        case(
            "device not valid yet",
            Chain(device=replace(DEVICE, not_before=NOW + 1)).raw,
            "trust.device.validity",
        ),
        case("leaf with another key", good.raw, "trust.device.key", leaf_key=b64(public("evil"))),
    ]
    tablet = Chain(device=replace(DEVICE, subject=replace(DEVICE.subject, device_id=device_id("tablet"))))
    renewed = Chain(device=replace(DEVICE, not_after=NOW + 3 * 365 * DAY))
    bob_subjects = [replace(draft.subject, user_id=user_id("bob")) for draft in (DEVICE, USER, ENROLMENT)]
    bob = Chain(*(replace(draft, subject=s) for draft, s in zip((DEVICE, USER, ENROLMENT), bob_subjects, strict=True)))
    old = [b64(item) for item in good.raw]
    return {
        "authority": b64(AUTHORITY_ISSUER.certificate.raw),
        "expected": expected,
        "chains": cases,
        "people": [
            {"certificates": old[1:], "now": NOW, "check": None},
            {"certificates": old[:2], "now": NOW, "check": "trust.chain.parse"},
            {"certificates": old, "now": NOW, "check": "trust.chain.length"},
            {
                "certificates": [b64(item) for item in Chain(user=ended).raw[1:]],
                "now": NOW,
                "check": "trust.user.validity",
            },
        ],
        "successors": [
            {"old": old, "new": [b64(item) for item in renewed.raw], "check": None},
            {"old": old, "new": [b64(item) for item in tablet.raw], "check": "trust.successor.user"},
            {"old": old, "new": [b64(item) for item in bob.raw], "check": "trust.successor.user"},
        ],
    }


# --- invites ----------------------------------------------------------------------------------------


_INVITE_ID: Final = InviteId(encode_id(digest("invite")[:16]))
_LINK: Final = InviteLink("https://chat.olaf.example", _INVITE_ID, seed("enrolment"), public("authority"))
_LIVE: Final = replace(ENROLMENT, not_after=NOW + DAY)


def invites() -> dict[str, Any]:
    """Links, and what a server may answer to them."""
    local = encode_invite_link(replace(_LINK, origin="http://127.0.0.1:8443"))
    fields = {
        "invite_id": _INVITE_ID,
        "enrolment_seed": b64(digest("enrolment")),
        "authority_key": b64(public("authority")),
    }
    return {
        "links": [
            {"text": encode_invite_link(_LINK), "origin": "https://chat.olaf.example", **fields},
            {"text": f" {local}\n", "origin": "http://127.0.0.1:8443", **fields},
        ],
        "refused_links": _refused_links(encode_invite_link(_LINK)),
        "answers": list(_answers()),
    }


def _refused_links(text: str) -> list[str]:
    payload = text.split("/#/join/")[1]
    return [
        "",
        payload,
        text + "A",
        text[:-1],
        text.replace("https:", "http:"),
        text.replace("https:", "javascript:"),
        text.replace("/#/join/", "/join/"),
        text.replace("/#/join/", "/x/#/join/"),
        text.replace("olaf", "OLAF"),
        text.replace("chat.olaf.example", "user@chat.olaf.example"),
        text.replace("chat.olaf.example", ""),
        text.replace(payload, b64(b"\x02" + decode_base64url(payload)[1:])),
        text.replace(payload, payload[:-4] + "===="),
        text + " " * 400,
    ]


def _answers() -> Iterator[dict[str, Any]]:
    evil = issue(replace(AUTHORITY, public_key=public("evil")), "evil", None, "evil")
    evil_enrolment = b64(issue(_LIVE, "enrolment", evil, "enrolment").certificate.raw)
    evil_authority = b64(evil.certificate.raw)
    surgeon = replace(_LIVE, subject=replace(_LIVE.subject, role="surgeon"))
    other_seed = encode_invite_link(replace(_LINK, enrolment_seed=seed("evil")))
    other_id = InviteId(encode_id(digest("other invite")[:16]))

    def enrolment(draft: Draft) -> str:
        return b64(issue(draft, "enrolment", AUTHORITY_ISSUER, "enrolment").certificate.raw)

    def answer(reason: str, check: str | None, error: str = "", link: str = "", **changed: Any) -> dict[str, Any]:
        body = {
            "invite_id": _INVITE_ID,
            "organization": HOSPITAL,
            "authority_certificate": b64(AUTHORITY_ISSUER.certificate.raw),
            "enrolment_certificate": enrolment(_LIVE),
            "user_id": user_id("asa"),
            "role": "nurse",
            "expires_at": NOW + DAY,
        }
        text = link or encode_invite_link(_LINK)
        return {"reason": reason, "link": text, "now": NOW, "check": check, "error": error, "invite": body | changed}

    authority, key = "trust.invite.authority", "trust.invite.key"
    yield answer("good", None)
    words = {"role": "administrator", "user_id": user_id("bob"), "organization": "x"}
    yield answer("the server's own words differ", None, **words)
    yield answer("another authority", authority, authority_certificate=evil_authority)
    both = {"authority_certificate": evil_authority, "enrolment_certificate": evil_enrolment}
    yield answer("another authority and its enrolment", authority, **both)
    yield answer("another authority's enrolment", authority, enrolment_certificate=evil_enrolment)
    unsigned = b64(rebuild(AUTHORITY_ISSUER.certificate, "evil"))
    yield answer("authority not signed by itself", authority, authority_certificate=unsigned)
    yield answer("garbage", authority, authority_certificate="AAAA")
    yield answer("not base64", authority, enrolment_certificate="!")
    user = b64(Chain().user.certificate.raw)
    yield answer("a user certificate for an enrolment", authority, enrolment_certificate=user)
    yield answer("another seed", key, link=other_seed)
    yield answer("another invite", key, invite_id=other_id)
    yield answer("unknown role", "trust.role.known", enrolment_certificate=enrolment(surgeon))
    yield answer("over", None, "invite_expired", enrolment_certificate=enrolment(ENROLMENT))


def safety_numbers() -> dict[str, Any]:
    """Numbers of two, one and three people; the order does not matter."""
    asa, bob, cleo = ((user_id(label), public(f"user {label}")) for label in ("asa", "bob", "cleo"))
    cases = [[asa, bob], [bob, asa], [asa], [asa, bob, asa], [cleo, asa, bob]]
    return {
        "cases": [
            {"users": [{"user_id": u, "key": b64(k)} for u, k in case], "number": compute_safety_number(case)}
            for case in cases
        ]
    }
