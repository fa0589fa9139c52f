"""A real server in a thread, and people who talk to it over sockets: HTTP with proofs, the stream, MLS groups."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import websockets
from enrolment import DAY, Newcomer
from websockets.asyncio.client import ClientConnection

from curbside.audit.events import AuditEvent
from curbside.clock import Clock, SystemClock
from curbside.crypto import opaque
from curbside.crypto.jose import ProofRequest, make_proof
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.x509 import Issuer, make_authority, make_enrolment
from curbside.ids import InviteId, UserId, decode_base64url, encode_base64url, encode_id
from curbside.mls.group import CommitRequest, Group, GroupSettings, OwnLeaf
from curbside.mls.key_package import KeyPackageSecrets, make_key_package
from curbside.mls.nodes import CREDENTIAL_X509, Capabilities, Credential
from curbside.policy.validator import OrganizationValidator
from curbside.server.app import CurbsideApp, Server, build_server, create_app
from curbside.server.audit_service import parse_records
from curbside.server.config import Config, KeyGiven, Limits
from curbside.server.interface import ROUTES
from curbside.wire import bodies, frames, limits
from curbside.wire.group_policy import GROUP_POLICY, GroupPolicy

_SERVER_FRAMES: msgspec.msgpack.Decoder[frames.ServerFrame] = msgspec.msgpack.Decoder(frames.ServerFrame)
GENEROUS = Limits(
    sends_per_second=1e6,
    sends_burst=10**6,
    requests_per_second=1e6,
    requests_burst=10**6,
    cursors_per_second=1e6,
    cursors_burst=10**6,
    attempts_per_second=1e6,
    attempts_burst=10**6,
    connects_per_second=1e6,
    connects_burst=10**6,
    claims_burst=10**6,
)
WAIT = 20.0


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A server on a port of this machine."""

    def __init__(self, folder: Path, clock: Clock | None = None, **settings: Any) -> None:
        self.clock = clock or SystemClock()
        self.folder = folder
        self.authority: Issuer = make_authority("Sankt Elsewhere", self.clock.now())
        self.key = SecretBytes(random_bytes(32))
        port = free_port()
        data = folder / "data"
        data.mkdir(exist_ok=True)
        (data / "authority.der").write_bytes(self.authority.certificate.raw)
        self.url = f"http://127.0.0.1:{port}"
        given: dict[str, Any] = {
            "data_folder": data,
            "public_urls": (self.url, f"http://localhost:{port}"),
            "database_key": KeyGiven(self.key),
            "port": port,
            "limits": GENEROUS,
            "log_level": "error",
        }
        self.config = Config(**(given | settings))
        self.routes = ROUTES
        self.app: CurbsideApp
        self.server: Server
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> Running:
        """Serve until `stop`."""
        self.app = create_app(self.config, self.clock, self.routes)
        self.server = build_server(self.config, self.app)
        ready = threading.Event()

        def run() -> None:
            async def serve() -> None:
                self._loop = asyncio.get_running_loop()
                ready.set()
                await self.server.serve()

            with contextlib.suppress(SystemExit):  # uvicorn's way to say that start-up failed
                asyncio.run(serve())

        self._thread = threading.Thread(target=run, name="server")
        self._thread.start()
        ready.wait(WAIT)
        while not self.server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the server did not start")
            self._thread.join(0.01)
        return self

    @classmethod
    def again(cls, other: Running) -> Running:
        """A second server on the same configuration."""
        second = cls.__new__(cls)
        second.__dict__.update(other.__dict__, _thread=None)
        return second

    def join(self) -> None:
        """Wait for a server that ends by itself."""
        if self._thread is not None:
            self._thread.join(WAIT)

    def stop(self) -> None:
        """Shut down as on SIGTERM."""
        if self._thread is not None:
            self.server.should_exit = True
            self._thread.join(WAIT)
            assert not self._thread.is_alive()
            self._thread = None

    def call(self, make: Callable[[], Any]) -> Any:
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(WAIT)

    def validator(self) -> OrganizationValidator:
        """What clients of this organisation check with."""
        assert self.app.services is not None
        return OrganizationValidator(self.authority.certificate.raw, self.app.services.keys.external_sender.encode())

    def events(self) -> list[AuditEvent]:
        """The audit log so far."""
        services = self.app.services
        assert services is not None
        records = self.call(lambda: services.store.read(lambda view: view.audit.read_events(0, 100_000)))
        return [listed.event for listed in parse_records(records)]


