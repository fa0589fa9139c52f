"""Conversations over real sockets: sends, retries, commits, catch-up, memberships. Bad input gets its own problem."""

from __future__ import annotations

import asyncio

import msgspec
from running import Person, Running, Wire

from curbside.audit.events import EventName
from curbside.crypto.random import random_bytes
from curbside.ids import decode_base64url, encode_base64url, encode_id
from curbside.mls.codec import u64, vector
from curbside.mls.group import CommitRequest, Group
from curbside.wire import bodies, frames, limits


async def meet(alice: Person, bob: Person) -> tuple[Group, Group, Wire, Wire]:
    """A conversation of two, both connected and caught up."""
    group = await alice.begin()
    appended = await alice.add(group, bob)
    name = encode_id(group.group_id)
    alice_wire, bob_wire = await alice.connect(), await bob.connect()
    await alice_wire.sync({name: appended.sequence})
    (queue,) = await bob_wire.sync()
    joined = bob.welcome(queue.items[0])
    assert await bob_wire.sync({name: queue.items[0].sequence}, queue.items[0].position) == []
    return group, joined, alice_wire, bob_wire


async def test_a_message_is_acknowledged_and_delivered(running: Running, alice: Person, bob: Person) -> None:
    group, joined, alice_wire, bob_wire = await meet(alice, bob)
    stored = await alice_wire.say(group, b"pupils equal?")
    assert stored.sequence == 2
    entries = await bob_wire.receive(frames.Entries)
    opened = joined.receive(entries.items[0].envelope, running.clock.now())
    assert (entries.items[0].sequence, opened.data) == (2, b"pupils equal?")
    names = [event.name for event in running.events()]
    assert names[-2:] == [EventName.MESSAGE_SENT, EventName.MESSAGE_DELIVERED]
    assert not any(b"pupils" in path.read_bytes() for path in running.config.data_folder.iterdir() if path.is_file())


async def test_a_retry_gets_the_same_place_and_a_reused_id_is_refused(alice: Person, bob: Person) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    message_id = random_bytes(16)
    envelope = group.encrypt(b"once", message_id)
    first = await alice_wire.send_envelope(group, message_id, group.epoch, envelope)
    again = await alice_wire.send_envelope(group, message_id, group.epoch, envelope)
    assert (again.sequence, again.received_at) == (first.sequence, first.received_at)
    other = await alice_wire.send_envelope(group, message_id, group.epoch, group.encrypt(b"twice", message_id))
    assert other.code == "duplicate_request"
    assert len((await bob_wire.receive(frames.Entries)).items) == 1
    last = await alice_wire.say(group, b"next")
    assert last.sequence == first.sequence + 1


async def test_the_same_id_twice_in_one_batch_is_stored_once(alice: Person, bob: Person) -> None:
    group, _, alice_wire, _bob_wire = await meet(alice, bob)
    message_id, name = random_bytes(16), encode_id(group.group_id)
    envelope = group.encrypt(b"once", message_id)
    for request in (101, 102, 103):
        await alice_wire.send(frames.Send(request, name, message_id, group.epoch, envelope))
    answers = [await alice_wire.answer(101)]
    while len(answers) < 2:
        answers.append(await alice_wire.say(group, b"later"))
    assert answers[1].sequence == answers[0].sequence + 1


async def test_a_retry_after_the_epoch_moved_on_still_finds_its_place(alice: Person, bob: Person) -> None:
    group, _, alice_wire, _bob_wire = await meet(alice, bob)
    message_id, epoch = random_bytes(16), group.epoch
    envelope = group.encrypt(b"before", message_id)
    first = await alice_wire.send_envelope(group, message_id, epoch, envelope)
    staged = group.stage_commit(CommitRequest(), alice.running.clock.now())
    await alice.commit(group, staged.commit)
    group.commit_accepted(staged)
    again = await alice_wire.send_envelope(group, message_id, epoch, envelope)
    assert again.sequence == first.sequence


async def test_a_send_of_another_epoch_is_told_the_current_one(alice: Person, bob: Person) -> None:
    group, joined, alice_wire, bob_wire = await meet(alice, bob)
    stale_id = random_bytes(16)
    stale = joined.encrypt(b"too late", stale_id)
    staged = group.stage_commit(CommitRequest(), alice.running.clock.now())
    await alice.commit(group, staged.commit)
    group.commit_accepted(staged)
    refused = await bob_wire.send_envelope(joined, stale_id, 1, stale)
    assert (refused.code, refused.members["current_epoch"]) == ("stale_epoch", 2)
    ahead = forge(group, stale_id, epoch=7)
    refused = await alice_wire.send_envelope(group, stale_id, 7, ahead)
    assert (refused.code, refused.members["current_epoch"]) == ("future_epoch", 2)


