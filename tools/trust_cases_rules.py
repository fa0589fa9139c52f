"""Cases of the group rules for tools/make_trust_vectors.py: commits, and the check that refuses them."""

from __future__ import annotations

from typing import Any, Final

from curbside.wire.group_policy import GroupPolicy, encode_group_policy
from trust_cases_certificates import b64, user_id

SENDERS: Final = b64(b"the delivery service's ExternalSender list")
OTHER_SENDERS: Final = b64(b"somebody else's ExternalSender list")
REQUIRED: Final = [0xFA01]


def policy(kind: str, version: int, *administrators: str) -> str:
    users = tuple(sorted(user_id(name) for name in administrators))
    return b64(encode_group_policy(GroupPolicy(version, kind, users)))  # type: ignore[arg-type]


GROUP: Final = policy("group", 3, "asa", "bob")
DIRECT: Final = policy("direct", 1, "asa", "bob")
DIRECT_OF_CREATOR: Final = policy("direct", 1, "asa")


def member(name: str) -> dict[str, Any]:
    return {"kind": "member", "user_id": user_id(name), "index": 0}


def sender(index: int) -> dict[str, Any]:
    return {"kind": "external_sender", "user_id": "", "index": index}


def newcomer(name: str) -> dict[str, Any]:
    return {"kind": "newcomer", "user_id": user_id(name), "index": 0}


def change(name: str, by: dict[str, Any]) -> dict[str, Any]:
    return {"user_id": user_id(name), "by": by}


def context(body: str | None, senders: str | None = SENDERS, required: list[int] | None = None) -> dict[str, Any]:
    extensions = REQUIRED if required is None else required
    return {"policy": body, "external_senders": senders, "required_extensions": extensions}


def commit(reason: str, check: str | None, body: str, /, **facts: Any) -> dict[str, Any]:
    users = facts.pop("users", ["asa", "bob", "cleo"])
    return {
        "reason": reason,
        "check": check,
        "epoch": 7,
        "before": context(body),
        "after": context(body),
        "committer": member("cleo"),
        "adds": [],
        "removes": [],
        "users": sorted(user_id(name) for name in users),
        "context_by": None,
        "reinit": False,
    } | facts


def _contexts() -> list[dict[str, Any]]:
    raised = context(policy("group", 4, "asa"))
    present, changed = "group.policy.present", "group.policy.change"
    return [
        commit("nothing but new keys", None, GROUP),
        commit("administrator changes the policy", None, GROUP, after=raised, context_by=member("asa")),
        commit("member changes the policy", changed, GROUP, after=raised, context_by=member("cleo")),
        commit("delivery service changes the policy", changed, GROUP, after=raised, context_by=sender(0)),
        commit("newcomer changes the policy", changed, GROUP, after=raised, context_by=newcomer("asa")),
        commit("policy changes by nobody", changed, GROUP, after=raised),
        commit("member proposes the same extensions", changed, GROUP, context_by=member("cleo")),
        commit("administrator proposes the same extensions", None, GROUP, context_by=member("bob")),
        commit("version jumps", changed, GROUP, after=context(policy("group", 5, "asa")), context_by=member("asa")),
        commit("version stays", changed, GROUP, after=context(policy("group", 3, "asa")), context_by=member("asa")),
        commit("version falls", present, GROUP, after=context(policy("group", 2, "asa")), context_by=member("asa")),
        commit("kind changes", changed, GROUP, after=context(policy("direct", 4, "asa")), context_by=member("asa")),
        commit(
            "direct policy changes",
            changed,
            DIRECT,
            after=context(policy("direct", 2, "asa")),
            context_by=member("asa"),
            users=["asa", "bob"],
        ),
        commit("policy disappears", present, GROUP, after=context(None), context_by=member("asa")),
        commit(
            "policy that cannot be read", present, GROUP, after=context(b64(b"\xa1\x01\x01")), context_by=member("asa")
        ),
        commit(
            "policy no longer required", present, GROUP, after=context(GROUP, required=[]), context_by=member("asa")
        ),
        commit("no policy before", present, GROUP, before=context(None)),
        commit(
            "delivery service's key changes",
            "group.sender.key",
            GROUP,
            after=context(GROUP, OTHER_SENDERS),
            context_by=member("asa"),
        ),
        commit(
            "delivery service's key disappears",
            "group.sender.key",
            GROUP,
            after=context(GROUP, None),
            context_by=member("asa"),
        ),
        commit("delivery service's key was another", "group.sender.key", GROUP, before=context(GROUP, OTHER_SENDERS)),
        commit("reinit", "group.reinit", GROUP, reinit=True, committer=member("asa")),
    ]


