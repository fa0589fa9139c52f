"""The server's view follows a group without secrets and refuses what members would refuse."""

from __future__ import annotations

import pytest
from mls_people import (
    NOW,
    TRUST,
    add,
    assert_agree,
    commit,
    external_sender,
    own_leaf,
    package_of,
    spread,
    team,
)

from curbside.crypto.sign import generate_signature_key
from curbside.errors import (
    BadSignature,
    CurbsideError,
    FutureEpoch,
    IntegrityError,
    Malformed,
    PendingProposals,
    Replayed,
    RuleBroken,
    StaleEpoch,
    WrongGroup,
)
from curbside.mls.group import CommitRequest, Group, GroupSettings
from curbside.mls.joining import request_to_join
from curbside.mls.proposals import ReInit
from curbside.mls.public import PublicGroup, describe_message, verify_key_package
from curbside.mls.validation import Limits


def follow(group: Group) -> PublicGroup:
    return PublicGroup.from_group_info(group.group_info(), TRUST, NOW)


def test_public_group_follows_members() -> None:
    sender = external_sender()
    groups = team("alice", extensions=(sender.extension,))
    server = follow(groups[0])
    for number in range(12):
        package = package_of(f"member {number}")
        actor = groups[number % len(groups)]
        staged = actor.stage_commit(CommitRequest(adds=(package.public,)), NOW)
        blob = server.save()
        assert server.check_commit(staged.commit, NOW) == staged.diff
        assert server.save() == blob
        server = PublicGroup.load(blob, TRUST)
        assert server.apply(staged.commit, NOW) == staged.diff
        actor.commit_accepted(staged)
        spread(staged.commit, groups, actor)
        groups.append(Group.join(staged.welcome or b"", [package], TRUST, NOW))
        assert (server.epoch, server.members) == (actor.epoch, actor.members)
        assert server.ratchet_tree() == actor.ratchet_tree()
    with pytest.raises(StaleEpoch):
        server.check_commit(staged.commit, NOW)
    fresh, message = Group.join_external(groups[3].group_info(), own_leaf("ext"), TRUST, NOW)
    server.apply(message, NOW)
    spread(message, groups)
    assert_agree([*groups, fresh])
    assert server.tree_hash == fresh.state.current.public.context.tree_hash


def test_the_server_proposes_a_removal_and_members_must_commit_it() -> None:
    sender = external_sender()
    groups = team("alice", "bob", "fiona", extensions=(sender.extension,))
    alice, bob, fiona = groups
    server = follow(alice)
    proposal = server.propose_remove(fiona.own_leaf, sender.key)
    assert server.receive_proposal(proposal, NOW).kind == "remove"
    with pytest.raises(Replayed):
        server.receive_proposal(proposal, NOW)
    server = PublicGroup.load(server.save(), TRUST)
    assert len(server.pending) == 1
    for group in groups:
        assert group.receive(proposal, NOW).member is None  # type: ignore[union-attr]
        with pytest.raises(PendingProposals):
            group.encrypt(b"x")
    staged = commit(bob, [alice, fiona])
    server.apply(staged.commit, NOW)
    assert not fiona.is_active
    assert_agree([alice, bob])
    for late in (server, alice):
        with pytest.raises(StaleEpoch):
            late.receive_proposal(proposal, NOW) if isinstance(late, PublicGroup) else late.receive(proposal, NOW)


def test_the_server_proposes_an_add() -> None:
    sender = external_sender()
    groups = team("alice", "bob", extensions=(sender.extension,))
    server, package = follow(groups[0]), package_of("erin")
    proposal = server.propose_add(package.public, sender.key)
    server.receive_proposal(proposal, NOW)
    spread(proposal, groups)
    staged = commit(groups[0], groups)
    server.apply(staged.commit, NOW)
    assert_agree([*groups, Group.join(staged.welcome or b"", [package], TRUST, NOW)])


def test_external_proposals_of_strangers_and_other_groups_are_refused() -> None:
    sender, stranger = external_sender(), external_sender("stranger")
    groups = team("alice", "bob", extensions=(sender.extension,))
    other = team("erin", "frank", extensions=(sender.extension,))
    server = follow(groups[0])
    with pytest.raises(RuleBroken):
        server.propose_remove(1, stranger.key)
    with pytest.raises(RuleBroken):
        server.propose_remove(1, sender.key, 1)
    with pytest.raises(WrongGroup):
        groups[0].receive(follow(other[0]).propose_remove(1, sender.key), NOW)
    ahead = groups[0].stage_commit(CommitRequest(), NOW)
    server.apply(ahead.commit, NOW)
    with pytest.raises(FutureEpoch):
        groups[0].receive(server.propose_remove(1, sender.key), NOW)