def forge(
    group: Group, message_id: bytes, epoch: int | None = None, kind: bytes = b"\x01", name: bytes | None = None
) -> bytes:
    """An envelope as a server sees it; nobody could open it."""
    head = b"\x00\x01\x00\x02" + vector(name or group.group_id) + u64(group.epoch if epoch is None else epoch)
    return head + kind + vector(message_id) + vector(bytes(28)) + vector(bytes(300))


async def test_envelopes_that_lie_are_refused(alice: Person, bob: Person) -> None:
    group, _, alice_wire, _bob_wire = await meet(alice, bob)
    message_id = random_bytes(16)
    good = forge(group, message_id)
    cases = {
        "delivery.envelope.message_id": forge(group, random_bytes(16)),
        "delivery.envelope.epoch": forge(group, message_id, epoch=5),
        "delivery.envelope.application": forge(group, message_id, kind=b"\x03"),
        "delivery.envelope.private": b"\x00\x01\x00\x01" + good[4:],
        "wrong_group": forge(group, message_id, name=bytes(16)),
        "malformed": good + b"\x00",
        "too_large": forge(group, message_id) + bytes(limits.ENVELOPE_BYTES),
    }
    for expected, envelope in cases.items():
        refused = await alice_wire.send_envelope(group, message_id, group.epoch, envelope)
        assert isinstance(refused, frames.Refused)
        assert expected in (refused.code, refused.members.get("check")), (expected, refused)
    for cut in range(0, len(good), 37):
        refused = await alice_wire.send_envelope(group, message_id, group.epoch, good[:cut])
        assert isinstance(refused, frames.Refused), cut
    short = await alice_wire.send_envelope(group, b"short", group.epoch, good)
    assert short.code == "malformed"
    assert (await alice_wire.send_envelope(group, message_id, group.epoch, good)).sequence == 2


async def test_strangers_and_unknown_conversations_look_alike(running: Running, alice: Person, bob: Person) -> None:
    group = await alice.begin()
    name = encode_id(group.group_id)
    wire = await bob.connect()
    message_id = random_bytes(16)
    as_stranger = await wire.send_envelope(group, message_id, 0, forge(group, message_id))
    await wire.send(frames.Send(77, encode_id(bytes(16)), message_id, 0, forge(group, message_id, name=bytes(16))))
    as_unknown = await wire.answer(77)
    assert (as_stranger.code, as_stranger.detail, as_stranger.members) == ("not_found", as_unknown.detail, {})
    assert as_unknown.code == "not_found"
    await wire.send(frames.Send(78, "no id at all", message_id, 0, b""))
    assert (await wire.answer(78)).code == "malformed"
    found = await wire.sync({name: 0, encode_id(bytes(16)): 0})
    assert [(frame.code, frame.request) for frame in found] == [("not_found", 0)] * 2
    for path in (f"/v1/conversations/{name}", f"/v1/conversations/{encode_id(bytes(16))}"):
        assert (await bob.problem("GET", path))["type"].endswith(":not_found")
    body = alice.commit_body(group, group.stage_commit(CommitRequest(), running.clock.now()).commit)
    problem = await bob.problem("POST", f"/v1/conversations/{name}/commits", body)
    assert problem["type"].endswith(":not_found")
    refusals = [e for e in running.events() if e.actor_device == bob.device_id and e.reason == "not_found"]
    assert {e.name for e in refusals} >= {EventName.MESSAGE_REFUSED, EventName.ACCESS_DENIED, EventName.COMMIT_REJECTED}


