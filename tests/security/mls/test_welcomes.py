"""Welcomes, GroupInfos and trees that are not what they say (RFC 9420 sections 7.7 to 7.9 and 12.4.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from curbside.crypto import hpke
from curbside.crypto.random import random_bytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.suites import get_suite
from curbside.errors import (
    BadSignature,
    CurbsideError,
    DecryptionFailed,
    DuplicateRequest,
    FutureEpoch,
    Malformed,
    StaleEpoch,
    WrongGroup,
)
from curbside.mls.checks import Check
from curbside.mls.codec import Reader, u16s, vector
from curbside.mls.committing import make_group_info
from curbside.mls.extensions import REQUIRED_CAPABILITIES
from curbside.mls.group import CommitRequest, Group, GroupSettings, JoinOptions, KeyPackageSecrets
from curbside.mls.key_package import make_signer
from curbside.mls.labels import sign_with_label
from curbside.mls.messages import GroupInfo, encode_message, parse_message
from curbside.mls.nodes import Extension, LeafNode, ParentNode
from curbside.mls.proposals import PSK_EXTERNAL, PSK_RESUMPTION, USAGE_BRANCH, USAGE_REINIT, PskId
from curbside.mls.public import PublicGroup
from curbside.mls.tree import RatchetTree

from .forge import change_parent, flip, forge_welcome, sign_leaf, signer_of
from .people import NOW, SETTINGS, TRUST, Team, make_team, new_leaf, new_package, refused, with_limits
from .registry import breaks

SUITE = get_suite(1)


def join(welcome: bytes, package: KeyPackageSecrets, settings: GroupSettings = SETTINGS, **options: Any) -> Group:
    return Group.join(welcome, [package], TRUST, NOW, settings, JoinOptions(**options))


def refuse_welcome(
    expected: Check | type[CurbsideError],
    team: Team | None = None,
    settings: GroupSettings = SETTINGS,
    options: dict[str, Any] | None = None,
    **hooks: Any,
) -> None:
    """A forged Welcome is refused; the KeyPackage is not used up: a good one is accepted afterwards."""
    team = team or make_team()
    package = new_package("dave")
    with refused(expected, *team.members.values()):
        join(forge_welcome(team.mallory, package, **hooks), package, settings, **(options or {}))
    join(forge_welcome(team.mallory, package), package)


def fresh_key() -> bytes:
    return hpke.generate_key_pair(SUITE.hpke.kem)[1]


# --- who it is for --------------------------------------------------------------------------------


@breaks(Check.WELCOME_FOR_US)
def test_welcome_for_somebody_else() -> None:
    team = make_team()
    welcome = forge_welcome(team.mallory, new_package("dave"))
    with refused(Check.WELCOME_FOR_US):
        join(welcome, new_package("erin"))


@breaks(Check.WELCOME_FOR_US)
def test_welcome_once_the_key_package_is_gone() -> None:
    team, package = make_team(), new_package("dave")
    welcome = forge_welcome(team.mallory, package)
    assert join(welcome, package).used_key_package == package.reference
    with refused(Check.WELCOME_FOR_US):
        Group.join(welcome, [], TRUST, NOW, SETTINGS)


def test_welcome_for_a_group_that_we_are_in() -> None:
    team, package = make_team(), new_package("dave")
    welcome = forge_welcome(team.mallory, package)
    joined = join(welcome, package)
    with refused(DuplicateRequest, joined):
        join(welcome, package, known_groups={joined.group_id})


@breaks(Check.SUITE_KNOWN)
def test_welcome_of_an_unknown_suite() -> None:
    refuse_welcome(Check.SUITE_KNOWN, welcome=lambda welcome: replace(welcome, suite=0x0A0A))


@breaks(Check.SUITE_ALLOWED)
def test_welcome_of_a_suite_that_is_not_allowed() -> None:
    refuse_welcome(Check.SUITE_ALLOWED, welcome=lambda welcome: replace(welcome, suite=3))
    with refused(Check.SUITE_ALLOWED):
        Group.create(b"g", new_leaf("dave"), 3, (), SETTINGS, TRUST, NOW)


@breaks(Check.WELCOME_SUITE)
def test_welcome_and_group_info_of_two_suites() -> None:
    refuse_welcome(Check.WELCOME_SUITE, context=lambda context: replace(context, suite=3))


def test_welcome_that_does_not_open() -> None:
    spoil = lambda welcome: replace(welcome, group_info=flip(welcome.group_info))  # noqa: E731
    refuse_welcome(DecryptionFailed, welcome=spoil)
    refuse_welcome(Malformed, plaintext=lambda plaintext: plaintext + b"\0")
    refuse_welcome(DecryptionFailed, secrets=lambda secrets: replace(secrets, joiner_secret=bytes(32)))


# --- who signed it --------------------------------------------------------------------------------


@breaks(Check.GROUP_INFO_SIGNER)
@pytest.mark.parametrize("signer", [77, 2**32 - 1])
def test_group_info_signed_by_nobody(signer: int) -> None:
    refuse_welcome(Check.GROUP_INFO_SIGNER, info=lambda info: replace(info, signer=signer))


def test_group_info_signed_by_another_member_than_named() -> None:
    refuse_welcome(BadSignature, info=lambda info: replace(info, signer=1))


def test_group_info_signed_by_a_stranger_or_not_at_all() -> None:
    refuse_welcome(BadSignature, signer=Signer("ed25519", generate_signature_key("ed25519")))
    refuse_welcome(BadSignature, signature=lambda signature: b"")
    refuse_welcome(BadSignature, signature=flip)


def test_group_info_with_a_wrong_confirmation_tag() -> None:
    refuse_welcome(BadSignature, tag=flip)
    refuse_welcome(BadSignature, tag=lambda tag: b"")


# --- the tree -------------------------------------------------------------------------------------


@breaks(Check.TREE_MISSING)
def test_no_tree_at_all() -> None:
    refuse_welcome(Check.TREE_MISSING, with_tree=False)


@breaks(Check.TREE_HASH)
def test_another_tree_than_the_one_that_is_named() -> None:
    refuse_welcome(Check.TREE_HASH, context=lambda context: replace(context, tree_hash=bytes(32)))
    team = make_team()
    refuse_welcome(Check.TREE_HASH, team, options={"tree": team.mallory.ratchet_tree()}, with_tree=False)


@breaks(Check.TREE_LAST_NODE)
@pytest.mark.parametrize(
    "change",
    [lambda tree: vector(b""), lambda tree: vector(Reader(tree).vector() + b"\0")],
    ids=["empty", "blank-at-the-end"],
)
def test_tree_that_ends_in_a_blank(change: Any) -> None:
    refuse_welcome(Check.TREE_LAST_NODE, encoded_tree=change)


def put_leaf_among_parents(tree: RatchetTree) -> RatchetTree:
    tree.nodes[1] = tree.nodes[0]
    return tree


def put_parent_among_leaves(tree: RatchetTree) -> RatchetTree:
    tree.nodes[2] = tree.nodes[1]
    return tree


@breaks(Check.TREE_SHAPE)
@pytest.mark.parametrize("change", [put_leaf_among_parents, put_parent_among_leaves])
def test_leaves_and_parents_in_wrong_places(change: Any) -> None:
    team = make_team()
    assert isinstance(team.mallory.state.current.public.tree.nodes[1], ParentNode)
    refuse_welcome(Check.TREE_SHAPE, team, tree=change)


@breaks(Check.TREE_SIZE)
def test_tree_larger_than_allowed() -> None:
    refuse_welcome(Check.TREE_SIZE, settings=with_limits(max_leaves=2))
    team = make_team()
    with refused(Check.TREE_SIZE, team.mallory):
        PublicGroup.from_group_info(team.mallory.group_info(), TRUST, NOW, limits=with_limits(max_leaves=2).limits)


@breaks(Check.TREE_SIZE)
def test_commit_that_makes_the_tree_too_large() -> None:
    team = make_team("mallory", "bob", settings=with_limits(max_leaves=2))
    bigger = team.mallory.load(team.mallory.save(), TRUST, with_limits(max_leaves=4))
    staged = bigger.stage_commit(CommitRequest(adds=(new_package("dave").public,)), NOW)
    team.refuse(staged.commit, Check.TREE_SIZE)


@breaks(Check.TREE_SIZE)
def test_outsider_who_makes_the_tree_too_large() -> None:
    team = make_team("mallory", "bob", "carol", "dave", settings=with_limits(max_leaves=4))
    _, commit = Group.join_external(team.carol.group_info(), new_leaf("erin"), TRUST, NOW, SETTINGS)
    team.refuse(commit, Check.TREE_SIZE)
    with refused(Check.TREE_SIZE, team.carol):
        Group.join_external(team.carol.group_info(), new_leaf("erin"), TRUST, NOW, with_limits(max_leaves=4))


@breaks(Check.TREE_PARENT_HASH)
@pytest.mark.parametrize("field", ["encryption_key", "parent_hash"])
def test_parent_that_nobody_vouches_for(field: str) -> None:
    value = fresh_key()
    refuse_welcome(Check.TREE_PARENT_HASH, tree=lambda tree: change_parent(tree, **{field: value}))


@breaks(Check.TREE_PARENT_HASH)
def test_parent_that_was_put_where_a_blank_was() -> None:
    def fill(tree: RatchetTree) -> RatchetTree:
        assert tree.nodes[1] is None
        tree._set(1, ParentNode(fresh_key(), b"", (1,)))
        return tree

    team = make_team()
    team.commit(team.mallory, CommitRequest(removes=(1,)))
    del team.members["bob"]
    refuse_welcome(Check.TREE_PARENT_HASH, team, tree=fill)


@breaks(Check.TREE_UNMERGED)
@pytest.mark.parametrize("unmerged", [(77,), (2,), (1, 0), (0, 0)], ids=["outside", "elsewhere", "unsorted", "twice"])
def test_unmerged_leaves_that_cannot_be(unmerged: tuple[int, ...]) -> None:
    refuse_welcome(Check.TREE_UNMERGED, tree=lambda tree: change_parent(tree, unmerged=unmerged))


@breaks(Check.TREE_UNMERGED)
def test_unmerged_leaf_that_is_not_listed_by_the_nodes_between() -> None:
    def forget(tree: RatchetTree) -> RatchetTree:
        between, top = tree.nodes[11], tree.nodes[7]
        assert isinstance(between, ParentNode)
        assert isinstance(top, ParentNode)
        assert between.unmerged == top.unmerged == (7,)
        tree._set(11, replace(between, unmerged=()))
        return tree

    team = make_team("mallory", "bob", "carol", "dave", "erin", "frank", "gina")
    refuse_welcome(Check.TREE_UNMERGED, team, tree=forget)


@breaks(Check.LEAF_ENCRYPTION_KEY)
def test_two_nodes_with_one_key() -> None:
    def copy_key(tree: RatchetTree) -> RatchetTree:
        leaf = tree.find_leaf(1)
        assert leaf is not None
        return change_parent(tree, encryption_key=leaf.encryption_key)

    refuse_welcome(Check.LEAF_ENCRYPTION_KEY, tree=copy_key)


@breaks(Check.LEAF_SIGNATURE_KEY)
def test_one_member_twice_in_the_tree() -> None:
    team = make_team()

    def repeat(tree: RatchetTree) -> RatchetTree:
        own = tree.find_leaf(0)
        assert own is not None
        again = sign_leaf(
            SUITE, replace(own, encryption_key=fresh_key()), signer_of(team.mallory), (team.bob.group_id, 1)
        )
        tree.put_leaf(1, again)
        return tree

    refuse_welcome(Check.LEAF_SIGNATURE_KEY, team, tree=repeat)


@breaks(Check.LEAF_KEY_FORM)
def test_parent_with_a_key_that_is_none() -> None:
    team = make_team()

    def spoil(tree: RatchetTree) -> RatchetTree:
        """A whole new path of mallory's, right in everything but a key."""
        parent_hash = tree.set_path(
            0, [bytes(32) for _ in tree.filtered_path(0)][:1] + [fresh_key() for _ in tree.filtered_path(0)[1:]]
        )
        own = tree.find_leaf(0)
        assert own is not None
        changed = replace(own, encryption_key=fresh_key(), parent_hash=parent_hash)
        tree.put_leaf(0, sign_leaf(SUITE, changed, signer_of(team.mallory), (team.bob.group_id, 0)))
        return tree

    team.commit(team.mallory)
    refuse_welcome(Check.LEAF_KEY_FORM, team, tree=spoil)


