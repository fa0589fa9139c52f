"""Commits that break a rule on their list, path or sender (RFC 9420 sections 7.5, 7.6, 7.9 and 12.2 to 12.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from curbside.crypto import hpke
from curbside.crypto.suites import get_suite
from curbside.errors import BadSignature, DecryptionFailed, Gone, Malformed, UntrustedDevice
from curbside.mls.checks import Check
from curbside.mls.group import CommitRequest, Group, JoinOptions
from curbside.mls.messages import (
    Commit,
    HpkeCiphertext,
    PublicMessage,
    UpdatePath,
    UpdatePathNode,
    encode_message,
    parse_message,
)
from curbside.mls.nodes import Credential, LeafNode
from curbside.mls.proposals import (
    Add,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    PskId,
    ReInit,
    Remove,
    Update,
)
from curbside.mls.public import PublicGroup
from curbside.mls.results import CommitReceived
from curbside.mls.transcript import PublicState
from curbside.mls.trust import UnsafeAcceptAll

from .forge import flip, forge_commit, forge_proposal, new_update_leaf, replace_external
from .people import NOW, SETTINGS, TRUST, Team, make_team, new_leaf, new_package, refused
from .registry import breaks

SUITE = get_suite(1)


def fresh_key() -> bytes:
    return hpke.generate_key_pair(SUITE.hpke.kem)[1]


def refuse_items(expected: Check, *items: Any, **hooks: Any) -> None:
    team = make_team()
    team.refuse(forge_commit(team.mallory, items=items, **hooks).message, expected)


# --- the list -------------------------------------------------------------------------------------


@breaks(Check.COMMIT_OWN_UPDATE)
def test_own_update_by_reference() -> None:
    team = make_team()
    update = Update(new_update_leaf(team.mallory))
    proposal = forge_proposal(team.mallory, update)
    team.bob.receive(proposal, NOW)
    team.public.receive_proposal(proposal, NOW)
    reference = team.bob.pending[0].reference
    message = forge_commit(team.mallory, items=[reference], effects=[(update, 0)]).message
    with refused(Check.COMMIT_OWN_UPDATE, team.bob):
        team.bob.receive(message, NOW)
    with refused(Check.COMMIT_OWN_UPDATE, team.public):
        team.public.apply(message, NOW)
    team.members["carol"].receive(proposal, NOW)
    team.go_on()


@breaks(Check.COMMIT_UPDATE_BY_VALUE)
def test_update_by_value() -> None:
    team = make_team()
    update = Update(new_update_leaf(team.mallory))
    team.refuse(forge_commit(team.mallory, items=[update]).message, Check.COMMIT_UPDATE_BY_VALUE)
    stolen = Update(new_update_leaf(team.carol))
    team.refuse(forge_commit(team.mallory, items=[stolen], effects=()).message, Check.COMMIT_UPDATE_BY_VALUE)


@breaks(Check.COMMIT_OWN_REMOVE)
def test_commit_that_removes_its_sender() -> None:
    refuse_items(Check.COMMIT_OWN_REMOVE, Remove(0), effects=())


@breaks(Check.COMMIT_ONE_PER_LEAF)
def test_member_removed_twice() -> None:
    refuse_items(Check.COMMIT_ONE_PER_LEAF, Remove(2), Remove(2))


@breaks(Check.COMMIT_DUPLICATE_ADD)
def test_client_added_twice() -> None:
    package = new_package("dave")
    again = new_package("dave", leaf=package.own)
    refuse_items(Check.COMMIT_DUPLICATE_ADD, Add(package.package), Add(package.package))
    refuse_items(Check.COMMIT_DUPLICATE_ADD, Add(package.package), Add(again.package))


@breaks(Check.COMMIT_DUPLICATE_ADD)
def test_member_added_again() -> None:
    team = make_team()
    package = new_package("bob", leaf=team.bob.state.current.leaf)
    team.refuse(forge_commit(team.mallory, items=[Add(package.package)]).message, Check.COMMIT_DUPLICATE_ADD)


@breaks(Check.COMMIT_ONE_EXTENSIONS)
def test_extensions_twice() -> None:
    refuse_items(Check.COMMIT_ONE_EXTENSIONS, GroupContextExtensions(()), GroupContextExtensions(()))


@breaks(Check.COMMIT_PATH)
def test_path_that_is_missing() -> None:
    refuse_items(Check.COMMIT_PATH, with_path=False)
    refuse_items(Check.COMMIT_PATH, Remove(2), with_path=False)
    refuse_items(Check.COMMIT_PATH, GroupContextExtensions(()), with_path=False)
    refuse_items(Check.COMMIT_PATH, Remove(2), Add(new_package("dave").package), with_path=False)


@breaks(Check.COMMIT_EPOCH_LIMIT)
def test_last_epoch() -> None:
    team = make_team()
    for name, group in team.members.items():
        team.members[name] = Group(replace(group.state, current=in_last_epoch(group.state.current)), TRUST)
    message = forge_commit(team.mallory).message
    with refused(Check.COMMIT_EPOCH_LIMIT, team.bob):
        team.bob.receive(message, NOW)
    with refused(Check.COMMIT_EPOCH_LIMIT, team.mallory):
        team.mallory.stage_commit(CommitRequest(), NOW)
    public = PublicGroup(team.bob.state.current.public, TRUST, SETTINGS.limits)
    with refused(Check.COMMIT_EPOCH_LIMIT, public):
        public.apply(message, NOW)


def in_last_epoch(epoch: Any) -> Any:
    public = epoch.public
    context = replace(public.context, epoch=2**64 - 1)
    return replace(epoch, public=PublicState.make(public.suite, context, public.tree, public.confirmation_tag))


# --- the path -------------------------------------------------------------------------------------


def change_nodes(change: Callable[[tuple[UpdatePathNode, ...]], tuple[UpdatePathNode, ...]]) -> Any:
    return lambda path: replace(path, nodes=change(path.nodes))


@breaks(Check.COMMIT_PATH_LENGTH)
@pytest.mark.parametrize(
    "change",
    [lambda n: n[:-1], lambda n: (), lambda n: (*n, UpdatePathNode(fresh_key(), n[-1].sealed))],
    ids=["short", "empty", "long"],
)
def test_path_of_another_length(change: Any) -> None:
    refuse_items(Check.COMMIT_PATH_LENGTH, path=change_nodes(change))


@breaks(Check.COMMIT_PATH_CIPHERTEXTS)
@pytest.mark.parametrize(
    "change",
    [lambda sealed: (), lambda sealed: sealed[:-1], lambda sealed: (*sealed, sealed[0])],
    ids=["none", "fewer", "more"],
)
def test_path_with_fewer_or_more_ciphertexts(change: Any) -> None:
    spoil = change_nodes(lambda nodes: (*nodes[:-1], replace(nodes[-1], sealed=change(nodes[-1].sealed))))
    refuse_items(Check.COMMIT_PATH_CIPHERTEXTS, path=spoil)


@breaks(Check.COMMIT_PATH_CIPHERTEXTS)
def test_path_sealed_to_a_newcomer() -> None:
    """Newcomers get their secret by the Welcome; a ciphertext for them in the path is one too many."""
    add = Add(new_package("dave").package)
    more = change_nodes(
        lambda nodes: (*nodes[:-1], replace(nodes[-1], sealed=(*nodes[-1].sealed, nodes[-1].sealed[0])))
    )
    refuse_items(Check.COMMIT_PATH_CIPHERTEXTS, add, path=more)


@breaks(Check.COMMIT_PATH_KEY_UNIQUE)
def test_path_with_a_key_that_is_there_already() -> None:
    team = make_team()
    for index in (0, 1):
        leaf = team.bob.state.current.public.tree.find_leaf(index)
        assert leaf is not None
        key = leaf.encryption_key
        message = forge_commit(team.mallory, keys=lambda keys, key=key: [key, *keys[1:]]).message
        team.refuse(message, Check.COMMIT_PATH_KEY_UNIQUE)
    [*_, (_, parent)] = team.bob.state.current.public.tree.parents()
    message = forge_commit(team.mallory, keys=lambda keys: [*keys[:-1], parent.encryption_key]).message
    team.refuse(message, Check.COMMIT_PATH_KEY_UNIQUE)


@breaks(Check.COMMIT_PATH_KEY_UNIQUE)
def test_path_with_one_key_twice() -> None:
    refuse_items(Check.COMMIT_PATH_KEY_UNIQUE, keys=lambda keys: [keys[0]] * len(keys))


@breaks(Check.COMMIT_PATH_KEY_DERIVED)
def test_path_key_that_does_not_follow_from_its_secret() -> None:
    """Nobody could write to the committer's side of the tree afterwards: a lock-out of the next committers."""
    for position in (0, -1):
        team = make_team("mallory", "bob", "carol", "dave")

        def lie(keys: list[bytes], position: int = position) -> list[bytes]:
            keys[position] = fresh_key()
            return keys

        message = forge_commit(team.mallory, keys=lie).message
        victims = team.victims() if position else [team.bob]
        for group in victims:
            with refused(Check.COMMIT_PATH_KEY_DERIVED, group):
                group.receive(message, NOW)
        team.go_on()


