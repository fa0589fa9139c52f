"""Access rules: deny by default, and the decisions that people would ask about."""

from __future__ import annotations

import pytest

from curbside.errors import NotFound, PolicyDenied, UsageError
from curbside.ids import DeviceId, UserId
from curbside.policy.access import (
    OFFICERS,
    RULES,
    STAFF,
    Relation,
    Role,
    Subject,
    build_refusal,
    check_access,
    decide_access,
    decide_role,
    find_rule,
    index_rules,
)
from curbside.policy.decision import Decision, Duty


def subject(role: Role) -> Subject:
    return Subject(UserId("u" * 22), DeviceId("d" * 22), role)


@pytest.mark.parametrize("role", [None, *Role])
def test_an_unknown_rule_denies_everybody(role: Role | None) -> None:
    who = None if role is None else subject(role)
    assert not decide_role("R-no-such-rule", who)
    assert decide_access("R-no-such-rule", who).reason == "unknown_rule"
    assert find_rule("R-no-such-rule") is None
    with pytest.raises(PolicyDenied):
        check_access("R-no-such-rule", who)


@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if not rule.public], ids=lambda rule: rule.id)
def test_nothing_but_public_rules_opens_without_a_session(rule: object) -> None:
    rule_id = rule.id  # type: ignore[attr-defined]
    for relation in Relation:
        assert decide_access(rule_id, None, relation) == Decision(False, rule_id, "no_session")


def test_ids_and_sentences_have_their_form() -> None:
    for rule in RULES.values():
        assert rule.id.startswith("R-")
        assert rule.sentence.endswith(".")
        assert rule.public != bool(rule.grants), f"{rule.id} must be public or grant something"


def test_patients_see_only_people_of_their_own_conversations() -> None:
    listing = decide_access("R-people-list", subject(Role.PATIENT))
    assert listing.allow
    assert Duty.ONLY_SHARED in listing.duties
    assert not decide_access("R-people-read", subject(Role.PATIENT))
    assert decide_access("R-people-read", subject(Role.PATIENT), Relation.SHARED)


def test_bots_may_not_list_the_directory() -> None:
    assert not decide_access("R-people-list", subject(Role.BOT))


@pytest.mark.parametrize("role", sorted(STAFF))
def test_staff_list_the_directory_without_a_duty(role: Role) -> None:
    assert decide_access("R-people-list", subject(role)).duties == frozenset()


@pytest.mark.parametrize("rule_id", ["R-conversation-read", "R-message-send", "R-message-read", "R-blob-read"])
@pytest.mark.parametrize("role", Role)
def test_no_role_reaches_a_conversation_it_is_not_in(rule_id: str, role: Role) -> None:
    for relation in Relation:
        assert decide_access(rule_id, subject(role), relation).allow == (relation is Relation.MEMBER)


@pytest.mark.parametrize("role", Role)
def test_only_officers_read_the_audit_log(role: Role) -> None:
    for rule_id in ("R-audit-read", "R-audit-export", "R-audit-checkpoint"):
        assert decide_access(rule_id, subject(role)).allow == (role in OFFICERS)


@pytest.mark.parametrize("role", Role)
def test_others_devices_are_revoked_by_administrators_only(role: Role) -> None:
    assert decide_access("R-device-revoke", subject(role), Relation.OWN)
    assert decide_access("R-device-revoke", subject(role)).allow == (role is Role.ADMINISTRATOR)


def test_a_hidden_refusal_looks_like_absence() -> None:
    hidden = decide_access("R-conversation-read", subject(Role.NURSE))
    assert isinstance(build_refusal(hidden), NotFound)
    assert build_refusal(hidden).members == {}
    shown = build_refusal(decide_access("R-audit-read", subject(Role.NURSE)))
    assert isinstance(shown, PolicyDenied)
    assert shown.members == {"rule": "R-audit-read", "reason": "role"}
    with pytest.raises(NotFound):
        check_access("R-conversation-read", subject(Role.NURSE))
    assert check_access("R-conversation-read", subject(Role.NURSE), Relation.MEMBER).reason == "granted"


@pytest.mark.parametrize("role", [None, *Role])
def test_public_rules_open_to_everybody(role: Role | None) -> None:
    who = None if role is None else subject(role)
    assert decide_access("R-organization-read", who) == Decision(True, "R-organization-read", "public")
    assert check_access("R-signin", who).allow


def test_an_id_is_not_given_to_two_rules() -> None:
    with pytest.raises(UsageError):
        index_rules([*RULES.values(), RULES["R-health"]])
