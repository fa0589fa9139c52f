"""Used keys are gone, late messages are read within limits, refusals change nothing."""

from __future__ import annotations

import pytest
from mls_people import DAY, NOW, SETTINGS, TRUST, assert_agree, commit, package_of, spread, team

from curbside.errors import BadSignature, CurbsideError, DecryptionFailed, Replayed, RuleBroken, StaleEpoch
from curbside.mls.group import Application, CommitRequest, Group, GroupSettings
from curbside.mls.messages import PrivateMessage, encode_message, parse_message
from curbside.mls.secret_tree import RatchetLimits


def read(group: Group, message: bytes, now: int = NOW) -> bytes:
    got = group.receive(message, now)
    assert isinstance(got, Application)
    return got.data


def refused(group: Group, message: bytes, now: int = NOW) -> CurbsideError:
    before = group.save()
    with pytest.raises(CurbsideError) as error:
        group.receive(message, now)
    assert group.save() == before
    return error.value


def test_a_read_message_cannot_be_read_again_even_from_saved_state() -> None:
    alice, bob = team("alice", "bob")
    sent = [alice.encrypt(bytes([i])) for i in range(6)]
    for number in (0, 3, 5):
        read(bob, sent[number])
    for state in (bob, Group.load(bob.save(), TRUST)):
        for number in (0, 3, 5):
            assert isinstance(refused(state, sent[number]), Replayed)
    for number in (4, 1, 2):
        assert read(bob, sent[number]) == bytes([number])
        assert isinstance(refused(bob, sent[number]), Replayed)


def test_no_secret_of_a_read_message_is_in_the_saved_state() -> None:
    """Every secret from which an already read key follows is gone, also while a skipped key is kept."""
    alice, bob = team("alice", "bob")
    tree = bob.state.current.tree
    root = next(iter(tree._nodes.values()))
    sent = [alice.encrypt(b"x") for _ in range(4)]
    plans = [tree.plan(0, 1, number, SETTINGS.ratchets, NOW) for number in range(4)]
    secrets = {plan.key for plan in plans} | {root}
    read(bob, sent[3])
    kept = {key.key for ratchet in tree._ratchets.values() for key in ratchet.skipped.values()}
    assert kept == {plan.key for plan in plans[:3]}
    for number in (1, 0, 2):
        read(bob, sent[number])
    assert tree.skipped_count() == 0
    blob = bob.save()
    assert not any(secret in blob for secret in secrets)


def test_the_sender_cannot_read_its_own_messages() -> None:
    alice, _ = team("alice", "bob")
    message = alice.encrypt(b"x")
    assert isinstance(refused(alice, message), RuleBroken)
    commit(alice, [])
    assert isinstance(refused(alice, message), (CurbsideError,))


def test_old_epoch_keeps_only_unread_keys_of_others() -> None:
    groups = team("alice", "bob", "fiona")
    alice, bob, fiona = groups
    first, second, third = alice.encrypt(b"1"), alice.encrypt(b"2"), fiona.encrypt(b"3")
    read(bob, first)
    old = bob.state.current
    init = old.secrets.init
    commit(alice, groups)
    blob = bob.save()
    assert init not in blob
    assert old.secrets.exporter not in blob
    assert old.secrets.membership not in blob
    assert isinstance(refused(bob, first), Replayed)
    assert read(bob, second) == b"2"
    assert read(bob, third) == b"3"


def test_three_past_epochs_and_seven_days() -> None:
    groups = team("alice", "bob")
    alice, bob = groups
    late = []
    for _ in range(4):
        late.append(alice.encrypt(b"late"))
        commit(bob, groups)
    assert isinstance(refused(bob, late[0]), StaleEpoch)
    assert read(Group.load(bob.save(), TRUST), late[1]) == b"late"
    assert read(bob, late[1]) == b"late"
    assert isinstance(refused(bob, late[2], NOW + 8 * DAY), StaleEpoch)
    bob.expire(NOW + 8 * DAY)
    assert bob.state.past == ()


