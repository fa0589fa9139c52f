"""Access rules as data: which role may do what to whose objects. Deny by default; an unknown rule denies.

Every route names its rule (Litestar `opt={"rule": "R-people-list"}`); the server refuses to start with a route that
does not. A decision is made in two steps: by role when the request arrives (`decide_role`), and by the asker's
relation to the object once the service has found it (`decide_access`). Where `hides` is set, a refusal answers
exactly like absence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from curbside.errors import CurbsideError, NotFound, PolicyDenied, UsageError
from curbside.ids import DeviceId, UserId
from curbside.policy.decision import Decision, Duty


class Role(StrEnum):
    """Roles of an enrolment certificate's OU (docs/trust.md)."""

    PHYSICIAN = "physician"
    NURSE = "nurse"
    CLERK = "clerk"
    PATIENT = "patient"
    BOT = "bot"
    PRIVACY_OFFICER = "privacy_officer"
    ADMINISTRATOR = "administrator"


class Relation(StrEnum):
    """What the asker is to the object asked for."""

    NONE = "none"
    OWN = "own"
    """Its own: the asker's user, device, upload, key package."""
    MEMBER = "member"
    """The asker's device is in the conversation."""
    SHARED = "shared"
    """A person with whom the asker shares a conversation."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks: an authenticated device and its user's role."""

    user_id: UserId
    device_id: DeviceId
    role: Role


ALL: Final = frozenset(Role)
STAFF: Final = frozenset({Role.PHYSICIAN, Role.NURSE, Role.CLERK, Role.PRIVACY_OFFICER, Role.ADMINISTRATOR})
OFFICERS: Final = frozenset({Role.PRIVACY_OFFICER, Role.ADMINISTRATOR})
ANY: Final = frozenset(Relation)


@dataclass(frozen=True, slots=True)
class Grant:
    """These roles may, when they stand in one of these relations to the object; then the duties hold."""

    roles: frozenset[Role]
    relations: frozenset[Relation] = ANY
    duties: frozenset[Duty] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """id: stable, never reused. public: needs no session (the service checks what else the sentence says).
    hides: a refusal looks like absence."""

    id: str
    sentence: str
    grants: tuple[Grant, ...] = ()
    public: bool = False
    hides: bool = False


def _public(rule: str, sentence: str) -> Rule:
    return Rule(rule, sentence, public=True)


def _signed_in(rule: str, sentence: str) -> Rule:
    return Rule(rule, sentence, (Grant(ALL),))


def _related(rule: str, sentence: str, relation: Relation) -> Rule:
    return Rule(rule, sentence, (Grant(ALL, frozenset({relation})),), hides=True)


