"""The one tree of errors. Every refusal in Curbside is one of these, and each has a stable code.

    CurbsideError
    ├ UsageError                 our own caller broke a contract; never travels on the wire
    ├ InvalidMessage             bytes from a peer break a rule
    │ ├ Malformed                cannot be decoded
    │ ├ RuleBroken               decodes, but breaks the rule named by `check` (an id such as "mls.leaf.lifetime")
    │ ├ BadSignature             a signature, MAC or tag does not verify
    │ ├ WrongGroup               belongs to another conversation
    │ ├ StaleEpoch               of an epoch that is over
    │ ├ FutureEpoch              of an epoch not reached yet
    │ ├ Replayed                 was accepted before, or its key is gone
    │ ├ DecryptionFailed         one class without a reason, so that nobody learns from it
    │ └ UntrustedDevice          a device whose certificate chain fails; carries the device's name
    ├ AccessError
    │ ├ NotAuthenticated         no session, or one that ended
    │ ├ WrongPassphrase          sign-in or unlock refused
    │ ├ PolicyDenied             a rule says no
    │ └ DeviceRevoked            this device was removed
    ├ MissingError
    │ ├ NotFound                 absent, or not for you to know
    │ └ Gone                     was here, ended by rule
    │   ├ InviteExpired
    │   └ InviteUsed
    ├ ConflictError
    │ ├ EpochConflict            another commit won; carries the current epoch
    │ ├ PendingProposals         commit these proposals before you send
    │ ├ MissingDevices           the commit leaves devices of a member out
    │ ├ OffsetConflict           resume an upload from another offset
    │ └ DuplicateRequest         the same id with other content
    ├ LimitError
    │ ├ TooLarge
    │ └ TooMany                  carries the seconds to wait
    ├ Unavailable
    │ ├ StoreUnavailable         locked or unreachable storage
    │ ├ StorageFull              no room left
    │ └ PeerUnavailable          the server cannot be reached
    ├ IntegrityError             what we stored contradicts itself: stop, alert, never retry
    │ ├ BlobCorrupt              an attachment's bytes are cut or changed
    │ ├ BackupRefused            a backup was changed, cut, reordered or rolled back, or is not ours
    │ └ LogRolledBack            a device knows more of a log than the server, which was restored from a backup
    ├ VaultError
    │ ├ VaultLocked
    │ └ VaultBusy                another tab or process has it open
    └ ConfigError                at start only

An error raised while handling input leaves state exactly as it was.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Retry = Literal["never", "later", "after_sync"]


class CurbsideError(Exception):
    """Base of all errors; only subclasses with a `code` can be raised.

    code: stable name on the wire, `urn:curbside:problem:<code>`.
    status: HTTP status of the problem.
    retry: what a client may do by itself: "never", "later" (back off), "after_sync" (heal, then send again).
    title: fixed sentence for the code.
    next_step: what the person can do.
    detail: sentence for this occurrence; never holds content, names or secrets.
    members: typed extension members of the problem (RFC 9457 section 3.2).
    """

    code: ClassVar[str] = ""
    status: ClassVar[int] = 500
    retry: ClassVar[Retry] = "never"
    title: ClassVar[str] = ""
    next_step: ClassVar[str] = ""

    def __init__(self, detail: str = "", **members: Any) -> None:
        if not type(self).code:
            raise TypeError(f"{type(self).__name__} is abstract: raise one of its subclasses")
        super().__init__(detail or type(self).title)
        self.detail = detail or type(self).title
        self.members: dict[str, Any] = members


class UsageError(CurbsideError):
    """Our own caller broke a contract; a defect in Curbside, never the peer's doing."""

    code = "internal"
    status = 500
    title = "Curbside made a mistake."
    next_step = "Try again; if it happens again, tell your administrator the time it happened."


# --- bytes from a peer break a rule ---------------------------------------------------------


class InvalidMessage(CurbsideError):
    """Bytes from a peer break a rule."""

    status = 400


class Malformed(InvalidMessage):
    """The bytes cannot be decoded."""

    code = "malformed"
    title = "The request could not be read."
    next_step = "Update the app; if it is up to date, tell your administrator."


