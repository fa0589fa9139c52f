"""EVIL: a hostile server changes the log: replays, drops, reorders, splits, swaps and lies. Devices notice.

Each test has a second conversation that the attack leaves alone; in the end the server behaves, and that one goes on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from evil import make_entry, take_group
from scene import Scene, open_stage, set_scene
from ward import eventually, find_text, sees, texts

from curbside.client.device import Device, Message
from curbside.crypto.random import random_bytes
from curbside.mls.group import CommitRequest
from curbside.wire import frames

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with open_stage(tmp_path_factory.mktemp("evil") / "ward") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def scene(stage: Scene) -> Scene:
    return await set_scene(stage)


# --- the log --------------------------------------------------------------------------------


async def marked_messages(scene: Scene, device: Device) -> list[Message]:
    """What a device shows as unreadable, as soon as there is any."""

    def look() -> list[Message]:
        return [m for m in device.messages(scene.attacked) if m.problem]

    found: list[Message] = await eventually(look)
    return found


async def moved_on(scene: Scene, device: Device, epoch: int) -> None:
    """Returns when a device is in the epoch after this one."""
    await eventually(lambda: device.engine.groups.get(scene.attacked).epoch == epoch + 1)


async def captured(scene: Scene, speaker: str, text: str) -> frames.Send:
    """Somebody says something; what left the device."""
    before = len(scene.evil.envelopes(speaker, scene.attacked))
    await scene.ward.devices[speaker].send_text(scene.attacked, text)
    found: list[frames.Send] = await eventually(lambda: scene.evil.envelopes(speaker, scene.attacked)[before:])
    return found[0]


async def said(scene: Scene, text: str) -> frames.Send:
    """Mallory says something; what left her device."""
    await scene.mallory.send_text(scene.attacked, text)
    await sees(scene.alice, scene.attacked, text)
    await sees(scene.bob, scene.attacked, text)
    await scene.ward.settle(scene.attacked)
    return scene.evil.envelopes("mallory", scene.attacked)[-1]


async def test_an_old_entry_again_is_dropped_or_marked_and_never_shown_twice(scene: Scene) -> None:
    send = await said(scene, "give 5 mg")
    place = scene.position(scene.alice)
    await scene.push("alice", frames.KIND_APPLICATION, send.envelope, message_id=send.message_id)
    await scene.push("alice", frames.KIND_APPLICATION, send.envelope, sequence=place + 1)
    marked = await marked_messages(scene, scene.alice)
    assert texts(scene.alice, scene.attacked).count("give 5 mg") == 1
    assert [json.loads(m.problem)["code"] for m in marked] == ["replayed"]
    assert any(e.error is not None and e.error.code == "replayed" for e in scene.ward.notices("alice"))
    await scene.goes_on()


async def test_a_message_under_another_id_is_marked(scene: Scene) -> None:
    """The id is signed: a server that renames a message is found out at once, before anything is replayed."""

    def rename(who: str, frame: Any) -> list[Any]:
        if who != "alice" or not isinstance(frame, frames.Entries):
            return [frame]
        items = [
            e if e.conversation != scene.attacked else make_entry(e.conversation, e.sequence, e.kind, e.envelope)
            for e in frame.items
        ]
        return [frames.Entries(items)]

    scene.evil.down = rename
    await scene.mallory.send_text(scene.attacked, "give 5 mg")
    await sees(scene.bob, scene.attacked, "give 5 mg")
    marked = await marked_messages(scene, scene.alice)
    assert json.loads(marked[0].problem)["members"]["check"] == "client.entry.message_id"
    assert find_text(scene.alice, scene.attacked, "give 5 mg") is None
    await scene.goes_on()


async def test_a_dropped_entry_is_asked_for_again(scene: Scene) -> None:
    lost = scene.position(scene.alice)

    def drop(who: str, frame: Any) -> list[Any]:
        if who != "alice" or not isinstance(frame, frames.Entries):
            return [frame]
        kept = [e for e in frame.items if (e.conversation, e.sequence) != (scene.attacked, lost)]
        return [frames.Entries(kept)] if kept else []

    scene.evil.down = drop
    await scene.bob.send_text(scene.attacked, "first")
    await sees(scene.mallory, scene.attacked, "first")
    await scene.bob.send_text(scene.attacked, "second")
    await sees(scene.mallory, scene.attacked, "second")
    syncs = [f for who, f in scene.evil.sent if who == "alice" and isinstance(f, frames.Sync)]
    await eventually(
        lambda: len([f for who, f in scene.evil.sent if who == "alice" and isinstance(f, frames.Sync)]) > len(syncs)
    )
    assert texts(scene.alice, scene.attacked) == ["hello"]
    assert scene.position(scene.alice) == lost
    scene.evil.be_honest()
    await scene.bob.send_text(scene.attacked, "third")
    await sees(scene.alice, scene.attacked, "third")
    assert texts(scene.alice, scene.attacked) == ["hello", "first", "second", "third"]
    await scene.goes_on()


async def test_reordered_entries_are_put_in_order(scene: Scene) -> None:
    held: list[frames.Entry] = []

    def turn(who: str, frame: Any) -> list[Any]:
        if who != "alice" or not isinstance(frame, frames.Entries) or len(held) >= 3:
            return [frame]
        held.extend(e for e in frame.items if e.conversation == scene.attacked)
        rest = [e for e in frame.items if e.conversation != scene.attacked]
        return [frames.Entries([*rest, *(held[::-1] if len(held) >= 3 else [])])]

    scene.evil.down = turn
    for text in ("one", "two", "three"):
        await scene.bob.send_text(scene.attacked, text)
        await sees(scene.mallory, scene.attacked, text)
    await sees(scene.alice, scene.attacked, "three")
    assert texts(scene.alice, scene.attacked) == ["hello", "one", "two", "three"]
    await scene.goes_on()


async def test_a_split_view_shows_on_both_sides(scene: Scene) -> None:
    """Two commits of one epoch, one for each side: neither can read the other again, and both are told."""
    pairs = (("alice", "bob"), ("bob", "alice"))
    scene.evil.up = lambda _, f: [] if isinstance(f, frames.Send) and f.conversation == scene.attacked else [f]
    epoch = scene.alice.engine.groups.get(scene.attacked).epoch
    for name, _ in pairs:
        staged = take_group(scene.mallory, scene.attacked).stage_commit(CommitRequest(), scene.now)
        await scene.push(name, frames.KIND_COMMIT, staged.commit)
        await moved_on(scene, scene.ward.devices[name], epoch)
    for speaker, listener in pairs:
        device = scene.ward.devices[listener]
        send = await captured(scene, speaker, f"do you read me, {listener}")
        await scene.push(listener, frames.KIND_APPLICATION, send.envelope, message_id=send.message_id)
        marked = await marked_messages(scene, device)
        assert json.loads(marked[-1].problem)["code"] == "decryption_failed"
        assert find_text(device, scene.attacked, f"do you read me, {listener}") is None
    commits = {
        name: take_group(scene.ward.devices[name], scene.attacked).stage_commit(CommitRequest(), scene.now)
        for name in ("alice", "bob")
    }
    for speaker, listener in pairs:
        await scene.push(listener, frames.KIND_COMMIT, commits[speaker].commit)
        assert (await scene.stopped(listener))["code"] == "bad_signature"
    await scene.says_nothing("alice")
    await scene.says_nothing("bob")
    await scene.goes_on()


async def test_another_commit_in_the_place_of_ones_own_stops_the_conversation(scene: Scene) -> None:
    """The server took Alice's commit and shows her, under its id, a forged one."""

    def forge(who: str, frame: Any) -> list[Any]:
        if who != "alice" or not isinstance(frame, frames.Entries):
            return [frame]
        spoil = frames.KIND_COMMIT
        items = [
            make_entry(e.conversation, e.sequence, e.kind, e.envelope[:-1] + bytes([e.envelope[-1] ^ 1]), e.message_id)
            if (e.conversation, e.kind) == (scene.attacked, spoil)
            else e
            for e in frame.items
        ]
        return [frames.Entries(items)]

    scene.evil.down = forge
    refreshing = asyncio.create_task(scene.alice.refresh_keys(scene.attacked))
    alarm = await scene.stopped("alice")
    assert alarm["code"] in ("bad_signature", "rule_broken")
    refreshing.cancel()
    await asyncio.gather(refreshing, return_exceptions=True)
    await scene.says_nothing("alice")
    await scene.goes_on()