async def test_the_first_commit_of_an_epoch_wins(running: Running, alice: Person, bob: Person) -> None:
    group, joined, _alice_wire, _bob_wire = await meet(alice, bob)
    now, path = running.clock.now(), f"/v1/conversations/{encode_id(group.group_id)}/commits"
    hers, his = group.stage_commit(CommitRequest(), now), joined.stage_commit(CommitRequest(), now)
    answers = await asyncio.gather(
        alice.request("POST", path, msgspec.json.encode(alice.commit_body(group, hers.commit))),
        bob.request("POST", path, msgspec.json.encode(bob.commit_body(joined, his.commit))),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    loser = next(answer.json() for answer in answers if answer.status_code == 409)
    assert loser["type"].endswith(":epoch_conflict")
    assert loser["current_epoch"] == 2


async def test_a_commit_may_be_repeated_and_not_changed(running: Running, alice: Person, bob: Person) -> None:
    group = await alice.begin()
    path = f"/v1/conversations/{encode_id(group.group_id)}/commits"
    staged = group.stage_commit(CommitRequest(), running.clock.now())
    body = alice.commit_body(group, staged.commit)
    first = (await alice.post(path, body)).json()
    assert (await alice.post(path, body)).json() == first
    changed = msgspec.structs.replace(body, commit=encode_base64url(staged.commit + b"\x00"))
    assert (await alice.problem("POST", path, changed))["type"].endswith(":duplicate_request")


async def test_commits_that_break_a_rule_change_nothing(running: Running, alice: Person, bob: Person) -> None:
    group = await alice.begin()
    path = f"/v1/conversations/{encode_id(group.group_id)}/commits"
    staged = group.stage_commit(CommitRequest(), running.clock.now())
    flipped = bytearray(staged.commit)
    flipped[len(flipped) // 2] ^= 1
    cases = [bytes(flipped), staged.commit[:-5], b"", random_bytes(200), forge(group, random_bytes(16))]
    for commit in cases:
        problem = await alice.problem("POST", path, alice.commit_body(group, commit))
        assert problem["status"] in (400, 422), problem
    unwelcome = alice.commit_body(group, staged.commit, b"a welcome for nobody")
    assert (await alice.problem("POST", path, unwelcome))["check"] == "delivery.commit.welcome"
    state = (await alice.get(f"/v1/conversations/{encode_id(group.group_id)}")).json()
    assert (state["epoch"], state["last_sequence"]) == (0, 0)
    assert (await alice.commit(group, staged.commit)).epoch == 1


async def test_a_commit_by_a_member_other_than_the_caller_is_refused(alice: Person, bob: Person) -> None:
    group, joined, _alice_wire, _bob_wire = await meet(alice, bob)
    staged = group.stage_commit(CommitRequest(), alice.running.clock.now())
    body = bob.commit_body(joined, staged.commit)
    problem = await bob.problem("POST", f"/v1/conversations/{encode_id(group.group_id)}/commits", body)
    assert problem["check"] == "delivery.commit.sender"


async def test_a_conversation_begins_with_its_creator_alone(running: Running, alice: Person, bob: Person) -> None:
    group = await alice.begin()
    body = bodies.NewConversation(encode_id(group.group_id), encode_base64url(group.group_info()))
    assert (await alice.post("/v1/conversations", body)).json()["epoch"] == 0
    assert (await bob.problem("POST", "/v1/conversations", body))["check"] == "delivery.create.creator"
    renamed = msgspec.structs.replace(body, conversation_id=encode_id(random_bytes(16)))
    assert (await alice.problem("POST", "/v1/conversations", renamed))["check"] == "delivery.create.group_id"
    await alice.add(group, bob)
    late = bodies.NewConversation(encode_id(group.group_id), encode_base64url(group.group_info()))
    assert (await alice.problem("POST", "/v1/conversations", late))["check"] == "delivery.create.epoch"
    assert (await alice.problem("POST", "/v1/conversations", body))["type"].endswith(":duplicate_request")


async def test_a_removed_device_reads_to_its_removal_and_no_further(
    running: Running, alice: Person, bob: Person
) -> None:
    group, joined, alice_wire, bob_wire = await meet(alice, bob)
    name = encode_id(group.group_id)
    await alice_wire.say(group, b"before")
    staged = group.stage_commit(CommitRequest(removes=(joined.own_leaf,)), running.clock.now())
    removal = await alice.commit(group, staged.commit)
    group.commit_accepted(staged)
    secret = await alice_wire.say(group, b"after")
    assert secret.sequence == removal.sequence + 1
    seen = []
    while not seen or seen[-1] < removal.sequence:
        seen += [entry.sequence for entry in (await bob_wire.receive(frames.Entries)).items]
    assert seen[-1] == removal.sequence
    again = await bob_wire.sync({name: 0})
    assert [e.sequence for frame in again for e in frame.items] == list(range(2, removal.sequence + 1))
    message_id = random_bytes(16)
    assert (await bob_wire.send_envelope(group, message_id, 2, forge(group, message_id))).code == "not_found"
    assert (await bob.problem("GET", f"/v1/conversations/{name}"))["type"].endswith(":not_found")


async def test_what_was_before_the_welcome_stays_unread(running: Running, alice: Person, bob: Person) -> None:
    group = await alice.begin()
    name = encode_id(group.group_id)
    wire = await alice.connect()
    await wire.sync({name: 0})
    for text in (b"one", b"two"):
        await wire.say(group, text)
    added = await alice.add(group, bob)
    await wire.say(group, b"three")
    bob_wire = await bob.connect()
    found = await bob_wire.sync({name: 0})
    entries = [entry for frame in found if isinstance(frame, frames.Entries) for entry in frame.items]
    assert [entry.sequence for entry in entries] == [added.sequence + 1]


async def test_catch_up_is_complete_in_order_and_recorded(running: Running, alice: Person, bob: Person) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    await bob_wire.close()
    name, count = encode_id(group.group_id), 700
    for request in range(1, count + 1):
        message_id = random_bytes(16)
        await alice_wire.send(frames.Send(request, name, message_id, 1, forge(group, message_id)))
    await alice_wire.answer(count)
    bob_wire = await bob.connect()
    found = [frame for frame in await bob_wire.sync({name: 1}) if isinstance(frame, frames.Entries)]
    sizes = [len(frame.items) for frame in found]
    assert max(sizes) <= limits.ENTRIES_PER_FRAME
    assert [e.sequence for frame in found for e in frame.items] == list(range(2, count + 2))
    told = [
        e.extra for e in running.events() if e.name == EventName.MESSAGE_DELIVERED and e.actor_device == bob.device_id
    ]
    assert (told[-1]["from_index"], told[-1]["to_index"]) == (2, count + 1)  # one look into the log, one event


async def test_a_revoked_device_is_cut_off_and_must_be_removed_first(
    running: Running, alice: Person, bob: Person
) -> None:
    group, _, alice_wire, bob_wire = await meet(alice, bob)
    claimed = (await alice.post(f"/v1/people/{bob.newcomer.user_id}/key-packages/claim")).json()
    admin = await Person.join(running, "Ada Min", role="administrator")
    response = await admin.request("DELETE", f"/v1/devices/{bob.device_id}")
    assert response.status_code == 204
    closing = await bob_wire.receive(frames.Closing)
    assert (closing.code, closing.retry_after) == ("device_revoked", -1)
    proposal = (await alice_wire.receive(frames.Entries)).items[0]
    assert proposal.kind == frames.KIND_PROPOSAL
    message_id = random_bytes(16)
    refused = await alice_wire.send_envelope(group, message_id, 1, forge(group, message_id))
    assert refused.code == "pending_proposals"
    assert len(refused.members["proposals"]) == 1
    group.receive(proposal.envelope, running.clock.now())
    staged = group.stage_commit(CommitRequest(), running.clock.now())
    await alice.commit(group, staged.commit)
    group.commit_accepted(staged)
    assert len(group.members) == 1
    await alice_wire.receive(frames.Entries)
    assert (await alice_wire.say(group, b"now")).sequence == 4
    again = await bob.connect()
    assert again.closing is not None
    assert again.closing.code == "not_authenticated"
    package = decode_base64url(claimed["devices"][0]["key_package"])
    staged = group.stage_commit(CommitRequest(adds=(package,)), running.clock.now())
    body = alice.commit_body(group, staged.commit, staged.welcome)
    problem = await alice.problem("POST", f"/v1/conversations/{encode_id(group.group_id)}/commits", body)
    assert (problem["check"], problem["device"]) == ("delivery.device.active", bob.device_id)
    await admin.close()


async def test_acknowledged_queue_items_are_gone(alice: Person, bob: Person) -> None:
    group = await alice.begin()
    await alice.add(group, bob)
    wire = await bob.connect()
    (queue,) = await wire.sync()
    position = queue.items[0].position
    await wire.send(frames.Acknowledge({encode_id(group.group_id): 1}, position))
    await wire.close()
    wire = await bob.connect()
    assert await wire.sync() == []


async def test_a_welcome_reaches_a_device_that_is_connected(alice: Person, bob: Person) -> None:
    wire = await bob.connect()
    await wire.sync()
    group = await alice.begin()
    await alice.add(group, bob)
    queue = await wire.receive(frames.QueueItems)
    assert bob.welcome(queue.items[0]).epoch == 1