@breaks(Check.COMMIT_PARENT_HASH)
@pytest.mark.parametrize("change", [lambda value: b"", flip, lambda value: value[:-1]], ids=["empty", "bit", "short"])
def test_leaf_with_a_wrong_parent_hash(change: Any) -> None:
    refuse_items(Check.COMMIT_PARENT_HASH, parent_hash=change)


def test_path_secret_that_does_not_open() -> None:
    def spoil(nodes: tuple[UpdatePathNode, ...]) -> tuple[UpdatePathNode, ...]:
        junk = HpkeCiphertext(fresh_key(), bytes(48)).encode()
        return tuple(replace(node, sealed=tuple(junk for _ in node.sealed)) for node in nodes)

    team = make_team()
    team.refuse(forge_commit(team.mallory, path=change_nodes(spoil)).message, DecryptionFailed, public=False)
    sealed_zero = HpkeCiphertext(bytes(32), bytes(48)).encode()
    zero = change_nodes(lambda nodes: tuple(replace(n, sealed=tuple(sealed_zero for _ in n.sealed)) for n in nodes))
    team.refuse(forge_commit(team.mallory, path=zero).message, DecryptionFailed, public=False)


# --- external commits -----------------------------------------------------------------------------


def join_from_outside(team: Team, **options: Any) -> tuple[Group, bytes]:
    leaf = new_leaf("dave")
    return Group.join_external(team.carol.group_info(), leaf, TRUST, NOW, SETTINGS, JoinOptions(**options))