def test_invented_member_in_the_tree() -> None:
    def invent(tree: RatchetTree) -> RatchetTree:
        leaf = tree.find_leaf(3)
        assert isinstance(leaf, LeafNode)
        changed = replace(leaf, encryption_key=fresh_key(), raw=b"")
        tree.put_leaf(3, replace(changed, raw=changed.encode()))
        return tree

    team = make_team()
    team.add(team.mallory, "dave")
    refuse_welcome(BadSignature, team, tree=invent)


# --- our own place --------------------------------------------------------------------------------


@breaks(Check.WELCOME_LEAF)
def test_tree_without_us() -> None:
    def drop(tree: RatchetTree) -> RatchetTree:
        tree.remove_leaf(3)
        tree.truncate()
        return tree

    refuse_welcome(Check.WELCOME_LEAF, tree=drop)


@breaks(Check.WELCOME_PATH_SECRET)
def test_path_secret_from_ourselves() -> None:
    team, package = make_team(), new_package("dave")
    welcome = forge_welcome(
        team.mallory,
        package,
        info=lambda info: replace(info, signer=3),
        signer=make_signer(SUITE, package.own),
        secrets=lambda secrets: replace(secrets, path_secret=bytes(32)),
    )
    with refused(Check.WELCOME_PATH_SECRET):
        join(welcome, package)


