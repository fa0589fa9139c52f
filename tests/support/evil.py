"""EVIL: a server that lies. The real application behind a middleman that rewrites what devices are told, and the
attackers whose material it uses: a ghost device, a member who ignores the rules.

The middleman holds what a hostile operator holds: every answer, every frame, the delivery service's own key. It does
not hold the authority's key, nor any person's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from curbside.client.device import Device
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.x509 import Certificate, Issuer, make_device_certificate, make_enrolment, make_user_certificate
from curbside.ids import DeviceId, UserId, encode_id
from curbside.mls.group import Group
from curbside.mls.key_package import KeyPackageSecrets, OwnLeaf, make_key_package
from curbside.mls.nodes import CREDENTIAL_X509, Capabilities, Credential
from curbside.mls.trust import UnsafeAcceptAll
from curbside.server.app import CurbsideApp, Server, build_server
from curbside.server.config import Config
from curbside.wire import frames
from curbside.wire.group_policy import GROUP_POLICY

DAY = 86_400
GHOST = "Ghost phone"
AnswerRule = Callable[[str, str, str, dict[str, Any]], dict[str, Any] | None]
"""(person, method, path, answer) -> another answer, or None to leave it."""
FrameRule = Callable[[str, Any], list[Any]]
"""(person, frame) -> the frames that go on instead."""

_up: msgspec.msgpack.Decoder[frames.ClientFrame] = msgspec.msgpack.Decoder(frames.ClientFrame)
_down: msgspec.msgpack.Decoder[frames.ServerFrame] = msgspec.msgpack.Decoder(frames.ServerFrame)
_encode = msgspec.msgpack.Encoder().encode


def _leave(_: str, frame: Any) -> list[Any]:
    return [frame]


@dataclass
class Evil:
    """The middleman. Rules may be changed at any time; `be_honest` takes all of them back."""

    answers: list[AnswerRule] = field(default_factory=list)
    down: FrameRule = _leave
    up: FrameRule = _leave
    sent: list[tuple[str, frames.ClientFrame]] = field(default_factory=list)
    _streams: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    def be_honest(self) -> None:
        """From now on everything passes unchanged."""
        self.answers.clear()
        self.down = self.up = _leave

    def middleman(self, app: Any, who: str) -> Any:
        """What stands between this person and the application."""

        async def handle(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await self._http(app, who, (scope, receive, send))
            elif scope["type"] == "websocket":
                await self._stream(app, who, (scope, receive, send))
            else:
                await app(scope, receive, send)

        return handle

    # --- streams -----------------------------------------------------------------------------

    async def push(self, who: str, frame: Any) -> None:
        """Send somebody, by name or by device id, a frame that the application never sent."""
        await self._streams[who](frame)

    def envelopes(self, who: str, conversation: str) -> list[frames.Send]:
        """Everything that somebody's device encrypted and sent to a conversation."""
        return [
            frame
            for name, frame in self.sent
            if name == who and isinstance(frame, frames.Send) and frame.conversation == conversation
        ]

    async def _stream(self, app: Any, who: str, hop: tuple[Any, Any, Any]) -> None:
        scope, receive, send = hop
        waiting: list[Any] = []

        async def push(frame: Any) -> None:
            await send({"type": "websocket.send", "bytes": _encode(frame)})

        async def down(event: Any) -> None:
            if event["type"] == "websocket.send":
                frame = _down.decode(event["bytes"])
                if isinstance(frame, frames.Ready):
                    self._streams[frame.device_id] = push
                for passed in self.down(who, frame):
                    await push(passed)
            else:
                await send(event)

        async def up() -> Any:
            while not waiting:
                event = await receive()
                if event["type"] != "websocket.receive":
                    return event
                frame = _up.decode(event["bytes"])
                self.sent.append((who, frame))
                waiting.extend(self.up(who, frame))
            return {"type": "websocket.receive", "bytes": _encode(waiting.pop(0))}

        self._streams[who] = push
        await app(scope, up, down)

    # --- answers -----------------------------------------------------------------------------

    async def _http(self, app: Any, who: str, hop: tuple[Any, Any, Any]) -> None:
        scope, receive, send = hop
        start: dict[str, Any] = {}
        body = b""

        async def collect(event: Any) -> None:
            nonlocal start, body
            if event["type"] == "http.response.start":
                start = event
                return
            body += event.get("body", b"")
            if not event.get("more_body", False):
                rewritten = self._rewrite(who, scope, start, body)
                headers = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
                headers.append((b"content-length", str(len(rewritten)).encode()))
                await send({**start, "headers": headers})
                await send({"type": "http.response.body", "body": rewritten})

        await app(scope, receive, collect)

    def _rewrite(self, who: str, scope: Any, start: dict[str, Any], body: bytes) -> bytes:
        kinds = [value for name, value in start["headers"] if name.lower() == b"content-type"]
        if not kinds or not kinds[0].startswith(b"application/json"):
            return body
        for rule in self.answers:
            changed = rule(who, scope["method"], scope["path"], msgspec.json.decode(body))
            if changed is not None:
                return msgspec.json.encode(changed)
        return body


