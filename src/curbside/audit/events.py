"""The closed vocabulary of audit events, and the one form in which they are kept.

An event answers who, what, when, why and how it ended; it has no place for content, names of people, file names,
addresses or secrets: each field is a number, an id, or a word from a short alphabet, checked when the event is made.

Not recorded: cursor acknowledgements. `message.delivered` is one event for each batch of one conversation's entries
that leaves for a device (extra: from_index, to_index, the sequence numbers), not one for each message.

`message.batch` is the log's own: one leaf that stands for many `message.sent` and `message.delivered` (audit.batch).
"""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from curbside.errors import Malformed, UsageError


class EventName(StrEnum):
    """What happened. Names are never reused with another meaning."""

    LOGIN_OK = "auth.login.ok"
    LOGIN_FAIL = "auth.login.fail"
    LOGOUT = "auth.logout"
    THROTTLED = "auth.throttled"
    SESSION_EXPIRED = "session.expired"
    SESSION_REVOKED = "session.revoked"
    USER_CREATED = "user.created"
    DEVICE_ENROLLED = "device.enrolled"
    DEVICE_REVOKED = "device.revoked"
    KEY_PACKAGE_PUBLISHED = "key_package.published"
    KEY_PACKAGE_CLAIMED = "key_package.claimed"
    KEY_PACKAGE_REFUSED = "key_package.refused"
    INVITE_CREATED = "invite.created"
    INVITE_VIEWED = "invite.viewed"
    INVITE_USED = "invite.used"
    INVITE_REFUSED = "invite.refused"
    GROUP_CREATED = "group.created"
    MEMBER_ADDED = "group.member_added"
    MEMBER_REMOVED = "group.member_removed"
    GROUP_VIEWED = "group.viewed"
    COMMIT_ACCEPTED = "commit.accepted"
    COMMIT_REJECTED = "commit.rejected"
    PROPOSAL_ADDED = "proposal.added"
    MESSAGE_SENT = "message.sent"
    MESSAGE_REFUSED = "message.refused"
    MESSAGE_DELIVERED = "message.delivered"
    MESSAGE_BATCH = "message.batch"
    ATTACHMENT_UPLOADED = "attachment.uploaded"
    ATTACHMENT_DOWNLOADED = "attachment.downloaded"
    ATTACHMENT_REFUSED = "attachment.refused"
    DIRECTORY_SEARCH = "directory.search"
    DIRECTORY_VIEWED = "directory.viewed"
    DEVICES_VIEWED = "devices.viewed"
    AUDIT_VIEWED = "audit.viewed"
    AUDIT_EXPORTED = "audit.exported"
    AUDIT_VERIFIED = "audit.verified"
    BACKUP_DONE = "backup.done"
    BACKUP_VERIFIED = "backup.verified"
    BACKUP_FAILED = "backup.failed"
    BACKUP_RESTORED = "backup.restored"
    APP_STARTED = "app.started"
    APP_STOPPED = "app.stopped"
    CONFIG_NETWORK = "config.network"
    INPUT_REJECTED = "input.rejected"
    RATELIMIT_HIT = "ratelimit.hit"
    ACCESS_DENIED = "access.denied"


class Outcome(IntEnum):
    """FHIR AuditEvent.outcome (R4): 0 success, 4 minor, 8 serious, 12 major failure."""

    OK = 0
    REFUSED = 4
    FAILED = 8
    BROKEN = 12


class ObjectType(StrEnum):
    """What `object_id` names."""

    NONE = ""
    USER = "user"
    DEVICE = "device"
    SESSION = "session"
    INVITE = "invite"
    CONVERSATION = "conversation"
    BLOB = "blob"
    ROUTE = "route"
    LOG = "log"


class PurposeOfUse(StrEnum):
    """Why, in codes of HL7 v3 ActReason; NONE for what is no use of health information."""

    NONE = ""
    TREATMENT = "TREAT"
    EMERGENCY = "ETREAT"
    BREAK_THE_GLASS = "BTG"
    PAYMENT = "HPAYMT"
    OPERATIONS = "HOPERAT"
    PATIENT_REQUEST = "PATRQT"
    LEGAL = "HLEGAL"


Extra = int | str

EXTRA_NUMBERS: Final = frozenset(
    {"count", "epoch", "sequence", "size_bucket", "from_index", "to_index", "tree_size", "retry_after", "tries", "port"}
)
"""Members of `extra` that hold a number."""
EXTRA_WORDS: Final = frozenset(
    {
        "method",
        "cause",
        "conversation",
        "device",
        "user",
        "role",
        "root",
        "key_print",
        "query_hash",
        "result",
        "version",
    }
)
"""Members of `extra` that hold an id, a digest or a word of a fixed list."""

