"""What was read, sent or left behind cannot be found in the state any more (RFC 9420 sections 9.2 and 16.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from curbside.crypto.secret import SecretBytes
from curbside.errors import CurbsideError, Replayed, StaleEpoch
from curbside.mls.group import CommitRequest, ExternalPsk, Group, GroupSettings
from curbside.mls.key_schedule import EpochSecrets
from curbside.mls.labels import derive_tree_secret, expand_with_label
from curbside.mls.messages import PrivateMessage, parse_message
from curbside.mls.protection import open_message
from curbside.mls.secret_tree import APPLICATION, HANDSHAKE, RatchetLimits, SecretTree

from .people import NOW, SETTINGS, TRUST, Team, make_team, new_package

EVERYTHING = RatchetLimits(max_forward=2**32, max_skipped=2**16, skipped_seconds=2**40)


def opens(group: Group, message: bytes) -> bool:
    """Whether somebody with the saved state could decrypt a message, with all keys that are in it and no rules."""
    parsed = parse_message(message)
    assert isinstance(parsed, PrivateMessage)
    copy = Group.load(group.save(), TRUST)
    epochs = [copy.state.current.keys(), *(past.keys() for past in copy.state.past)]
    for keys in epochs:
        try:
            open_message(keys, parsed, -1, EVERYTHING, NOW)
        except CurbsideError:
            continue
        return True
    return False


def test_control_an_unread_message_opens_from_the_state() -> None:
    team = make_team()
    message = team.mallory.encrypt(b"secret")
    assert opens(team.bob, message)


def test_read_messages_do_not_open_again() -> None:
    team = make_team()
    messages = [team.mallory.encrypt(bytes([i])) for i in range(5)]
    for message in messages:
        team.bob.receive(message, NOW)
    assert not any(opens(team.bob, message) for message in messages)
    for message in messages:
        with pytest.raises(Replayed):
            Group.load(team.bob.save(), TRUST).receive(message, NOW)


def test_messages_read_out_of_order_do_not_open_again() -> None:
    team = make_team()
    messages = [team.mallory.encrypt(bytes([i])) for i in range(6)]
    for i in (4, 0, 2):
        team.bob.receive(messages[i], NOW)
        assert not opens(team.bob, messages[i])
    assert [opens(team.bob, message) for message in messages] == [False, True, False, True, False, True]


def test_sent_messages_do_not_open_from_the_senders_state() -> None:
    team = make_team()
    message = team.mallory.encrypt(b"secret")
    assert not opens(team.mallory, message)
    later = team.mallory.encrypt(b"secret")
    team.commit(team.bob)
    assert not opens(team.mallory, message)
    assert not opens(team.mallory, later)


def test_read_message_of_a_past_epoch_does_not_open_again() -> None:
    team = make_team()
    read, late, never = (team.mallory.encrypt(b"secret") for _ in range(3))
    team.bob.receive(read, NOW)
    team.commit(team.carol)
    team.bob.receive(late, NOW)
    assert [opens(team.bob, message) for message in (read, late, never)] == [False, False, True]


@pytest.mark.parametrize("kind", ["commit", "proposal"])
def test_private_handshake_does_not_open_again(kind: str) -> None:
    """The keys of handshakes are used up like those of messages; a past epoch needs none."""
    team = make_team()
    if kind == "commit":
        staged = team.mallory.stage_commit(CommitRequest(wire="private"), NOW)
        message = staged.commit
    else:
        message = team.mallory.propose_add(new_package("dave").public, NOW, "private")
    assert opens(team.bob, message)
    team.bob.receive(message, NOW)
    assert not opens(team.bob, message)
    if kind == "commit":
        assert not opens(team.mallory, message)
        team.mallory.commit_accepted()
        assert not opens(team.mallory, message)


# --- known secrets are searched in the saved bytes ----------------------------------------------------


def ratchet_secrets(tree: SecretTree, leaf: int, count: int) -> Iterator[bytes]:
    """The first ratchet secrets of a leaf's application ratchet, from the whole tree."""
    copy = tree.copy()
    copy.spend(copy.plan(leaf, HANDSHAKE, 0, EVERYTHING, 0))
    ratchet = copy._ratchets[leaf, APPLICATION]
    assert ratchet.generation == 0
    secret = ratchet.secret
    for generation in range(count):
        yield secret
        secret = derive_tree_secret(tree.suite, secret, b"secret", generation, 32)


def test_skipped_messages_leave_no_ratchet_secret() -> None:
    team = make_team()
    secrets = list(ratchet_secrets(team.bob.state.current.tree, 0, 9))
    messages = [team.mallory.encrypt(bytes([i])) for i in range(8)]
    team.bob.receive(messages[7], NOW)
    saved = team.bob.save()
    assert secrets[8] in saved, "the control: the next secret is there"
    assert not [i for i in range(8) if secrets[i] in saved]
    assert team.bob.state.current.tree.skipped_count() == 7


def test_skipped_keys_go_when_used_when_old_and_when_too_many() -> None:
    team = make_team()
    suite = team.bob.state.current.public.suite
    secrets = list(ratchet_secrets(team.bob.state.current.tree, 0, 100))
    keys = [derive_tree_secret(suite, secret, b"key", i, suite.key_length) for i, secret in enumerate(secrets)]
    messages = [team.mallory.encrypt(bytes([i])) for i in range(100)]
    team.bob.receive(messages[99], NOW)
    kept = [i for i in range(100) if keys[i] in team.bob.save()]
    assert kept == list(range(99 - SETTINGS.ratchets.max_skipped, 99))
    team.bob.receive(messages[50], NOW)
    assert keys[50] not in team.bob.save()
    team.bob.receive(team.carol.encrypt(b"x"), NOW + SETTINGS.ratchets.skipped_seconds + 1)
    assert not [i for i in range(100) if keys[i] in team.bob.save()]


