"""People with devices and groups in memory, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.suites import get_suite
from curbside.mls.extensions import ExternalSender, encode_external_senders
from curbside.mls.group import (
    CommitRequest,
    Group,
    GroupSettings,
    JoinOptions,
    KeyPackageSecrets,
    OwnLeaf,
    Staged,
    make_key_package,
)
from curbside.mls.nodes import Capabilities, Credential, Extension
from curbside.mls.results import Received
from curbside.mls.trust import CredentialValidator, UnsafeAcceptAll

NOW = 1_800_000_000
DAY = 24 * 3600
TRUST = UnsafeAcceptAll()
SETTINGS = GroupSettings(suites=(1, 2, 3, 4, 5, 6, 7))
APP_EXTENSION = 0xF0A0


def own_leaf(name: str, suite: int = 1) -> OwnLeaf:
    """A leaf with a basic credential and a fresh key."""
    signer = generate_signature_key(get_suite(suite).signature_name)
    return OwnLeaf(Credential.basic(name.encode()), signer, Capabilities(extensions=(APP_EXTENSION,)))


def package_of(name: str, suite: int = 1, lifetime: tuple[int, int] = (NOW - DAY, NOW + 30 * DAY)) -> KeyPackageSecrets:
    """A KeyPackage of a new client."""
    return make_key_package(own_leaf(name, suite), suite, lifetime)


@dataclass
class Sender:
    """An external sender with its key."""

    key: SecretBytes
    entry: ExternalSender

    @property
    def extension(self) -> Extension:
        return encode_external_senders(self.entry)


def external_sender(name: str = "server") -> Sender:
    """A new external sender."""
    key = generate_signature_key("ed25519")
    return Sender(key, ExternalSender(Signer("ed25519", key).public, Credential.basic(name.encode())))


def new_group(
    name: str = "alice",
    suite: int = 1,
    extensions: tuple[Extension, ...] = (),
    settings: GroupSettings = SETTINGS,
    trust: CredentialValidator = TRUST,
) -> Group:
    """A group of one."""
    return Group.create(b"group of " + name.encode(), own_leaf(name, suite), suite, extensions, settings, trust, NOW)


def spread(message: bytes, groups: Sequence[Group], sender: Group | None = None, now: int = NOW) -> list[Received]:
    """Give a message to everybody but its sender."""
    return [group.receive(message, now) for group in groups if group is not sender]


def commit(sender: Group, groups: Sequence[Group], request: CommitRequest | None = None, now: int = NOW) -> Staged:
    """Stage, accept and spread a commit among members who stay."""
    staged = sender.stage_commit(request or CommitRequest(), now)
    sender.commit_accepted(staged)
    spread(staged.commit, groups, sender, now)
    return staged


def add(
    sender: Group, groups: list[Group], *names: str, now: int = NOW, trust: CredentialValidator = TRUST
) -> list[Group]:
    """Add new clients by one commit; the result is everybody."""
    packages = [package_of(name, sender.suite) for name in names]
    staged = commit(sender, groups, CommitRequest(adds=tuple(p.public for p in packages)), now)
    assert staged.welcome is not None
    settings = sender.state.settings
    return groups + [Group.join(staged.welcome, [p], trust, now, settings, JoinOptions()) for p in packages]


def team(
    *names: str, suite: int = 1, extensions: tuple[Extension, ...] = (), settings: GroupSettings = SETTINGS
) -> list[Group]:
    """A group with these members, the first of whom created it."""
    first = new_group(names[0], suite, extensions, settings)
    return add(first, [first], *names[1:]) if len(names) > 1 else [first]


def assert_agree(groups: Sequence[Group]) -> None:
    """All are in one epoch and see one roster."""
    assert len({group.epoch_authenticator() for group in groups}) == 1
    assert len({tuple(group.members) for group in groups}) == 1
    assert len({group.export("test", b"", 32) for group in groups}) == 1
