"""What the application decides: whom to believe, and which commits to refuse (RFC 9420 sections 5.3.1 and 12.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from curbside.mls.messages import Sender
from curbside.mls.nodes import Credential, Extensions, LeafNode
from curbside.mls.proposals import Proposal, PskId, ReInit
from curbside.mls.tree import RatchetTree


@dataclass(frozen=True, slots=True)
class Member:
    """A member as others see it."""

    leaf_index: int
    credential: Credential
    signature_key: bytes

    @classmethod
    def of(cls, index: int, leaf: LeafNode) -> Member:
        """The member at a leaf."""
        return cls(index, leaf.credential, leaf.signature_key)


def list_members(tree: RatchetTree) -> list[Member]:
    """All members, by leaf index."""
    return [Member.of(index, leaf) for index, leaf in tree.leaves()]


@dataclass(frozen=True, slots=True)
class RosterDiff:
    """What a commit changed. `updated` pairs a member before with the same leaf after."""

    added: tuple[Member, ...] = ()
    removed: tuple[Member, ...] = ()
    updated: tuple[tuple[Member, Member], ...] = ()
    extensions_changed: bool = False


@dataclass(frozen=True, slots=True)
class SentProposal:
    """A proposal with who sent it; `by_reference` when it came in a message of its own."""

    proposal: Proposal
    sender: Sender
    by_reference: bool


@dataclass(frozen=True, slots=True)
class CommitContext:
    """A commit before it is applied, for the application's group policy.

    `epoch` is the one that the commit ends. `committer` is the member after the commit; `external` when it
    adds itself. `proposals` tell who asked for what; `diff` sums up the effect.
    """

    group_id: bytes
    epoch: int
    committer: Member
    external: bool
    proposals: tuple[SentProposal, ...]
    diff: RosterDiff
    extensions_before: Extensions
    extensions_after: Extensions
    psks: tuple[PskId, ...]
    reinit: ReInit | None
    has_path: bool
    tree_before: RatchetTree = field(repr=False)
    tree_after: RatchetTree = field(repr=False)

    @property
    def members_before(self) -> list[Member]:
        """The members in the epoch that ends."""
        return list_members(self.tree_before)

    @property
    def members_after(self) -> list[Member]:
        """The members in the next epoch."""
        return list_members(self.tree_after)


class CredentialValidator(Protocol):
    """The Authentication Service's answers, given by the application. Every method raises to refuse."""

    def verify_credential(self, credential: Credential, signature_key: bytes, now: int) -> None:
        """Check that the credential is genuine and speaks for the key at time `now` (unix seconds).

        Raises: UntrustedDevice.
        """

    def verify_successor(self, old: LeafNode, new: LeafNode) -> None:
        """Check that the new leaf belongs to the same client's user as the old one (updates, external resync).

        Raises: UntrustedDevice.
        """

    def verify_external_sender(self, credential: Credential, signature_key: bytes, now: int) -> None:
        """Check somebody who is named in an external_senders extension.

        Raises: UntrustedDevice.
        """

    def verify_commit(self, context: CommitContext) -> None:
        """Check a commit against the group's policy, before it is applied.

        Raises: PolicyDenied or another error of `curbside.errors`.
        """


class UnsafeAcceptAll:
    """Believes everything: for test vectors and tests only, never for people."""

    def verify_credential(self, credential: Credential, signature_key: bytes, now: int) -> None:
        """Accept."""

    def verify_successor(self, old: LeafNode, new: LeafNode) -> None:
        """Accept."""

    def verify_external_sender(self, credential: Credential, signature_key: bytes, now: int) -> None:
        """Accept."""

    def verify_commit(self, context: CommitContext) -> None:
        """Accept."""
