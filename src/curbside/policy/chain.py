"""The trust chain of docs/trust.md: device certificate ← user ← enrolment ← the pinned authority.

Checks run in the order of the table in docs/trust.md, so that both clients name the same one. Ids that begin with
`trust.` are the `check` of the UntrustedDevice that is raised. `web/src/core/chain.ts` is the twin.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, final

from curbside.crypto.x509 import DIGITAL_SIGNATURE, KEY_CERT_SIGN, Certificate, Kind, parse_certificate
from curbside.crypto.x509 import verify_certificate as verify_certificate_signature
from curbside.errors import InvalidMessage, UntrustedDevice
from curbside.ids import DeviceId, UserId

ROLES: Final = ("physician", "nurse", "clerk", "patient", "bot", "privacy_officer", "administrator")
CACHED_CHAINS: Final = 4096
UNKNOWN_DEVICE: Final = "unknown device"
_CHAIN: Final[tuple[Kind, ...]] = ("device", "user", "enrolment")
_CONSTRAINTS: Final[dict[Kind, tuple[bool, int, int]]] = {
    "authority": (True, -1, KEY_CERT_SIGN),
    "enrolment": (True, 1, KEY_CERT_SIGN),
    "user": (True, 0, KEY_CERT_SIGN),
    "device": (False, -1, DIGITAL_SIGNATURE),
}
"""CA flag, path length, key usage of each kind."""


@dataclass(frozen=True, slots=True)
class VerifiedUser:
    """A person whom the authority vouches for. user_key: Ed25519 root key, 32 bytes."""

    user_id: UserId
    name: str
    role: str
    user_key: bytes


@dataclass(frozen=True, slots=True)
class VerifiedDevice:
    """A device whose chain verifies. signature_key: of its leaf. user_certificate, enrolment_certificate: DER."""

    user_id: UserId
    device_id: DeviceId
    name: str
    role: str
    device_label: str
    user_key: bytes
    signature_key: bytes
    user_certificate: bytes
    enrolment_certificate: bytes


@dataclass(frozen=True, slots=True)
class _Checked:
    """Certificates, leaf first, for which all checks hold that time does not change."""

    certificates: tuple[Certificate, ...]

    @property
    def user(self) -> Certificate:
        return self.certificates[-2]

    @property
    def enrolment(self) -> Certificate:
        return self.certificates[-1]


def parse_authority(raw: bytes) -> Certificate:
    """The organisation's certificate: of our profile, of the right kind, signed by itself.

    Raises: UntrustedDevice.
    """
    authority = _parse(raw, "authority", "organisation authority")
    _verify_link(authority, authority, "organisation authority")
    _verify_constraints(authority, "organisation authority")
    return authority


def verify_role(enrolment: Certificate, device: str) -> None:
    """Check that an enrolment's role is a known one. Raises: UntrustedDevice("trust.role.known")."""
    if enrolment.subject.role not in ROLES:
        refuse(device, "trust.role.known")


def verify_issued(certificate: Certificate, issuer: Certificate, device: str) -> None:
    """Check that one certificate was issued by another: names, key identifiers, signature, constraints.

    Raises: UntrustedDevice.
    """
    _verify_link(certificate, issuer, device)
    _verify_constraints(certificate, device)


def refuse(device: str, check: str) -> NoReturn:
    """Refuse a device (or person) by name. Raises: UntrustedDevice, always."""
    raise UntrustedDevice(device, check) from None


