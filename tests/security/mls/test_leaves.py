"""Leaves and KeyPackages that are not valid (RFC 9420 sections 7.2, 7.3, 10.1 and 13.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from curbside.crypto import hpke
from curbside.crypto.suites import get_suite
from curbside.errors import BadSignature, CurbsideError, Malformed, UntrustedDevice
from curbside.mls.checks import Check
from curbside.mls.extensions import RequiredCapabilities
from curbside.mls.group import Group, JoinOptions, KeyPackageSecrets
from curbside.mls.messages import encode_message
from curbside.mls.nodes import (
    SOURCE_COMMIT,
    SOURCE_KEY_PACKAGE,
    SOURCE_UPDATE,
    Capabilities,
    Credential,
    Extension,
    LeafNode,
    Lifetime,
)
from curbside.mls.proposals import Add, GroupContextExtensions, Update
from curbside.mls.public import verify_key_package
from curbside.mls.trust import UnsafeAcceptAll
from curbside.mls.validation import DAY

from .forge import flip, forge_commit, forge_proposal, forge_welcome, new_update_leaf, sign_package, signer_of
from .people import NOW, SETTINGS, TRUST, Team, make_team, new_leaf, new_package, refused
from .registry import breaks

SUITE = get_suite(1)
OURS = 0xF0A0
OTHER = 0xF0A1


def refuse_package(
    expected: Check | type[CurbsideError], package: KeyPackageSecrets | None = None, alone: bool = True, **changes: Any
) -> None:
    """An Add of a spoilt KeyPackage is refused by members and server: in a commit, as a proposal, and by itself.

    Args: `alone` whether the KeyPackage can be seen to be wrong without the group.
    """
    team = make_team()
    package = package or new_package("dave")
    spoilt = sign_package(package.package, package.own, SUITE, **changes)
    team.refuse(forge_commit(team.mallory, items=[Add(spoilt)]).message, expected)
    if alone:
        team.refuse_proposal(forge_proposal(team.mallory, Add(spoilt)), expected)
        with refused(expected):
            verify_key_package(encode_message(spoilt), TRUST, NOW)


def refuse_path_leaf(expected: Check | type[CurbsideError], **hooks: Any) -> None:
    team = make_team()
    team.refuse(forge_commit(team.mallory, **hooks).message, expected)


def fresh_key() -> bytes:
    return hpke.generate_key_pair(SUITE.hpke.kem)[1]


# --- KeyPackages ----------------------------------------------------------------------------------


@breaks(Check.LEAF_LIFETIME)
@pytest.mark.parametrize("lifetime", [(NOW - 30 * DAY, NOW - 1), (NOW + 60, NOW + DAY)], ids=["over", "to-come"])
def test_lifetime_without_now(lifetime: tuple[int, int]) -> None:
    refuse_package(Check.LEAF_LIFETIME, leaf_changes={"lifetime": Lifetime(*lifetime)})


@breaks(Check.LEAF_LIFETIME_LENGTH)
def test_lifetime_of_years() -> None:
    lifetime = Lifetime(NOW - DAY, NOW + 92 * DAY)
    refuse_package(Check.LEAF_LIFETIME_LENGTH, leaf_changes={"lifetime": lifetime})


@breaks(Check.LEAF_SOURCE)
@pytest.mark.parametrize("source", [SOURCE_UPDATE, SOURCE_COMMIT])
def test_key_package_with_a_leaf_of_another_source(source: int) -> None:
    team = make_team()
    package = new_package("dave")
    changes = {"leaf_changes": {"source": source, "lifetime": None}}
    spoilt = sign_package(package.package, package.own, SUITE, **changes)
    team.refuse_proposal(forge_proposal(team.mallory, Add(spoilt)), Check.LEAF_SOURCE)
    with refused(Check.LEAF_SOURCE):
        verify_key_package(encode_message(spoilt), TRUST, NOW)


@breaks(Check.KEY_PACKAGE_SUITE)
@pytest.mark.parametrize("changes", [{"suite": 3}, {"version": 2}], ids=["suite", "version"])
def test_key_package_for_another_suite(changes: dict[str, int]) -> None:
    refuse_package(Check.KEY_PACKAGE_SUITE, alone=False, **changes)


@breaks(Check.KEY_PACKAGE_INIT_KEY)
def test_key_package_with_one_key_for_both() -> None:
    package = new_package("dave")
    refuse_package(Check.KEY_PACKAGE_INIT_KEY, package, init_key=package.package.leaf.encryption_key)


@breaks(Check.SUITE_KNOWN)
def test_key_package_of_an_unknown_suite() -> None:
    package = new_package("dave")
    spoilt = sign_package(package.package, package.own, SUITE, suite=0x0A0A)
    with refused(Check.SUITE_KNOWN):
        verify_key_package(encode_message(spoilt), TRUST, NOW)


@breaks(Check.VERSION)
def test_another_protocol_version() -> None:
    team = make_team()
    message = team.mallory.encrypt(b"hello")
    with refused(Check.VERSION, team.bob):
        team.bob.receive(b"\x00\x02" + message[2:], NOW)
    package = new_package("dave")
    spoilt = sign_package(package.package, package.own, SUITE, version=2)
    with refused(Check.VERSION):
        verify_key_package(encode_message(spoilt), TRUST, NOW)
    team.go_on()


@pytest.mark.parametrize("part", ["package", "leaf"])
def test_key_package_with_a_wrong_signature(part: str) -> None:
    team = make_team()
    package = new_package("dave")
    if part == "package":
        spoilt = replace(package.package, signature=flip(package.package.signature), raw=b"")
    else:
        leaf = replace(package.package.leaf, signature=flip(package.package.leaf.signature), raw=b"")
        spoilt = sign_package(replace(package.package, leaf=leaf), package.own, SUITE)
    team.refuse(forge_commit(team.mallory, items=[Add(spoilt)]).message, BadSignature)
    team.refuse_proposal(forge_proposal(team.mallory, Add(spoilt)), BadSignature)


# --- keys -----------------------------------------------------------------------------------------


@breaks(Check.LEAF_KEY_FORM)
@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"k" * 31, b""], ids=["zero", "one", "short", "none"])
def test_keys_that_are_none(key: bytes) -> None:
    refuse_package(Check.LEAF_KEY_FORM, leaf_changes={"encryption_key": key})
    refuse_package(Check.LEAF_KEY_FORM, init_key=key)
    refuse_path_leaf(Check.LEAF_KEY_FORM, leaf=lambda leaf: replace(leaf, encryption_key=key))


@breaks(Check.LEAF_KEY_FORM)
@pytest.mark.parametrize("key", [bytes(32), b"k" * 33], ids=["zero", "long"])
def test_path_with_a_key_that_is_none(key: bytes) -> None:
    refuse_path_leaf(Check.LEAF_KEY_FORM, keys=lambda keys: [*keys[:-1], key])


@breaks(Check.LEAF_ENCRYPTION_KEY)
def test_added_leaf_with_the_encryption_key_of_another() -> None:
    team = make_team()
    package = new_package("dave")
    victim = team.bob.state.current.public.tree.find_leaf(1)
    assert victim is not None
    changes = {"encryption_key": victim.encryption_key}
    spoilt = sign_package(package.package, package.own, SUITE, leaf_changes=changes)
    team.refuse(forge_commit(team.mallory, items=[Add(spoilt)]).message, Check.LEAF_ENCRYPTION_KEY)


@breaks(Check.LEAF_SIGNATURE_KEY)
def test_two_leaves_with_one_signature_key() -> None:
    team = make_team("mallory", "bob", "carol", "mallory's second")
    second = team.members["mallory's second"]
    message = forge_commit(team.mallory, leaf_signer=signer_of(second)).message
    team.refuse(message, Check.LEAF_SIGNATURE_KEY)


@breaks(Check.LEAF_KEY_CHANGED)
def test_path_leaf_with_the_old_key() -> None:
    team = make_team()
    old = team.mallory.state.current.public.tree.find_leaf(0)
    assert old is not None
    message = forge_commit(team.mallory, leaf=lambda leaf: replace(leaf, encryption_key=old.encryption_key)).message
    team.refuse(message, Check.LEAF_KEY_CHANGED)


@breaks(Check.LEAF_KEY_CHANGED)
def test_update_with_the_old_key() -> None:
    team = make_team()
    old = team.mallory.state.current.public.tree.find_leaf(0)
    assert old is not None
    leaf = new_update_leaf(team.mallory, lambda leaf: replace(leaf, encryption_key=old.encryption_key))
    team.refuse_proposal(forge_proposal(team.mallory, Update(leaf)), Check.LEAF_KEY_CHANGED)


# --- where a leaf may stand -----------------------------------------------------------------------


def as_key_package(leaf: LeafNode) -> LeafNode:
    return replace(leaf, source=SOURCE_KEY_PACKAGE, lifetime=Lifetime(NOW - DAY, NOW + DAY), parent_hash=b"")


@breaks(Check.LEAF_SOURCE)
@pytest.mark.parametrize(
    "change", [as_key_package, lambda leaf: replace(leaf, source=SOURCE_UPDATE, parent_hash=b"")], ids=["kp", "update"]
)
def test_path_with_a_leaf_of_another_source(change: Any) -> None:
    refuse_path_leaf(Check.LEAF_SOURCE, leaf=change)


@breaks(Check.LEAF_SOURCE)
@pytest.mark.parametrize(
    "change", [as_key_package, lambda leaf: replace(leaf, source=SOURCE_COMMIT, parent_hash=b"p")], ids=["kp", "commit"]
)
def test_update_with_a_leaf_of_another_source(change: Any) -> None:
    team = make_team()
    message = forge_proposal(team.mallory, Update(new_update_leaf(team.mallory, change)))
    team.refuse_proposal(message, Check.LEAF_SOURCE)


def test_leaf_with_a_wrong_signature() -> None:
    refuse_path_leaf(BadSignature, leaf_signature=flip)
    refuse_path_leaf(BadSignature, leaf_signature=lambda signature: b"")


def test_update_leaf_signed_for_another_place() -> None:
    team = make_team("mallory", "bob", "carol", "mallory's second")
    stolen = new_update_leaf(team.members["mallory's second"])
    team.refuse_proposal(forge_proposal(team.mallory, Update(stolen)), BadSignature)


# --- capabilities ---------------------------------------------------------------------------------


@breaks(Check.LEAF_CAPABILITIES)
@pytest.mark.parametrize(
    "changes",
    [
        {"extensions": (Extension(OURS, b""),)},
        {"capabilities": Capabilities(credentials=(2,))},
        {"capabilities": Capabilities(versions=(2,))},
    ],
    ids=["extension", "credential", "version"],
)
def test_leaf_that_does_not_list_what_it_uses(changes: dict[str, Any]) -> None:
    refuse_package(Check.LEAF_CAPABILITIES, leaf_changes=changes)
    refuse_path_leaf(Check.LEAF_CAPABILITIES, leaf=lambda leaf: replace(leaf, **changes))


@breaks(Check.LEAF_CAPABILITIES)
def test_key_package_extension_that_is_not_listed() -> None:
    refuse_package(Check.LEAF_CAPABILITIES, extensions=(Extension(OURS, b""),))


@breaks(Check.EXTENSION_UNIQUE)
def test_an_extension_twice() -> None:
    twice = {
        "extensions": (Extension(OURS, b"a"), Extension(OURS, b"b")),
        "capabilities": Capabilities((1,), (1,), (OURS,)),
    }
    refuse_package(Check.EXTENSION_UNIQUE, leaf_changes=twice)
    team = make_team()
    context = GroupContextExtensions((team.server.extension, team.server.extension))
    team.refuse(forge_commit(team.mallory, items=[context]).message, Check.EXTENSION_UNIQUE)


def team_with(*extensions: Extension) -> Team:
    leaves = [new_leaf(name, extensions=(OURS,)) for name in ("mallory", "bob", "carol")]
    return make_team(extensions=extensions, leaves=leaves)


@breaks(Check.EXTENSION_SUPPORTED)
def test_group_extension_that_somebody_does_not_support() -> None:
    team = team_with(Extension(OURS, b""))
    message = forge_commit(team.mallory, items=[Add(new_package("dave").package)]).message
    team.refuse(message, Check.EXTENSION_SUPPORTED)
    context = GroupContextExtensions((Extension(OTHER, b""),))
    team.refuse(forge_commit(team.mallory, items=[context]).message, Check.EXTENSION_SUPPORTED)


@breaks(Check.LEAF_REQUIRED)
def test_newcomer_without_required_capabilities() -> None:
    team = team_with(RequiredCapabilities(extensions=(OURS,)).encode())
    package = new_package("dave")
    team.refuse(forge_commit(team.mallory, items=[Add(package.package)]).message, Check.LEAF_REQUIRED)
    info = team.mallory.group_info()
    with refused(Check.LEAF_REQUIRED, team.mallory):
        Group.join_external(info, new_leaf("erin"), TRUST, NOW, SETTINGS, JoinOptions())


@breaks(Check.LEAF_REQUIRED)
@pytest.mark.parametrize(
    "required",
    [
        RequiredCapabilities(extensions=(OTHER,)),
        RequiredCapabilities(proposals=(OTHER,)),
        RequiredCapabilities(credentials=(OTHER,)),
    ],
    ids=["extension", "proposal", "credential"],
)
def test_new_requirement_that_members_do_not_meet(required: RequiredCapabilities) -> None:
    team = make_team()
    context = GroupContextExtensions((required.encode(),))
    team.refuse(forge_commit(team.mallory, items=[context]).message, Check.LEAF_REQUIRED)


@breaks(Check.LEAF_REQUIRED)
def test_update_that_drops_a_required_capability() -> None:
    team = team_with(RequiredCapabilities(extensions=(OURS,)).encode())
    message = forge_commit(team.mallory, leaf=lambda leaf: replace(leaf, capabilities=Capabilities())).message
    team.refuse(message, Check.LEAF_REQUIRED)


@breaks(Check.LEAF_CREDENTIALS)
def test_credential_types_that_not_all_support() -> None:
    changes = {"credential": Credential.x509(b"not looked at"), "capabilities": Capabilities(credentials=(2,))}
    refuse_package(Check.LEAF_CREDENTIALS, alone=False, leaf_changes=changes)
    members = make_team()
    only_basic = lambda leaf: replace(leaf, capabilities=Capabilities(credentials=(1,)))  # noqa: E731
    assert members.bob.receive(forge_commit(members.mallory, leaf=only_basic).message, NOW)


def test_credential_of_an_unknown_type() -> None:
    team = make_team()
    package = new_package("dave")
    honest = package.package.encode()
    marked = Credential.basic(b"dave").encode()
    assert honest.count(marked) == 1
    unknown = honest.replace(marked, b"\x0a\x0a" + marked[2:])
    spoilt = replace(package.package, raw=unknown)
    team.refuse(forge_commit(team.mallory, items=[Add(spoilt)]).message, Malformed)
    team.refuse_proposal(forge_proposal(team.mallory, Add(spoilt)), Malformed)


# --- what the application says --------------------------------------------------------------------


class SameName(UnsafeAcceptAll):
    """An Authentication Service that knows everybody but eve, and lets nobody change names."""

    def verify_credential(self, credential: Credential, signature_key: bytes, now: int) -> None:
        if credential.identity == b"eve":
            raise UntrustedDevice(device="eve", check="test.known")

    def verify_successor(self, old: LeafNode, new: LeafNode) -> None:
        if old.credential != new.credential:
            raise UntrustedDevice(device="mallory", check="test.name")


def test_member_takes_the_identity_of_another() -> None:
    team = make_team(trust=SameName())
    steal = lambda leaf: replace(leaf, credential=Credential.basic(b"bob"))  # noqa: E731
    team.refuse(forge_commit(team.mallory, leaf=steal).message, UntrustedDevice)
    team.refuse_proposal(forge_proposal(team.mallory, Update(new_update_leaf(team.mallory, steal))), UntrustedDevice)


def test_unknown_identity_comes_in_no_way() -> None:
    team = make_team(trust=SameName())
    eve = new_package("eve")
    team.refuse(forge_commit(team.mallory, items=[Add(eve.package)]).message, UntrustedDevice)
    rename = lambda leaf: replace(leaf, credential=Credential.basic(b"eve"))  # noqa: E731
    team.refuse(forge_commit(team.mallory, leaf=rename).message, UntrustedDevice)
    _, commit = Group.join_external(team.mallory.group_info(), eve.own, TRUST, NOW)
    team.refuse(commit, UntrustedDevice)
    with refused(UntrustedDevice):
        Group.join(forge_welcome(team.mallory, eve), [eve], SameName(), NOW, SETTINGS)