@breaks(Check.WELCOME_PATH_SECRET)
@pytest.mark.parametrize("secret", [bytes(32), b"short"], ids=["other", "short"])
def test_path_secret_that_does_not_give_the_keys(secret: bytes) -> None:
    spoil = lambda secrets: replace(secrets, path_secret=secret)  # noqa: E731
    refuse_welcome(Check.WELCOME_PATH_SECRET, secrets=spoil)


# --- PSKs -----------------------------------------------------------------------------------------


def resumption(team: Team, usage: int) -> tuple[PskId, bytes]:
    epoch, secret = team.bob.state.resumption[-1]
    return PskId(PSK_RESUMPTION, random_bytes(32), b"", usage, team.bob.group_id, epoch), secret


@breaks(Check.WELCOME_PSKS)
@pytest.mark.parametrize("usage", [USAGE_BRANCH, USAGE_REINIT])
def test_psk_of_a_new_group_in_a_later_epoch(usage: int) -> None:
    team = make_team()
    options = {"earlier": [team.bob.state]}
    refuse_welcome(Check.WELCOME_PSKS, team, options=options, psks=[resumption(team, usage)])


@breaks(Check.WELCOME_PSKS)
def test_two_psks_of_new_groups() -> None:
    team = make_team()
    psks = [resumption(team, USAGE_BRANCH), resumption(team, USAGE_REINIT)]
    refuse_welcome(Check.WELCOME_PSKS, team, options={"earlier": [team.bob.state]}, psks=psks, epoch=1)


