"""Framing: who sends, what is allowed in which form, replays, forgeries (RFC 9420 sections 6, 9 and 15.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from curbside.crypto.sign import Signer, generate_signature_key
from curbside.errors import (
    BadSignature,
    CurbsideError,
    DecryptionFailed,
    FutureEpoch,
    Malformed,
    Replayed,
    StaleEpoch,
    WrongGroup,
)
from curbside.mls.checks import Check
from curbside.mls.group import CommitRequest, Group
from curbside.mls.labels import sign_with_label
from curbside.mls.messages import (
    APPLICATION,
    COMMIT,
    EXTERNAL,
    MEMBER,
    NEW_MEMBER_COMMIT,
    NEW_MEMBER_PROPOSAL,
    AuthenticatedContent,
    Commit,
    FramedContent,
    PrivateMessage,
    PublicMessage,
    Sender,
    encode_message,
    parse_message,
)
from curbside.mls.proposals import Remove
from curbside.mls.results import Application
from curbside.mls.secret_tree import APPLICATION as APPLICATION_RATCHET
from curbside.mls.secret_tree import Ratchet

from .forge import flip, forge_commit, forge_content, forge_proposal, frame, seal_plaintext, signer_of
from .people import NOW, SETTINGS, TRUST, Team, make_team, new_leaf, refused
from .registry import breaks


def refuse_message(team: Team, message: bytes, expected: Check | type[CurbsideError]) -> None:
    """Every victim refuses an application message and reads the next genuine one of the same sender."""
    for group in team.victims():
        with refused(expected, group):
            group.receive(message, NOW)
    team.talk()


# --- application messages -------------------------------------------------------------------------


def test_replay() -> None:
    team = make_team()
    message = team.mallory.encrypt(b"take two tablets")
    for group in team.victims():
        group.receive(message, NOW)
    refuse_message(team, message, Replayed)


def test_replay_after_a_restart_and_in_the_next_epoch() -> None:
    team = make_team()
    message = team.mallory.encrypt(b"take two tablets")
    team.bob.receive(message, NOW)
    team.members["bob"] = Group.load(team.bob.save(), TRUST)
    with refused(Replayed, team.bob):
        team.bob.receive(message, NOW)
    team.commit(team.carol)
    with refused(Replayed, team.bob):
        team.bob.receive(message, NOW)


def test_member_writes_in_the_name_of_another() -> None:
    team = make_team()
    claim = Sender(MEMBER, team.carol.own_leaf)
    for signature in (lambda s: s, lambda s: b"", flip):
        message = forge_content(team.mallory, APPLICATION, b"x", private=True, sender=claim, signature=signature)
        with refused(BadSignature, team.bob):
            team.bob.receive(message, NOW)
    genuine = team.carol.encrypt(b"it is me")
    received = team.bob.receive(genuine, NOW)
    assert isinstance(received, Application)
    assert received.sender.credential.identity == b"carol"


def test_unsigned_message_in_ones_own_name() -> None:
    team = make_team()
    message = forge_content(team.mallory, APPLICATION, b"x", private=True, signature=lambda signature: b"")
    refuse_message(team, message, BadSignature)


def test_forged_copy_first_then_the_genuine_one() -> None:
    """A key is spent only by a message that proves genuine."""
    team = make_team()
    genuine = team.mallory.encrypt(b"the genuine one")
    parsed = parse_message(genuine)
    assert isinstance(parsed, PrivateMessage)
    for bit in range(0, 8 * len(parsed.ciphertext), 37):
        forged = encode_message(replace(parsed, ciphertext=flip(parsed.ciphertext, bit)))
        with refused(DecryptionFailed, team.bob):
            team.bob.receive(forged, NOW)
    received = team.bob.receive(genuine, NOW)
    assert isinstance(received, Application)
    assert received.data == b"the genuine one"


def test_changed_authenticated_data_or_content_type() -> None:
    team = make_team()
    parsed = parse_message(team.mallory.encrypt(b"x", b"aad"))
    assert isinstance(parsed, PrivateMessage)
    refuse_message(team, encode_message(replace(parsed, aad=b"AAD")), DecryptionFailed)
    refuse_message(team, encode_message(replace(parsed, content_type=COMMIT)), DecryptionFailed)
    refuse_message(team, encode_message(replace(parsed, content_type=9)), Malformed)


@breaks(Check.MESSAGE_FORWARD)
@pytest.mark.parametrize("skip", [1001, 20_000, 2**31])
def test_generation_far_ahead(skip: int) -> None:
    team = make_team()
    message = seal_plaintext(team.mallory, APPLICATION, b"x", generation=skip)
    refuse_message(team, message, Check.MESSAGE_FORWARD)


@breaks(Check.MESSAGE_GENERATION)
def test_last_generation() -> None:
    team = make_team()
    for group in team.members.values():
        group.state.current.tree._ratchets[0, APPLICATION_RATCHET] = Ratchet(2**32 - 1, bytes(32))
    with refused(Check.MESSAGE_GENERATION, team.bob):
        team.bob.receive(seal_plaintext_at_the_end(team.mallory), NOW)
    with refused(Check.MESSAGE_GENERATION, team.mallory):
        team.mallory.encrypt(b"one too many")
    team.go_on()


def seal_plaintext_at_the_end(group: Group) -> bytes:
    """A message under the last number, sealed with any key: it must be refused before the key matters."""
    twin = Group.load(group.save(), TRUST)
    twin.state.current.tree._ratchets[0, APPLICATION_RATCHET] = Ratchet(0, bytes(32))
    return seal_plaintext(twin, APPLICATION, b"x", generation=2**32 - 1)


@breaks(Check.MESSAGE_PADDING)
def test_padding_that_is_not_zero() -> None:
    team = make_team()
    signed = sign(team.mallory, APPLICATION, b"x", wire=2)
    plaintext = b"\x01x" + signed.encode_auth()
    assert team.bob.receive(seal_plaintext(team.mallory, APPLICATION, plaintext + bytes(9)), NOW)
    message = seal_plaintext(team.mallory, APPLICATION, plaintext + bytes(8) + b"\1")
    with refused(Check.MESSAGE_PADDING, team.carol):
        team.carol.receive(message, NOW)


def sign(group: Group, content_type: int, body: bytes | Commit, wire: int) -> AuthenticatedContent:
    context = group.state.current.public.context
    place = (context.group_id, context.epoch)
    content = FramedContent.make(place, Sender(MEMBER, group.own_leaf), b"", content_type, body)
    bare = AuthenticatedContent(wire, content, b"")
    signature = sign_with_label(signer_of(group), b"FramedContentTBS", bare.to_be_signed(context.encode()))
    return replace(bare, signature=signature)


@breaks(Check.MESSAGE_APPLICATION)
def test_application_data_in_the_clear() -> None:
    team = make_team()
    message = forge_content(team.mallory, APPLICATION, b"not encrypted")
    team.refuse(message, Check.MESSAGE_APPLICATION)
    with refused(Check.MESSAGE_APPLICATION, team.public):
        team.public.check_application(message)


@breaks(Check.MESSAGE_SELF)
def test_own_message_comes_back() -> None:
    team = make_team()
    message = team.bob.encrypt(b"echo")
    with refused(Check.MESSAGE_SELF, team.bob):
        team.bob.receive(message, NOW)
    proposal = forge_proposal(team.bob, Remove(2))
    with refused(Check.MESSAGE_SELF, team.bob):
        team.bob.receive(proposal, NOW)
    team.go_on()


@breaks(Check.MESSAGE_SENDER)
@pytest.mark.parametrize("index", [3, 77, 2**32 - 1])
def test_sender_without_a_leaf(index: int) -> None:
    team = make_team()
    sender = Sender(MEMBER, index)
    message = forge_content(team.mallory, APPLICATION, b"x", private=True, sender=sender)
    refuse_message(team, message, Check.MESSAGE_SENDER)
    team.refuse_proposal(forge_proposal(team.mallory, Remove(2), sender=sender), Check.MESSAGE_SENDER)
    team.refuse(forge_commit(team.mallory, sender=sender).message, Check.MESSAGE_SENDER)


@breaks(Check.MESSAGE_SENDER)
def test_outsiders_who_may_not_send_this() -> None:
    team = make_team()
    stranger = Signer("ed25519", generate_signature_key("ed25519"))
    for sender in (Sender(EXTERNAL, 1), Sender(NEW_MEMBER_PROPOSAL), Sender(NEW_MEMBER_COMMIT)):
        message = forge_proposal(team.mallory, Remove(2), sender=sender, signer=stranger)
        team.refuse_proposal(message, Check.MESSAGE_SENDER)
    for sender in (Sender(EXTERNAL, 0), Sender(NEW_MEMBER_PROPOSAL)):
        team.refuse(forge_commit(team.mallory, sender=sender).message, Check.MESSAGE_SENDER)


# --- forms ----------------------------------------------------------------------------------------


@breaks(Check.MESSAGE_FORMAT)
def test_private_handshake_where_only_public_ones_are_allowed() -> None:
    team = make_team(settings=replace(SETTINGS, private_handshakes=False))
    team.refuse(forge_commit(team.mallory, private=True).message, Check.MESSAGE_FORMAT)
    team.refuse_proposal(forge_proposal(team.mallory, Remove(2), private=True), Check.MESSAGE_FORMAT)


@breaks(Check.MESSAGE_FORMAT)
def test_what_the_server_cannot_take() -> None:
    team = make_team()
    application = team.mallory.encrypt(b"x")
    proposal = forge_proposal(team.mallory, Remove(2))
    commit = forge_commit(team.mallory)
    with refused(Check.MESSAGE_FORMAT, team.public):
        team.public.check_commit(application, NOW)
    with refused(Check.MESSAGE_FORMAT, team.public):
        team.public.apply(proposal, NOW)
    with refused(Check.MESSAGE_FORMAT, team.public):
        team.public.receive_proposal(commit.message, NOW)
    with refused(Check.MESSAGE_FORMAT, team.public):
        team.public.check_application(forge_commit(team.mallory, private=True).message)


def test_messages_that_are_none_for_a_group() -> None:
    team = make_team()
    for message in (b"", b"\0", b"\0\1\0\1", b"\0\1\0\0", b"\0\1\0\6"):
        with refused(Malformed, team.bob):
            team.bob.receive(message, NOW)
        with refused(Malformed, team.public):
            team.public.receive_proposal(message, NOW)
    with refused(Malformed, team.bob):
        team.bob.receive(team.mallory.group_info(), NOW)
    team.go_on()


# --- groups and epochs ----------------------------------------------------------------------------


def test_message_of_another_group() -> None:
    team = make_team()
    other = Group.create(b"ward 8", new_leaf("mallory"), 1, (), SETTINGS, TRUST, NOW)
    refuse_message(team, other.encrypt(b"x"), WrongGroup)
    staged = other.stage_commit(CommitRequest(), NOW)
    team.refuse(staged.commit, WrongGroup)
    elsewhere = forge_commit(team.mallory, context=lambda context: replace(context, group_id=b"ward 8")).message
    team.refuse(elsewhere, WrongGroup)
    with refused(WrongGroup, team.public):
        team.public.check_application(other.encrypt(b"y"))


def test_commit_of_another_epoch() -> None:
    team = make_team()
    stale = forge_commit(team.mallory).message
    team.go_on()
    team.refuse(stale, StaleEpoch)
    ahead = forge_commit(team.mallory, context=lambda context: replace(context, epoch=context.epoch + 1)).message
    team.refuse(ahead, FutureEpoch)


def test_application_message_of_another_epoch() -> None:
    team = make_team()
    late = team.mallory.encrypt(b"late")
    for _ in range(SETTINGS.past_epochs + 1):
        team.commit(team.carol)
    refuse_message(team, late, StaleEpoch)
    ahead = Group.load(team.mallory.save(), TRUST)
    ahead.stage_commit(CommitRequest(), NOW)
    ahead.commit_accepted()
    message = ahead.encrypt(b"early")
    refuse_message(team, message, FutureEpoch)
    with refused(FutureEpoch, team.public):
        team.public.check_application(message)
    with refused(StaleEpoch, team.public):
        team.public.check_application(late)


def test_late_message_after_the_time_for_it() -> None:
    team = make_team()
    late, too_late = team.mallory.encrypt(b"late"), team.mallory.encrypt(b"too late")
    team.commit(team.carol)
    assert team.bob.receive(late, NOW + SETTINGS.past_seconds)
    with refused(StaleEpoch, team.bob):
        team.bob.receive(too_late, NOW + SETTINGS.past_seconds + 1)


# --- tags and signatures of handshakes ------------------------------------------------------------


@pytest.mark.parametrize("spoil", [flip, lambda value: b"", lambda value: value[:-1]], ids=["bit", "empty", "short"])
def test_wrong_signature_or_tag(spoil: object) -> None:
    team = make_team()
    team.refuse(forge_commit(team.mallory, signature=spoil).message, BadSignature)
    team.refuse(forge_commit(team.mallory, tag=spoil).message, BadSignature, public=False)
    team.refuse(forge_commit(team.mallory, membership=spoil).message, BadSignature, public=False)
    team.refuse_proposal(forge_proposal(team.mallory, Remove(2), signature=spoil), BadSignature)


def test_handshake_in_the_name_of_another() -> None:
    team = make_team()
    claim = Sender(MEMBER, team.carol.own_leaf)
    for group in (team.bob,):
        with refused(BadSignature, group):
            group.receive(forge_proposal(team.mallory, Remove(0), sender=claim), NOW)
        with refused(BadSignature, group):
            group.receive(forge_commit(team.mallory, sender=claim).message, NOW)
    with refused(BadSignature, team.public):
        team.public.check_commit(forge_commit(team.mallory, sender=claim).message, NOW)
    team.go_on()


def test_commit_moved_from_private_to_public() -> None:
    """The wire format is signed: what was sent encrypted cannot be shown as a public message."""
    team = make_team()
    private = parse_message(forge_commit(team.mallory).message)
    assert isinstance(private, PublicMessage)
    moved = replace(private.authenticated, wire=2)
    with refused(BadSignature, team.bob):
        team.bob.receive(frame(team.mallory, moved), NOW)
    team.go_on()


def test_proposal_twice() -> None:
    team = make_team()
    proposal = team.mallory.propose_remove(2, NOW)
    for group in team.victims():
        group.receive(proposal, NOW)
        with refused(Replayed, group):
            group.receive(proposal, NOW)
    team.public.receive_proposal(proposal, NOW)
    with refused(Replayed, team.public):
        team.public.receive_proposal(proposal, NOW)
