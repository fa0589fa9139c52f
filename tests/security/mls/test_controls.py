"""Forged messages without a flaw are accepted: what is refused elsewhere is refused for the one flaw it was given."""

from __future__ import annotations

from pathlib import Path

import pytest

import checks_table
from curbside.mls.checks import Check
from curbside.mls.group import Group
from curbside.mls.messages import APPLICATION
from curbside.mls.proposals import Add, Remove
from curbside.mls.results import Application, CommitReceived, ProposalReceived

from .forge import external_proposal, forge_commit, forge_content, forge_proposal, forge_welcome
from .people import NOW, SETTINGS, TRUST, Team, make_team, new_package


def check_forged_commit(team: Team, message: bytes) -> None:
    for group in team.victims():
        received = group.receive(message, NOW)
        assert isinstance(received, CommitReceived)
    team.public.apply(message, NOW)
    bob, carol = team.bob, team.carol
    assert bob.epoch_authenticator() == carol.epoch_authenticator()
    assert carol.receive(bob.encrypt(b"hello"), NOW).data == b"hello"  # type: ignore[union-attr]


def test_a_forged_path_is_accepted() -> None:
    team = make_team()
    check_forged_commit(team, forge_commit(team.mallory).message)


def test_a_forged_commit_with_proposals_is_accepted() -> None:
    team = make_team("mallory", "bob", "carol", "dave")
    gone = team.members.pop("dave")
    items = [Remove(gone.own_leaf), Add(new_package("erin").package)]
    check_forged_commit(team, forge_commit(team.mallory, items=items).message)


def test_a_forged_private_commit_is_accepted() -> None:
    team = make_team()
    message = forge_commit(team.mallory, private=True).message
    assert isinstance(team.bob.receive(message, NOW), CommitReceived)


def test_a_forged_welcome_is_accepted() -> None:
    team = make_team()
    package = new_package("dave")
    group = Group.join(forge_welcome(team.mallory, package), [package], TRUST, NOW, SETTINGS)
    assert group.epoch == team.mallory.epoch + 1
    assert [member.leaf_index for member in group.members] == [0, 1, 2, 3]


def test_forged_messages_and_proposals_are_accepted() -> None:
    team = make_team()
    message = forge_content(team.mallory, APPLICATION, b"hello", private=True)
    received = team.bob.receive(message, NOW)
    assert isinstance(received, Application)
    assert received.data == b"hello"
    for proposal in (
        forge_proposal(team.mallory, Remove(2)),
        external_proposal(team.mallory, Remove(2), team.server.key),
    ):
        assert isinstance(team.bob.receive(proposal, NOW), ProposalReceived)
        team.public.receive_proposal(proposal, NOW)


def test_every_check_has_a_test_and_every_test_a_check() -> None:
    found = checks_table.find_marked_tests()
    names = {check.name for check in Check}
    assert len(names) > 60
    assert not names - set(found), f"checks without a test: {sorted(names - set(found))}"
    assert not set(found) - names, f"tests of checks that do not exist: {sorted(set(found) - names)}"


def test_the_table_of_checks_is_up_to_date(tmp_path: Path) -> None:
    assert checks_table.main(["--check"]) == 0
    (tmp_path / checks_table.TESTS).mkdir(parents=True)
    with pytest.raises(ValueError, match="VERSION"):
        checks_table.make_table(tmp_path)


def test_every_check_in_the_code_is_used() -> None:
    """A check that no code raises is a promise without effect."""
    source = "".join(path.read_text(encoding="utf-8") for path in (checks_table.ROOT / "src/curbside").rglob("*.py"))
    unused = [check.name for check in Check if f"Check.{check.name}" not in source and f'"{check}"' not in source]
    assert not unused