@dataclass
class Person:
    """Somebody with one device, connected to a running server."""

    running: Running
    newcomer: Newcomer
    http: httpx.AsyncClient
    packages: list[KeyPackageSecrets] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)

    @classmethod
    async def join(cls, running: Running, name: str = "Alice Ang", role: str = "nurse") -> Person:
        """Invite and sign-up, over HTTP."""
        now = running.clock.now()
        user_id = UserId(encode_id(random_bytes(16)))
        enrolment = make_enrolment(running.authority, user_id, role, now + DAY, now)
        newcomer = Newcomer(InviteId(encode_id(random_bytes(16))), user_id, role, enrolment, name)
        person = cls(running, newcomer, httpx.AsyncClient(base_url=running.url, timeout=WAIT))
        invite = bodies.NewInvite(newcomer.invite_id, encode_base64url(enrolment.certificate.raw))
        await person.post("/v1/invites", invite, proof=False)
        started = opaque.start_registration(newcomer.passphrase)
        start = bodies.SignupStart(newcomer.invite_id, encode_base64url(started.message))
        answer = await person.post("/v1/signup/start", start, proof=False)
        response = decode_base64url(answer.json()["opaque_response"])
        record = opaque.finish_registration(newcomer.passphrase, started.state, response).record
        body = newcomer.signup_body(now, record, packages=0)
        person.packages = [person.make_package() for _ in range(2)]
        body = msgspec.structs.replace(
            body, key_packages=[encode_base64url(package.public) for package in person.packages]
        )
        session = await person.post("/v1/signup/finish", body)
        newcomer.session = msgspec.json.decode(session.content, type=bodies.Session)
        return person

    @property
    def device_id(self) -> str:
        """The device's id."""
        return self.newcomer.device_id

    @property
    def token(self) -> str:
        """The session's token; "" before sign-up."""
        return self.newcomer.session.token if self.newcomer.session else ""

    def leaf(self) -> OwnLeaf:
        """This device in a group."""
        capabilities = Capabilities(suites=(1, 2), extensions=(GROUP_POLICY,), credentials=(CREDENTIAL_X509,))
        return OwnLeaf(Credential.x509(*self.newcomer.chain), self.newcomer.device_key, capabilities)

    def make_package(self) -> KeyPackageSecrets:
        """A new key package, whose secrets stay here."""
        now = self.running.clock.now()
        return make_key_package(self.leaf(), 1, (now - 300, now + DAY))

    def proof_headers(self, method: str, path: str) -> dict[str, str]:
        """Authorization and DPoP of a request."""
        uri = self.running.url + path.partition("?")[0]
        proof = make_proof(self.newcomer.api_key, ProofRequest(method, uri, self.running.clock.now(), self.token))
        return {"dpop": proof} | ({"authorization": f"DPoP {self.token}"} if self.token else {})

    async def request(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        proof: bool = True,
    ) -> httpx.Response:
        """Any request, whatever the answer."""
        sent = {"content-type": "application/json"} | (headers or {})
        if proof:
            sent |= self.proof_headers(method, path)
        return await self.http.request(method, path, content=content, headers=sent)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """A request that succeeds."""
        response = await self.request("GET", path, **options)
        assert response.status_code < 400, response.text
        return response

    async def post(self, path: str, body: msgspec.Struct | None = None, **options: Any) -> httpx.Response:
        """A request that succeeds."""
        content = msgspec.json.encode(body) if body is not None else None
        response = await self.request("POST", path, content, **options)
        assert response.status_code < 400, response.text
        return response

    async def problem(self, method: str, path: str, body: msgspec.Struct | bytes | None = None, **options: Any) -> Any:
        """The problem that a request ends in."""
        content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        response = await self.request(method, path, content, **options)
        assert response.status_code >= 400, response.text
        assert response.headers["content-type"] == "application/problem+json"
        found = response.json()
        assert found["status"] == response.status_code
        assert found["type"] == "urn:curbside:problem:" + found["type"].rpartition(":")[2]
        return found

    # --- conversations ------------------------------------------------------------------------

    async def begin(self) -> Group:
        """A new group conversation of this device alone."""
        validator = self.running.validator()
        policy = GroupPolicy(1, "group", (self.newcomer.user_id,))
        group = Group.create(
            random_bytes(16),
            self.leaf(),
            1,
            validator.group_extensions(policy),
            GroupSettings(),
            validator,
            self.running.clock.now(),
        )
        body = bodies.NewConversation(encode_id(group.group_id), encode_base64url(group.group_info()))
        await self.post("/v1/conversations", body)
        return group

    async def add(self, group: Group, *others: Person) -> bodies.Appended:
        """Add people with a commit."""
        packages: list[bytes] = []
        for other in others:
            claimed = await self.post(f"/v1/people/{other.newcomer.user_id}/key-packages/claim")
            found = msgspec.json.decode(claimed.content, type=bodies.ClaimedKeyPackages)
            packages += [decode_base64url(device.key_package) for device in found.devices]
        staged = group.stage_commit(CommitRequest(adds=tuple(packages)), self.running.clock.now())
        appended = await self.commit(group, staged.commit, staged.welcome)
        group.commit_accepted(staged)
        return appended

    async def commit(self, group: Group, commit: bytes, welcome: bytes | None = None) -> bodies.Appended:
        """Send a commit of the group's present epoch."""
        body = self.commit_body(group, commit, welcome)
        answer = await self.post(f"/v1/conversations/{encode_id(group.group_id)}/commits", body)
        return msgspec.json.decode(answer.content, type=bodies.Appended)

    def commit_body(self, group: Group, commit: bytes, welcome: bytes | None = None) -> bodies.NewCommit:
        """The body of a commit."""
        return bodies.NewCommit(
            encode_base64url(random_bytes(16)),
            group.epoch,
            encode_base64url(commit),
            encode_base64url(welcome) if welcome is not None else None,
        )

    def welcome(self, item: frames.QueueItem) -> Group:
        """Join by a Welcome out of the queue."""
        return Group.join(item.payload, self.packages, self.running.validator(), self.running.clock.now())

    async def connect(self, **options: Any) -> Wire:
        """An authenticated stream."""
        return await Wire.open(self, **options)

    async def close(self) -> None:
        """Hang up, streams too."""
        for wire in self.wires:
            await wire.close()
        await self.http.aclose()


