"""The organisation's validator in real MLS groups: what members accept, and refuse from a member who cheats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import pytest

from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.x509 import Issuer, make_authority, make_device_certificate, make_enrolment, make_user_certificate
from curbside.errors import CurbsideError, Malformed, RuleBroken, UntrustedDevice
from curbside.ids import DeviceId, UserId, encode_id
from curbside.mls.extensions import REQUIRED_CAPABILITIES, ExternalSender, encode_external_senders
from curbside.mls.group import CommitRequest, Group, GroupSettings, KeyPackageSecrets, OwnLeaf, Staged, make_key_package
from curbside.mls.nodes import CREDENTIAL_X509, Capabilities, Credential, Extension
from curbside.mls.proposals import ReInit
from curbside.mls.public import PublicGroup
from curbside.mls.trust import CredentialValidator, UnsafeAcceptAll
from curbside.policy.validator import OrganizationValidator, read_policy
from curbside.wire.group_policy import (
    GROUP_POLICY,
    GroupPolicy,
    encode_group_policy,
    make_direct_policy,
    make_group_policy,
)

NOW: Final = 1_790_000_000
DAY: Final = 86_400
CAPABILITIES: Final = Capabilities(suites=(1,), extensions=(GROUP_POLICY,), credentials=(CREDENTIAL_X509,))
CHEAT: Final = UnsafeAcceptAll()


@dataclass
class Person:
    """Somebody with a user certificate, and any number of devices."""

    user_id: UserId
    user: Issuer
    enrolment: bytes

    def leaf(self, label: str = "phone", device_id: DeviceId | None = None) -> OwnLeaf:
        key = generate_signature_key("ed25519")
        chosen = device_id or DeviceId(encode_id(random_bytes(16)))
        device = make_device_certificate(self.user, Signer("ed25519", key).public, label, chosen, NOW)
        chain = Credential.x509(device.raw, self.user.certificate.raw, self.enrolment)
        return OwnLeaf(chain, key, CAPABILITIES)

    def package(self, label: str = "phone") -> KeyPackageSecrets:
        return make_key_package(self.leaf(label), 1, (NOW - DAY, NOW + 30 * DAY))


@dataclass
class Hospital:
    """An authority, a delivery service, and people."""

    authority: Issuer = field(default_factory=lambda: make_authority("St. Olaf", NOW - 30 * DAY))
    sender_key: SecretBytes = field(default_factory=lambda: generate_signature_key("ed25519"))

    def __post_init__(self) -> None:
        public = Signer("ed25519", self.sender_key).public
        self.sender = ExternalSender(public, Credential.basic(b"delivery service"))
        self.validator = OrganizationValidator(self.authority.certificate.raw, self.sender.encode())

    def person(self, name: str, role: str = "nurse") -> Person:
        user_id = UserId(encode_id(random_bytes(16)))
        enrolment = make_enrolment(self.authority, user_id, role, NOW + DAY, NOW)
        key = generate_signature_key("ed25519")
        certificate = make_user_certificate(enrolment, Signer("ed25519", key).public, name, NOW)
        return Person(user_id, Issuer(certificate, key), enrolment.certificate.raw)

    def group(self, creator: Person, policy: GroupPolicy, trust: CredentialValidator | None = None) -> Group:
        extensions = self.validator.group_extensions(policy)
        validator = trust or self.validator
        return Group.create(random_bytes(16), creator.leaf(), 1, extensions, GroupSettings(), validator, NOW)

    def follow(self, group: Group) -> PublicGroup:
        return PublicGroup.from_group_info(group.group_info(), self.validator, NOW)


HOSPITAL: Final = Hospital()
ASA, BOB, CLEO = (HOSPITAL.person(name) for name in ("Asa", "Bob", "Cleo"))
GROUP: Final = make_group_policy(ASA.user_id)
DIRECT: Final = make_direct_policy(ASA.user_id, BOB.user_id)


def add(group: Group, package: KeyPackageSecrets, trust: CredentialValidator = HOSPITAL.validator) -> Group:
    """The new member's group, after the old one has accepted its own commit."""
    staged = group.stage_commit(CommitRequest(adds=(package.public,)), NOW)
    group.commit_accepted(staged)
    assert staged.welcome is not None
    return Group.join(staged.welcome, [package], trust, NOW)