class RuleBroken(InvalidMessage):
    """The bytes decode but break one rule; `check` is the rule's id, listed in docs/checks.md."""

    code = "rule_broken"
    status = 422
    title = "The request breaks a protocol rule."
    next_step = "Update the app; if it is up to date, tell your administrator."

    def __init__(self, check: str, detail: str = "", **members: Any) -> None:
        super().__init__(detail or f"check {check} failed", check=check, **members)
        self.check = check


class BadSignature(InvalidMessage):
    """A signature, MAC or authentication tag does not verify."""

    code = "bad_signature"
    status = 422
    title = "A signature does not verify."
    next_step = "Do not trust this message; tell your security officer."


class WrongGroup(InvalidMessage):
    """The message belongs to another conversation."""

    code = "wrong_group"
    status = 422
    title = "The message belongs to another conversation."
    next_step = "Nothing to do: the message was dropped."


class StaleEpoch(InvalidMessage):
    """The message is of an epoch that is over; member `current_epoch`."""

    code = "stale_epoch"
    status = 409
    retry = "after_sync"
    title = "The conversation has moved on."
    next_step = "The app catches up and sends again by itself."


class FutureEpoch(InvalidMessage):
    """The message is of an epoch this side has not reached; member `current_epoch`."""

    code = "future_epoch"
    status = 409
    retry = "after_sync"
    title = "The message is ahead of this conversation."
    next_step = "The app catches up and tries again by itself."


class Replayed(InvalidMessage):
    """The message was accepted before, or its key was deleted by rule."""

    code = "replayed"
    status = 409
    title = "The message was already received."
    next_step = "Nothing to do: the copy was dropped."


class DecryptionFailed(InvalidMessage):
    """Decryption failed; one class without a reason, so that no oracle arises."""

    code = "decryption_failed"
    status = 422
    title = "The message could not be opened."
    next_step = "Ask the sender to send it again."


class UntrustedDevice(InvalidMessage):
    """A device's certificate chain fails; member `device` names it, `check` says which rule."""

    code = "untrusted_device"
    status = 422
    title = "A device is not vouched for by your organisation."
    next_step = "The app refused it. Tell your security officer which device was named."

    def __init__(self, device: str, check: str, detail: str = "", **members: Any) -> None:
        super().__init__(
            detail or f"device {device} refused: check {check} failed", device=device, check=check, **members
        )
        self.device = device
        self.check = check


# --- who you are and what you may -----------------------------------------------------------


class AccessError(CurbsideError):
    """Not allowed, or not known who asks."""


class NotAuthenticated(AccessError):
    """No session, a session that ended, or a proof that does not fit the session's device."""

    code = "not_authenticated"
    status = 401
    retry = "after_sync"
    title = "You are signed out."
    next_step = "Unlock the app again."


class WrongPassphrase(AccessError):
    """The passphrase (or the account) is not right; both look alike."""

    code = "wrong_passphrase"
    status = 401
    title = "That passphrase is not right."
    next_step = "Check it and try again; capital letters matter."


class PolicyDenied(AccessError):
    """A rule says no; members `rule` and `reason`."""

    code = "policy_denied"
    status = 403
    title = "Your organisation's rules do not allow this."
    next_step = "If you need it for your work, ask your administrator."


class DeviceRevoked(AccessError):
    """This device was removed from its account."""

    code = "device_revoked"
    status = 403
    title = "This device was removed from your account."
    next_step = "If you did not expect this, tell your security officer now."


# --- not there ------------------------------------------------------------------------------


class MissingError(CurbsideError):
    """What was asked for is not there."""


class NotFound(MissingError):
    """Absent, or not for the asker to know: both look alike."""

    code = "not_found"
    status = 404
    title = "Not found."
    next_step = "It may have ended, or it is not shared with you."


class Gone(MissingError):
    """Was here and ended by rule."""

    code = "gone"
    status = 410
    title = "This is no longer here."
    next_step = "It ended by your organisation's rules."


class InviteExpired(Gone):
    """The invite's time is over."""

    code = "invite_expired"
    title = "This invite has expired."
    next_step = "Ask the person who invited you for a new one."


class InviteUsed(Gone):
    """The invite was used before; it works once."""

    code = "invite_used"
    title = "This invite was already used."
    next_step = "If it was not you, tell your administrator. Ask for a new invite."


# --- conflicts that clients heal by themselves ----------------------------------------------