def _group_members() -> list[dict[str, Any]]:
    return [
        commit("administrator adds another user", None, GROUP, adds=[change("dora", member("asa"))]),
        commit("member adds another user", "group.add", GROUP, adds=[change("dora", member("cleo"))]),
        commit("member adds another member's device", "group.add", GROUP, adds=[change("asa", member("cleo"))]),
        commit("member adds an own device", None, GROUP, adds=[change("cleo", member("cleo"))]),
        commit(
            "one good and one bad add",
            "group.add",
            GROUP,
            adds=[change("cleo", member("cleo")), change("dora", member("cleo"))],
        ),
        commit("member commits an administrator's add", None, GROUP, adds=[change("dora", member("bob"))]),
        commit(
            "administrator commits a member's add",
            "group.add",
            GROUP,
            committer=member("asa"),
            adds=[change("dora", member("cleo"))],
        ),
        commit("delivery service adds", "group.external.add", GROUP, adds=[change("dora", sender(0))]),
        commit("somebody adds himself", "group.external.add", GROUP, adds=[change("cleo", newcomer("cleo"))]),
        commit("administrator removes another user", None, GROUP, removes=[change("cleo", member("asa"))]),
        commit("member removes another user", "group.remove", GROUP, removes=[change("asa", member("cleo"))]),
        commit("member removes an own device", None, GROUP, removes=[change("cleo", member("cleo"))]),
        commit("delivery service removes", None, GROUP, removes=[change("asa", sender(0))]),
        commit("another external sender removes", "group.remove", GROUP, removes=[change("asa", sender(1))]),
        commit("member joins with another device", None, GROUP, committer=newcomer("cleo")),
        commit(
            "member comes back and removes the old device",
            None,
            GROUP,
            committer=newcomer("cleo"),
            removes=[change("cleo", newcomer("cleo"))],
        ),
        commit(
            "newcomer removes another user",
            "group.remove",
            GROUP,
            committer=newcomer("cleo"),
            removes=[change("asa", newcomer("cleo"))],
        ),
        commit("stranger joins", "group.external.commit", GROUP, committer=newcomer("dora")),
        commit(
            "administrator who left joins by himself",
            "group.external.commit",
            GROUP,
            committer=newcomer("asa"),
            users=["bob", "cleo"],
        ),
        commit(
            "administrator of the next policy adds",
            "group.add",
            GROUP,
            after=context(policy("group", 4, "cleo")),
            context_by=member("asa"),
            adds=[change("dora", member("cleo"))],
        ),
    ]


def _direct_members() -> list[dict[str, Any]]:
    two, direct = ["asa", "bob"], "group.direct.members"
    first: dict[str, Any] = {"epoch": 0, "users": ["asa"], "committer": member("asa")}
    add_bob, add_cleo = change("bob", member("asa")), change("cleo", member("asa"))
    return [
        commit("creator adds the other", None, DIRECT, **first, adds=[add_bob]),
        commit(
            "creator adds the other and an own device",
            None,
            DIRECT,
            **first,
            adds=[add_bob, change("asa", member("asa"))],
        ),
        commit("creator adds whom the policy does not name", direct, DIRECT, **first, adds=[add_cleo]),
        commit(
            "creator adds the other; the policy names the creator",
            None,
            DIRECT_OF_CREATOR,
            **first,
            adds=[add_bob, add_bob],
        ),
        commit("creator adds two users", direct, DIRECT_OF_CREATOR, **first, adds=[add_bob, add_cleo]),
        commit("other added in a later commit", direct, DIRECT_OF_CREATOR, users=["asa"], adds=[add_bob]),
        commit("one of two adds a third", direct, DIRECT, users=two, adds=[change("cleo", member("bob"))]),
        commit("one of two adds the other's device", None, DIRECT, users=two, adds=[add_bob]),
        commit("the other comes back", None, DIRECT, users=["asa"], adds=[add_bob]),
        commit("one of two removes the other", "group.remove", DIRECT, users=two, removes=[add_bob]),
        commit("one of two removes an own device", None, DIRECT, users=two, removes=[change("asa", member("asa"))]),
        commit("delivery service removes a device", None, DIRECT, users=two, removes=[change("bob", sender(0))]),
        commit("one of two joins with another device", None, DIRECT, users=two, committer=newcomer("bob")),
        commit("a third joins", "group.external.commit", DIRECT, users=two, committer=newcomer("cleo")),
    ]


