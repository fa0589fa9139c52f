"""Key packages: what lets others add a device to a conversation while it is away. Each is handed out once."""

from __future__ import annotations

from collections.abc import Sequence

from curbside.audit.events import EventName, ObjectType
from curbside.clock import Clock
from curbside.errors import CurbsideError, NotFound, RuleBroken, TooLarge, TooMany
from curbside.ids import DeviceId, UserId, decode_base64url, decode_id, encode_base64url
from curbside.mls.messages import parse_message
from curbside.mls.nodes import KeyPackage
from curbside.mls.public import verify_key_package
from curbside.policy.access import Subject, check_access
from curbside.policy.validator import OrganizationValidator
from curbside.server.config import Limits
from curbside.server.limits import RateLimit
from curbside.server.people import find_relation
from curbside.server.recording import About, Actor, Recorder
from curbside.server.store.ports import Change, IdentityView, Store
from curbside.server.store.records import DeviceRecord, KeyPackageRecord, UserRecord
from curbside.wire import bodies
from curbside.wire.limits import KEY_PACKAGES_PER_DEVICE


class KeyPackageVerifier:
    """Checks that a key package is sound, of an allowed suite, and of exactly this device."""

    def __init__(self, clock: Clock, validator: OrganizationValidator, suites: frozenset[int]) -> None:
        self._clock = clock
        self._validator = validator
        self._suites = suites

    def verify(self, raw: bytes, chain: tuple[bytes, bytes, bytes]) -> bytes:
        """The key package, verified. chain: the device's certificates (device, user, enrolment; DER).

        Raises: Malformed; RuleBroken; BadSignature; UntrustedDevice.
        """
        info = verify_key_package(raw, self._validator, self._clock.now())
        if info.suite not in self._suites:
            raise RuleBroken("group.suite")
        # The chain names the device's key, and the validator refuses a leaf whose signature key is another one.
        if info.credential.certificates != chain:
            raise RuleBroken("key_package.device", "the key package is of another device")
        return raw

    def verify_all(
        self, encoded: Sequence[str], last_resort: str | None, device_id: DeviceId, chain: tuple[bytes, bytes, bytes]
    ) -> list[KeyPackageRecord]:
        """Records of a device's key packages (base64url).

        Raises: as `verify`; TooLarge.
        """
        if len(encoded) > KEY_PACKAGES_PER_DEVICE:
            raise TooLarge(limit=KEY_PACKAGES_PER_DEVICE)
        records = [KeyPackageRecord(device_id, self.verify(decode_base64url(text), chain)) for text in encoded]
        if last_resort is not None:
            records.append(KeyPackageRecord(device_id, self.verify(decode_base64url(last_resort), chain), True))
        if len({record.key_package for record in records}) != len(records):
            raise RuleBroken("key_package.unique", "the same key package came twice")
        return records


class KeyPackageService:
    """Takes key packages in and hands them out."""

    def __init__(self, store: Store, clock: Clock, verifier: KeyPackageVerifier, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._claims = RateLimit(limits.claims_per_second, limits.claims_burst, clock)
        self._store = store
        self._clock = clock
        self._verifier = verifier
        self._recorder = Recorder(clock)

    async def publish(self, subject: Subject, body: bodies.KeyPackages) -> None:
        """Keep more of the asking device's key packages.

        Raises: Malformed; RuleBroken; BadSignature; UntrustedDevice; TooLarge when more than a hundred would wait.
        """
        about = About(
            EventName.KEY_PACKAGE_PUBLISHED,
            "R-key-packages-publish",
            ObjectType.DEVICE,
            subject.device_id,
            {"count": len(body.key_packages)},
            EventName.KEY_PACKAGE_REFUSED,
        )
        refused = self._recorder.refused(about, Actor.of(subject))
        chain = await self._store.read(lambda view: get_chain(*_get_device(view.identity, subject.device_id)))
        try:
            records = self._verifier.verify_all(
                body.key_packages, body.last_resort_key_package, subject.device_id, chain
            )
        except CurbsideError as error:
            event = refused(error)
            await self._store.write(lambda tx: tx.append_audit(event))
            raise

        def add(tx: Change) -> None:
            if tx.identity.count_key_packages(subject.device_id) + len(body.key_packages) > KEY_PACKAGES_PER_DEVICE:
                raise TooLarge("too many key packages wait already", limit=KEY_PACKAGES_PER_DEVICE)
            tx.identity.add_key_packages(records)
            tx.append_audit(self._recorder.done(about, Actor.of(subject)))

        await self._store.write(add, refused)

    async def count(self, subject: Subject) -> bodies.KeyPackageCount:
        """How many of the asking device's are left."""
        available = await self._store.read(lambda view: view.identity.count_key_packages(subject.device_id))
        return bodies.KeyPackageCount(available)

    async def claim(self, subject: Subject, user_id: str) -> bodies.ClaimedKeyPackages:
        """One key package of each active device of a person, the asking device itself left out.

        How often is limited for each pair of people, so that nobody can use up what waits for all others.

        Raises: NotFound, also when the person is not for the asker to know; TooMany (retry_after).
        """
        decode_id(user_id)
        target = UserId(user_id)
        about = About(EventName.KEY_PACKAGE_CLAIMED, "R-key-packages-claim", ObjectType.USER, target)

        refused = self._recorder.refused(about, Actor.of(subject))
        try:
            self._claims.take(f"{subject.user_id} {target}")
        except TooMany as error:
            event = refused(error)
            await self._store.write(lambda tx: tx.append_audit(event))
            raise

        def take(tx: Change) -> list[bodies.ClaimedKeyPackage]:
            if tx.identity.find_user(target) is None:
                raise NotFound
            check_access("R-key-packages-claim", subject, find_relation(tx, subject, target))
            claimed = []
            for device in tx.identity.list_devices(target):
                if device.revoked_at or device.device_id == subject.device_id:
                    continue
                package = _claim_usable(tx, device.device_id, self._clock.now())
                if package is not None:
                    claimed.append(bodies.ClaimedKeyPackage(device.device_id, encode_base64url(package)))
            done = About(about.name, about.rule, about.object_type, target, {"count": len(claimed)})
            tx.append_audit(self._recorder.done(done, Actor.of(subject)))
            return claimed

        devices = await self._store.write(take, refused)
        return bodies.ClaimedKeyPackages(target, devices)


def _claim_usable(tx: Change, device_id: DeviceId, now: int) -> bytes | None:
    """The next key package that has not run out; those that have are dropped on the way."""
    former = None
    while (package := tx.identity.claim_key_package(device_id)) is not None and package != former:
        if now <= _read_end(package):
            return package
        former = package  # the last-resort one comes again and again; the second time ends the search
    return None


def _read_end(package: bytes) -> int:
    """Until when a stored key package may be used, Unix seconds."""
    message = parse_message(package)
    lifetime = message.leaf.lifetime if isinstance(message, KeyPackage) else None
    return lifetime.not_after if lifetime is not None else 0


def get_chain(device: DeviceRecord, user: UserRecord) -> tuple[bytes, bytes, bytes]:
    """A device's certificates: device, user, enrolment (DER)."""
    return device.device_certificate, user.user_certificate, user.enrolment_certificate


def _get_device(identity: IdentityView, device_id: DeviceId) -> tuple[DeviceRecord, UserRecord]:
    device = identity.find_device(device_id)
    user = identity.find_user(device.user_id) if device is not None else None
    if device is None or user is None:
        raise NotFound
    return device, user
