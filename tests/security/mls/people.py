"""People, devices and groups in memory, and what it means that an input is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pytest

from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.errors import CurbsideError, RuleBroken
from curbside.mls.checks import Check
from curbside.mls.extensions import ExternalSender, encode_external_senders
from curbside.mls.group import CommitRequest, Group, GroupSettings, KeyPackageSecrets, OwnLeaf, make_key_package
from curbside.mls.nodes import Capabilities, Credential, Extension
from curbside.mls.public import PublicGroup
from curbside.mls.trust import CredentialValidator, UnsafeAcceptAll
from curbside.mls.validation import DAY, Limits

NOW = 1_800_000_000
TRUST = UnsafeAcceptAll()
SETTINGS = GroupSettings()
LIFETIME = (NOW - DAY, NOW + 30 * DAY)
OBSERVED: set[str] = set()


class Saved(Protocol):
    """Whatever has a state that a refusal must not change."""

    def save(self) -> bytes: ...


def new_leaf(name: str, **capabilities: Any) -> OwnLeaf:
    """A device's leaf with a fresh Ed25519 key."""
    key = generate_signature_key("ed25519")
    return OwnLeaf(Credential.basic(name.encode()), key, Capabilities(**capabilities))


def new_package(
    name: str, lifetime: tuple[int, int] = LIFETIME, leaf: OwnLeaf | None = None, suite: int = 1
) -> KeyPackageSecrets:
    """A KeyPackage of a new device."""
    return make_key_package(leaf or new_leaf(name), suite, lifetime)


@contextmanager
def refused(expected: Check | type[CurbsideError], *groups: Saved) -> Iterator[None]:
    """The block must be refused with just this check or error, and must leave every group byte for byte as it was."""
    before = [group.save() for group in groups]
    wanted = RuleBroken if isinstance(expected, Check) else expected
    with pytest.raises(CurbsideError) as caught:
        yield
    error = caught.value
    assert type(error) is wanted, repr(error)
    if isinstance(expected, Check):
        assert isinstance(error, RuleBroken)
        assert error.check == expected.value, f"{error.check} instead of {expected.value}"
        OBSERVED.add(expected.value)
    assert [group.save() for group in groups] == before, "a refusal changed the state"


@dataclass
class Server:
    """The external sender of a group: its key and how the group context names it."""

    key: SecretBytes = field(default_factory=lambda: generate_signature_key("ed25519"))

    @property
    def extension(self) -> Extension:
        public = Signer("ed25519", self.key).public
        return encode_external_senders(ExternalSender(public, Credential.basic(b"server")))


@dataclass
class Team:
    """A group as all its members and the server see it: `mallory` attacks, `bob` and the server are the victims."""

    members: dict[str, Group]
    public: PublicGroup
    server: Server

    @property
    def mallory(self) -> Group:
        return self.members["mallory"]

    @property
    def bob(self) -> Group:
        return self.members["bob"]

    @property
    def carol(self) -> Group:
        return self.members["carol"]

    def victims(self) -> list[Group]:
        return [group for name, group in self.members.items() if name != "mallory"]

    def commit(self, committer: Group, request: CommitRequest | None = None, now: int = NOW) -> bytes:
        """An honest commit, followed by everybody who stays. Returns the commit."""
        staged = committer.stage_commit(request or CommitRequest(), now)
        committer.commit_accepted(staged)
        self.public.apply(staged.commit, now)
        for group in self.members.values():
            if group is not committer and group.is_active:
                group.receive(staged.commit, now)
        return staged.commit

    def add(self, committer: Group, name: str, leaf: OwnLeaf | None = None) -> Group:
        """An honest Add with its Welcome, without a path: the new leaf is unmerged above."""
        package = new_package(name, leaf=leaf)
        staged = committer.stage_commit(CommitRequest(adds=(package.public,), update=False), NOW)
        committer.commit_accepted(staged)
        self.public.apply(staged.commit, NOW)
        for group in self.members.values():
            if group is not committer:
                group.receive(staged.commit, NOW)
        assert staged.welcome is not None
        joined = Group.join(staged.welcome, [package], TRUST, NOW, committer.state.settings)
        self.members[name] = joined
        return joined

    def spread(self, message: bytes, sender: Group | None = None) -> None:
        """A proposal, received by everybody."""
        self.public.receive_proposal(message, NOW)
        for group in self.members.values():
            if group is not sender:
                group.receive(message, NOW)

    def refuse(self, message: bytes, expected: Check | type[CurbsideError], public: bool = True) -> None:
        """Every victim refuses a handshake message for this reason, changes nothing, and goes on with the genuine one.

        Args: `public` whether the server can see what is wrong too.
        """
        for group in self.victims():
            with refused(expected, group):
                group.receive(message, NOW)
        if public:
            with refused(expected, self.public):
                self.public.check_commit(message, NOW)
            with refused(expected, self.public):
                self.public.apply(message, NOW)
        self.go_on()

    def refuse_proposal(self, message: bytes, expected: Check | type[CurbsideError]) -> None:
        """Every victim and the server refuse a proposal for this reason, change nothing and go on."""
        for group in self.victims():
            with refused(expected, group):
                group.receive(message, NOW)
        with refused(expected, self.public):
            self.public.receive_proposal(message, NOW)
        self.go_on()

    def go_on(self) -> None:
        """Honest work is still possible: a commit of mallory, and a message of each to each."""
        if self.mallory.is_active:
            self.commit(self.mallory)
        self.talk()

    def talk(self) -> None:
        """Everybody reads everybody, and the server sees the same tree."""
        active = [group for group in self.members.values() if group.is_active]
        assert len({group.epoch_authenticator() for group in active}) == 1
        assert all(group.ratchet_tree() == self.public.ratchet_tree() for group in active)
        for sender in active:
            message = sender.encrypt(b"hello")
            for receiver in active:
                if receiver is not sender:
                    assert receiver.receive(message, NOW).data == b"hello"  # type: ignore[union-attr]


def make_team(
    *names: str,
    settings: GroupSettings = SETTINGS,
    extensions: tuple[Extension, ...] = (),
    leaves: Sequence[OwnLeaf] = (),
    trust: CredentialValidator = TRUST,
) -> Team:
    """A group made by the first person; the others come in by one commit. Everybody has committed once."""
    names = names or ("mallory", "bob", "carol")
    own = list(leaves) or [new_leaf(name) for name in names]
    server = Server()
    first = Group.create(b"ward 7", own[0], 1, (server.extension, *extensions), settings, trust, NOW)
    packages = [new_package(name, leaf=leaf) for name, leaf in zip(names[1:], own[1:], strict=True)]
    members = {names[0]: first}
    if packages:
        staged = first.stage_commit(CommitRequest(adds=tuple(package.public for package in packages)), NOW)
        first.commit_accepted(staged)
        assert staged.welcome is not None
        for name, package in zip(names[1:], packages, strict=True):
            members[name] = Group.join(staged.welcome, [package], trust, NOW, settings)
    public = PublicGroup.from_group_info(first.group_info(), trust, NOW, limits=settings.limits)
    team = Team(members, public, server)
    for group in list(members.values())[1:]:
        team.commit(group)
    return team


def with_limits(**limits: Any) -> GroupSettings:
    """Settings with other limits."""
    return replace(SETTINGS, limits=replace(Limits(), **limits))
