"""The engine against members of the organisation who misuse what they may do. Nothing of theirs stops a device."""

from __future__ import annotations

import email.utils
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from engines import NOW, Colleague, House, gather, refusals

from curbside.client.effects import SendFrame
from curbside.client.network import Internet
from curbside.client.transport import Transport
from curbside.clock import ManualClock
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import EpochConflict, LogRolledBack
from curbside.ids import ConversationId, encode_base64url
from curbside.mls.group import CommitRequest
from curbside.wire import content, frames
from curbside.wire.group_policy import make_direct_policy, make_group_policy


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def people(house: House) -> Iterator[tuple[Colleague, Colleague, Colleague]]:
    made = (house.person("Alice"), house.person("Bob"), house.person("Mallory"))
    yield made
    for person in made:
        person.close()


def send_under(speaker: Colleague, conversation: str, message_id: bytes, sequence: int, text: str) -> frames.Entry:
    """An entry of a member who chose its message id."""
    group = speaker.groups.get(conversation)
    envelope = group.encrypt(content.encode(content.text(text)), message_id)
    return frames.Entry(conversation, sequence, frames.KIND_APPLICATION, message_id, speaker.now_ms, envelope)


def test_a_message_id_of_another_conversation_hides_no_message(
    people: tuple[Colleague, Colleague, Colleague],
) -> None:
    """Mallory sees Alice's message id and uses it in another conversation; Bob hears of Mallory's message first."""
    alice, bob, mallory = people
    first = gather(alice, [bob, mallory], make_group_policy(alice.user_id))
    second = gather(mallory, [bob], make_group_policy(mallory.user_id))
    wanted = alice.say(first, "give 5 mg", 2)
    bob.hear(send_under(mallory, second, wanted.message_id, 2, "in the way"))
    bob.hear(wanted)
    assert (bob.texts(first), bob.texts(second)) == (["give 5 mg"], ["in the way"])
    bob.hear(wanted, send_under(mallory, second, wanted.message_id, 2, "again"))
    assert (bob.texts(first), bob.texts(second)) == (["give 5 mg"], ["in the way"])
    bob.hear(alice.say(first, "then stop", 3))
    assert bob.texts(first) == ["give 5 mg", "then stop"]


def test_an_own_message_that_waits_is_settled_by_its_own_conversation_only(
    people: tuple[Colleague, Colleague, Colleague],
) -> None:
    alice, bob, mallory = people
    first = gather(alice, [bob], make_group_policy(alice.user_id))
    second = gather(mallory, [alice], make_group_policy(mallory.user_id))
    message_id, effects = alice.engine.write(first, content.text("give 5 mg"), alice.now_ms)
    (send,) = [e.frame for e in effects if isinstance(e, SendFrame) and isinstance(e.frame, frames.Send)]
    alice.hear(send_under(mallory, second, send.message_id, 2, "in the way"))
    row = alice.vault.rows.find_message(message_id)
    assert row is not None
    assert (row.sequence, row.delivery) == (0, "sending")
    assert alice.vault.rows.find_outbox(message_id) is not None
    assert alice.texts(second) == ["in the way"]


def test_a_direct_conversation_is_called_by_the_other_persons_name(
    people: tuple[Colleague, Colleague, Colleague],
) -> None:
    """A title there would let Mallory's line look like one with Alice."""
    _, bob, mallory = people
    direct = gather(mallory, [bob], make_direct_policy(mallory.user_id, bob.user_id))
    bob.hear(mallory.say(direct, content.conversation_title("Alice"), 2))
    assert bob.vault.rows.get_conversation(direct).title == ""
    group = gather(mallory, [bob], make_group_policy(mallory.user_id))
    bob.hear(mallory.say(group, content.conversation_title("  Ward\u202e4\x07\n " + "x" * 500), 2))
    title = bob.vault.rows.get_conversation(group).title
    assert title.startswith("Ward 4 xxx")
    assert len(title) <= 128


def remove(founder: Colleague, conversation: str, target: Colleague, sequence: int) -> frames.Entry:
    """The founder removes somebody: the commit, applied on the founder's own device."""
    leaf = next(
        m.leaf_index
        for m in founder.groups.get(conversation).members
        if founder.groups.identify(m).user_id == target.user_id
    )
    entry, _ = founder.commit(conversation, CommitRequest(removes=(leaf,)), sequence)
    founder.hear(entry)
    return entry


