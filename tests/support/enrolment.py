"""People who really sign up: certificates, OPAQUE and proofs as a client makes them, against the real services."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curbside.audit.events import AuditEvent
from curbside.clock import ManualClock
from curbside.crypto import opaque
from curbside.crypto.jose import ProofRequest, make_proof, sign_api_key
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.x509 import Issuer, make_authority, make_device_certificate, make_enrolment, make_user_certificate
from curbside.ids import DeviceId, InviteId, UserId, decode_base64url, encode_base64url, encode_id
from curbside.mls.key_package import OwnLeaf, make_key_package
from curbside.mls.nodes import CREDENTIAL_X509, Capabilities, Credential
from curbside.policy.access import Subject
from curbside.policy.validator import OrganizationValidator
from curbside.server.audit_service import AuditService, AuditSettings, parse_records
from curbside.server.devices import DeviceService
from curbside.server.directory import DirectoryService
from curbside.server.identity import IdentityService, ProvedCall
from curbside.server.invites import InviteService
from curbside.server.key_packages import KeyPackageService, KeyPackageVerifier
from curbside.server.keys import ServerKeys, prepare_keys
from curbside.server.sessions import Authenticated, ProvedRequest, SessionService, SessionSettings
from curbside.server.store.sqlite import SqliteStore, open_sqlite_store
from curbside.wire import bodies
from curbside.wire.group_policy import GROUP_POLICY

ORIGIN = "https://curbside.example.org"
START = 1_790_000_000
PASSPHRASE = "kettle orbit walnut seven"
DAY = 86_400


@dataclass
class Newcomer:
    """A person and device before and after sign-up. Fields may be changed by a test before `signup_body`."""

    invite_id: InviteId
    user_id: UserId
    role: str
    enrolment: Issuer
    name: str
    device_id: DeviceId = field(default_factory=lambda: DeviceId(encode_id(random_bytes(16))))
    user_key: SecretBytes = field(default_factory=lambda: generate_signature_key("ed25519"))
    device_key: SecretBytes = field(default_factory=lambda: generate_signature_key("ed25519"))
    api_key: SecretBytes = field(default_factory=lambda: generate_signature_key("ed25519"))
    passphrase: str = PASSPHRASE
    session: bodies.Session | None = None
    chain: tuple[bytes, bytes, bytes] = (b"", b"", b"")

    def make_chain(self, now: int) -> None:
        """User and device certificates."""
        user = make_user_certificate(self.enrolment, Signer("ed25519", self.user_key).public, self.name, now)
        public = Signer("ed25519", self.device_key).public
        device = make_device_certificate(Issuer(user, self.user_key), public, "ward phone", self.device_id, now)
        self.chain = (device.raw, user.raw, self.enrolment.certificate.raw)

    def key_package(self, now: int, suite: int = 1, seconds: int = DAY) -> str:
        """A new key package of this device, base64url."""
        leaf = OwnLeaf(
            Credential.x509(*self.chain),
            self.device_key,
            Capabilities(suites=(1, 2), extensions=(GROUP_POLICY,), credentials=(CREDENTIAL_X509,)),
        )
        return encode_base64url(make_key_package(leaf, suite, (now - 300, now + seconds)).public)

    def signup_body(self, now: int, record: bytes, packages: int = 2) -> bodies.SignupFinish:
        """What sign-up sends."""
        self.make_chain(now)
        api_public = Signer("ed25519", self.api_key).public
        return bodies.SignupFinish(
            invite_id=self.invite_id,
            opaque_record=encode_base64url(record),
            user_certificate=encode_base64url(self.chain[1]),
            device=bodies.NewDevice(
                self.device_id,
                encode_base64url(self.chain[0]),
                encode_base64url(api_public),
                encode_base64url(sign_api_key(self.device_key, self.device_id, api_public)),
            ),
            key_packages=[self.key_package(now) for _ in range(packages)],
            last_resort_key_package=self.key_package(now),
        )

    def call(self, path: str, now: int, key: SecretBytes | None = None) -> ProvedCall:
        """A proof without a token."""
        uri = ORIGIN + path
        return ProvedCall(uri, make_proof(key or self.api_key, ProofRequest("POST", uri, now)))

    def request(self, now: int, method: str = "GET", path: str = "/v1/devices", **changes: Any) -> ProvedRequest:
        """An authenticated request. changes: `key`, `token`, `signed_uri`, `signed_method`, `signed_token`."""
        assert self.session is not None
        token = changes.get("token", self.session.token)
        wanted = ProofRequest(
            changes.get("signed_method", method),
            changes.get("signed_uri", ORIGIN + path),
            now,
            changes.get("signed_token", token),
        )
        return ProvedRequest(method, ORIGIN + path, token, make_proof(changes.get("key", self.api_key), wanted))


class Hospital:
    """The services on a store in memory, with a clock that the test moves."""

    def __init__(self, store: SqliteStore, clock: ManualClock, authority: Issuer, keys: ServerKeys) -> None:
        self.store, self.clock, self.authority, self.keys = store, clock, authority, keys
        self.validator = OrganizationValidator(authority.certificate.raw, keys.external_sender.encode())
        verifier = KeyPackageVerifier(clock, self.validator, frozenset({1}))
        self.sessions = SessionService(store, clock, SessionSettings())
        self.invites = InviteService(store, clock, keys)
        self.identity = IdentityService(store, clock, keys, self.sessions, self.validator, verifier)
        self.devices = DeviceService(store, clock)
        self.directory = DirectoryService(store, clock, keys)
        self.key_packages = KeyPackageService(store, clock, verifier)
        self.audit = AuditService(store, clock, keys, AuditSettings())

    @classmethod
    async def open(cls, folder: Path) -> Hospital:
        """A new organisation, its database in `folder`."""
        clock = ManualClock(START)
        authority = make_authority("Sankt Elsewhere", clock.now())
        store = open_sqlite_store(str(folder / "curbside.db"), SecretBytes(random_bytes(32)))
        return cls(store, clock, authority, await prepare_keys(store, authority.certificate.raw))

    async def invite(self, role: str = "nurse", name: str = "Alice Ang", seconds: int = DAY) -> Newcomer:
        """An invite that was deposited."""
        now = self.clock.now()
        user_id = UserId(encode_id(random_bytes(16)))
        enrolment = make_enrolment(self.authority, user_id, role, now + seconds, now)
        newcomer = Newcomer(InviteId(encode_id(random_bytes(16))), user_id, role, enrolment, name)
        await self.invites.create_invite(
            bodies.NewInvite(newcomer.invite_id, encode_base64url(enrolment.certificate.raw))
        )
        return newcomer

    async def register(self, newcomer: Newcomer) -> bytes:
        """The OPAQUE record of the newcomer's passphrase."""
        started = opaque.start_registration(newcomer.passphrase)
        answer = await self.identity.start_signup(
            bodies.SignupStart(newcomer.invite_id, encode_base64url(started.message))
        )
        response = decode_base64url(answer.opaque_response)
        return opaque.finish_registration(newcomer.passphrase, started.state, response).record

    async def sign_up(self, newcomer: Newcomer) -> Newcomer:
        """The whole of sign-up."""
        body = newcomer.signup_body(self.clock.now(), await self.register(newcomer))
        call = newcomer.call("/v1/signup/finish", self.clock.now())
        newcomer.session = await self.identity.finish_signup(body, call)
        return newcomer

    async def join(self, role: str = "nurse", name: str = "Alice Ang") -> Newcomer:
        """Invite and sign-up."""
        return await self.sign_up(await self.invite(role, name))

    async def sign_in(self, person: Newcomer, passphrase: str = PASSPHRASE, key: SecretBytes | None = None) -> None:
        """The whole of sign-in; the session is then in `person.session`."""
        started = opaque.start_login(passphrase)
        answer = await self.identity.start_signin(
            bodies.SigninStart(person.user_id, person.device_id, encode_base64url(started.message)),
            person.call("/v1/signin/start", self.clock.now(), key),
        )
        done = opaque.complete_login(passphrase, started.state, decode_base64url(answer.opaque_response))
        person.session = await self.identity.finish_signin(
            bodies.SigninFinish(answer.signin_id, encode_base64url(done.finalization)),
            person.call("/v1/signin/finish", self.clock.now(), key),
        )

    async def authenticate(self, person: Newcomer, **changes: Any) -> Authenticated:
        """An authenticated request, or what refuses it."""
        return await self.sessions.authenticate(person.request(self.clock.now(), **changes))

    async def subject(self, person: Newcomer) -> Subject:
        """Who a signed-in person is to the services."""
        return (await self.authenticate(person)).subject

    async def events(self) -> list[AuditEvent]:
        """The audit log so far."""
        records = await self.store.read(lambda view: view.audit.read_events(0, 10_000))
        return [listed.event for listed in parse_records(records)]

    async def event_names(self) -> list[str]:
        """Names of the events so far."""
        return [event.name.value for event in await self.events()]

    async def close(self) -> None:
        """End the store."""
        await self.store.close()
