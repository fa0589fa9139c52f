"""The conversation's rules: the table of commits, groups that one joins, and the policy's bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbside.errors import Malformed, RuleBroken
from curbside.ids import UserId, decode_base64url, encode_id
from curbside.policy.group_rules import Actor, Change, CommitFacts, ContextFacts, check_commit, check_group
from curbside.wire.group_policy import (
    GroupPolicy,
    decode_group_policy,
    encode_group_policy,
    make_direct_policy,
    make_group_policy,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[3] / "vectors" / "trust" / "group_rules.json").read_text("utf-8")
)
SENDERS = decode_base64url(VECTORS["pinned_senders"])
CHECKS = {
    "group.policy.present",
    "group.policy.change",
    "group.direct.members",
    "group.add",
    "group.remove",
    "group.external.add",
    "group.external.commit",
    "group.sender.key",
    "group.suite",
    "group.reinit",
}


def bytes_of(text: str | None) -> bytes | None:
    return None if text is None else decode_base64url(text)


def context_of(case: dict[str, Any]) -> ContextFacts:
    senders, policy = bytes_of(case["external_senders"]), bytes_of(case["policy"])
    return ContextFacts(policy, senders, tuple(case["required_extensions"]))


def commit_of(case: dict[str, Any]) -> CommitFacts:
    def changes(items: list[Any]) -> tuple[Change, ...]:
        return tuple(Change(item["user_id"], Actor(**item["by"])) for item in items)

    return CommitFacts(
        epoch=case["epoch"],
        before=context_of(case["before"]),
        after=context_of(case["after"]),
        committer=Actor(**case["committer"]),
        adds=changes(case["adds"]),
        removes=changes(case["removes"]),
        users=frozenset(case["users"]),
        context_by=None if case["context_by"] is None else Actor(**case["context_by"]),
        reinit=case["reinit"],
    )


def test_every_rule_of_the_table_has_a_case() -> None:
    assert {case["check"] for case in [*VECTORS["commits"], *VECTORS["groups"]]} - {None} == CHECKS


@pytest.mark.parametrize("case", VECTORS["commits"], ids=lambda case: case["reason"])
def test_commits(case: dict[str, Any]) -> None:
    if case["check"] is None:
        check_commit(commit_of(case), SENDERS)
        return
    with pytest.raises(RuleBroken) as refused:
        check_commit(commit_of(case), SENDERS)
    assert refused.value.check == case["check"]


@pytest.mark.parametrize("case", VECTORS["groups"], ids=lambda case: case["reason"])
def test_groups_that_one_joins(case: dict[str, Any]) -> None:
    context, users = context_of(case["context"]), frozenset(case["users"])
    if case["check"] is None:
        policy = check_group(context, SENDERS, users, case["suite_allowed"])
        assert policy.kind == case["reason"]
        return
    with pytest.raises(RuleBroken) as refused:
        check_group(context, SENDERS, users, case["suite_allowed"])
    assert refused.value.check == case["check"]


@pytest.mark.parametrize("case", VECTORS["policies"], ids=lambda case: case["kind"])
def test_policies_are_read_and_written(case: dict[str, Any]) -> None:
    body = decode_base64url(case["body"])
    policy = GroupPolicy(case["version"], case["kind"], tuple(case["administrators"]))
    assert decode_group_policy(body) == policy
    assert encode_group_policy(policy) == body


@pytest.mark.parametrize("case", VECTORS["refused_policies"], ids=lambda case: case["reason"])
def test_policies_of_another_form(case: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        decode_group_policy(decode_base64url(case["body"]))


@given(st.binary(max_size=80), st.integers(0, 60), st.integers(0, 255))
def test_any_bytes_are_refused_or_read_back(body: bytes, at: int, value: int) -> None:
    changed = bytearray(decode_base64url(VECTORS["policies"][0]["body"]))
    changed[at % len(changed)] = value
    for candidate in (body, bytes(changed)):
        try:
            policy = decode_group_policy(candidate)
        except Malformed:
            continue
        assert encode_group_policy(policy) == candidate


def test_what_cannot_be_read_is_not_written() -> None:
    user = UserId(encode_id(bytes(16)))
    for policy in (
        GroupPolicy(0, "group", (user,)),
        GroupPolicy(1, "group", ()),
        GroupPolicy(1, "group", (user, user)),
        GroupPolicy(1, "group", (UserId("nobody"),)),
        GroupPolicy(2**53, "group", (user,)),
    ):
        with pytest.raises(Malformed):
            encode_group_policy(policy)


def test_new_policies() -> None:
    one, other = UserId(encode_id(b"1" * 16)), UserId(encode_id(b"0" * 16))
    assert make_direct_policy(one, other) == GroupPolicy(1, "direct", (other, one))
    assert make_group_policy(one, one) == GroupPolicy(1, "group", (one,))