def test_who_was_removed_and_is_added_again_reads_on(people: tuple[Colleague, Colleague, Colleague]) -> None:
    alice, bob, _ = people
    conversation = gather(alice, [bob], make_group_policy(alice.user_id))
    bob.hear(alice.say(conversation, "before", 2))
    bob.hear(remove(alice, conversation, bob, 3))
    assert json.loads(bob.alarm(conversation))["code"] == "gone"
    entry, welcome = alice.commit(conversation, CommitRequest(adds=(bob.key_package(),)), 4)
    alice.hear(entry)
    bob.welcome(conversation, 4, welcome)
    assert bob.alarm(conversation) == ""
    bob.hear(alice.say(conversation, "after", 5))
    assert bob.texts(conversation) == ["before", "after"]


def test_a_welcome_does_not_replace_a_conversation_that_goes_on(
    people: tuple[Colleague, Colleague, Colleague],
) -> None:
    alice, bob, mallory = people
    conversation = gather(alice, [bob, mallory], make_group_policy(alice.user_id))
    before = bob.vault.rows.get_conversation(conversation)
    _, welcome = forged_group(mallory, bob, conversation, make_group_policy(mallory.user_id), 3)
    bob.welcome(conversation, 9, welcome)
    assert bob.vault.rows.get_conversation(conversation) == before


@pytest.mark.parametrize("epochs", [0, 5])
def test_a_removed_device_is_not_led_into_another_group_under_the_same_id(
    people: tuple[Colleague, Colleague, Colleague], epochs: int
) -> None:
    """Mallory makes a group of her own with the id of a direct conversation between Alice and Bob: an older state of it
    (epochs 0), or a later one."""
    alice, bob, mallory = people
    conversation = gather(alice, [bob], make_direct_policy(alice.user_id, bob.user_id))
    bob.vault.rows.save_alarm(conversation, json.dumps({"code": "gone"}))
    before = bob.vault.rows.get_conversation(conversation)
    policy = make_group_policy(mallory.user_id) if epochs else make_direct_policy(mallory.user_id, bob.user_id)
    _, welcome = forged_group(mallory, bob, conversation, policy, epochs)
    effects = bob.welcome(conversation, 9, welcome)
    assert bob.vault.rows.get_conversation(conversation) == before
    assert [error.members.get("check") for error in refusals(effects)] == ["client.rejoin"]


def forged_group(
    mallory: Colleague, victim: Colleague, conversation: str, policy: object, epochs: int
) -> tuple[bytes, bytes]:
    """A group under an id that is another one's: its commit and Welcome for the victim, after so many empty epochs."""
    from curbside.client.groups import SETTINGS, SUITE
    from curbside.ids import decode_id
    from curbside.mls.group import Group

    validator = mallory.groups._validator
    extensions = validator.group_extensions(policy)
    group = Group.create(decode_id(conversation), mallory.leaf, SUITE, extensions, SETTINGS, validator, mallory.now)
    for _ in range(epochs):
        group.stage_commit(CommitRequest(), mallory.now)
        group.commit_accepted()
    staged = group.stage_commit(CommitRequest(adds=(victim.key_package(),)), mallory.now)
    assert staged.welcome is not None
    return staged.commit, staged.welcome


def test_a_second_change_waits_for_the_first(people: tuple[Colleague, Colleague, Colleague]) -> None:
    """The first is on its way to the server: were it forgotten, the device could not follow its own commit."""
    alice, bob, mallory = people
    conversation = gather(alice, [bob], make_group_policy(alice.user_id))
    entry, _ = alice.commit(conversation, CommitRequest(), 2)
    with pytest.raises(EpochConflict):
        alice.engine.commit(conversation, CommitRequest(adds=(mallory.key_package(),)), alice.now_ms)
    alice.hear(entry)
    assert alice.alarm(conversation) == ""
    assert alice.groups.get(conversation).epoch == 2


def test_a_conversation_that_cannot_be_committed_to_stops_no_other(
    house: House, people: tuple[Colleague, Colleague, Colleague]
) -> None:
    """The server asks for the only administrator's removal twice; what is wrong there is told, and the rest goes on."""
    alice, bob, mallory = people
    blocked = gather(alice, [bob], make_group_policy(alice.user_id))
    fine = gather(alice, [bob, mallory], make_group_policy(alice.user_id))
    bob.vault.rows.save_group(blocked, b"damaged")
    bob.groups.forget()
    bob.engine.outbox.write_quietly(ConversationId(blocked), content.text("waits"), 0)
    bob.hear(alice.say(fine, "hello", 2))
    bob.caught_up()
    assert bob.texts(fine) == ["hello"]


