"""A group's life: join, talk, change, leave."""

from __future__ import annotations

import pytest
from mls_people import (
    APP_EXTENSION,
    DAY,
    NOW,
    SETTINGS,
    TRUST,
    add,
    assert_agree,
    commit,
    new_group,
    own_leaf,
    package_of,
    spread,
    team,
)

from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import (
    CurbsideError,
    FutureEpoch,
    Gone,
    IntegrityError,
    PendingProposals,
    Replayed,
    RuleBroken,
    StaleEpoch,
    UsageError,
    WrongGroup,
)
from curbside.mls.extensions import RequiredCapabilities
from curbside.mls.group import (
    Application,
    CommitReceived,
    CommitRequest,
    ExternalPsk,
    Group,
    GroupSettings,
    JoinOptions,
    ProposalReceived,
    ResumptionPsk,
)
from curbside.mls.nodes import Extension
from curbside.mls.proposals import ReInit


def broken(error: pytest.ExceptionInfo[RuleBroken]) -> str:
    return error.value.check


@pytest.mark.parametrize("suite", range(1, 8))
def test_a_group_lives_in_every_suite(suite: int) -> None:
    groups = team("alice", "bob", "fiona", suite=suite)
    assert_agree(groups)
    alice, bob, fiona = groups
    heard = spread(alice.encrypt(b"text", b"aad"), groups, alice)
    assert [(m.data, m.aad, m.sender.leaf_index) for m in heard if isinstance(m, Application)] == [
        (b"text", b"aad", 0)
    ] * 2
    for member in groups:
        commit(member, groups)
    commit(fiona, [bob, alice], CommitRequest(removes=(alice.own_leaf,)))
    assert not alice.is_active
    newcomer, message = Group.join_external(bob.group_info(), own_leaf("ext", suite), TRUST, NOW, SETTINGS)
    spread(message, [bob, fiona])
    assert_agree([bob, fiona, newcomer])


def test_join_names_the_key_package_to_delete() -> None:
    alice, mine, other = new_group(), package_of("bob"), package_of("bob")
    staged = commit(alice, [], CommitRequest(adds=(mine.public,)))
    group = Group.join(staged.welcome or b"", [other, mine], TRUST, NOW)
    assert group.used_key_package == mine.reference
    with pytest.raises(RuleBroken) as error:
        Group.join(staged.welcome or b"", [other], TRUST, NOW)
    assert broken(error) == "mls.welcome.for_us"


def test_join_with_the_tree_beside_the_welcome() -> None:
    settings = GroupSettings(tree_in_welcome=False)
    alice, package = new_group(settings=settings), package_of("bob")
    staged = commit(alice, [], CommitRequest(adds=(package.public,)))
    with pytest.raises(RuleBroken) as error:
        Group.join(staged.welcome or b"", [package], TRUST, NOW)
    assert broken(error) == "mls.tree.missing"
    options = JoinOptions(tree=alice.ratchet_tree())
    assert_agree([alice, Group.join(staged.welcome or b"", [package], TRUST, NOW, settings, options)])


def test_add_and_remove_several_in_one_commit() -> None:
    groups = team(*"abcdefgh")
    stay = [groups[i] for i in (0, 2, 4, 6)]
    packages = [package_of(name) for name in "xyz"]
    request = CommitRequest(adds=tuple(p.public for p in packages), removes=(1, 3, 5, 7))
    staged = groups[0].stage_commit(request, NOW)
    assert len(staged.diff.added) == 3
    assert len(staged.diff.removed) == 4
    groups[0].commit_accepted(staged)
    results = [group.receive(staged.commit, NOW) for group in groups[1:]]
    assert [r.removed_me for r in results if isinstance(r, CommitReceived)] == [True, False] * 3 + [True]
    joined = [Group.join(staged.welcome or b"", [p], TRUST, NOW) for p in packages]
    assert_agree(stay + joined)
    commit(joined[1], stay + joined)
    assert_agree(stay + joined)


def test_add_without_path_and_private_commits() -> None:
    groups = team("alice", "bob")
    package = package_of("fiona")
    staged = groups[0].stage_commit(CommitRequest(adds=(package.public,), update=False, wire="private"), NOW)
    assert staged.diff.updated == ()
    groups[0].commit_accepted()
    groups[1].receive(staged.commit, NOW)
    groups.append(Group.join(staged.welcome or b"", [package], TRUST, NOW))
    assert_agree(groups)
    for member in groups:
        commit(member, groups, CommitRequest(wire="private", aad=b"why"))
    assert_agree(groups)


