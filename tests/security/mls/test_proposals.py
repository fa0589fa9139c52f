"""Proposals that are not valid, alone or for the commit they stand in (RFC 9420 sections 11 and 12.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import generate_signature_key
from curbside.errors import BadSignature, FutureEpoch, Malformed, StaleEpoch, UntrustedDevice, WrongGroup
from curbside.mls.checks import Check
from curbside.mls.group import CommitRequest, Group, JoinOptions
from curbside.mls.joining import request_to_join
from curbside.mls.messages import PROPOSAL
from curbside.mls.nodes import Extension
from curbside.mls.proposals import (
    PSK_EXTERNAL,
    PSK_RESUMPTION,
    USAGE_BRANCH,
    USAGE_REINIT,
    Add,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    PskId,
    ReInit,
    Remove,
    Update,
)
from curbside.mls.trust import UnsafeAcceptAll

from .forge import external_proposal, forge_commit, forge_content, forge_proposal, new_update_leaf
from .people import NOW, SETTINGS, TRUST, Server, Team, make_team, new_leaf, new_package, refused, with_limits
from .registry import breaks


def psk(nonce: bytes | None = None, **fields: Any) -> PskId:
    values = {"kind": PSK_EXTERNAL, "psk_id": b"psk", **fields}
    return PskId(nonce=random_bytes(32) if nonce is None else nonce, **values)


def refuse_both(proposal: Proposal, expected: Check) -> None:
    """Refused as a message of its own, from a member and from the server, and by value in a commit."""
    team = make_team()
    team.refuse_proposal(forge_proposal(team.mallory, proposal), expected)
    team.refuse_proposal(external_proposal(team.mallory, proposal, team.server.key), expected)
    team.refuse(forge_commit(team.mallory, items=[proposal]).message, expected)


# --- from outside ---------------------------------------------------------------------------------


@breaks(Check.PROPOSAL_EXTERNAL)
def test_types_that_an_external_sender_may_not_send() -> None:
    team = make_team()
    forbidden: Sequence[Proposal] = (Update(new_update_leaf(team.mallory)), ExternalInit(bytes(32)))
    for proposal in forbidden:
        message = external_proposal(team.mallory, proposal, team.server.key)
        team.refuse_proposal(message, Check.PROPOSAL_EXTERNAL)


def test_external_proposal_with_another_key() -> None:
    team = make_team()
    stranger = generate_signature_key("ed25519")
    team.refuse_proposal(external_proposal(team.mallory, Remove(1), stranger), BadSignature)
    key = team.server.key
    unsigned = external_proposal(team.mallory, Remove(1), key, signature=lambda signature: b"")
    team.refuse_proposal(unsigned, BadSignature)


def test_external_remove_of_another_epoch_or_group() -> None:
    team = make_team()
    key = team.server.key
    stale = external_proposal(team.mallory, Remove(1), key)
    team.go_on()
    team.refuse_proposal(stale, StaleEpoch)
    later = external_proposal(team.mallory, Remove(1), key, context=lambda c: replace(c, epoch=c.epoch + 1))
    team.refuse_proposal(later, FutureEpoch)
    elsewhere = external_proposal(team.mallory, Remove(1), key, context=lambda c: replace(c, group_id=b"ward 8"))
    team.refuse_proposal(elsewhere, WrongGroup)
    team.spread(external_proposal(team.mallory, Remove(1), key))
    assert all(len(group.pending) == 1 for group in team.members.values())


@breaks(Check.PROPOSAL_JOIN)
def test_request_to_join_where_nobody_may_ask() -> None:
    team = make_team()
    team.refuse_proposal(request_to_join(b"ward 7", team.bob.epoch, new_package("dave")), Check.PROPOSAL_JOIN)
    open_team = make_team(settings=with_limits(join_requests=True))
    open_team.spread(request_to_join(b"ward 7", open_team.bob.epoch, new_package("dave")))


# --- waiting --------------------------------------------------------------------------------------


@breaks(Check.PROPOSAL_KNOWN)
def test_commit_of_a_proposal_that_nobody_sent() -> None:
    team = make_team()
    message = forge_commit(team.mallory, items=[bytes(32)]).message
    team.refuse(message, Check.PROPOSAL_KNOWN)
    own = team.bob.propose_remove(2, NOW)
    team.spread(own, team.bob)
    team.commit(team.carol, CommitRequest(pending=False))
    stale = forge_commit(team.mallory, items=[random_bytes(32)]).message
    team.refuse(stale, Check.PROPOSAL_KNOWN)


@breaks(Check.PROPOSAL_LIMIT)
def test_more_proposals_than_fit() -> None:
    team = make_team(settings=with_limits(max_pending=3))
    for name in ("dave", "erin", "frank"):
        team.spread(forge_proposal(team.mallory, Add(new_package(name).package)), team.mallory)
    message = forge_proposal(team.mallory, Add(new_package("gina").package))
    for group in team.victims():
        with refused(Check.PROPOSAL_LIMIT, group):
            group.receive(message, NOW)
    with refused(Check.PROPOSAL_LIMIT, team.public):
        team.public.receive_proposal(message, NOW)


def test_proposal_of_an_unknown_type() -> None:
    team = make_team()

    class Unknown:
        code = 0xF00D

        def encode(self) -> bytes:
            return b"\0"

    body: Any = Unknown()
    team.refuse_proposal(forge_content(team.mallory, PROPOSAL, body), Malformed)
    team.refuse(forge_commit(team.mallory, items=[body], effects=()).message, Malformed)


# --- one by one -----------------------------------------------------------------------------------


@breaks(Check.REMOVE_EXISTS)
@pytest.mark.parametrize("leaf", [3, 77, 2**32 - 1], ids=["blank", "outside", "largest"])
def test_remove_of_nobody(leaf: int) -> None:
    refuse_both(Remove(leaf), Check.REMOVE_EXISTS)


@breaks(Check.PSK_NONCE)
@pytest.mark.parametrize("length", [0, 31, 33])
def test_psk_with_a_nonce_of_another_length(length: int) -> None:
    refuse_both(PreSharedKey(psk(bytes(length))), Check.PSK_NONCE)


@breaks(Check.PSK_USAGE)
@pytest.mark.parametrize("usage", [USAGE_REINIT, USAGE_BRANCH])
def test_psk_for_a_new_group_in_an_old_one(usage: int) -> None:
    team = make_team()
    proposal = PreSharedKey(psk(kind=PSK_RESUMPTION, psk_id=b"", usage=usage, group_id=b"ward 7", epoch=team.bob.epoch))
    team.refuse(forge_commit(team.mallory, items=[proposal]).message, Check.PSK_USAGE)


@breaks(Check.PSK_UNIQUE)
def test_psk_twice() -> None:
    team = make_team()
    proposal = PreSharedKey(psk())
    team.refuse(forge_commit(team.mallory, items=[proposal, proposal]).message, Check.PSK_UNIQUE)


@breaks(Check.PSK_KNOWN)
def test_psk_that_we_do_not_have() -> None:
    team = make_team()
    psk_id = psk()
    message = forge_commit(team.mallory, items=[PreSharedKey(psk_id)], psks=[(psk_id, bytes(32))]).message
    for group in team.victims():
        with refused(Check.PSK_KNOWN, group):
            group.receive(message, NOW)
        with refused(BadSignature, group):
            group.receive(message, NOW, {b"psk": SecretBytes(b"another value")})
        group.receive(message, NOW, {b"psk": SecretBytes(bytes(32))})


@breaks(Check.PSK_KNOWN)
def test_resumption_psk_of_an_epoch_before_we_joined() -> None:
    team = make_team()
    psk_id = psk(kind=PSK_RESUMPTION, psk_id=b"", usage=1, group_id=b"ward 7", epoch=0)
    message = forge_commit(team.mallory, items=[PreSharedKey(psk_id)], psks=[(psk_id, bytes(32))]).message
    team.refuse(message, Check.PSK_KNOWN, public=False)


@breaks(Check.REINIT_VERSION)
def test_reinit_to_an_older_version() -> None:
    refuse_both(ReInit(b"next", 0, 1, ()), Check.REINIT_VERSION)


@breaks(Check.REINIT_ALONE)
def test_reinit_with_something_else() -> None:
    team = make_team()
    items = [ReInit(b"next", 1, 1, ()), Add(new_package("dave").package)]
    team.refuse(forge_commit(team.mallory, items=items).message, Check.REINIT_ALONE)
    twice = [ReInit(b"next", 1, 1, ()), ReInit(b"next", 1, 1, ())]
    team.refuse(forge_commit(team.mallory, items=twice).message, Check.REINIT_ALONE)


@breaks(Check.COMMIT_EXTERNAL_INIT)
def test_external_init_from_a_member() -> None:
    team = make_team()
    proposal = ExternalInit(bytes(32))
    team.refuse_proposal(forge_proposal(team.mallory, proposal), Check.COMMIT_EXTERNAL_INIT)
    team.refuse(forge_commit(team.mallory, items=[proposal]).message, Check.COMMIT_EXTERNAL_INIT)


# --- new groups after old ones --------------------------------------------------------------------


def close(team: Team, reinit: ReInit) -> None:
    team.commit(team.mallory, CommitRequest(reinit=reinit, update=False))
    assert not any(group.is_active for group in team.members.values())


@breaks(Check.COMMIT_REINIT_DONE)
def test_nothing_follows_a_reinit() -> None:
    team = make_team()
    close(team, ReInit(b"next", 1, 1, ()))
    commit = forge_commit(team.mallory).message
    proposal = forge_proposal(team.mallory, Remove(1))
    with refused(Check.COMMIT_REINIT_DONE, team.bob):
        team.bob.receive(commit, NOW)
    with refused(Check.COMMIT_REINIT_DONE, team.bob):
        team.bob.receive(proposal, NOW)
    with refused(Check.COMMIT_REINIT_DONE, team.public):
        team.public.check_commit(commit, NOW)
    with refused(Check.COMMIT_REINIT_DONE, team.public):
        team.public.receive_proposal(proposal, NOW)
    with refused(Check.COMMIT_REINIT_DONE, team.bob):
        team.bob.encrypt(b"one more thing")
    with refused(Check.COMMIT_REINIT_DONE, team.bob):
        team.bob.stage_commit(CommitRequest(), NOW)


@breaks(Check.REINIT_MATCH)
@pytest.mark.parametrize(
    "changed",
    [{"group_id": b"elsewhere"}, {"extensions": (Server().extension,)}],
    ids=["group-id", "extensions"],
)
def test_successor_that_is_not_what_was_agreed(changed: dict[str, Any]) -> None:
    team = make_team("mallory", "bob")
    agreed = ReInit(b"next", 1, 1, ())
    close(team, agreed)
    old = team.mallory.state
    lying = Group(replace(old, current=replace(old.current, reinit=replace(agreed, **changed))), TRUST)
    package = new_package("bob")
    successor, staged = lying.reinit_successor(old.current.leaf, [package.public], NOW)
    assert successor.staged is not None
    assert staged.welcome is not None
    with refused(Check.REINIT_MATCH, team.bob):
        Group.join(staged.welcome, [package], TRUST, NOW, SETTINGS, JoinOptions(earlier=[team.bob.state]))
    _, honest = team.mallory.reinit_successor(old.current.leaf, [package.public], NOW)
    assert honest.welcome is not None
    assert Group.join(honest.welcome, [package], TRUST, NOW, SETTINGS, JoinOptions(earlier=[team.bob.state]))


class Names(UnsafeAcceptAll):
    """Two leaves belong together only when they have one name."""

    def verify_successor(self, old: Any, new: Any) -> None:
        if old.credential != new.credential:
            raise UntrustedDevice(device="?", check="test.name")


@breaks(Check.REINIT_MATCH)
def test_successor_without_one_of_the_members() -> None:
    team = make_team(trust=Names())
    close(team, ReInit(b"next", 1, 1, ()))
    package = new_package("bob")
    _, staged = team.mallory.reinit_successor(team.mallory.state.current.leaf, [package.public], NOW)
    assert staged.welcome is not None
    with refused(Check.REINIT_MATCH, team.bob):
        Group.join(staged.welcome, [package], Names(), NOW, SETTINGS, JoinOptions(earlier=[team.bob.state]))


@breaks(Check.BRANCH_MATCH)
def test_branch_with_an_outsider() -> None:
    team = make_team(trust=Names())
    own, bob, eve = team.mallory.state.current.leaf, new_package("bob"), new_package("eve")
    _, staged = team.mallory.branch(b"branch", own, [bob.public, eve.public], NOW)
    assert staged.welcome is not None
    options = JoinOptions(earlier=[team.bob.state])
    with refused(Check.BRANCH_MATCH, team.bob):
        Group.join(staged.welcome, [bob], Names(), NOW, SETTINGS, options)
    _, honest = team.mallory.branch(b"branch", own, [bob.public], NOW)
    assert honest.welcome is not None
    assert Group.join(honest.welcome, [bob], Names(), NOW, SETTINGS, options)


@breaks(Check.PSK_KNOWN)
def test_branch_of_a_group_that_we_were_never_in() -> None:
    team = make_team()
    package = new_package("dave")
    _, staged = team.mallory.branch(b"branch", team.mallory.state.current.leaf, [package.public], NOW)
    assert staged.welcome is not None
    with refused(Check.PSK_KNOWN):
        Group.join(staged.welcome, [package], TRUST, NOW, SETTINGS)


# --- proposals by reference are judged again in their commit ----------------------------------------


def refs(team: Team) -> list[bytes]:
    return [pending.reference for pending in team.bob.pending]


@breaks(Check.COMMIT_ONE_PER_LEAF)
def test_two_proposals_for_one_leaf_by_reference() -> None:
    team = make_team()
    update = Update(new_update_leaf(team.carol))
    team.public.receive_proposal(forge_proposal(team.carol, update), NOW)
    team.bob.receive(forge_proposal(team.carol, update), NOW)
    team.bob.receive(forge_proposal(team.mallory, Remove(2)), NOW)
    team.public.receive_proposal(forge_proposal(team.mallory, Remove(2)), NOW)
    message = forge_commit(team.mallory, items=refs(team), effects=[(Remove(2), 0)]).message
    with refused(Check.COMMIT_ONE_PER_LEAF, team.bob):
        team.bob.receive(message, NOW)
    with refused(Check.COMMIT_ONE_PER_LEAF, team.public):
        team.public.apply(message, NOW)


@breaks(Check.EXTENSION_SUPPORTED)
def test_extensions_by_reference_that_a_newcomer_does_not_support() -> None:
    leaves = [new_leaf(name, extensions=(0xF0A0,)) for name in ("mallory", "bob", "carol")]
    team = make_team(leaves=leaves)
    context = GroupContextExtensions((Extension(0xF0A0, b""),))
    add = Add(new_package("dave").package)
    for proposal in (context, add):
        message = forge_proposal(team.mallory, proposal)
        team.bob.receive(message, NOW)
        team.public.receive_proposal(message, NOW)
    message = forge_commit(team.mallory, items=refs(team), effects=[(context, 0), (add, 0)]).message
    with refused(Check.EXTENSION_SUPPORTED, team.bob):
        team.bob.receive(message, NOW)
    with refused(Check.EXTENSION_SUPPORTED, team.public):
        team.public.apply(message, NOW)