def test_a_step_that_fails_leaves_nothing_in_flight(people: tuple[Colleague, Colleague, Colleague]) -> None:
    """Frames of a step that did not end are not sent; their messages must not count as on their way."""
    alice, bob, _ = people
    conversation = gather(alice, [bob], make_group_policy(alice.user_id))

    def fail() -> None:
        with alice.engine._step():
            alice.engine.outbox.write(conversation, content.text("lost step"), alice.now_ms)
            alice.engine.outbox.release(conversation, alice.now_ms)
            raise EpochConflict

    message_id, effects = alice.engine.write(conversation, content.text("one"), alice.now_ms)
    assert any(isinstance(e, SendFrame) for e in effects)
    with pytest.raises(EpochConflict):
        fail()
    again = alice.engine.release(conversation, alice.now_ms)
    (send,) = [e.frame for e in again if isinstance(e, SendFrame) and isinstance(e.frame, frames.Send)]
    assert encode_base64url(send.message_id) == message_id


def test_a_slow_clock_refuses_nobody(house: House, people: tuple[Colleague, Colleague, Colleague]) -> None:
    """Carol signed up this minute; Bob's clock is two hours slow. The server's time of the commit counts."""
    alice, bob, _ = people
    conversation = gather(alice, [bob], make_group_policy(alice.user_id))
    carol = house.person("Carol", alice.now + 10)
    alice.now += 20
    bob.now -= 7200
    entry, _ = alice.commit(conversation, CommitRequest(adds=(carol.key_package(),)), 2)
    alice.hear(entry)
    bob.hear(entry)
    assert bob.alarm(conversation) == ""
    carol.close()


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\x00" * 70_000, b"\x87" + b"\x80" * 300, b"\x9f" * 60_000])
def test_content_that_cannot_be_read_is_marked_and_the_conversation_goes_on(
    people: tuple[Colleague, Colleague, Colleague], raw: bytes
) -> None:
    """Authentic, from a member, and no message at all."""
    alice, bob, mallory = people
    conversation = gather(alice, [bob, mallory], make_group_policy(alice.user_id))
    message_id = random_bytes(16)
    envelope = mallory.groups.get(conversation).encrypt(raw, message_id)
    bad = frames.Entry(conversation, 2, frames.KIND_APPLICATION, message_id, bob.now_ms, envelope)
    bob.hear(bad, alice.say(conversation, "goes on", 3))
    assert bob.texts(conversation) == ["goes on"]
    (marked,) = [row for row in bob.vault.rows.messages(conversation) if row.problem]
    assert marked.content == b""


async def test_the_servers_clock_puts_a_slow_one_right_by_a_day_at_most() -> None:
    clock = ManualClock(NOW)
    transport = Transport("http://localhost", SecretBytes(random_bytes(32)), clock, Internet())
    for ahead, taken in ((3600, 3600), (-3600, 0), (400 * 86_400, 86_400)):
        date = email.utils.formatdate(NOW + ahead, usegmt=True)
        assert transport._correct_clock(httpx.Response(401, headers={"date": date}))
        assert transport.now() == NOW + taken
    await transport.close()


def test_the_key_package_of_last_resort_is_renewed_and_old_ones_are_forgotten(house: House) -> None:
    person = house.person("Dora")
    assert person.engine.renew_last_resort(NOW) is not None
    assert person.engine.renew_last_resort(NOW + 1) is None
    assert person.engine.renew_last_resort(NOW + 31 * 86_400) is not None
    assert len(person.vault.rows.key_packages()) == 2
    assert person.engine.renew_last_resort(NOW + 200 * 86_400) is not None
    assert len(person.vault.rows.key_packages()) == 1
    person.close()


def test_a_log_that_ends_before_what_we_have_stops_its_conversation_and_no_other(
    people: tuple[Colleague, Colleague, Colleague],
) -> None:
    alice, bob, _ = people
    conversation = gather(alice, [bob], make_group_policy(alice.user_id))
    other = gather(alice, [bob], make_group_policy(alice.user_id))
    bob.hear(alice.say(conversation, "before", 2), alice.say(conversation, "lost", 3))
    known = {"conversation": conversation, "last_sequence": 3}
    bob.engine.received(frames.Refused(0, "log_rolled_back", "", known), bob.now_ms)
    assert bob.alarm(conversation) == ""  # it knows no more than that
    ahead = {"conversation": conversation, "last_sequence": 2}
    effects = bob.engine.received(frames.Refused(0, "log_rolled_back", "", ahead), bob.now_ms)
    assert [type(error) for error in refusals(effects)] == [LogRolledBack]
    assert "log_rolled_back" in bob.alarm(conversation)
    bob.hear(alice.say(conversation, "in a place that was taken", 3))
    assert bob.texts(conversation) == ["before", "lost"]
    assert conversation not in bob.engine.sync.frame().cursors
    bob.hear(alice.say(other, "elsewhere", 2))
    assert bob.texts(other) == ["elsewhere"]