def refuse_external(expected: Check, change: Callable[[Commit], dict[str, Any]]) -> None:
    team = make_team()
    leaf = new_leaf("dave")
    _, commit = Group.join_external(team.carol.group_info(), leaf, TRUST, NOW)
    parsed = parse_message(commit)
    assert isinstance(parsed, PublicMessage)
    body = parsed.authenticated.content.body
    assert isinstance(body, Commit)
    team.refuse(replace_external(commit, leaf, team.bob, **change(body)), expected)


def test_control_external_commit_signed_anew_is_accepted() -> None:
    team = make_team()
    leaf = new_leaf("dave")
    _, commit = Group.join_external(team.carol.group_info(), leaf, TRUST, NOW)
    signed_anew = replace_external(commit, leaf, team.bob)
    assert signed_anew == commit  # Ed25519 signatures follow from key and content
    for group in team.members.values():
        assert isinstance(group.receive(signed_anew, NOW), CommitReceived)
    team.public.apply(signed_anew, NOW)


@breaks(Check.COMMIT_EXTERNAL_INIT)
@pytest.mark.parametrize(
    "change",
    [
        lambda body: {"proposals": (*body.proposals, ExternalInit(bytes(32)))},
        lambda body: {"proposals": ()},
        lambda body: {"proposals": (Remove(2),)},
    ],
    ids=["twice", "none", "remove-only"],
)
def test_external_commit_without_exactly_one_external_init(change: Any) -> None:
    refuse_external(Check.COMMIT_EXTERNAL_INIT, change)


@breaks(Check.COMMIT_EXTERNAL_LIST)
@pytest.mark.parametrize(
    "more",
    [
        lambda: (Add(new_package("erin").package),),
        lambda: (Remove(1), Remove(2)),
        lambda: (GroupContextExtensions(()),),
        lambda: (ReInit(b"next", 1, 1, ()),),
        lambda: (Update(new_update_leaf(make_team().mallory)),),
        lambda: (bytes(32),),
    ],
    ids=["add", "two-removes", "extensions", "reinit", "update", "reference"],
)
def test_external_commit_with_what_it_may_not_hold(more: Any) -> None:
    refuse_external(Check.COMMIT_EXTERNAL_LIST, lambda body: {"proposals": (*body.proposals, *more())})


@breaks(Check.COMMIT_PATH)
def test_external_commit_without_a_path() -> None:
    refuse_external(Check.COMMIT_PATH, lambda body: {"path": None})


@breaks(Check.REMOVE_EXISTS)
def test_external_commit_that_removes_nobody() -> None:
    refuse_external(Check.REMOVE_EXISTS, lambda body: {"proposals": (*body.proposals, Remove(77))})


