"""Real keys, certificates, vaults and engines, and nothing else: no server, no network. The test is the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from curbside.client.effects import Effect, Notice, PostCommit, SendFrame
from curbside.client.engine import Engine
from curbside.client.groups import Groups
from curbside.client.vault import Vault
from curbside.crypto.random import random_bytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.x509 import (
    Issuer,
    make_authority,
    make_device_certificate,
    make_enrolment,
    make_user_certificate,
)
from curbside.errors import CurbsideError
from curbside.ids import ConversationId, DeviceId, UserId, decode_base64url, encode_id
from curbside.mls.extensions import ExternalSender
from curbside.mls.group import CommitRequest
from curbside.mls.key_package import OwnLeaf
from curbside.mls.nodes import CREDENTIAL_X509, Capabilities, Credential
from curbside.policy.validator import OrganizationValidator
from curbside.wire import content, frames
from curbside.wire.group_policy import GROUP_POLICY, GroupPolicy

NOW = 1_790_000_000
PASSPHRASE = "violet kettle marching 47 otters"


@dataclass
class House:
    """An organisation: its authority and its delivery service's key."""

    folder: Path
    authority: Issuer = field(default_factory=lambda: make_authority("Sankt Elsewhere", NOW))
    delivery: Signer = field(default_factory=lambda: Signer("ed25519", generate_signature_key("ed25519")))

    def validator(self) -> OrganizationValidator:
        """What everybody pinned at sign-up."""
        sender = ExternalSender(self.delivery.public, Credential.basic(b"delivery"))
        return OrganizationValidator(self.authority.certificate.raw, sender.encode())

    def person(self, name: str, now: int = NOW) -> Colleague:
        """Somebody who signed up."""
        return Colleague(self, name, now)


class Colleague:
    """One person's device. Frames that it wants to send, and notices, wait in `effects`."""

    def __init__(self, house: House, name: str, now: int) -> None:
        self.name, self.now = name, now
        self.user_id = UserId(encode_id(random_bytes(16)))
        self.device_id = DeviceId(encode_id(random_bytes(16)))
        enrolment = make_enrolment(house.authority, self.user_id, "physician", now + 3600, now)
        user_key, device_key = generate_signature_key("ed25519"), generate_signature_key("ed25519")
        user = make_user_certificate(enrolment, Signer("ed25519", user_key).public, name, now)
        public = Signer("ed25519", device_key).public
        device = make_device_certificate(Issuer(user, user_key), public, f"{name}'s phone", self.device_id, now)
        self.leaf = OwnLeaf(
            Credential.x509(device.raw, user.raw, enrolment.certificate.raw),
            device_key,
            Capabilities(suites=(1, 2), extensions=(GROUP_POLICY,), credentials=(CREDENTIAL_X509,)),
        )
        self.vault = Vault.create(house.folder / f"{name}.vault", PASSPHRASE)
        self.groups = Groups(self.vault, self.leaf, house.validator())
        self.engine = Engine(self.vault, self.groups, self.user_id, self.device_id)
        self.effects: list[Effect] = []
        self._position = 0

    @property
    def now_ms(self) -> int:
        return self.now * 1000

    def caught_up(self) -> None:
        """The server says that everything was sent."""
        self.effects += self.engine.connected()
        self.effects += self.engine.received(frames.CaughtUp(), self.now_ms)

    def hear(self, *items: frames.Entry) -> list[Effect]:
        """Entries of the log."""
        effects = self.engine.received(frames.Entries(list(items)), self.now_ms)
        self.effects += effects
        return effects

    def welcome(self, conversation: str, sequence: int, payload: bytes) -> list[Effect]:
        """A Welcome in the device's queue."""
        self._position += 1
        item = frames.QueueItem(self._position, frames.QUEUE_WELCOME, conversation, sequence, payload)
        effects = self.engine.received(frames.QueueItems([item]), self.now_ms)
        self.effects += effects
        return effects

    def key_package(self) -> bytes:
        """A fresh one."""
        return self.engine.make_key_packages(1, self.now)[0]

    def create(self, policy: GroupPolicy, title: str = "") -> ConversationId:
        """A conversation with only this device in it."""
        return ConversationId(self.engine.create(policy, title, self.now_ms).conversation_id)

    def commit(self, conversation: str, request: CommitRequest, sequence: int) -> tuple[frames.Entry, bytes]:
        """Stage a commit: its entry and its Welcome."""
        (effect,) = self.engine.commit(ConversationId(conversation), request, self.now_ms)
        assert isinstance(effect, PostCommit)
        body = effect.request
        entry = frames.Entry(
            conversation,
            sequence,
            frames.KIND_COMMIT,
            decode_base64url(body.message_id),
            self.now_ms,
            decode_base64url(body.commit),
        )
        return entry, decode_base64url(body.welcome) if body.welcome else b""

    def say(self, conversation: str, message: content.Message | str, sequence: int) -> frames.Entry:
        """Write something that the log takes at `sequence`: its entry for the others."""
        written = content.text(message) if isinstance(message, str) else message
        _, effects = self.engine.write(ConversationId(conversation), written, self.now_ms)
        self.effects += effects
        (send,) = [e.frame for e in effects if isinstance(e, SendFrame) and isinstance(e.frame, frames.Send)]
        stored = frames.Stored([frames.StoredItem(send.request, sequence, self.now_ms)])
        self.effects += self.engine.received(stored, self.now_ms)
        return frames.Entry(
            conversation, sequence, frames.KIND_APPLICATION, send.message_id, self.now_ms, send.envelope
        )

    def texts(self, conversation: str) -> list[str]:
        """What the person reads."""
        rows = self.vault.rows.messages(conversation, limit=1000)
        return [content.body_text(content.decode(row.content)) for row in rows if row.content]

    def alarm(self, conversation: str) -> str:
        """Why the conversation stopped; "" while it goes on."""
        return self.vault.rows.get_conversation(conversation).alarm

    def close(self) -> None:
        """Lock the vault."""
        self.vault.close()


def refusals(effects: list[Effect]) -> list[CurbsideError]:
    """What the person is told."""
    return [effect.error for effect in effects if isinstance(effect, Notice)]


def gather(founder: Colleague, others: list[Colleague], policy: GroupPolicy, title: str = "") -> ConversationId:
    """A conversation in which everybody is caught up; its commit was entry 1."""
    conversation = founder.create(policy, title)
    request = CommitRequest(adds=tuple(other.key_package() for other in others))
    entry, welcome = founder.commit(conversation, request, 1)
    founder.hear(entry)
    for other in others:
        other.welcome(conversation, 1, welcome)
    for each in (founder, *others):
        each.caught_up()
    return conversation
