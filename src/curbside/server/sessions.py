"""Sessions: tokens that work only together with a proof by the device's own key (RFC 9449).

The server keeps the SHA-256 of a token, never the token. A session ends at its longest age, after a time without any
sign of the device (requests and an open stream are signs), at sign-out and when the device is revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from curbside.audit.events import AuditEvent, EventName, ObjectType, Outcome
from curbside.clock import Clock
from curbside.crypto.jose import SKEW_SECONDS, Proof, ProofRequest, verify_proof
from curbside.crypto.kdf import compute_hash
from curbside.crypto.random import random_bytes
from curbside.errors import CurbsideError, NotAuthenticated
from curbside.ids import DeviceId, encode_base64url
from curbside.policy.access import Role, Subject
from curbside.server.store.ports import Change, Store, View
from curbside.server.store.records import DeviceRecord, SessionRecord, UserRecord
from curbside.wire import bodies

TOKEN_BYTES: Final = 32
TOUCH_SECONDS: Final = 60
"""A device's last sign of life is written at most this often."""
TOUCHED_AT_ONCE: Final = 500
"""Devices in one write, so that sends need not wait for it."""
SCHEME: Final = "DPoP "


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """max_seconds: longest life of a session. idle_seconds: longest silence."""

    max_seconds: int = 12 * 3600
    idle_seconds: int = 15 * 60


