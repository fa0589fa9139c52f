"""What a group hands back for a message or a commit."""

from __future__ import annotations

from dataclasses import dataclass, field

from curbside.mls.messages import Sender
from curbside.mls.proposals import Proposal
from curbside.mls.trust import Member, RosterDiff


@dataclass(frozen=True, slots=True)
class Application:
    """An application message: its plaintext, authenticated data, sender and epoch."""

    data: bytes = field(repr=False)
    aad: bytes
    sender: Member
    epoch: int


@dataclass(frozen=True, slots=True)
class CommitReceived:
    """A commit was applied. `epoch` is the new epoch; `removed_me` ends our membership.

    `sender` is the committer after the commit; `own` when it is our staged commit come back.
    """

    diff: RosterDiff
    removed_me: bool
    epoch: int
    sender: Member
    aad: bytes = b""
    own: bool = False
    external: bool = False


@dataclass(frozen=True, slots=True)
class ProposalReceived:
    """A proposal waits to be committed; until then nothing can be encrypted.

    `kind` is "add", "update", "remove", "psk", "reinit" or "group_context_extensions"; `member` is the sender when
    a member sent it, `sender` tells the index of an external sender.
    """

    kind: str
    sender: Sender
    member: Member | None
    reference: bytes
    proposal: Proposal
    aad: bytes = b""


Received = Application | CommitReceived | ProposalReceived


@dataclass(frozen=True, slots=True)
class Staged:
    """A commit to hand to the server: MLSMessages, and the epoch and roster once it is accepted."""

    commit: bytes
    welcome: bytes | None
    group_info: bytes
    diff: RosterDiff
    epoch: int