@breaks(Check.PSK_KNOWN)
def test_external_commit_with_a_psk_that_we_do_not_have() -> None:
    team = make_team()
    leaf = new_leaf("dave")
    _, commit = Group.join_external(team.carol.group_info(), leaf, TRUST, NOW)
    parsed = parse_message(commit)
    assert isinstance(parsed, PublicMessage)
    body = parsed.authenticated.content.body
    assert isinstance(body, Commit)
    psk = PreSharedKey(PskId(1, bytes(32), b"psk"))
    forged = replace_external(commit, leaf, team.bob, proposals=(*body.proposals, psk))
    team.refuse(forged, Check.PSK_KNOWN, public=False)


def test_external_commit_signed_by_somebody_else_or_not_at_all() -> None:
    team = make_team()
    _, commit = join_from_outside(team)
    team.refuse(replace_external(commit, new_leaf("eve"), team.bob), BadSignature)
    _, commit = join_from_outside(team)
    parsed = parse_message(commit)
    assert isinstance(parsed, PublicMessage)
    unsigned = PublicMessage(replace(parsed.authenticated, signature=b""))
    team.refuse(encode_message(unsigned), BadSignature)


def test_removed_member_does_nothing_more() -> None:
    team = make_team()
    gone = team.members.pop("carol")
    commit = team.commit(team.mallory, CommitRequest(removes=(2,)))
    received = gone.receive(commit, NOW)
    assert isinstance(received, CommitReceived)
    assert received.removed_me
    message = team.mallory.encrypt(b"x")
    for attempt in (
        lambda: gone.receive(message, NOW),
        lambda: gone.receive(commit, NOW),
        lambda: gone.encrypt(b"still here"),
        lambda: gone.stage_commit(CommitRequest(), NOW),
        lambda: gone.propose_remove(0, NOW),
        lambda: gone.group_info(),
        lambda: gone.export("label", b"", 32),
    ):
        with refused(Gone, gone):
            attempt()


def test_external_commit_from_a_wrong_external_key() -> None:
    """The init secret does not come out the same: nobody but the newcomer would be in the new epoch."""
    team = make_team()
    leaf = new_leaf("dave")
    _, commit = Group.join_external(team.carol.group_info(), leaf, TRUST, NOW)
    forged = replace_external(commit, leaf, team.bob, proposals=(ExternalInit(fresh_key()),))
    team.refuse(forged, BadSignature, public=False)
    for none in (bytes(32), b"", b"k" * 31):
        forged = replace_external(
            Group.join_external(team.carol.group_info(), leaf, TRUST, NOW)[1],
            leaf,
            team.bob,
            proposals=(ExternalInit(none),),
        )
        team.refuse(forged, Malformed, public=False)


class SameName(UnsafeAcceptAll):
    """Nobody takes the place of somebody with another name."""

    def verify_successor(self, old: LeafNode, new: LeafNode) -> None:
        if old.credential != new.credential:
            raise UntrustedDevice(device="?", check="test.name")


def test_resync_in_the_name_of_another() -> None:
    team = make_team(trust=SameName())
    options = JoinOptions(resync=True, replaces=1)
    _, commit = Group.join_external(team.carol.group_info(), new_leaf("eve"), TRUST, NOW, SETTINGS, options)
    for group in team.members.values():
        with refused(UntrustedDevice, group):
            group.receive(commit, NOW)
    with refused(UntrustedDevice, team.public):
        team.public.apply(commit, NOW)
    own = JoinOptions(resync=True)
    back, commit = Group.join_external(team.carol.group_info(), new_leaf("bob"), TRUST, NOW, SETTINGS, own)
    gone = team.members.pop("bob")
    received = gone.receive(commit, NOW)
    assert isinstance(received, CommitReceived)
    assert received.removed_me
    for group in team.members.values():
        group.receive(commit, NOW)
    team.public.apply(commit, NOW)
    team.members["bob"] = back
    team.go_on()


@breaks(Check.COMMIT_DUPLICATE_ADD)
def test_staging_what_others_would_refuse() -> None:
    """Our own commits pass through the same checks: a refusal leaves nothing staged."""
    team = make_team()
    package = new_package("bob", leaf=team.bob.state.current.leaf)
    with refused(Check.COMMIT_DUPLICATE_ADD, team.carol):
        team.carol.stage_commit(CommitRequest(adds=(package.public,)), NOW)
    assert team.carol.staged is None
    team.go_on()


def test_message_that_is_encoded_again_is_the_same() -> None:
    """Forging by parsing and encoding changes nothing by itself."""
    team = make_team()
    message = forge_commit(team.mallory).message
    parsed = parse_message(message)
    assert encode_message(parsed) == message
    assert isinstance(parsed, PublicMessage)
    body = parsed.authenticated.content.body
    assert isinstance(body, Commit)
    assert isinstance(body.path, UpdatePath)
    assert Credential.basic(b"mallory") == body.path.leaf.credential
