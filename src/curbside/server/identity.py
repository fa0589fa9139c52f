"""Sign-up by invite and sign-in by OPAQUE (RFC 9807): the Authentication Service of RFC 9750.

A wrong passphrase is noticed by the client alone, between start and finish; so each start counts as a try and each
finish that succeeds forgives them. A start that is never finished is recorded as a failed sign-in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from curbside.audit.events import EventName, ObjectType
from curbside.clock import Clock
from curbside.crypto.jose import SKEW_SECONDS, Proof, ProofRequest, verify_api_key, verify_proof
from curbside.crypto.opaque import OpaqueServer, accept_registration, finish_login
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.x509 import parse_certificate
from curbside.errors import (
    CurbsideError,
    DeviceRevoked,
    InviteUsed,
    NotAuthenticated,
    RuleBroken,
    TooMany,
    UntrustedDevice,
    WrongPassphrase,
)
from curbside.ids import DeviceId, InviteId, UserId, decode_base64url, decode_id, encode_base64url, encode_id
from curbside.policy.chain import VerifiedDevice
from curbside.policy.validator import OrganizationValidator
from curbside.server.invites import get_open_invite, parse_invite_id
from curbside.server.key_packages import KeyPackageVerifier
from curbside.server.keys import ServerKeys
from curbside.server.recording import NOBODY, About, Actor, Recorder
from curbside.server.sessions import SessionService, hash_proof
from curbside.server.store.ports import Change, Store, View
from curbside.server.store.records import (
    DeviceRecord,
    InviteRecord,
    KeyPackageRecord,
    SigninRecord,
    UserRecord,
)
from curbside.server.throttle import Throttle, ThrottleSettings
from curbside.wire import bodies

SIGNIN_SECONDS: Final = 60
"""Between start and finish of a sign-in."""
TRIES: Final = ThrottleSettings(free=5, cap_seconds=300, forget_seconds=3600)
"""Sign-in starts of one device, proved by its key."""
USER_TRIES: Final = ThrottleSettings(free=50, cap_seconds=60, forget_seconds=3600)
"""Sign-in starts in the name of one user without the key of a device of its own: slowed down apart from the user's."""
SWEPT: Final = 10_000
"""Rows that one sweep ends."""


@dataclass(frozen=True, slots=True)
class ProvedCall:
    """What a sign-up or sign-in request carries besides its body. uri: as the client saw it. proof: DPoP header."""

    uri: str
    proof: str


@dataclass(frozen=True, slots=True)
class _Enrolled:
    """A sign-up that verified."""

    user: UserRecord
    device: DeviceRecord
    opaque_record: bytes
    key_packages: list[KeyPackageRecord]
    proof: Proof