def test_outsiders_may_ask_to_join_only_if_allowed() -> None:
    groups, package = team("alice", "bob"), package_of("erin")
    message = request_to_join(groups[0].group_id, groups[0].epoch, package)
    with pytest.raises(RuleBroken) as error:
        groups[0].receive(message, NOW)
    assert error.value.check == "mls.proposal.join_request"
    open_ = GroupSettings(limits=Limits(join_requests=True))
    groups = [Group.load(group.save(), TRUST, open_) for group in groups]
    spread(message, groups)
    staged = commit(groups[0], groups)
    assert_agree([*groups, Group.join(staged.welcome or b"", [package], TRUST, NOW)])


def test_the_server_refuses_what_is_not_for_it() -> None:
    groups = team("alice", "bob")
    server = follow(groups[0])
    application, proposal = groups[0].encrypt(b"x", b"aad"), groups[1].propose_remove(0, NOW)
    assert server.check_application(application).aad == b"aad"
    assert describe_message(proposal).kind == "proposal"
    private = groups[0].stage_commit(CommitRequest(wire="private", pending=False), NOW)
    for bad in (application, private.commit, proposal, b"", b"\0\1\0\1"):
        with pytest.raises(CurbsideError):
            server.check_commit(bad, NOW)
    for bad in (private.commit, proposal):
        with pytest.raises(RuleBroken):
            server.check_application(bad)
    with pytest.raises(RuleBroken):
        server.receive_proposal(groups[0].stage_commit(CommitRequest(pending=False), NOW).commit, NOW)
    with pytest.raises(Malformed):
        describe_message(package_of("x").public)
    with pytest.raises(IntegrityError):
        PublicGroup.load(server.save()[:-1], TRUST)


def test_every_bit_flip_in_a_commit_is_refused_by_the_server_or_covered_by_tags() -> None:
    groups = team("alice", "bob")
    server = follow(groups[0])
    staged = groups[0].stage_commit(CommitRequest(), NOW)
    tags = 2 * 33  # confirmation and membership tag: only members can check them
    for place in range(0, len(staged.commit) - tags, 3):
        bad = bytearray(staged.commit)
        bad[place] ^= 4
        with pytest.raises(CurbsideError):
            server.check_commit(bytes(bad), NOW)


def test_group_info_for_joiners_is_checked() -> None:
    groups = team("alice", "bob")
    server = follow(groups[0])
    server.check_group_info(groups[1].group_info(), NOW)
    server.check_group_info(groups[1].group_info(with_tree=False), NOW)
    info = bytearray(groups[1].group_info())
    info[-1] ^= 1
    with pytest.raises(BadSignature):
        server.check_group_info(bytes(info), NOW)
    commit(groups[0], groups)
    with pytest.raises(FutureEpoch):
        server.check_group_info(groups[1].group_info(), NOW)


def test_a_reinit_closes_the_group_for_the_server() -> None:
    groups = team("alice", "bob")
    server = follow(groups[0])
    staged = groups[0].stage_commit(CommitRequest(reinit=ReInit(b"n", 1, 1, ()), update=False), NOW)
    server.apply(staged.commit, NOW)
    assert server.is_closed
    assert PublicGroup.load(server.save(), TRUST).is_closed


def test_key_packages_are_verified() -> None:
    package = package_of("alice")
    info = verify_key_package(package.public, TRUST, NOW)
    assert (info.credential.identity, info.reference, info.suite) == (b"alice", package.reference, 1)
    for place in range(4, len(package.public), 5):
        bad = bytearray(package.public)
        bad[place] ^= 1
        with pytest.raises(CurbsideError):
            verify_key_package(bytes(bad), TRUST, NOW)
    with pytest.raises(RuleBroken) as error:
        verify_key_package(package.public, TRUST, NOW + 31 * 24 * 3600)
    assert error.value.check == "mls.leaf.lifetime"
    groups = add(*(lambda g: (g, [g]))(team("zoe")[0]), "yan")
    with pytest.raises(Malformed):
        verify_key_package(groups[0].group_info(), TRUST, NOW)
    assert len(generate_signature_key("p256").reveal()) == 32
