"""Typing and presence: for the other members, at that moment, at a low rate; kept nowhere; switched off by setting."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from running import Person, Running, Wire
from test_delivery import meet
from ward import Ward, eventually, sees

from curbside.client.device import Event
from curbside.ids import encode_id
from curbside.server.node_settings import Signals
from curbside.wire import frames


async def signals_before(wire: Wire, stop: int) -> list[int]:
    """Kinds of all signals up to and with this one."""
    found: list[int] = []
    while not found or found[-1] != stop:
        frame = await wire.receive()
        if isinstance(frame, frames.Signals):
            found += [item.kind for item in frame.items]
    return found


async def test_the_others_see_it_and_oneself_does_not(running: Running, alice: Person, bob: Person) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    name = encode_id(group.group_id)
    before = running.events()
    await alice_wire.send(frames.Signal(name, frames.SIGNAL_TYPING))
    heard = await bob_wire.receive(frames.Signals)
    user, device = alice.newcomer.user_id, alice.device_id
    assert heard.items == [frames.SignalItem(name, user, device, frames.SIGNAL_TYPING, 6000)]
    await bob_wire.send(frames.Signal(name, frames.SIGNAL_HERE))
    first = await alice_wire.receive()
    assert isinstance(first, frames.Signals), "her own does not come back"
    assert first.items[0].device_id == bob.device_id
    assert running.events() == before
    assert await alice_wire.sync({name: 1}) == [], "whoever comes later hears nothing of it"


async def test_who_is_no_member_or_does_not_listen_says_nothing(running: Running, alice: Person, bob: Person) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    name = encode_id(group.group_id)
    carol = await Person.join(running, "Carol Chen")
    carol_wire = await carol.connect()
    await carol_wire.sync({name: 0})
    bob_wire = await bob.connect()  # has named no conversation on this connection
    await bob_wire.sync()
    for wire in (carol_wire, bob_wire):
        await wire.send(frames.Signal(name, frames.SIGNAL_TYPING))
        await wire.sync()
    await bob_wire.sync({name: 1})
    await bob_wire.send(frames.Signal(name, frames.SIGNAL_HERE))
    assert await signals_before(alice_wire, frames.SIGNAL_HERE) == [frames.SIGNAL_HERE]
    await carol.close()


async def test_what_comes_too_often_is_dropped(tmp_path: Path) -> None:
    running = Running(tmp_path, signals=Signals(per_second=0.001, burst=3)).start()
    try:
        alice, bob = await Person.join(running, "Alice Ang"), await Person.join(running, "Bob Berg")
        group, _, alice_wire, bob_wire = await meet(alice, bob)
        name = encode_id(group.group_id)
        for kind in (frames.SIGNAL_TYPING, frames.SIGNAL_STOPPED, frames.SIGNAL_HERE, frames.SIGNAL_AWAY):
            await alice_wire.send(frames.Signal(name, kind))
        assert isinstance(await alice_wire.say(group, b"a message counts apart"), frames.StoredItem)
        heard: list[int] = []
        while not isinstance(frame := await bob_wire.receive(), frames.Entries):
            heard += [item.kind for item in frame.items]
        await bob_wire.send(frames.Sync({}, 0))
        while not isinstance(frame := await bob_wire.receive(), frames.CaughtUp):
            heard += [item.kind for item in frame.items]
        assert heard == [frames.SIGNAL_TYPING, frames.SIGNAL_STOPPED, frames.SIGNAL_HERE]
        await alice.close()
        await bob.close()
    finally:
        running.stop()


@pytest.mark.parametrize("switched_off", ["typing", "presence"])
async def test_either_kind_can_be_switched_off(tmp_path: Path, switched_off: str) -> None:
    running = Running(tmp_path, signals=Signals(**{switched_off: False})).start()
    try:
        alice, bob = await Person.join(running, "Alice Ang"), await Person.join(running, "Bob Berg")
        group, _, alice_wire, bob_wire = await meet(alice, bob)
        off, on = (frames.SIGNAL_TYPING, frames.SIGNAL_HERE)
        if switched_off == "presence":
            off, on = on, off
        for kind in (off, on):
            await alice_wire.send(frames.Signal(encode_id(group.group_id), kind))
        assert await signals_before(bob_wire, on) == [on]
        await alice.close()
        await bob.close()
    finally:
        running.stop()


async def test_a_kind_that_is_not_there_ends_the_connection(alice: Person) -> None:
    wire = await alice.connect()
    await wire.send(msgspec.convert(["signal", "x" * 22, 9], frames.Signal))
    closing = await wire.receive(frames.Closing)
    assert closing.code == "malformed"


async def test_devices_show_and_see_it(tmp_path: Path) -> None:
    async with Ward.new(tmp_path / "ward") as ward:
        for name in ("alice", "bob"):
            await ward.sign_up(name)
        alice, bob = await ward.open_all(("alice", "bob"))
        conversation = await alice.start_conversation([bob.user_id])
        await alice.send_text(conversation, "Are you there?")
        await sees(bob, conversation, "Are you there?")
        await ward.settle(conversation)
        await alice.show_typing(conversation)
        await alice.show_typing(conversation, is_typing=False)
        await alice.show_presence(conversation)
        seen: list[Event] = await eventually(lambda: signals_of(ward, "bob", 3))
        assert [(event.kind, event.seconds) for event in seen] == [("typing", 6), ("typing", 0), ("presence", 30)]
        assert {(event.conversation, event.user_id) for event in seen} == {(conversation, alice.user_id)}
        assert not signals_of(ward, "alice", 1)


def signals_of(ward: Ward, name: str, count: int) -> list[Event]:
    """What somebody's device saw of others, once it is so many; [] before."""
    seen = [event for event in ward.events[name] if event.kind in ("typing", "presence")]
    return seen if len(seen) >= count else []
