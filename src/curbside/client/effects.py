"""What the engine asks its shell to do, as values. They are released only after what caused them is saved."""

from __future__ import annotations

from dataclasses import dataclass

from curbside.errors import CurbsideError
from curbside.ids import ConversationId, UserId
from curbside.wire import bodies, frames


@dataclass(frozen=True)
class SendFrame:
    """Put a frame on the stream; lost if there is none, and then made again at the next Sync."""

    frame: frames.ClientFrame


@dataclass(frozen=True)
class PostCommit:
    """POST a commit; its outcome comes back as `Engine.commit_answered`, its entry through the log."""

    conversation: ConversationId
    request: bodies.NewCommit


@dataclass(frozen=True)
class Arrived:
    """A message of somebody else is in the vault."""

    conversation: ConversationId
    message: str


@dataclass(frozen=True)
class Changed:
    """Something about a conversation changed: delivery, title, members."""

    conversation: ConversationId
    message: str = ""


@dataclass(frozen=True)
class CommitSettled:
    """A commit of ours was accepted, or another won (then it may be tried again in the new epoch)."""

    conversation: ConversationId
    accepted: bool


@dataclass(frozen=True)
class AcknowledgeSoon:
    """Something more is durably processed: `Engine.acknowledge` in a moment, once for all that comes till then."""


@dataclass(frozen=True)
class CaughtUp:
    """All entries that the server held at the last Sync are processed."""


@dataclass(frozen=True)
class Joined:
    """This device was added to a conversation."""

    conversation: ConversationId


@dataclass(frozen=True)
class Signalled:
    """A member is typing, or is there; kept nowhere. kind: SIGNAL_*. lasts: milliseconds, 0 when it is over.

    The server says so; unlike a message it is not signed.
    """

    conversation: ConversationId
    user_id: UserId
    kind: int
    lasts: int


@dataclass(frozen=True)
class Notice:
    """Something was refused; for the person to see. conversation: None when it is about none."""

    conversation: ConversationId | None
    error: CurbsideError


@dataclass(frozen=True)
class Retry:
    """Release a conversation's outbox again after that many seconds."""

    conversation: ConversationId
    seconds: float


Effect = (
    SendFrame
    | PostCommit
    | Arrived
    | Changed
    | CommitSettled
    | AcknowledgeSoon
    | CaughtUp
    | Joined
    | Signalled
    | Notice
    | Retry
)
