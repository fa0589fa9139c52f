"""Where trust begins on a device: the invite that pins the organisation, and the number that two people can compare.

Chains and rules are in `curbside.policy`. `web/src/core/trust.ts` is the twin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

from curbside.crypto.kdf import compute_hash, is_same
from curbside.crypto.sign import Signer
from curbside.crypto.x509 import Certificate, Issuer, parse_certificate
from curbside.errors import InvalidMessage, InviteExpired, UntrustedDevice, UsageError
from curbside.ids import UserId, decode_base64url, decode_id
from curbside.policy.chain import parse_authority, refuse, verify_issued, verify_role
from curbside.wire.bodies import Invite
from curbside.wire.invite_link import InviteLink

_INVITE: Final = "invite"
_SAFETY_LABEL: Final = b"curbside safety number v1\x00"


@dataclass(frozen=True, slots=True)
class VerifiedInvite:
    """An invite that comes from the organisation in the link. enrolment: with the seed out of the link; sign the user
    certificate with it, then forget it. Pin `authority`."""

    organization: str
    authority: Certificate
    enrolment: Issuer
    user_id: UserId
    role: str
    expires_at: int


def verify_invite(link: InviteLink, invite: Invite, now: int) -> VerifiedInvite:
    """Verify what the server says about an invite against the link, which came another way.

    Only the certificates are believed; the invite's other fields are the server's word. now: Unix seconds.

    Raises: UntrustedDevice (trust.invite.authority, trust.invite.key, trust.role.known); InviteExpired.
    """
    authority = _parse_authority(invite, link)
    enrolment = _parse_enrolment(invite, authority)
    key = link.enrolment_seed
    if invite.invite_id != link.invite_id or not is_same(Signer("ed25519", key).public, enrolment.public_key):
        refuse(_INVITE, "trust.invite.key")
    verify_role(enrolment, _INVITE)
    if not enrolment.not_before <= now <= enrolment.not_after:
        raise InviteExpired
    subject = enrolment.subject
    return VerifiedInvite(
        organization=authority.subject.organization,
        authority=authority,
        enrolment=Issuer(enrolment, key),
        user_id=subject.user_id,
        role=subject.role,
        expires_at=enrolment.not_after,
    )


def compute_safety_number(users: Iterable[tuple[UserId, bytes]]) -> str:
    """60 digits in twelve groups of five, the same on every device, over the users' root keys.

    users: each user's id and root public key (32 bytes), in any order; one who stands twice counts once. The number is
    SHA-256(label ‖ (user id (16) ‖ key (32)), sorted), big-endian, modulo 10^60.

    Raises: UsageError when a key has not 32 bytes.
    """
    entries = sorted({decode_id(user_id) + key for user_id, key in users})
    if any(len(entry) != 48 for entry in entries):
        raise UsageError("a root key has 32 bytes")
    digest = compute_hash("sha256", _SAFETY_LABEL + b"".join(entries))
    digits = f"{int.from_bytes(digest, 'big') % 10**60:060}"
    return " ".join(digits[i : i + 5] for i in range(0, 60, 5))


def _parse_authority(invite: Invite, link: InviteLink) -> Certificate:
    try:
        authority = parse_authority(decode_base64url(invite.authority_certificate))
    except InvalidMessage:
        _refuse_authority()
    if not is_same(authority.public_key, link.authority_key):
        _refuse_authority()
    return authority


def _parse_enrolment(invite: Invite, authority: Certificate) -> Certificate:
    try:
        enrolment = parse_certificate(decode_base64url(invite.enrolment_certificate))
        verify_issued(enrolment, authority, _INVITE)
    except InvalidMessage:
        _refuse_authority()
    if enrolment.kind != "enrolment":
        _refuse_authority()
    return enrolment


def _refuse_authority() -> NoReturn:
    raise UntrustedDevice(_INVITE, "trust.invite.authority") from None