def pair(policy: GroupPolicy = GROUP, cheating: bool = True) -> tuple[Group, Group]:
    """Asa's group and Bob's; Bob's client cheats, it checks nothing."""
    asa = HOSPITAL.group(ASA, policy)
    return asa, add(asa, BOB.package(), CHEAT if cheating else HOSPITAL.validator)


def refused(receiver: Group, staged: Staged, check: str) -> None:
    """The receiver refuses the commit for this rule and stays where it was; the server refuses it alike."""
    server, epoch = HOSPITAL.follow(receiver), receiver.epoch
    for refuse in (lambda: receiver.receive(staged.commit, NOW), lambda: server.apply(staged.commit, NOW)):
        with pytest.raises(CurbsideError) as raised:
            refuse()
        assert raised.value.members["check"] == check
    assert receiver.epoch == server.epoch == epoch


def test_people_of_one_organisation_talk() -> None:
    asa, bob = pair(cheating=False)
    assert HOSPITAL.validator.verify_group(bob.extensions, bob.members, bob.suite) == GROUP
    assert bob.receive(asa.encrypt(b"hello", b"id"), NOW).data == b"hello"  # type: ignore[union-attr]
    people = {HOSPITAL.validator.identify(member.credential).name for member in bob.members}
    assert people == {"Asa", "Bob"}
    assert read_policy(bob.extensions) == GROUP


def test_ghost_device_is_refused_by_name() -> None:
    """A server that invents a device has no certificate for it: its own authority is not the pinned one."""
    ghost = Hospital().person("Bob")
    asa, bob = pair()
    staged = bob.stage_commit(CommitRequest(adds=(ghost.package("evil tablet").public,)), NOW)
    refused(asa, staged, "trust.chain.issuer")
    with pytest.raises(UntrustedDevice) as raised:
        asa.stage_commit(CommitRequest(adds=(ghost.package("evil tablet").public,)), NOW)
    assert raised.value.device == "evil tablet"


def test_joining_a_group_with_a_ghost_is_refused() -> None:
    asa = HOSPITAL.group(ASA, GROUP, CHEAT)
    add(asa, Hospital().person("Bob").package(), CHEAT)
    with pytest.raises(UntrustedDevice):
        add(asa, CLEO.package())


def test_leaf_with_a_key_that_is_not_its_certificates_is_refused() -> None:
    asa, bob = pair()
    stolen = OwnLeaf(ASA.leaf().credential, generate_signature_key("ed25519"), CAPABILITIES)
    package = make_key_package(stolen, 1, (NOW - DAY, NOW + DAY))
    refused(asa, bob.stage_commit(CommitRequest(adds=(package.public,)), NOW), "trust.device.key")


def test_basic_credential_is_refused() -> None:
    asa, bob = pair()
    basic = OwnLeaf(
        Credential.basic(b"bob"), generate_signature_key("ed25519"), Capabilities(extensions=(GROUP_POLICY,))
    )
    package = make_key_package(basic, 1, (NOW - DAY, NOW + DAY))
    with pytest.raises(CurbsideError):
        asa.receive(bob.stage_commit(CommitRequest(adds=(package.public,)), NOW).commit, NOW)
    with pytest.raises(UntrustedDevice):
        HOSPITAL.validator.identify(basic.credential)


def test_only_the_administrator_adds_people() -> None:
    asa, bob = pair()
    refused(asa, bob.stage_commit(CommitRequest(adds=(CLEO.package().public,)), NOW), "group.add")
    cleo = add(asa, CLEO.package())
    assert len(cleo.members) == 3