@dataclass
class Wire:
    """One stream."""

    person: Person
    socket: ClientConnection
    ready: frames.Ready | None = None
    closing: frames.Closing | None = None
    requests: int = 0

    @classmethod
    async def open(cls, person: Person, token: str | None = None, **changes: Any) -> Wire:
        """Connect and authenticate. changes: `nonce`, `uri`, `key` of the proof."""
        url = "ws" + person.running.url.removeprefix("http") + "/v1/stream"
        wire = cls(person, await websockets.connect(url, max_size=limits.FRAME_BYTES, proxy=None, compression=None))
        person.wires.append(wire)
        challenge = await wire.receive(frames.Challenge)
        token = person.token if token is None else token
        proof = make_proof(
            changes.get("key", person.newcomer.api_key),
            ProofRequest(
                "GET",
                changes.get("uri", person.running.url + "/v1/stream"),
                person.running.clock.now(),
                token,
                changes.get("nonce", challenge.nonce),
            ),
        )
        await wire.send(frames.Authenticate(token, proof, frames.PROTOCOL))
        first = await wire.receive()
        if isinstance(first, frames.Ready):
            wire.ready = first
        else:
            wire.closing = first
        return wire

    async def send(self, frame: frames.ClientFrame) -> None:
        """Send one frame."""
        await self.socket.send(msgspec.msgpack.encode(frame))

    async def receive(self, kind: type[Any] | None = None) -> Any:
        """The next frame, which is of this kind."""
        data = await asyncio.wait_for(self.socket.recv(), WAIT)
        assert isinstance(data, bytes)
        frame = _SERVER_FRAMES.decode(data)
        assert kind is None or isinstance(frame, kind), frame
        return frame

    async def sync(self, cursors: dict[str, int] | None = None, queue: int = 0) -> list[Any]:
        """Sync, and all frames up to CaughtUp."""
        await self.send(frames.Sync(cursors or {}, queue))
        found: list[Any] = []
        while not isinstance(frame := await self.receive(), frames.CaughtUp):
            found.append(frame)
        return found

    async def say(self, group: Group, text: bytes, message_id: bytes | None = None) -> Any:
        """Encrypt and send; the answer: Stored's item, or Refused. Other frames that come first are lost."""
        message_id = message_id or random_bytes(16)
        return await self.send_envelope(group, message_id, group.epoch, group.encrypt(text, message_id))

    async def send_envelope(self, group: Group, message_id: bytes, epoch: int, envelope: bytes) -> Any:
        """Send an envelope as it is."""
        self.requests += 1
        request = self.requests
        await self.send(frames.Send(request, encode_id(group.group_id), message_id, epoch, envelope))
        return await self.answer(request)

    async def answer(self, request: int) -> Any:
        """The answer to a request."""
        while True:
            frame = await self.receive()
            if isinstance(frame, frames.Refused) and frame.request == request:
                return frame
            if isinstance(frame, frames.Closing):
                return frame
            if isinstance(frame, frames.Stored):
                for item in frame.items:
                    if item.request == request:
                        return item

    async def close(self) -> None:
        """Hang up."""
        await self.socket.close()