_RULES: Final = (
    _public("R-health", "Anyone may ask whether the server runs."),
    _public("R-metrics", "Counts without names, served on the operator's address only."),
    _public("R-openapi", "Anyone may read the description of the interface."),
    _public("R-web", "Anyone may load the web client."),
    _public("R-organization-read", "Anyone may read the organisation's public keys."),
    _public("R-invite-read", "Whoever knows an invite's id may read its certificates."),
    _public("R-invite-create", "Whoever holds the authority key may deposit an enrolment certificate signed with it."),
    _public("R-signup", "Whoever holds an invite's enrolment key may sign up with it, once."),
    _public("R-signin", "Anyone may try to sign in, at a falling rate."),
    _public("R-stream", "Anyone may connect; nothing is said before the device proves a session."),
    _signed_in("R-session-end", "A device may end its own session."),
    Rule(
        "R-people-list",
        "Staff may search the directory; patients see only people of their own conversations; bots see nobody.",
        (Grant(STAFF), Grant(frozenset({Role.PATIENT}), duties=frozenset({Duty.ONLY_SHARED}))),
    ),
    Rule(
        "R-people-read",
        "Staff may look up anybody; patients and bots themselves and people of their own conversations.",
        (Grant(STAFF), Grant(ALL, frozenset({Relation.OWN, Relation.SHARED}))),
        hides=True,
    ),
    Rule(
        "R-key-packages-claim",
        "Staff may begin a conversation with anybody; patients and bots reach people of their own conversations.",
        (Grant(STAFF), Grant(ALL, frozenset({Relation.OWN, Relation.SHARED}))),
        hides=True,
    ),
    _signed_in("R-key-packages-publish", "A device may publish key packages of its own."),
    _signed_in("R-key-packages-count", "A device may count its own key packages."),
    _signed_in("R-conversations-list", "A device may list the conversations it is in."),
    _related("R-conversation-read", "A member device may read a conversation's state.", Relation.MEMBER),
    Rule(
        "R-conversation-create", "Staff may begin conversations; patients and bots are added by staff.", (Grant(STAFF),)
    ),
    _related(
        "R-conversation-commit",
        "A member device may change a conversation, as its group policy allows.",
        Relation.MEMBER,
    ),
    _related("R-message-send", "A member device may send.", Relation.MEMBER),
    _related("R-message-read", "A member device may read entries from its time as a member.", Relation.MEMBER),
    _related("R-blob-create", "A member device may begin an upload to its conversation.", Relation.MEMBER),
    _related("R-blob-upload", "A device may continue its own upload.", Relation.OWN),
    _related("R-blob-read", "A member device may download what was uploaded to its conversation.", Relation.MEMBER),
    _signed_in("R-devices-list", "A user may list its own devices."),
    Rule(
        "R-device-revoke",
        "A user may revoke its own devices; an administrator may revoke anybody's (a lost phone, a leaver).",
        (Grant(ALL, frozenset({Relation.OWN})), Grant(frozenset({Role.ADMINISTRATOR}))),
        hides=True,
    ),
    Rule("R-audit-checkpoint", "Officers may read the audit log's signed checkpoints.", (Grant(OFFICERS),)),
    Rule("R-audit-read", "Officers may read the audit log.", (Grant(OFFICERS),)),
    Rule("R-audit-export", "Officers may export the audit log.", (Grant(OFFICERS),)),
)


def index_rules(rules: Sequence[Rule]) -> Mapping[str, Rule]:
    """Rules by id. Raises: UsageError when an id is used twice."""
    by_id = {rule.id: rule for rule in rules}
    if len(by_id) != len(rules):
        raise UsageError("an access rule's id is used twice")
    return MappingProxyType(by_id)


RULES: Final[Mapping[str, Rule]] = index_rules(_RULES)
"""All rules by id."""


def find_rule(rule_id: str) -> Rule | None:
    """The rule of this id."""
    return RULES.get(rule_id)


def decide_role(rule_id: str, subject: Subject | None) -> Decision:
    """May this role ask at all, whatever the object? The first step; `subject` is None without a session."""
    rule = RULES.get(rule_id)
    if rule is None:
        return Decision(False, rule_id, "unknown_rule")
    if rule.public:
        return Decision(True, rule_id, "public")
    if subject is None:
        return Decision(False, rule_id, "no_session")
    if any(subject.role in grant.roles for grant in rule.grants):
        return Decision(True, rule_id, "role")
    return Decision(False, rule_id, "role")


def decide_access(rule_id: str, subject: Subject | None, relation: Relation = Relation.NONE) -> Decision:
    """May the subject, standing in this relation to the object? The second and last step."""
    by_role = decide_role(rule_id, subject)
    if not by_role.allow or subject is None or RULES[rule_id].public:
        return by_role
    for grant in RULES[rule_id].grants:
        if subject.role in grant.roles and relation in grant.relations:
            return Decision(True, rule_id, "granted", grant.duties)
    return Decision(False, rule_id, "relation")


def build_refusal(decision: Decision) -> CurbsideError:
    """The error that answers a refusal: NotFound where the rule hides, else PolicyDenied with rule and reason."""
    rule = RULES.get(decision.rule)
    if rule is not None and rule.hides:
        return NotFound()
    return PolicyDenied(rule=decision.rule, reason=decision.reason)


def check_access(rule_id: str, subject: Subject | None, relation: Relation = Relation.NONE) -> Decision:
    """`decide_access`, raised.

    Raises: PolicyDenied, NotFound.
    """
    decision = decide_access(rule_id, subject, relation)
    if not decision.allow:
        raise build_refusal(decision)
    return decision