class ConflictError(CurbsideError):
    """The request does not fit the present state."""

    status = 409


class EpochConflict(ConflictError):
    """Another commit won this epoch; member `current_epoch`."""

    code = "epoch_conflict"
    retry = "after_sync"
    title = "Somebody changed the conversation first."
    next_step = "The app catches up and tries again by itself."


class PendingProposals(ConflictError):
    """Proposals wait to be committed before anything new may be encrypted; member `proposals`."""

    code = "pending_proposals"
    retry = "after_sync"
    title = "The conversation must be updated first."
    next_step = "The app does that by itself."


class MissingDevices(ConflictError):
    """The commit leaves devices out; member `missing_devices`."""

    code = "missing_devices"
    retry = "after_sync"
    title = "Somebody has a newer set of devices."
    next_step = "The app adds them by itself."


class OffsetConflict(ConflictError):
    """An upload must go on from another offset; member `offset` in bytes."""

    code = "offset_conflict"
    retry = "after_sync"
    title = "The upload goes on from another place."
    next_step = "The app resumes by itself."


class DuplicateRequest(ConflictError):
    """The same id was used before with other content."""

    code = "duplicate_request"
    title = "This id was used for something else."
    next_step = "Send it again as a new message."


# --- limits ---------------------------------------------------------------------------------


class LimitError(CurbsideError):
    """A size or a rate is over its limit."""


class TooLarge(LimitError):
    """Over a size limit; member `limit` in bytes (or items)."""

    code = "too_large"
    status = 413
    title = "That is too large."
    next_step = "Send something smaller."


class TooMany(LimitError):
    """Over a rate limit; member `retry_after` in seconds."""

    code = "too_many"
    status = 429
    retry = "later"
    title = "Too many tries."
    next_step = "Wait a moment; the app tries again by itself."


# --- engines --------------------------------------------------------------------------------


class Unavailable(CurbsideError):
    """Something we depend on is not there right now."""

    status = 503
    retry = "later"


class StoreUnavailable(Unavailable):
    """Storage is locked or unreachable."""

    code = "store_unavailable"
    title = "The server is busy."
    next_step = "Your message is kept and goes out by itself."


class StorageFull(Unavailable):
    """No room left where data is stored."""

    code = "storage_full"
    status = 507
    title = "There is no room left."
    next_step = "Your message is kept. Tell your administrator that the disk is full."


class PeerUnavailable(Unavailable):
    """The server cannot be reached."""

    code = "peer_unavailable"
    title = "The server cannot be reached."
    next_step = "Check the connection; your message is kept and goes out by itself."


class IntegrityError(CurbsideError):
    """What was stored contradicts itself: stop, alert, never retry."""

    code = "integrity"
    title = "Stored data does not fit together."
    next_step = "Tell your administrator; do not delete anything."


class BlobCorrupt(IntegrityError):
    """An attachment's bytes are cut or changed."""

    code = "blob_corrupt"
    status = 422
    title = "The file arrived damaged."
    next_step = "Ask the sender to send it again."


class BackupRefused(IntegrityError):
    """A backup was changed, cut, reordered or rolled back, or does not open with this key."""

    code = "backup_refused"
    title = "The backup cannot be trusted."
    next_step = "Nothing was restored. Try an earlier backup or another copy, and tell your security officer."


class LogRolledBack(IntegrityError):
    """The server was restored from a backup that is older than what this device has; members `conversation` and
    `last_sequence`, the last entry that was in the backup."""

    code = "log_rolled_back"
    status = 409
    title = "The server lost the latest messages of a conversation."
    next_step = "What you have stays on this device. Tell your administrator, and go on in a new conversation."


class VaultError(CurbsideError):
    """The encrypted store on this device cannot be used."""


class VaultLocked(VaultError):
    """The vault is locked."""

    code = "vault_locked"
    title = "Curbside is locked."
    next_step = "Unlock it with your passphrase."


class VaultBusy(VaultError):
    """Another tab or process has the vault open."""

    code = "vault_busy"
    title = "Curbside is open elsewhere on this device."
    next_step = "Use the other window, or close it and try again."


class ConfigError(CurbsideError):
    """The configuration is not usable; raised at start only."""

    code = "config"
    title = "The configuration is not usable."
    next_step = "Correct the setting that is named."