def secrets_of(group: Group) -> dict[str, bytes]:
    """The epoch's secrets that nobody may keep: all but the resumption PSK, and the sender data of late messages."""
    epoch = group.state.current
    names = [name for name in EpochSecrets.__slots__ if name not in ("resumption", "sender_data")]
    found = {name: getattr(epoch.secrets, name) for name in names}
    return {**found, **{f"private key of node {node}": key for node, key in epoch.private.items()}}


def test_secrets_of_a_past_epoch_are_gone() -> None:
    team = make_team()
    before = {name: secrets_of(group) for name, group in team.members.items()}
    for name, group in team.members.items():
        assert all(secret in group.save() for secret in before[name].values()), "the control"
    for group in team.members.values():
        team.commit(group)
    for name, group in team.members.items():
        saved = group.save()
        assert not [what for what, secret in before[name].items() if secret in saved]


def test_everything_of_an_epoch_is_gone_after_enough_epochs() -> None:
    team = make_team(settings=replace(SETTINGS, past_epochs=2, resumption_epochs=2))
    epoch = team.bob.state.current
    tree_secrets = [*epoch.tree._nodes.values(), *(r.secret for r in epoch.tree._ratchets.values())]
    watched = [epoch.secrets.resumption, epoch.secrets.sender_data, *tree_secrets]
    assert all(secret in team.bob.save() for secret in watched)
    message = team.mallory.encrypt(b"never read")
    for _ in range(3):
        team.commit(team.carol)
    saved = team.bob.save()
    assert not [secret for secret in watched if secret in saved]
    with pytest.raises(StaleEpoch):
        team.bob.receive(message, NOW)


def test_past_epochs_end_by_time_too() -> None:
    team = make_team()
    sender_data = team.bob.state.current.secrets.sender_data
    team.commit(team.carol)
    assert sender_data in team.bob.save()
    team.bob.receive(team.mallory.encrypt(b"x"), NOW + SETTINGS.past_seconds + 1)
    assert sender_data not in team.bob.save()


def test_root_of_the_secret_tree_is_never_saved() -> None:
    """Whoever has the root can derive every key of the epoch, used ones too."""
    team = make_team()
    suite = team.bob.state.current.public.suite
    [(root, encryption_secret)] = team.bob.state.current.tree._nodes.items()
    assert encryption_secret in team.bob.save()
    team.bob.receive(team.mallory.encrypt(b"x"), NOW)
    assert encryption_secret not in team.bob.save()
    left = expand_with_label(suite, encryption_secret, b"tree", b"left", 32)
    assert left not in team.bob.save()
    assert root not in team.bob.state.current.tree._nodes


def test_removed_member_keeps_nothing() -> None:
    team = make_team()
    secrets = [*secrets_of(team.carol).values(), team.carol.state.current.secrets.resumption]
    message = team.mallory.encrypt(b"unread")
    gone = team.members.pop("carol")
    staged = team.mallory.stage_commit(CommitRequest(removes=(2,)), NOW)
    gone.receive(staged.commit, NOW)
    assert not [secret for secret in secrets if secret in gone.save()]
    assert not opens(gone, message)


def test_removed_member_cannot_read_the_next_epoch() -> None:
    """Even one who ignores that it was removed: with its whole old state it has no way into the new epoch."""
    team = make_team()
    gone = team.members.pop("carol")
    kept = Group.load(gone.save(), TRUST)
    commit = team.commit(team.mallory, CommitRequest(removes=(2,)))
    assert not opens(kept, team.bob.encrypt(b"secret"))
    fresh = set(secrets_of(team.bob).values())
    assert kept.receive(commit, NOW).removed_me  # type: ignore[union-attr]
    assert not [secret for secret in fresh if secret in kept.save()]


def test_path_update_heals_a_copied_state() -> None:
    """Post-compromise security: a thief of the whole state is out once the victim has committed."""
    team = make_team()
    stolen = Group.load(team.bob.save(), TRUST)
    message = team.carol.encrypt(b"read by the thief")
    assert opens(stolen, message)
    team.commit(team.bob)
    assert not opens(stolen, team.carol.encrypt(b"not read"))
    commit = team.commit(team.carol)
    with pytest.raises(CurbsideError):
        stolen.receive(commit, NOW)


def test_external_psk_is_not_saved_with_the_group() -> None:
    team: Team = make_team()
    psk = ExternalPsk(b"psk", SecretBytes(b"an external secret of 32 bytes.."))
    staged = team.mallory.stage_commit(CommitRequest(psks=(psk,)), NOW)
    team.bob.receive(staged.commit, NOW, {b"psk": psk.secret})
    for group in (team.mallory, team.bob):
        assert psk.secret.reveal() not in group.save()


def test_staged_commit_that_was_refused_leaves_nothing() -> None:
    team = make_team()
    before = team.mallory.save()
    team.mallory.stage_commit(CommitRequest(adds=(new_package("dave").public,)), NOW)
    staged = team.mallory.state.staged
    assert staged is not None
    secrets = [staged.next_epoch.secrets.init, staged.next_epoch.secrets.exporter]
    assert all(secret in team.mallory.save() for secret in secrets)
    team.mallory.commit_rejected()
    assert team.mallory.save() == before
    assert isinstance(team.mallory.state.settings, GroupSettings)