class IdentityService:
    """Signs people up and in."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        keys: ServerKeys,
        sessions: SessionService,
        validator: OrganizationValidator,
        key_packages: KeyPackageVerifier,
    ) -> None:
        self._store = store
        self._clock = clock
        self._sessions = sessions
        self._validator = validator
        self._key_packages = key_packages
        self._opaque = OpaqueServer(keys.opaque_setup)
        self._recorder = Recorder(clock)
        self._tries = Throttle(TRIES)
        self._stranger_tries = Throttle(USER_TRIES)

    # --- sign-up ------------------------------------------------------------------------------

    async def start_signup(self, body: bodies.SignupStart) -> bodies.SignupStarted:
        """OPAQUE's registration response for the user whom the invite names.

        Raises: Malformed; NotFound; InviteExpired; InviteUsed.
        """
        invite_id = parse_invite_id(body.invite_id)
        request = decode_base64url(body.opaque_request)
        about = _about_invite(invite_id)

        def look_up(tx: Change) -> InviteRecord:
            return get_open_invite(tx.identity, invite_id, self._clock.now())

        invite = await self._store.write(look_up, self._recorder.refused(about, NOBODY))
        return bodies.SignupStarted(encode_base64url(self._opaque.respond_registration(invite.user_id, request)))

    async def finish_signup(self, body: bodies.SignupFinish, call: ProvedCall) -> bodies.Session:
        """Create user and device, and open the first session. All or nothing; the invite is used up with it.

        Raises: Malformed; NotFound; InviteExpired; InviteUsed; UntrustedDevice; BadSignature; RuleBroken;
        NotAuthenticated when the proof is not by the new device.
        """
        about = _about_invite(parse_invite_id(body.invite_id))
        refused = self._recorder.refused(about, NOBODY)
        try:
            invite = await self._store.read(
                lambda view: get_open_invite(view.identity, InviteId(body.invite_id), self._clock.now())
            )
            enrolled = self._verify_signup(body, call, invite)
        except CurbsideError as error:
            event = refused(error)
            await self._store.write(lambda tx: tx.append_audit(event))
            raise
        return await self._store.write(lambda tx: self._enrol(tx, invite, enrolled), refused)

    def _verify_signup(self, body: bodies.SignupFinish, call: ProvedCall, invite: InviteRecord) -> _Enrolled:
        now = self._clock.now()
        certificate = decode_base64url(body.device.device_certificate)
        user_certificate = decode_base64url(body.user_certificate)
        chain = (certificate, user_certificate, invite.enrolment_certificate)
        verified = self._validator.chains.verify_device(chain, _read_device_key(certificate), now)
        if verified.device_id != body.device.device_id or verified.user_id != invite.user_id:
            raise UntrustedDevice(verified.device_label, "trust.user.match")
        api_key = decode_base64url(body.device.api_key)
        signature = decode_base64url(body.device.api_key_signature)
        verify_api_key(verified.signature_key, verified.device_id, api_key, signature)
        proof = verify_proof(call.proof, ProofRequest("POST", call.uri, now), api_key)
        packages = self._key_packages.verify_all(
            body.key_packages, body.last_resort_key_package, verified.device_id, chain
        )
        return _Enrolled(
            _build_user(verified, now),
            _build_device(verified, certificate, api_key, now),
            accept_registration(decode_base64url(body.opaque_record)),
            packages,
            proof,
        )

    def _enrol(self, tx: Change, invite: InviteRecord, enrolled: _Enrolled) -> bodies.Session:
        now = self._clock.now()
        get_open_invite(tx.identity, invite.invite_id, now)
        if not tx.identity.use_invite(invite.invite_id, now):
            raise InviteUsed
        self._use_proof(tx, enrolled.proof)
        user, device = enrolled.user, enrolled.device
        tx.identity.add_user(user, enrolled.opaque_record)
        tx.identity.add_device(device)
        tx.identity.add_key_packages(enrolled.key_packages)
        actor = Actor(user.user_id, device.device_id, user.role)
        for about in (
            About(EventName.INVITE_USED, "R-signup", ObjectType.INVITE, invite.invite_id),
            About(EventName.USER_CREATED, "R-signup", ObjectType.USER, user.user_id),
            About(EventName.DEVICE_ENROLLED, "R-signup", ObjectType.DEVICE, device.device_id),
        ):
            tx.append_audit(self._recorder.done(about, actor))
        return self._sessions.open_session(tx, device, "signup")

    # --- sign-in ------------------------------------------------------------------------------

    async def start_signin(self, body: bodies.SigninStart, call: ProvedCall) -> bodies.SigninStarted:
        """OPAQUE's login response. Without the key of an active device of the user's it is one that looks the same and
        that no passphrase opens: who lacks the key can neither guess nor slow the device down.

        Raises: Malformed; TooMany (retry_after); NotAuthenticated when the proof does not hold by itself.
        """
        decode_id(body.user_id)
        decode_id(body.device_id)
        user_id, device_id = UserId(body.user_id), DeviceId(body.device_id)
        request = decode_base64url(body.opaque_request)
        proof = verify_proof(call.proof, ProofRequest("POST", call.uri, self._clock.now()))
        device, record = await self._store.read(lambda view: _find_prover(view, user_id, device_id, proof))
        await self._count_try(user_id, device_id, device is not None)
        login = self._opaque.respond_login(user_id, record, request)
        expires_at = self._clock.now() + SIGNIN_SECONDS
        signin = SigninRecord(encode_id(random_bytes(16)), user_id, device_id, expires_at, login.state.reveal())
        await self._store.write(lambda tx: self._begin_signin(tx, signin, proof))
        return bodies.SigninStarted(signin.signin_id, encode_base64url(login.response))

    def _begin_signin(self, tx: Change, signin: SigninRecord, proof: Proof) -> None:
        self._use_proof(tx, proof)
        tx.identity.add_signin(signin)

    async def finish_signin(self, body: bodies.SigninFinish, call: ProvedCall) -> bodies.Session:
        """Open a session.

        Raises: Malformed; WrongPassphrase, also for an unknown user, device or sign-in; DeviceRevoked; NotAuthenticated
        when the proof does not hold by itself (a clock that is wrong).
        """
        decode_id(body.signin_id)
        finalization = decode_base64url(body.opaque_finalization)
        # Before the sign-in is taken, so that a client with a wrong clock can correct it and finish the same one.
        proof = verify_proof(call.proof, ProofRequest("POST", call.uri, self._clock.now()))
        signin = await self._store.write(lambda tx: tx.identity.take_signin(body.signin_id))
        about = About(EventName.LOGIN_OK, "R-signin", ObjectType.SESSION, refused=EventName.LOGIN_FAIL)
        actor = NOBODY if signin is None else Actor.claimed(signin.user_id, signin.device_id)
        session = await self._store.write(
            lambda tx: self._admit(tx, signin, proof, finalization), self._recorder.refused(about, actor)
        )
        self._tries.clear((session.user_id, session.device_id))
        return session

    def _admit(self, tx: Change, signin: SigninRecord | None, proof: Proof, finalization: bytes) -> bodies.Session:
        if signin is None or self._clock.now() >= signin.expires_at:
            raise WrongPassphrase
        device = tx.identity.find_device(signin.device_id)
        if device is None or device.user_id != signin.user_id or device.api_key != proof.public_key:
            raise WrongPassphrase
        if device.revoked_at:
            raise DeviceRevoked
        finish_login(SecretBytes(signin.state), finalization)
        self._use_proof(tx, proof)
        return self._sessions.open_session(tx, device, "opaque")

    async def _count_try(self, user_id: UserId, device_id: DeviceId, is_proved: bool) -> None:
        now = self._clock.now()
        throttle, key = (self._tries, (user_id, device_id)) if is_proved else (self._stranger_tries, (user_id,))
        try:
            throttle.check(key, now)
        except TooMany as error:
            about = About(EventName.THROTTLED, "R-signin", ObjectType.USER, user_id)
            event = self._recorder.refused(about, Actor.claimed(user_id, device_id))(error)
            await self._store.write(lambda tx: tx.append_audit(event))
            raise
        throttle.count(key, now)

    def _use_proof(self, tx: Change, proof: Proof) -> None:
        if not tx.identity.use_proof(hash_proof(proof), proof.issued_at + 2 * SKEW_SECONDS + 1):
            raise NotAuthenticated(check="dpop.replay")

    # --- sweeping -----------------------------------------------------------------------------

    async def sweep(self) -> None:
        """End what is over: old sessions, sign-ins that nobody finished, used proofs. The first two leave an event."""
        await self._store.write(self._sweep)

    def _sweep(self, tx: Change) -> None:
        now = self._clock.now()
        for signin in tx.identity.take_expired_signins(now, SWEPT):
            about = About(EventName.LOGIN_FAIL, "R-signin", ObjectType.SESSION)
            actor = Actor.claimed(signin.user_id, signin.device_id)
            tx.append_audit(self._recorder.refused(about, actor)(WrongPassphrase(check="signin.unfinished")))
        for session in tx.identity.take_expired_sessions(now, SWEPT):
            about = About(EventName.SESSION_EXPIRED, "R-signin", ObjectType.DEVICE, session.device_id)
            tx.append_audit(self._recorder.done(about, Actor.claimed(session.user_id, session.device_id)))
        tx.identity.delete_expired_proofs(now)


def _about_invite(invite_id: InviteId) -> About:
    return About(EventName.INVITE_USED, "R-signup", ObjectType.INVITE, invite_id, refused=EventName.INVITE_REFUSED)


def _read_device_key(certificate: bytes) -> bytes:
    parsed = parse_certificate(certificate)
    if parsed.kind != "device":
        raise RuleBroken("trust.chain.parse")
    return parsed.public_key


def _find_prover(
    view: View, user_id: UserId, device_id: DeviceId, proof: Proof
) -> tuple[DeviceRecord | None, bytes | None]:
    """The user's device whose key made the proof, and the user's OPAQUE record if that device is active."""
    device = view.identity.find_device(device_id)
    if device is None or device.user_id != user_id or device.api_key != proof.public_key:
        return None, None
    return device, None if device.revoked_at else view.identity.find_opaque_record(user_id)


def _build_user(verified: VerifiedDevice, now: int) -> UserRecord:
    return UserRecord(
        user_id=verified.user_id,
        name=verified.name,
        role=verified.role,
        user_certificate=verified.user_certificate,
        enrolment_certificate=verified.enrolment_certificate,
        created_at=now,
    )


def _build_device(verified: VerifiedDevice, certificate: bytes, api_key: bytes, now: int) -> DeviceRecord:
    return DeviceRecord(
        device_id=verified.device_id,
        user_id=verified.user_id,
        label=verified.device_label,
        device_certificate=certificate,
        api_key=api_key,
        created_at=now,
        last_seen_at=now,
    )