def test_skipped_keys_are_bounded_in_number_and_time() -> None:
    alice, bob = team("alice", "bob")
    sent = [alice.encrypt(bytes([i])) for i in range(100)]
    read(bob, sent[99])
    assert bob.state.current.tree.skipped_count() == 64
    for number in range(35):
        assert isinstance(refused(bob, sent[number]), Replayed)
    for number in range(35, 60):
        assert read(bob, sent[number]) == bytes([number])
    assert isinstance(refused(bob, sent[70], NOW + 8 * DAY), Replayed)
    bob.expire(NOW + 8 * DAY)
    assert bob.state.current.tree.skipped_count() == 0


def test_generations_too_far_ahead_are_refused() -> None:
    settings = GroupSettings(ratchets=RatchetLimits(max_forward=20))
    alice, bob = team("alice", "bob", settings=settings)
    sent = [alice.encrypt(b"") for _ in range(23)]
    error = refused(bob, sent[22])
    assert isinstance(error, RuleBroken)
    assert error.check == "mls.message.forward_limit"
    read(bob, sent[20])
    read(bob, sent[22])


def test_forged_copy_first_then_the_genuine_message() -> None:
    alice, bob = team("alice", "bob")
    message = alice.encrypt(b"genuine", b"aad")
    parsed = parse_message(message)
    assert isinstance(parsed, PrivateMessage)
    for place in range(0, len(message), 7):
        bad = bytearray(message)
        bad[place] ^= 1
        refused(bob, bytes(bad))
    forged = PrivateMessage(parsed.group_id, parsed.epoch, 1, b"other", parsed.sender_data, parsed.ciphertext)
    assert isinstance(refused(bob, encode_message(forged)), DecryptionFailed)
    assert read(bob, message) == b"genuine"


@pytest.mark.parametrize("wire", ["public", "private"])
def test_bit_flips_in_a_commit_then_the_genuine_commit(wire: str) -> None:
    groups = team("alice", "bob", "fiona")
    alice, bob, fiona = groups
    staged = alice.stage_commit(CommitRequest(adds=(package_of("erin").public,), wire=wire), NOW)  # type: ignore[arg-type]
    for place in range(0, len(staged.commit), 11):
        bad = bytearray(staged.commit)
        bad[place] ^= 0x10
        refused(bob, bytes(bad))
        refused(bob, staged.commit[:place])
    refused(bob, staged.commit + b"\0")
    alice.commit_accepted(staged)
    spread(staged.commit, [bob, fiona])
    assert_agree(groups)


def test_corrupt_private_commit_spends_no_handshake_key() -> None:
    groups = team("alice", "bob")
    staged = groups[0].stage_commit(CommitRequest(wire="private", removes=(1,)), NOW)
    strict = Group.load(groups[1].save(), TRUST, GroupSettings(private_handshakes=False))
    with pytest.raises(RuleBroken):
        strict.receive(staged.commit, NOW)


def test_keys_of_a_replaced_path_are_deleted() -> None:
    groups = team("a", "b", "c", "d")
    for member in groups:
        commit(member, groups)
    before = dict(groups[0].state.current.private)
    commit(groups[1], groups)
    blob = groups[0].save()
    after = groups[0].state.current.private
    replaced = [node for node in before if after.get(node) != before[node]]
    assert replaced
    assert not any(before[node] in blob for node in replaced)


def test_removed_member_keeps_nothing() -> None:
    groups = team("alice", "bob")
    secrets = groups[1].state.current
    message = groups[0].encrypt(b"unread")
    staged = groups[0].stage_commit(CommitRequest(removes=(1,)), NOW)
    groups[1].receive(staged.commit, NOW)
    blob = groups[1].save()
    for value in (*secrets.private.values(), secrets.secrets.exporter, secrets.secrets.init):
        assert value not in blob
    with pytest.raises(CurbsideError):
        groups[1].receive(message, NOW)


def test_membership_tag_and_confirmation_tag_are_checked() -> None:
    groups = team("alice", "bob")
    message = groups[0].propose_remove(1, NOW)
    assert isinstance(refused(groups[1], message[:-1] + bytes([message[-1] ^ 1])), BadSignature)


def test_padding_hides_the_length() -> None:
    alice, bob = team("alice", "bob")
    assert len({len(alice.encrypt(bytes(size))) for size in range(0, 180, 20)}) == 1
    assert read(bob, alice.encrypt(bytes(40000))) == bytes(40000)