def test_proposals_by_reference() -> None:
    groups = team("alice", "bob", "fiona", "dave")
    alice, bob, fiona, dave = groups
    spread(bob.propose_update(NOW), groups, bob)
    spread(fiona.propose_add(package_of("erin").public, NOW, "private"), groups, fiona)
    got = spread(fiona.propose_remove(dave.own_leaf, NOW), groups, fiona)
    assert isinstance(got[0], ProposalReceived)
    assert got[0].kind == "remove"
    assert got[0].member == fiona.members[fiona.own_leaf]
    with pytest.raises(PendingProposals):
        alice.encrypt(b"no")
    staged = commit(alice, groups)
    assert len(staged.diff.added) == 1
    assert len(staged.diff.removed) == 1
    assert {old.leaf_index for old, _ in staged.diff.updated} == {0, 1}
    assert not dave.is_active
    assert_agree(groups[:3])
    spread(alice.encrypt(b"yes"), groups[1:3])
    commit(bob, groups[:3])
    assert_agree(groups[:3])


def test_own_update_is_replaced_by_own_commit() -> None:
    groups = team("alice", "bob")
    spread(groups[0].propose_update(NOW), groups, groups[0])
    commit(groups[0], groups)
    assert_agree(groups)


def test_credential_and_key_change_with_a_commit_and_with_an_update() -> None:
    groups = team("alice", "bob", "fiona")
    before = groups[0].members[0].signature_key
    commit(groups[0], groups, CommitRequest(leaf=own_leaf("alice 2")))
    assert groups[1].members[0].signature_key != before
    spread(groups[1].propose_update(NOW, own_leaf("bob 2")), groups, groups[1])
    commit(groups[2], groups)
    assert groups[0].members[1].credential.identity == b"bob 2"
    assert_agree(groups)
    for group in groups:
        spread(group.encrypt(b"signed with the new key"), groups, group)


def test_staged_commit_survives_save_and_can_be_dropped_or_lost() -> None:
    groups = team("alice", "bob")
    alice, bob = groups
    staged = alice.stage_commit(CommitRequest(), NOW)
    assert alice.epoch == 1
    alice = Group.load(alice.save(), TRUST)
    assert alice.staged == staged
    spread(alice.encrypt(b"still in the old epoch"), [bob])
    other = bob.stage_commit(CommitRequest(), NOW)
    bob.commit_accepted(other)
    alice.receive(other.commit, NOW)
    assert alice.staged is None
    with pytest.raises(UsageError):
        alice.commit_accepted(staged)
    alice.stage_commit(CommitRequest(), NOW)
    alice.commit_rejected()
    assert alice.staged is None
    assert_agree([alice, bob])


def test_own_commit_that_comes_back_is_accepted() -> None:
    for wire in ("public", "private"):
        groups = team("alice", "bob")
        staged = groups[0].stage_commit(CommitRequest(wire=wire), NOW)
        result = groups[0].receive(staged.commit, NOW)
        assert isinstance(result, CommitReceived)
        assert result.own
        spread(staged.commit, groups, groups[0])
        assert_agree(groups)


def test_messages_of_other_epochs_and_groups() -> None:
    groups = team("alice", "bob")
    alice, bob = groups
    other = team("erin", "frank")
    with pytest.raises(WrongGroup):
        bob.receive(other[0].encrypt(b""), NOW)
    with pytest.raises(WrongGroup):
        bob.receive(other[0].propose_remove(1, NOW), NOW)
    staged = alice.stage_commit(CommitRequest(), NOW)
    alice.commit_accepted(staged)
    with pytest.raises(FutureEpoch):
        bob.receive(alice.encrypt(b""), NOW)
    bob.receive(staged.commit, NOW)
    with pytest.raises(StaleEpoch):
        bob.receive(staged.commit, NOW)


def test_resync_replaces_the_old_leaf() -> None:
    groups = team("alice", "bob", "fiona")
    leaf = own_leaf("bob")
    fresh, message = Group.join_external(groups[0].group_info(), leaf, TRUST, NOW, SETTINGS, JoinOptions(resync=True))
    results = spread(message, groups)
    assert all(r.external and len(r.diff.removed) == 1 for r in results if isinstance(r, CommitReceived))
    assert not groups[1].is_active
    assert_agree([groups[0], groups[2], fresh])
    with pytest.raises(Gone):
        groups[1].encrypt(b"")


