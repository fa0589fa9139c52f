"""The stage of the EVIL tests: three people in two groups, a server that lies about one of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from evil import Evil, Ghost, make_entry, make_ghost, make_leaf, make_user
from ward import Ward, eventually, sees

from curbside.client.device import Device
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.x509 import Issuer, make_authority, parse_certificate
from curbside.errors import CurbsideError
from curbside.ids import UserId, encode_base64url
from curbside.mls.key_package import OwnLeaf
from curbside.wire import frames

PEOPLE = ("alice", "bob", "mallory", "erin")


@dataclass
class Scene:
    """Alice, Bob and Mallory in two groups that Alice administers: one is attacked, one is left alone."""

    ward: Ward
    evil: Evil
    alice: Device
    bob: Device
    mallory: Device
    attacked: str = ""
    spared: str = ""

    @property
    def now(self) -> int:
        return self.ward.clock.now()

    def position(self, device: Device) -> int:
        """The next sequence number that this device expects in the attacked conversation."""
        return device.vault.rows.get_conversation(self.attacked).cursor + 1

    async def push(self, name: str, kind: int, envelope: bytes, **options: Any) -> None:
        """Put an entry into the attacked conversation's log, for one device only."""
        place = options.pop("sequence", None) or self.position(self.ward.devices[name])
        entry = make_entry(self.attacked, place, kind, envelope, at=self.ward.clock.now_ms(), **options)
        await self.evil.push(name, frames.Entries([entry]))

    async def stopped(self, name: str) -> dict[str, Any]:
        """Wait until somebody's device stops the attacked conversation; the alarm as it is kept."""
        device = self.ward.devices[name]
        alarm = await eventually(lambda: device.conversation(self.attacked).alarm)
        found = json.loads(alarm)
        assert isinstance(found, dict)
        code = found["code"]
        await eventually(lambda: [e for e in self.ward.notices(name) if e.error is not None and e.error.code == code])
        return found

    async def says_nothing(self, name: str) -> None:
        """After an alarm nothing is encrypted to the conversation any more, whatever its person does."""
        device = self.ward.devices[name]
        before = len(self.evil.envelopes(name, self.attacked))
        message = await device.send_text(self.attacked, "this must not leave the device")
        await device.mark_read(self.attacked)
        with pytest.raises(CurbsideError) as refusal:
            await device.wait_until_sent(message, 5)
        assert refusal.value.code == json.loads(device.conversation(self.attacked).alarm)["code"]
        row = device.vault.rows.find_outbox(message)
        assert row is not None
        assert row.envelope == b""
        assert len(self.evil.envelopes(name, self.attacked)) == before

    async def goes_on(self, *names: str) -> None:
        """The server behaves again, and the spared conversation goes on in both directions, through a commit too."""
        self.evil.be_honest()
        talking = [self.ward.devices[name] for name in names or ("alice", "bob", "mallory")]
        await talking[0].refresh_keys(self.spared)
        for speaker in talking:
            text = f"all well, {speaker.name} {encode_base64url(random_bytes(6))}"
            await speaker.send_text(self.spared, text)
            for listener in talking:
                await sees(listener, self.spared, text)


def bob_user(scene: Scene) -> tuple[Issuer, Any]:
    """Bob's own root key: an old device of his, or a thief, has it."""
    rows = scene.bob.vault.rows
    user = parse_certificate(rows.get_certificate("user"))
    return Issuer(user, SecretBytes(rows.get_secret("user_key"))), parse_certificate(rows.get_certificate("enrolment"))


def stranger(scene: Scene, user_id: UserId | None = None) -> Ghost:
    """A device under an authority that the attacker made: same organisation's name, same person's id."""
    authority = make_authority("Sankt Elsewhere", scene.now)
    user, enrolment = make_user(authority, user_id or scene.bob.user_id, "bob", scene.now)
    return make_ghost(user, enrolment, scene.now)


def own_leaf(device: Device, key: SecretBytes | None = None) -> OwnLeaf:
    """A device's own leaf, with the key that it has or another."""
    rows = device.vault.rows
    chain = tuple(rows.get_certificate(name) for name in ("device", "user", "enrolment"))
    return make_leaf(chain, key or SecretBytes(rows.get_secret("device_key")))


@asynccontextmanager
async def open_stage(folder: Path) -> AsyncIterator[Scene]:
    """An organisation of four; three of them are on stage."""
    evil = Evil()
    async with Ward.new(folder, evil.middleman) as ward:
        for name in PEOPLE:
            await ward.sign_up(name)
        alice, bob, mallory = await ward.open_all(PEOPLE[:3])
        yield Scene(ward, evil, alice, bob, mallory)


async def set_scene(stage: Scene) -> Scene:
    """An honest server and two new groups, in each of which everybody has read a line."""
    stage.evil.be_honest()
    for happened in stage.ward.events.values():
        happened.clear()
    others: list[str] = [stage.bob.user_id, stage.mallory.user_id]
    stage.attacked = await stage.alice.start_conversation(others, title="Ward 4")
    stage.spared = await stage.alice.start_conversation(others, title="Ward 5")
    for conversation in (stage.attacked, stage.spared):
        await stage.alice.send_text(conversation, "hello")
        await sees(stage.bob, conversation, "hello")
        await sees(stage.mallory, conversation, "hello")
        await stage.ward.settle(conversation)
    return stage