def build_evil_server(config: Config, app: CurbsideApp, evil: Evil) -> Server:
    """The server with the middleman in front of its application; streams come to him over ASGI."""
    server = build_server(config, app)
    server.config.app = evil.middleman(app, "")
    server.config.ws = "websockets-sansio"
    return server


# --- attackers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ghost:
    """A device that should not be there, with everything it takes to be one."""

    leaf: OwnLeaf
    secrets: KeyPackageSecrets

    @property
    def package(self) -> bytes:
        """Its key package."""
        return self.secrets.public


def make_user(authority: Issuer, user_id: UserId, name: str, now: int) -> tuple[Issuer, Certificate]:
    """A person's root key under an authority, and the enrolment certificate it came by."""
    enrolment = make_enrolment(authority, user_id, "physician", now + DAY, now)
    key = generate_signature_key("ed25519")
    return Issuer(
        make_user_certificate(enrolment, Signer("ed25519", key).public, name, now), key
    ), enrolment.certificate


def make_ghost(
    user: Issuer, enrolment: Certificate, now: int, *, signed_by: SecretBytes | None = None, made_at: int | None = None
) -> Ghost:
    """A device of this user. signed_by: a key that is not the user's. made_at: when its certificate began."""
    key = generate_signature_key("ed25519")
    issuer = Issuer(user.certificate, signed_by or user.key)
    made = now if made_at is None else made_at
    device = make_device_certificate(
        issuer, Signer("ed25519", key).public, GHOST, DeviceId(encode_id(random_bytes(16))), made
    )
    leaf = make_leaf((device.raw, user.certificate.raw, enrolment.raw), key)
    return Ghost(leaf, make_key_package(leaf, 1, (now - 300, now + DAY)))


def make_leaf(chain: tuple[bytes, ...], key: SecretBytes) -> OwnLeaf:
    """What a device shows of itself in a group."""
    capabilities = Capabilities(suites=(1, 2), extensions=(GROUP_POLICY,), credentials=(CREDENTIAL_X509,))
    return OwnLeaf(Credential.x509(*chain), key, capabilities)


def take_group(device: Device, conversation: str) -> Group:
    """A member's group in the hands of somebody who keeps no rules: the same keys, a validator that accepts all."""
    return Group.load(device.vault.rows.get_conversation(conversation).mls, UnsafeAcceptAll())


def make_entry(
    conversation: str, sequence: int, kind: int, envelope: bytes, message_id: bytes | None = None, at: int = 0
) -> frames.Entry:
    """An entry of a log, as the server writes it."""
    return frames.Entry(conversation, sequence, kind, message_id or random_bytes(16), at, envelope)