def test_external_psk_and_resumption_psk() -> None:
    groups = team("alice", "bob")
    secret = SecretBytes(random_bytes(32))
    request = CommitRequest(psks=(ExternalPsk(b"id", secret), ResumptionPsk(1)))
    staged = groups[0].stage_commit(request, NOW)
    with pytest.raises(RuleBroken) as error:
        groups[1].receive(staged.commit, NOW)
    assert broken(error) == "mls.psk.known"
    groups[1].receive(staged.commit, NOW, {b"id": secret})
    groups[0].commit_accepted(staged)
    assert_agree(groups)
    spread(groups[1].propose_psk(ExternalPsk(b"id", secret), NOW), groups, groups[1])
    package = package_of("fiona")
    staged = groups[0].stage_commit(CommitRequest(adds=(package.public,)), NOW, {b"id": secret})
    groups[0].commit_accepted(staged)
    groups[1].receive(staged.commit, NOW, {b"id": secret})
    joined = Group.join(staged.welcome or b"", [package], TRUST, NOW, SETTINGS, JoinOptions(psks={b"id": secret}))
    assert_agree([*groups, joined])


def test_external_commit_with_psk() -> None:
    groups = team("alice", "bob")
    psk = ExternalPsk(b"id", SecretBytes(random_bytes(32)))
    options = JoinOptions(use_psks=(psk,))
    fresh, message = Group.join_external(groups[0].group_info(), own_leaf("erin"), TRUST, NOW, SETTINGS, options)
    for group in groups:
        group.receive(message, NOW, {b"id": psk.secret})
    assert_agree([*groups, fresh])


def test_reinit_moves_everybody_to_a_new_group() -> None:
    groups = team("alice", "bob")
    extensions = (Extension(APP_EXTENSION, b"new"),)
    commit(groups[0], groups, CommitRequest(reinit=ReInit(b"second", 1, 2, extensions), update=False))
    assert not groups[0].is_active
    for group in groups:
        with pytest.raises(RuleBroken) as error:
            group.encrypt(b"")
        assert broken(error) == "mls.commit.after_reinit"
    package = package_of("bob", 2)
    successor, staged = groups[0].reinit_successor(own_leaf("alice", 2), [package.public], NOW)
    successor.commit_accepted(staged)
    options = JoinOptions(earlier=(groups[1].state,))
    joined = Group.join(staged.welcome or b"", [package], TRUST, NOW, SETTINGS, options)
    assert (joined.group_id, joined.suite, joined.epoch, joined.extensions) == (b"second", 2, 1, extensions)
    assert_agree([successor, joined])
    with pytest.raises(RuleBroken):
        Group.join(staged.welcome or b"", [package], TRUST, NOW, SETTINGS)


def test_branch_makes_a_subgroup() -> None:
    class Strict(type(TRUST)):  # type: ignore[misc]
        def verify_successor(self, old: object, new: object) -> None:
            raise RuleBroken("test", "another person")

    groups = team("alice", "bob", "fiona")
    package = package_of("bob")
    branch, staged = groups[0].branch(b"sub", own_leaf("alice"), [package.public], NOW)
    branch.commit_accepted(staged)
    options = JoinOptions(earlier=(groups[1].state,))
    assert_agree([branch, Group.join(staged.welcome or b"", [package], Strict(), NOW, SETTINGS, options)])
    stranger = package_of("stranger")
    branch, staged = groups[0].branch(b"sub", own_leaf("alice"), [stranger.public], NOW)
    with pytest.raises(RuleBroken) as error:
        Group.join(staged.welcome or b"", [stranger], Strict(), NOW, SETTINGS, options)
    assert broken(error) == "mls.branch.match"


def test_group_context_extensions() -> None:
    groups = team("alice", "bob")
    extensions = (Extension(APP_EXTENSION, b"policy"), RequiredCapabilities((APP_EXTENSION,), (), (1,)).encode())
    staged = commit(groups[0], groups, CommitRequest(extensions=extensions))
    assert staged.diff.extensions_changed
    assert groups[1].extensions == extensions
    with pytest.raises(RuleBroken) as error:
        groups[0].stage_commit(CommitRequest(extensions=(Extension(0xF0A1, b""),)), NOW)
    assert broken(error) == "mls.extension.supported"
    spread(groups[1].propose_extensions((), NOW), groups, groups[1])
    commit(groups[0], groups)
    assert groups[1].extensions == ()


