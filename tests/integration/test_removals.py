"""A device that was revoked leaves its conversations, whatever happens between the asking and the doing; and a process
that is behind the store finds out by itself."""

from __future__ import annotations

from running import Person, Running, Wire

from curbside.audit.events import EventName
from curbside.clock import Clock, ManualClock
from curbside.crypto.random import random_bytes
from curbside.ids import ConversationId, DeviceId, encode_id
from curbside.mls.group import CommitRequest, Group
from curbside.policy.access import Role, Subject
from curbside.server.devices import DeviceService
from curbside.wire import frames


async def meet(alice: Person, *others: Person) -> tuple[Group, Wire]:
    """A conversation of all, in which the first is connected."""
    group = await alice.begin()
    appended = await alice.add(group, *others)
    wire = await alice.connect()
    await wire.sync({encode_id(group.group_id): appended.sequence})
    return group, wire


async def test_a_commit_that_leaves_a_waiting_removal_out_does_not_undo_it(
    running: Running, alice: Person, bob: Person
) -> None:
    """Alice's commit was on its way when Bob's device was revoked: the first commit of an epoch wins, and the delivery
    service asks again in the next one."""
    group, wire = await meet(alice, bob)
    staged = group.stage_commit(CommitRequest(), running.clock.now())
    await bob.request("DELETE", f"/v1/devices/{bob.device_id}")
    assert (await wire.receive(frames.Entries)).items[0].kind == frames.KIND_PROPOSAL
    await alice.commit(group, staged.commit)
    group.commit_accepted(staged)
    refused = await wire.say(group, b"is Bob still here?")
    assert refused.code == "pending_proposals"
    assert [e.name for e in running.events()].count(EventName.PROPOSAL_ADDED) == 2
    wire = await alice.connect()  # to the one before, both entries also came live, at any moment
    found = await wire.sync({encode_id(group.group_id): 2})
    kinds = [(entry.sequence, entry.kind) for frame in found for entry in frame.items]
    assert kinds == [(3, frames.KIND_COMMIT), (4, frames.KIND_PROPOSAL)]
    group.receive(found[-1].items[-1].envelope, running.clock.now())
    removal = group.stage_commit(CommitRequest(), running.clock.now())
    await alice.commit(group, removal.commit)
    group.commit_accepted(removal)
    assert len(group.members) == 1
    assert (await wire.say(group, b"now he is not")).sequence == 6


async def revoke_unheard(running: Running, bob: Person, clock: Clock) -> DeviceService:
    """Bob's device ends, and the server before it has asked anybody; what the next one has."""
    services = running.app.services
    assert services is not None
    asking, services.devices.on_device_revoked = services.devices.on_device_revoked, []
    await bob.request("DELETE", f"/v1/devices/{bob.device_id}")
    again = DeviceService(services.store, clock)
    again.on_device_revoked = asking
    return again


async def test_revoking_again_asks_again_where_it_was_not_asked(running: Running, alice: Person, bob: Person) -> None:
    group, wire = await meet(alice, bob)
    devices = await revoke_unheard(running, bob, running.clock)
    subject = Subject(bob.newcomer.user_id, DeviceId("A" * 22), Role.NURSE)
    running.call(lambda: devices.revoke_device(subject, bob.device_id))
    assert (await wire.receive(frames.Entries)).items[0].kind == frames.KIND_PROPOSAL
    running.call(lambda: devices.revoke_device(subject, bob.device_id))
    assert (await wire.say(group, b"asked once")).code == "pending_proposals"
    assert [e.kind for f in await wire.sync({encode_id(group.group_id): 1}) for e in f.items] == [frames.KIND_PROPOSAL]


async def test_a_removal_that_was_cut_short_is_asked_for_by_the_next_sweep(
    running: Running, alice: Person, bob: Person
) -> None:
    """And the log says that the server asked, not the device that is gone."""
    group, wire = await meet(alice, bob)
    clock = ManualClock(running.clock.now())
    devices = await revoke_unheard(running, bob, clock)
    running.call(devices.sweep)
    assert (await wire.receive(frames.Entries)).items[0].kind == frames.KIND_PROPOSAL
    clock.advance(120)
    running.call(devices.sweep)
    assert (await wire.say(group, b"asked once")).code == "pending_proposals"
    proposed = [event for event in running.events() if event.name is EventName.PROPOSAL_ADDED]
    assert [(event.actor_role, event.actor_device, event.extra["device"]) for event in proposed] == [
        ("server", "", bob.device_id)
    ]


async def test_a_process_that_is_behind_the_store_catches_up(running: Running, alice: Person, bob: Person) -> None:
    """Another process took a commit; this one still has the former epoch in memory."""
    group, wire = await meet(alice, bob)
    name = ConversationId(encode_id(group.group_id))
    services = running.app.services
    assert services is not None
    state = running.call(lambda: services.store.read(lambda view: view.delivery.find_group_state(name)))
    staged = group.stage_commit(CommitRequest(), running.clock.now())
    await alice.commit(group, staged.commit)
    group.commit_accepted(staged)
    cache = services.delivery._cache

    async def fall_behind() -> None:
        cache.replace(name, cache._opener.load_group(state))

    running.call(fall_behind)
    assert (await wire.say(group, b"of the new epoch")).sequence == 3
    running.call(fall_behind)
    staged = group.stage_commit(CommitRequest(), running.clock.now())
    assert (await alice.commit(group, staged.commit)).sequence == 4
    group.commit_accepted(staged)
    message_id = random_bytes(16)
    assert (await wire.send_envelope(group, message_id, 3, group.encrypt(b"on", message_id))).sequence == 5