_WORD = re.compile(r"[A-Za-z0-9_.:/{}-]{0,64}\Z")
_LARGEST: Final = 2**53 - 1


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One event. Fields stand in alphabetical order, so that `encode` writes RFC 8785's canonical JSON.

    at: server time, Unix milliseconds. rule: the access rule's id, or the check that failed. reason: a problem code or
    a decision's reason. extra: numbers and words under the names in EXTRA_NUMBERS and EXTRA_WORDS.

    Raises: UsageError when a field holds anything that could be free text.
    """

    actor_device: str = ""
    actor_role: str = ""
    actor_user: str = ""
    at: int
    extra: dict[str, Extra] = {}
    name: EventName
    object_id: str = ""
    object_type: ObjectType = ObjectType.NONE
    outcome: Outcome = Outcome.OK
    purpose_of_use: PurposeOfUse = PurposeOfUse.NONE
    reason: str = ""
    rule: str = ""

    def __post_init__(self) -> None:
        words = (self.actor_device, self.actor_role, self.actor_user, self.object_id, self.reason, self.rule)
        if not all(map(_WORD.match, words)) or not 0 <= self.at <= _LARGEST:
            raise UsageError("an audit event holds ids and words only")
        if self.extra:
            _check_extra(self.extra)

    def encode(self) -> bytes:
        """The canonical bytes (RFC 8785): what is stored, exported and hashed."""
        return _encoder.encode(self)


def _check_extra(extra: dict[str, Extra]) -> None:
    for key, value in extra.items():
        if key in EXTRA_NUMBERS and type(value) is int and abs(value) <= _LARGEST:
            continue
        if key in EXTRA_WORDS and isinstance(value, str) and _WORD.match(value):
            continue
        raise UsageError("an audit event has no place for this extra")


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(AuditEvent)


def parse_event(data: bytes) -> AuditEvent:
    """Read an event; exactly the bytes that `encode` writes are accepted.

    Raises: Malformed.
    """
    try:
        event = _decoder.decode(data)
    except (msgspec.MsgspecError, UsageError, UnicodeDecodeError, RecursionError):
        raise Malformed("not an audit event") from None
    if event.encode() != data:
        raise Malformed("not the canonical form of an audit event")
    return event


def size_bucket(length: int) -> int:
    """The power of two that `length` bytes fit in: how big, without saying how long."""
    return 1 << max(0, length - 1).bit_length()


class Coding(msgspec.Struct, frozen=True, array_like=True):
    """Codes of FHIR R4 AuditEvent. type: DICOM. subtype: DICOM or an ISO 21089 lifecycle word. action: one of CRUDE."""

    type: str
    subtype: str
    action: str


_LOGIN = Coding("110114", "110122", "E")
_LOGOUT = Coding("110114", "110123", "E")
_ALERT = Coding("110113", "110132", "E")
_RIGHTS = Coding("110113", "110136", "C")
_QUERY = Coding("110112", "access", "E")
_RESTORE = Coding("110100", "restore", "E")

FHIR_CODINGS: Final = MappingProxyType(
    {
        EventName.LOGIN_OK: _LOGIN,
        EventName.LOGIN_FAIL: _LOGIN,
        EventName.LOGOUT: _LOGOUT,
        EventName.THROTTLED: Coding("110113", "110122", "E"),
        EventName.SESSION_EXPIRED: _LOGOUT,
        EventName.SESSION_REVOKED: _LOGOUT,
        EventName.USER_CREATED: Coding("110113", "110137", "C"),
        EventName.DEVICE_ENROLLED: Coding("110114", "110126", "C"),
        EventName.DEVICE_REVOKED: Coding("110113", "110137", "U"),
        EventName.KEY_PACKAGE_PUBLISHED: Coding("110113", "110135", "C"),
        EventName.KEY_PACKAGE_CLAIMED: Coding("110113", "110135", "R"),
        EventName.KEY_PACKAGE_REFUSED: _ALERT,
        EventName.INVITE_CREATED: _RIGHTS,
        EventName.INVITE_VIEWED: Coding("110112", "access", "R"),
        EventName.INVITE_USED: Coding("110113", "110136", "U"),
        EventName.INVITE_REFUSED: _ALERT,
        EventName.GROUP_CREATED: Coding("110113", "originate", "C"),
        EventName.MEMBER_ADDED: Coding("110113", "110135", "U"),
        EventName.MEMBER_REMOVED: Coding("110113", "110135", "U"),
        EventName.GROUP_VIEWED: Coding("110110", "access", "R"),
        EventName.COMMIT_ACCEPTED: Coding("110113", "110135", "U"),
        EventName.COMMIT_REJECTED: _ALERT,
        EventName.PROPOSAL_ADDED: Coding("110113", "110135", "U"),
        EventName.MESSAGE_SENT: Coding("110110", "transmit", "C"),
        EventName.MESSAGE_REFUSED: Coding("110110", "transmit", "C"),
        EventName.MESSAGE_DELIVERED: Coding("110110", "receive", "R"),
        EventName.MESSAGE_BATCH: Coding("110110", "transmit", "E"),
        EventName.ATTACHMENT_UPLOADED: Coding("110110", "transmit", "C"),
        EventName.ATTACHMENT_DOWNLOADED: Coding("110110", "access", "R"),
        EventName.ATTACHMENT_REFUSED: Coding("110110", "access", "R"),
        EventName.DIRECTORY_SEARCH: _QUERY,
        EventName.DIRECTORY_VIEWED: Coding("110112", "access", "R"),
        EventName.DEVICES_VIEWED: Coding("110112", "access", "R"),
        EventName.AUDIT_VIEWED: Coding("110101", "access", "R"),
        EventName.AUDIT_EXPORTED: Coding("110101", "disclose", "R"),
        EventName.AUDIT_VERIFIED: Coding("110101", "verify", "R"),
        EventName.BACKUP_DONE: _RESTORE,
        EventName.BACKUP_VERIFIED: _RESTORE,
        EventName.BACKUP_FAILED: _RESTORE,
        EventName.BACKUP_RESTORED: _RESTORE,
        EventName.APP_STARTED: Coding("110100", "110120", "E"),
        EventName.APP_STOPPED: Coding("110100", "110121", "E"),
        EventName.CONFIG_NETWORK: Coding("110113", "110128", "U"),
        EventName.INPUT_REJECTED: _ALERT,
        EventName.RATELIMIT_HIT: _ALERT,
        EventName.ACCESS_DENIED: _ALERT,
    }
)
"""REQUIREMENTS of the log, as data: one row for each name; a test holds the two in step."""