@pytest.mark.parametrize(
    ("request_", "check"),
    [
        (CommitRequest(removes=(0,)), "mls.commit.own_remove"),
        (CommitRequest(removes=(9,)), "mls.remove.exists"),
        (CommitRequest(removes=(1, 1)), "mls.commit.one_per_leaf"),
        (CommitRequest(reinit=ReInit(b"", 1, 1, ()), removes=(1,)), "mls.reinit.alone"),
        (CommitRequest(reinit=ReInit(b"", 0, 1, ())), "mls.reinit.version"),
        (CommitRequest(psks=(ResumptionPsk(99),)), "mls.psk.known"),
    ],
)
def test_commits_that_cannot_be_made(request_: CommitRequest, check: str) -> None:
    alice = team("alice", "bob")[0]
    before = alice.save()
    with pytest.raises(RuleBroken) as error:
        alice.stage_commit(request_, NOW)
    assert broken(error) == check
    assert alice.save() == before


def test_adds_that_cannot_be_made() -> None:
    alice = team("alice", "bob")[0]
    package = package_of("erin")
    cases = {
        "mls.commit.duplicate_add": (package.public, package.public),
        "mls.leaf.lifetime": (package_of("old", lifetime=(0, NOW - 1)).public,),
        "mls.leaf.lifetime_length": (package_of("long", lifetime=(NOW - 1, NOW + 400 * DAY)).public,),
        "mls.key_package.suite": (package_of("other", 2).public,),
    }
    for check, adds in cases.items():
        with pytest.raises(RuleBroken) as error:
            alice.stage_commit(CommitRequest(adds=adds), NOW)
        assert broken(error) == check


def test_suites_must_be_allowed() -> None:
    with pytest.raises(RuleBroken) as error:
        new_group(suite=2, settings=GroupSettings())
    assert broken(error) == "mls.suite.allowed"


def test_export_depends_on_everything() -> None:
    groups = team("alice", "bob")
    values = {groups[0].export(label, context, 32) for label in ("a", "b") for context in (b"", b"x")}
    assert len(values) == 4
    assert groups[1].export("a", b"x", 50) == groups[0].export("a", b"x", 50)


def test_damaged_state_is_refused() -> None:
    blob = new_group().save()
    for bad in (b"", b"\x07" + blob[1:], blob[:-1], blob + b"\0"):
        with pytest.raises(IntegrityError):
            Group.load(bad, TRUST)


def test_same_public_proposal_twice_is_a_replay() -> None:
    groups = add(*(lambda g: (g, [g]))(new_group()), "bob")
    message = groups[0].propose_remove(1, NOW)
    groups[1].receive(message, NOW)
    with pytest.raises(Replayed):
        groups[1].receive(message, NOW)


def test_a_policy_can_refuse_commits_on_both_sides() -> None:
    class NoRemoves(type(TRUST)):  # type: ignore[misc]
        def verify_commit(self, context: object) -> None:
            if context.diff.removed:  # type: ignore[attr-defined]
                raise RuleBroken("test.no_removes")

    groups = team("alice", "bob", "fiona")
    strict = Group.load(groups[1].save(), NoRemoves())
    with pytest.raises(RuleBroken):
        strict.stage_commit(CommitRequest(removes=(2,)), NOW)
    staged = groups[0].stage_commit(CommitRequest(removes=(2,)), NOW)
    before = strict.save()
    with pytest.raises(CurbsideError):
        strict.receive(staged.commit, NOW)
    assert strict.save() == before


def test_a_proposal_that_cannot_be_committed_does_not_block_the_group() -> None:
    class NoRemoves(type(TRUST)):  # type: ignore[misc]
        def verify_commit(self, context: object) -> None:
            if context.diff.removed:  # type: ignore[attr-defined]
                raise RuleBroken("test.no_removes")

    groups = [Group.load(group.save(), NoRemoves()) for group in team("alice", "bob", "fiona")]
    alice, bob, fiona = groups
    unknown = ExternalPsk(b"nobody has this", SecretBytes(b"x" * 32))
    for message in (
        bob.propose_psk(unknown, NOW),
        bob.propose_remove(2, NOW),
        bob.propose_extensions((Extension(0xF0FF, b"nobody supports this"),), NOW),
        bob.propose_update(NOW),
    ):
        spread(message, groups, bob)
    with pytest.raises(PendingProposals):
        alice.encrypt(b"x")
    staged = commit(alice, groups)
    assert {old.leaf_index for old, _ in staged.diff.updated} == {0, 1}
    assert_agree(groups)
    spread(fiona.encrypt(b"on we go"), groups, fiona)