def test_member_adds_an_own_device() -> None:
    asa, bob = pair()
    staged = bob.stage_commit(CommitRequest(adds=(BOB.package("tablet").public,)), NOW)
    asa.receive(staged.commit, NOW)
    assert len(asa.members) == 3


def test_only_the_administrator_removes_others() -> None:
    asa, bob = pair()
    refused(asa, bob.stage_commit(CommitRequest(removes=(0,)), NOW), "group.remove")
    asa.commit_accepted(asa.stage_commit(CommitRequest(removes=(1,)), NOW))
    assert len(asa.members) == 1


def test_direct_conversation_stays_between_two() -> None:
    asa, bob = pair(DIRECT)
    refused(asa, bob.stage_commit(CommitRequest(adds=(CLEO.package().public,)), NOW), "group.direct.members")
    with pytest.raises(RuleBroken):
        asa.stage_commit(CommitRequest(adds=(CLEO.package().public,)), NOW)
    refused(asa, bob.stage_commit(CommitRequest(removes=(0,)), NOW), "group.remove")


def test_direct_conversation_with_a_third_is_not_joined() -> None:
    asa = HOSPITAL.group(ASA, DIRECT, CHEAT)
    add(asa, CLEO.package(), CHEAT)
    bob = add(asa, BOB.package())
    with pytest.raises(RuleBroken) as raised:
        HOSPITAL.validator.verify_group(bob.extensions, bob.members, bob.suite)
    assert raised.value.check == "group.direct.members"


def change_policy(group: Group, policy: GroupPolicy) -> Staged:
    kept = tuple(item for item in group.extensions if item.kind != GROUP_POLICY)
    body = Extension(GROUP_POLICY, encode_group_policy(policy))
    return group.stage_commit(CommitRequest(extensions=(*kept, body)), NOW)


def test_administrator_changes_the_policy() -> None:
    asa, bob = pair()
    both = GroupPolicy(2, "group", tuple(sorted((ASA.user_id, BOB.user_id))))
    staged = change_policy(asa, both)
    asa.commit_accepted(staged)
    bob.receive(staged.commit, NOW)
    assert read_policy(bob.extensions) == both
    asa.receive(bob.stage_commit(CommitRequest(adds=(CLEO.package().public,)), NOW).commit, NOW)
    assert len(asa.members) == 3


def test_member_does_not_make_himself_administrator() -> None:
    asa, bob = pair()
    refused(asa, change_policy(bob, GroupPolicy(2, "group", (BOB.user_id,))), "group.policy.change")


def test_delivery_services_key_is_not_exchanged() -> None:
    asa = HOSPITAL.group(ASA, GROUP, CHEAT)
    bob = add(asa, BOB.package())
    other = encode_external_senders(ExternalSender(bytes(32), Credential.basic(b"delivery service")))
    extensions = tuple(other if item.kind == other.kind else item for item in asa.extensions)
    staged = asa.stage_commit(CommitRequest(extensions=extensions), NOW)
    with pytest.raises(UntrustedDevice) as raised:
        bob.receive(staged.commit, NOW)
    assert raised.value.check == "group.sender.key"


def test_policy_stays_required() -> None:
    asa = HOSPITAL.group(ASA, GROUP, CHEAT)
    bob = add(asa, BOB.package())
    extensions = tuple(item for item in asa.extensions if item.kind != REQUIRED_CAPABILITIES)
    refused(bob, asa.stage_commit(CommitRequest(extensions=extensions), NOW), "group.policy.present")


def test_conversation_is_not_closed_by_reinit() -> None:
    asa = HOSPITAL.group(ASA, GROUP, CHEAT)
    bob = add(asa, BOB.package())
    reinit = ReInit(b"elsewhere", 1, 1, ())
    refused(bob, asa.stage_commit(CommitRequest(reinit=reinit, update=False), NOW), "group.reinit")