@breaks(Check.PSK_KNOWN)
def test_welcome_with_a_psk_that_we_do_not_have() -> None:
    refuse_welcome(Check.PSK_KNOWN, psks=[(PskId(PSK_EXTERNAL, random_bytes(32), b"psk"), bytes(32))])


@breaks(Check.PSK_NONCE)
def test_welcome_with_a_short_nonce() -> None:
    refuse_welcome(Check.PSK_NONCE, psks=[(PskId(PSK_EXTERNAL, b"short", b"psk"), bytes(32))])


@breaks(Check.PSK_UNIQUE)
def test_welcome_with_a_psk_twice() -> None:
    psk = (PskId(PSK_EXTERNAL, random_bytes(32), b"psk"), bytes(32))
    refuse_welcome(Check.PSK_UNIQUE, psks=[psk, psk])


# --- GroupInfos for people outside ----------------------------------------------------------------


def signed_info(team: Team, info: GroupInfo) -> bytes:
    signature = sign_with_label(signer_of(team.mallory), b"GroupInfoTBS", info.encode_unsigned())
    return encode_message(replace(info, signature=signature))


@breaks(Check.GROUP_INFO_EXTERNAL_PUB)
def test_group_info_without_an_external_key() -> None:
    team = make_team()
    info = encode_message(make_group_info(team.mallory.state.current, with_tree=True, with_external_pub=False))
    with refused(Check.GROUP_INFO_EXTERNAL_PUB, team.mallory):
        Group.join_external(info, new_leaf("dave"), TRUST, NOW)


@breaks(Check.GROUP_INFO_SIGNER)
def test_group_info_of_nobody_for_the_server() -> None:
    team = make_team()
    info = parse_message(team.mallory.group_info())
    assert isinstance(info, GroupInfo)
    with refused(Check.GROUP_INFO_SIGNER, team.public):
        team.public.check_group_info(signed_info(team, replace(info, signer=77)), NOW)
    with refused(BadSignature, team.public):
        team.public.check_group_info(signed_info(team, replace(info, signer=1)), NOW)
    team.public.check_group_info(team.mallory.group_info(), NOW)


def test_group_info_of_another_group_or_epoch_for_the_server() -> None:
    team = make_team()
    earlier = team.mallory.group_info()
    other = Group.create(b"ward 8", new_leaf("dave"), 1, (), SETTINGS, TRUST, NOW)
    with refused(WrongGroup, team.public):
        team.public.check_group_info(other.group_info(), NOW)
    staged = team.mallory.stage_commit(CommitRequest(), NOW)
    with refused(FutureEpoch, team.public):
        team.public.check_group_info(staged.group_info, NOW)
    team.mallory.commit_rejected()
    team.go_on()
    with refused(StaleEpoch, team.public):
        team.public.check_group_info(earlier, NOW)


@breaks(Check.TREE_HASH)
def test_group_info_of_another_state_of_the_same_epoch() -> None:
    team = make_team()
    info = parse_message(team.mallory.group_info())
    assert isinstance(info, GroupInfo)
    forged = replace(info, context=replace(info.context, transcript_hash=bytes(32)))
    with refused(Check.TREE_HASH, team.public):
        team.public.check_group_info(signed_info(team, forged), NOW)


def test_malformed_extension_of_the_group() -> None:
    spoilt = (Extension(REQUIRED_CAPABILITIES, u16s((1,))),)
    refuse_welcome(Malformed, context=lambda context: replace(context, extensions=spoilt))