@final
class ChainVerifier:
    """Verifies chains under one pinned authority; remembers the ones that held, but looks at the time on each use."""

    def __init__(self, authority_certificate: bytes, capacity: int = CACHED_CHAINS) -> None:
        """Pin an authority. capacity: how many chains are remembered.

        Raises: UntrustedDevice when it is no authority's certificate.
        """
        self.authority: Final = parse_authority(authority_certificate)
        self._capacity = capacity
        self._known: OrderedDict[tuple[bytes, ...], _Checked] = OrderedDict()

    def verify_device(self, certificates: Sequence[bytes], signature_key: bytes, now: int) -> VerifiedDevice:
        """Verify a leaf's chain (device, user, enrolment; DER) for the leaf's signature key at time `now`.

        Raises: UntrustedDevice.
        """
        checked = self._check(certificates, _CHAIN)
        device = checked.certificates[0]
        label = device.subject.common_name
        self._verify_user_validity(checked, label, now)
        if not device.not_before <= now <= device.not_after:
            refuse(label, "trust.device.validity")
        if device.public_key != signature_key:
            refuse(label, "trust.device.key")
        return _describe(checked)

    def verify_user(self, certificates: Sequence[bytes], now: int) -> VerifiedUser:
        """Verify a person's chain (user, enrolment; DER) at time `now`.

        Raises: UntrustedDevice, whose `device` is the person's name.
        """
        checked = self._check(certificates, _CHAIN[1:])
        user = checked.user
        self._verify_user_validity(checked, user.subject.common_name, now)
        return VerifiedUser(
            user.subject.user_id, user.subject.common_name, checked.enrolment.subject.role, user.public_key
        )

    def identify(self, certificates: Sequence[bytes]) -> VerifiedDevice:
        """Whose leaf a chain is, whatever the time and the leaf's key: for leaves that were verified before.

        Raises: UntrustedDevice.
        """
        return _describe(self._check(certificates, _CHAIN))

    def _verify_user_validity(self, checked: _Checked, device: str, now: int) -> None:
        if not checked.user.not_before <= now <= checked.user.not_after:
            refuse(device, "trust.user.validity")

    def _check(self, certificates: Sequence[bytes], kinds: tuple[Kind, ...]) -> _Checked:
        key = tuple(certificates)
        checked = self._known.get(key)
        if checked is not None and len(key) == len(kinds):
            self._known.move_to_end(key)
            return checked
        checked = self._known[key] = self._check_chain(key, kinds)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return checked

    def _check_chain(self, certificates: tuple[bytes, ...], kinds: tuple[Kind, ...]) -> _Checked:
        """All checks that time does not change, in the order of docs/trust.md."""
        if len(certificates) != len(kinds):
            refuse(_name(certificates), "trust.chain.length")
        try:
            parsed = tuple(_parse(raw, kind, "") for raw, kind in zip(certificates, kinds, strict=True))
        except UntrustedDevice as error:
            refuse(_name(certificates), error.check)
        name = parsed[0].subject.common_name
        issuers = (*parsed[1:], self.authority)
        for certificate, issuer in zip(parsed, issuers, strict=True):
            _verify_issuer(certificate, issuer, name)
        for certificate, issuer in zip(parsed, issuers, strict=True):
            _verify_signature(certificate, issuer, name)
        for certificate in parsed:
            _verify_constraints(certificate, name)
        checked = _Checked(parsed)
        if len({certificate.subject.user_id for certificate in parsed}) != 1:
            refuse(name, "trust.user.match")
        verify_role(checked.enrolment, name)
        if not checked.enrolment.not_before <= checked.user.not_before <= checked.enrolment.not_after:
            refuse(name, "trust.enrolment.window")
        return checked


def verify_successor(old: VerifiedDevice, new: VerifiedDevice) -> None:
    """Check that a leaf may take another's place: the same device of the same user.

    Raises: UntrustedDevice("trust.successor.user").
    """
    if (old.user_id, old.device_id) != (new.user_id, new.device_id):
        refuse(new.device_label, "trust.successor.user")


def _describe(checked: _Checked) -> VerifiedDevice:
    device, user = checked.certificates[0], checked.user
    return VerifiedDevice(
        user_id=device.subject.user_id,
        device_id=device.subject.device_id,
        name=user.subject.common_name,
        role=checked.enrolment.subject.role,
        device_label=device.subject.common_name,
        user_key=user.public_key,
        signature_key=device.public_key,
        user_certificate=user.raw,
        enrolment_certificate=checked.enrolment.raw,
    )


def _name(certificates: Sequence[bytes]) -> str:
    """What to call the owner of a chain that may be anything."""
    try:
        return parse_certificate(certificates[0]).subject.common_name or UNKNOWN_DEVICE
    except (InvalidMessage, IndexError):
        return UNKNOWN_DEVICE


def _parse(raw: bytes, kind: Kind, device: str) -> Certificate:
    try:
        certificate = parse_certificate(raw)
    except InvalidMessage:
        refuse(device, "trust.chain.parse")
    if certificate.kind != kind:
        refuse(device, "trust.chain.parse")
    return certificate


def _verify_link(certificate: Certificate, issuer: Certificate, device: str) -> None:
    _verify_issuer(certificate, issuer, device)
    _verify_signature(certificate, issuer, device)


def _verify_issuer(certificate: Certificate, issuer: Certificate, device: str) -> None:
    authority_key_id = certificate.authority_key_id or certificate.subject_key_id
    if certificate.issuer_der != issuer.subject_der or authority_key_id != issuer.subject_key_id:
        refuse(device, "trust.chain.issuer")


def _verify_signature(certificate: Certificate, issuer: Certificate, device: str) -> None:
    try:
        verify_certificate_signature(certificate, issuer.public_key)
    except InvalidMessage:
        refuse(device, "trust.chain.signature")


def _verify_constraints(certificate: Certificate, device: str) -> None:
    found = (certificate.ca, certificate.path_length, certificate.key_usage)
    if found != _CONSTRAINTS[certificate.kind]:
        refuse(device, "trust.chain.constraints")