@dataclass(frozen=True, slots=True)
class ProvedRequest:
    """What authenticates a request. uri: scheme, host and path as the client saw them. token: out of
    `Authorization: DPoP <token>`. proof: the DPoP header. nonce: of a stream's challenge."""

    method: str
    uri: str
    token: str
    proof: str
    nonce: bytes = b""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A request whose session and proof hold. expires_at: Unix seconds. stream: the number of this connection among
    the device's; 0 for a request that is none."""

    subject: Subject
    token_hash: bytes
    expires_at: int
    stream: int = 0


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session that is live, with whose it is."""

    session: SessionRecord
    device: DeviceRecord
    user: UserRecord


class SessionService:
    """Opens, checks and ends sessions."""

    def __init__(self, store: Store, clock: Clock, settings: SessionSettings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._seen: dict[DeviceId, int] = {}
        self._written: dict[DeviceId, int] = {}
        self.on_session_ended: list[Callable[[Authenticated], None]] = []

    def open_session(self, tx: Change, device: DeviceRecord, method: str) -> bodies.Session:
        """A new session of this device, inside the caller's transaction. method: how the person proved itself."""
        now = self._clock.now()
        token = encode_base64url(random_bytes(TOKEN_BYTES))
        expires_at = now + self._settings.max_seconds
        tx.identity.add_session(SessionRecord(hash_token(token), device.user_id, device.device_id, now, expires_at))
        user = tx.identity.find_user(device.user_id)
        tx.append_audit(
            AuditEvent(
                name=EventName.LOGIN_OK,
                at=self._clock.now_ms(),
                actor_user=device.user_id,
                actor_device=device.device_id,
                actor_role=user.role if user else "",
                object_type=ObjectType.SESSION,
                extra={"method": method},
                rule="R-signin",
            )
        )
        tx.identity.touch_device(device.device_id, now)
        return bodies.Session(token, device.user_id, device.device_id, expires_at)

    async def authenticate(self, request: ProvedRequest) -> Authenticated:
        """Who asks. Uses up the proof: the same one is refused a second time.

        Raises: NotAuthenticated, whatever is wrong; member `check` says what, where the device can heal it.
        """
        token_hash = hash_token(request.token)
        found = await self._store.read(lambda view: find_session(view, token_hash))
        if found is None:
            raise NotAuthenticated
        wanted = ProofRequest(request.method, request.uri, self._clock.now(), request.token, request.nonce)
        try:
            proof = verify_proof(request.proof, wanted, found.device.api_key)
        except NotAuthenticated as error:
            await self._record_refusal(found, str(error.members.get("check", "")))
            raise
        return await self._store.write(
            lambda tx: self.admit(tx, found, proof, is_stream=bool(request.nonce)),
            lambda error: self._refusal(found, error),
        )

    async def end_session(self, who: Authenticated) -> None:
        """Sign out. Whoever listens in `on_session_ended` hears of it once it is durable."""
        await self._store.write(lambda tx: self._end(tx, who))
        for call in self.on_session_ended:
            call(who)

    def see(self, device_id: DeviceId, now: int) -> None:
        """The device showed a sign of life (a frame on its stream). `touch_all` writes it, while the stream is open."""
        self._seen[device_id] = now

    async def touch_all(self, device_ids: Iterable[DeviceId]) -> None:
        """An open stream is a sign of life also when nothing is said on it: write what is due, a part at a time."""
        now = self._clock.now()
        due = [each for each in device_ids if now - self._written.get(each, 0) >= TOUCH_SECONDS][:TOUCHED_AT_ONCE]
        self._written |= dict.fromkeys(due, now)
        self._seen |= dict.fromkeys(due, now)
        if due:
            await self._store.write(lambda tx: _touch(tx, due, now))

    def forget(self, device_id: DeviceId) -> None:
        """Drop what is held in memory about a device whose stream closed for good or which was revoked."""
        self._seen.pop(device_id, None)
        self._written.pop(device_id, None)

    # --- inside a transaction -----------------------------------------------------------------

    def admit(self, tx: Change, found: FoundSession, proof: Proof, is_stream: bool = False) -> Authenticated:
        """The second look, in the transaction that uses the proof up: nothing may have ended meanwhile."""
        now = self._clock.now()
        session, device = found.session, found.device
        if tx.identity.find_session(session.token_hash) is None:
            raise NotAuthenticated(check="session.ended")
        last_sign = max(session.created_at, device.last_seen_at, self._seen.get(device.device_id, 0))
        if now >= session.expires_at or now - last_sign >= self._settings.idle_seconds:
            raise NotAuthenticated(check="session.expired")
        if not tx.identity.use_proof(hash_proof(proof), proof.issued_at + 2 * SKEW_SECONDS + 1):
            raise NotAuthenticated(check="dpop.replay")
        if now - device.last_seen_at >= TOUCH_SECONDS:
            tx.identity.touch_device(device.device_id, now)
        number = tx.watch.count_stream(device.device_id) if is_stream else 0
        return Authenticated(_subject(found), session.token_hash, session.expires_at, number)

    def _end(self, tx: Change, who: Authenticated) -> None:
        tx.identity.end_session(who.token_hash)
        tx.append_audit(
            AuditEvent(
                name=EventName.LOGOUT,
                at=self._clock.now_ms(),
                actor_user=who.subject.user_id,
                actor_device=who.subject.device_id,
                actor_role=who.subject.role,
                object_type=ObjectType.SESSION,
                rule="R-session-end",
            )
        )

    def _refusal(self, found: FoundSession, error: CurbsideError) -> AuditEvent:
        check = str(error.members.get("check", error.code))
        name = EventName.SESSION_EXPIRED if check == "session.expired" else EventName.ACCESS_DENIED
        return AuditEvent(
            name=name,
            at=self._clock.now_ms(),
            actor_user=found.user.user_id,
            actor_device=found.device.device_id,
            actor_role=found.user.role,
            object_type=ObjectType.SESSION,
            outcome=Outcome.REFUSED,
            reason=check,
        )

    async def _record_refusal(self, found: FoundSession, check: str) -> None:
        event = self._refusal(found, NotAuthenticated(check=check))
        await self._store.write(lambda tx: tx.append_audit(event))


def hash_token(token: str) -> bytes:
    """What the server keeps of a token."""
    return compute_hash("sha256", token.encode())


def hash_proof(proof: Proof) -> bytes:
    """What tells one proof from all others: its key and its jti."""
    return compute_hash("sha256", proof.public_key + proof.jti.encode())


def parse_authorization(header: str) -> str:
    """The token out of `Authorization: DPoP <token>`.

    Raises: NotAuthenticated.
    """
    if not header.startswith(SCHEME):
        raise NotAuthenticated
    return header[len(SCHEME) :]


def find_session(view: View, token_hash: bytes) -> FoundSession | None:
    """The session of a token, if its device is active."""
    session = view.identity.find_session(token_hash)
    if session is None:
        return None
    device, user = view.identity.find_device(session.device_id), view.identity.find_user(session.user_id)
    if device is None or user is None or device.revoked_at:
        return None
    return FoundSession(session, device, user)


def _subject(found: FoundSession) -> Subject:
    return Subject(found.user.user_id, found.device.device_id, Role(found.user.role))


def _touch(tx: Change, device_ids: Iterable[DeviceId], now: int) -> None:
    for device_id in device_ids:
        tx.identity.touch_device(device_id, now)