def test_delivery_service_removes_and_never_adds() -> None:
    asa, bob = pair(cheating=False)
    server = HOSPITAL.follow(asa)
    proposal = server.propose_remove(1, HOSPITAL.sender_key)
    for group in (asa, bob):
        group.receive(proposal, NOW)
    staged = asa.stage_commit(CommitRequest(), NOW)
    asa.commit_accepted(staged)
    bob.receive(staged.commit, NOW)
    assert len(asa.members) == 1
    assert not bob.is_active


def test_add_proposed_by_the_delivery_service_is_refused() -> None:
    asa = HOSPITAL.group(ASA, GROUP, CHEAT)
    bob = add(asa, BOB.package())
    proposal = HOSPITAL.follow(asa).propose_add(CLEO.package().public, HOSPITAL.sender_key)
    asa.receive(proposal, NOW)
    bob.receive(proposal, NOW)
    with pytest.raises(RuleBroken) as raised:
        bob.receive(asa.stage_commit(CommitRequest(), NOW).commit, NOW)
    assert raised.value.check == "group.external.add"


def test_member_joins_with_another_device_and_strangers_do_not() -> None:
    asa, _ = pair()
    group_info = asa.group_info()
    _, stranger = Group.join_external(group_info, CLEO.leaf(), CHEAT, NOW)
    with pytest.raises(RuleBroken) as raised:
        asa.receive(stranger, NOW)
    assert raised.value.check == "group.external.commit"
    tablet, commit = Group.join_external(group_info, BOB.leaf("tablet"), HOSPITAL.validator, NOW)
    asa.receive(commit, NOW)
    assert len(asa.members) == len(tablet.members) == 3


def test_leaf_is_renewed_by_its_own_device_only() -> None:
    asa = HOSPITAL.group(ASA, GROUP)
    phone = DeviceId(encode_id(random_bytes(16)))
    package = make_key_package(BOB.leaf(device_id=phone), 1, (NOW - DAY, NOW + DAY))
    bob = add(asa, package, CHEAT)
    renewed = bob.stage_commit(CommitRequest(leaf=BOB.leaf("renamed", phone)), NOW)
    bob.commit_accepted(renewed)
    asa.receive(renewed.commit, NOW)
    refused(asa, bob.stage_commit(CommitRequest(leaf=BOB.leaf("tablet")), NOW), "trust.successor.user")
    bob.commit_rejected()
    refused(asa, bob.stage_commit(CommitRequest(leaf=ASA.leaf("tablet")), NOW), "trust.successor.user")


def test_expired_device_is_not_added() -> None:
    asa = HOSPITAL.group(ASA, GROUP)
    later = NOW + 800 * DAY
    leaf = BOB.leaf()
    package = make_key_package(leaf, 1, (later - DAY, later + DAY))
    with pytest.raises(UntrustedDevice) as raised:
        asa.stage_commit(CommitRequest(adds=(package.public,)), later)
    assert raised.value.check == "trust.device.validity"


def test_group_of_another_suite_is_not_joined() -> None:
    group = HOSPITAL.group(ASA, GROUP)
    with pytest.raises(RuleBroken) as raised:
        HOSPITAL.validator.verify_group(group.extensions, group.members, 2)
    assert raised.value.check == "group.suite"


def test_damaged_extensions_are_refused() -> None:
    validator = HOSPITAL.validator
    required, senders, policy = validator.group_extensions(GROUP)
    for extensions in (
        (Extension(REQUIRED_CAPABILITIES, b"\xff"), senders, policy),
        (required, senders, Extension(GROUP_POLICY, b"\xff")),
        (required, senders),
    ):
        with pytest.raises(RuleBroken) as raised:
            validator.verify_group(extensions, (), 1)
        assert raised.value.check == "group.policy.present"
    for damaged in (senders, Extension(GROUP_POLICY, b"\xff")):
        with pytest.raises(RuleBroken):
            read_policy((damaged,))
    with pytest.raises(Malformed):
        OrganizationValidator(HOSPITAL.authority.certificate.raw, b"garbage")