def group_rules() -> dict[str, Any]:
    """Commits; groups that one joins; policies as bytes."""
    three = [user_id(name) for name in ("asa", "bob", "cleo")]
    groups = [
        ("group", None, context(GROUP), three, True),
        ("direct", None, context(DIRECT), three[:2], True),
        ("direct with a third", "group.direct.members", context(DIRECT), three, True),
        ("direct whose policy names another", "group.direct.members", context(DIRECT), [three[0], three[2]], True),
        ("no policy", "group.policy.present", context(None), three, True),
        ("policy not required", "group.policy.present", context(GROUP, required=[]), three, True),
        ("another delivery service", "group.sender.key", context(GROUP, OTHER_SENDERS), three, True),
        ("no delivery service", "group.sender.key", context(GROUP, None), three, True),
        ("another suite", "group.suite", context(GROUP), three, False),
    ]
    asa = user_id("asa").encode()
    text = b"\x76" + asa
    refused = [
        ("empty", b""),
        ("not a map", b"\x83\x01\x02\x03"),
        ("a member missing", b"\xa2\x01\x01\x02\x65group"),
        ("a member more", b"\xa4\x01\x01\x02\x65group\x03\x81" + text + b"\x04\x00"),
        ("version 0", b"\xa3\x01\x00\x02\x65group\x03\x81" + text),
        ("version true", b"\xa3\x01\xf5\x02\x65group\x03\x81" + text),
        ("version as a float", b"\xa3\x01\xf9\x3c\x00\x02\x65group\x03\x81" + text),
        ("another kind", b"\xa3\x01\x01\x02\x65party\x03\x81" + text),
        ("no administrator", b"\xa3\x01\x01\x02\x65group\x03\x80"),
        ("administrator twice", b"\xa3\x01\x01\x02\x65group\x03\x82" + text + text),
        ("administrator as bytes", b"\xa3\x01\x01\x02\x65group\x03\x81\x56" + asa),
        ("administrator of 21 characters", b"\xa3\x01\x01\x02\x65group\x03\x81\x75" + asa[:21]),
        ("keys out of order", b"\xa3\x02\x65group\x01\x01\x03\x81" + text),
        ("version not in its shortest form", b"\xa3\x01\x18\x01\x02\x65group\x03\x81" + text),
        ("bytes after the end", b"\xa3\x01\x01\x02\x65group\x03\x81" + text + b"\x00"),
    ]
    ids = sorted(three)
    unsorted = b"".join(b"\x76" + name.encode() for name in reversed(ids))
    three_direct = b"".join(b"\x76" + name.encode() for name in ids)
    refused += [
        ("administrators not sorted", b"\xa3\x01\x01\x02\x65group\x03\x83" + unsorted),
        ("direct with three", b"\xa3\x01\x01\x02\x66direct\x03\x83" + three_direct),
    ]
    return {
        "pinned_senders": SENDERS,
        "commits": [*_contexts(), *_group_members(), *_direct_members()],
        "groups": [
            {"reason": reason, "check": check, "context": facts, "users": users, "suite_allowed": suite}
            for reason, check, facts, users, suite in groups
        ],
        "policies": [
            {"body": GROUP, "version": 3, "kind": "group", "administrators": sorted([three[0], three[1]])},
            {"body": DIRECT, "version": 1, "kind": "direct", "administrators": sorted([three[0], three[1]])},
            {"body": policy("direct", 1), "version": 1, "kind": "direct", "administrators": []},
        ],
        "refused_policies": [{"reason": reason, "body": b64(body)} for reason, body in refused],
    }