async def test_a_commit_called_a_message_moves_nothing(scene: Scene) -> None:
    """A handshake under a wrong kind is refused, and the group stays where it was, in memory too."""
    staged = take_group(scene.mallory, scene.attacked).stage_commit(CommitRequest(), scene.now)
    epoch = scene.alice.engine.groups.get(scene.attacked).epoch
    await scene.push("alice", frames.KIND_APPLICATION, staged.commit)
    marked = await marked_messages(scene, scene.alice)
    assert json.loads(marked[0].problem)["members"]["check"] == "client.entry.kind"
    assert scene.alice.engine.groups.get(scene.attacked).epoch == epoch
    assert take_group(scene.alice, scene.attacked).epoch == epoch
    await scene.goes_on()


async def test_a_message_of_another_conversation_is_marked(scene: Scene) -> None:
    await scene.mallory.send_text(scene.spared, "for the other ward")
    await sees(scene.alice, scene.spared, "for the other ward")
    send = scene.evil.envelopes("mallory", scene.spared)[-1]
    await scene.push("alice", frames.KIND_APPLICATION, send.envelope, message_id=random_bytes(16))
    marked = await marked_messages(scene, scene.alice)
    assert json.loads(marked[0].problem)["code"] == "wrong_group"
    await scene.goes_on()


async def test_a_lie_about_a_stored_message_shows_when_its_number_comes_again(scene: Scene) -> None:
    """A server that says Stored and drops the message: the sender cannot know at once (the message stays "sent" and is
    never "delivered"), but the number that it gave away belongs to somebody else's message sooner or later."""
    number = scene.position(scene.alice)

    def swallow(who: str, frame: Any) -> list[Any]:
        if who == "alice" and isinstance(frame, frames.Send) and frame.conversation == scene.attacked:
            stored = frames.Stored([frames.StoredItem(frame.request, number, scene.ward.clock.now_ms())])
            pushing.append(asyncio.create_task(scene.evil.push("alice", stored)))
            return []
        return [frame]

    pushing: list[asyncio.Task[None]] = []
    scene.evil.up = swallow
    lost = await scene.alice.send_text(scene.attacked, "stop the infusion")
    assert (await scene.alice.wait_until_sent(lost)).sequence == number
    scene.evil.be_honest()
    assert scene.alice.message(lost).delivery == "sent"
    await scene.bob.send_text(scene.attacked, "what was it?")
    alarm = await scene.stopped("alice")
    assert alarm["members"]["check"] == "client.log.changed"
    assert find_text(scene.mallory, scene.attacked, "stop the infusion") is None
    await scene.says_nothing("alice")
    await scene.goes_on()


async def test_a_frame_that_cannot_be_read_spoils_nothing(scene: Scene) -> None:
    await scene.evil.push("alice", frames.Ready("x", "y", 0))
    await eventually(lambda: scene.ward.notices("alice"))
    await scene.goes_on()
