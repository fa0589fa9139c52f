"""Directory, key packages and devices: who sees whom, and what is handed out once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from enrolment import DAY, START, Hospital, Newcomer

from curbside.audit.events import EventName
from curbside.crypto.random import random_bytes
from curbside.errors import Malformed, NotFound, PolicyDenied, RuleBroken, TooLarge, UntrustedDevice
from curbside.ids import ConversationId, decode_base64url, encode_id
from curbside.mls.codec import decode
from curbside.mls.extensions import ExternalSender
from curbside.server.directory import PAGE
from curbside.server.store.ports import Change
from curbside.server.store.records import ConversationRecord, MemberRecord
from curbside.wire import bodies
from curbside.wire.limits import KEY_PACKAGES_PER_DEVICE


@pytest_asyncio.fixture
async def hospital(tmp_path: Path) -> AsyncIterator[Hospital]:
    opened = await Hospital.open(tmp_path)
    yield opened
    await opened.close()


async def share_conversation(hospital: Hospital, *people: Newcomer) -> None:
    """Put people into one conversation, as the store sees it."""
    conversation = ConversationId(encode_id(random_bytes(16)))

    def change(tx: Change) -> None:
        tx.delivery.create_conversation(ConversationRecord(conversation, 0, 0, START), b"state")
        members = [MemberRecord(person.device_id, person.user_id, leaf, 1) for leaf, person in enumerate(people)]
        tx.delivery.add_members(conversation, members)

    await hospital.store.write(change)


async def names(hospital: Hospital, person: Newcomer, query: str = "") -> list[str]:
    listed = await hospital.directory.list_people(await hospital.subject(person), query, "")
    return [found.name for found in listed.people]


async def test_organization_names_the_delivery_service_as_external_sender(hospital: Hospital) -> None:
    shown = hospital.directory.describe_organization()
    sender = decode(decode_base64url(shown.external_sender), ExternalSender.read)
    assert sender.signature_key == hospital.keys.sender.public
    assert (shown.name, decode_base64url(shown.authority_certificate)) == (
        "Sankt Elsewhere",
        hospital.authority.certificate.raw,
    )


async def test_staff_see_everybody_by_name_and_by_query(hospital: Hospital) -> None:
    alice = await hospital.join("nurse", "Alice Ang")
    await hospital.join("patient", "Fiona Fay")
    await hospital.join("physician", "bob Bang")
    assert await names(hospital, alice) == ["Alice Ang", "bob Bang", "Fiona Fay"]
    assert await names(hospital, alice, "ANG") == ["Alice Ang", "bob Bang"]
    event = (await hospital.events())[-1]
    assert event.name is EventName.DIRECTORY_SEARCH
    assert event.extra["count"] == 2
    assert event.extra["query_hash"] == hospital.keys.hash_query("ang")
    assert b"ang" not in event.encode().lower()


async def test_a_patient_sees_only_people_of_its_conversations(hospital: Hospital) -> None:
    fiona = await hospital.join("patient", "Fiona Fay")
    alice, bob = await hospital.join("nurse", "Alice Ang"), await hospital.join("physician", "Bob Bang")
    assert await names(hospital, fiona) == ["Fiona Fay"]
    await share_conversation(hospital, fiona, alice)
    assert await names(hospital, fiona) == ["Alice Ang", "Fiona Fay"]
    assert await names(hospital, fiona, "bang") == []
    subject = await hospital.subject(fiona)
    assert (await hospital.directory.get_person(subject, alice.user_id)).role == "nurse"
    with pytest.raises(NotFound):
        await hospital.directory.get_person(subject, bob.user_id)
    with pytest.raises(NotFound):
        await hospital.key_packages.claim(subject, bob.user_id)
    assert (await hospital.key_packages.claim(subject, alice.user_id)).devices[0].device_id == alice.device_id


async def test_a_bot_may_not_list_and_forbidden_looks_like_absent(hospital: Hospital) -> None:
    robot, alice = await hospital.join("bot", "archive"), await hospital.join()
    subject = await hospital.subject(robot)
    with pytest.raises(PolicyDenied):
        await hospital.directory.list_people(subject, "", "")
    assert (await hospital.events())[-1].name is EventName.ACCESS_DENIED
    refusals = []
    for user_id in (alice.user_id, encode_id(bytes(16))):
        with pytest.raises(NotFound) as refused:
            await hospital.directory.get_person(subject, user_id)
        refusals.append((str(refused.value), refused.value.members))
    assert refusals[0] == refusals[1]
    with pytest.raises(Malformed):
        await hospital.directory.get_person(subject, "x")


async def test_pages_follow_one_another_without_gap(hospital: Hospital) -> None:
    alice = await hospital.join("nurse", "Alice Ang")
    template = await hospital.store.read(lambda view: view.identity.find_user(alice.user_id))
    assert template is not None

    def fill(tx: Change) -> None:
        for number in range(PAGE * 2):
            user = type(template)(
                encode_id(number.to_bytes(16, "big")), f"Nurse {number % 7}", "nurse", b"u", b"e", START
            )
            tx.identity.add_user(user, b"r")

    await hospital.store.write(fill)
    subject = await hospital.subject(alice)
    seen: list[str] = []
    after = ""
    while True:
        page = await hospital.directory.list_people(subject, "", after)
        seen += [person.user_id for person in page.people]
        after = page.next
        if not after:
            break
    assert len(seen) == len(set(seen)) == PAGE * 2 + 1
    with pytest.raises(TooLarge):
        await hospital.directory.list_people(subject, "x" * 65, "")


async def test_each_key_package_is_handed_out_once_then_the_last_resort(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    subject = await hospital.subject(alice)
    claimed = [(await hospital.key_packages.claim(subject, bob.user_id)).devices[0].key_package for _ in range(4)]
    assert len(set(claimed[:3])) == 3
    assert claimed[2] == claimed[3]
    assert (await hospital.key_packages.count(await hospital.subject(bob))).available == 0
    event = (await hospital.events())[-1]
    assert (event.name, event.object_id, event.extra) == (EventName.KEY_PACKAGE_CLAIMED, bob.user_id, {"count": 1})


async def test_ones_own_device_and_revoked_devices_are_not_claimed(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    subject = await hospital.subject(alice)
    assert (await hospital.key_packages.claim(subject, alice.user_id)).devices == []
    await hospital.devices.revoke_device(await hospital.subject(bob), bob.device_id)
    assert (await hospital.key_packages.claim(subject, bob.user_id)).devices == []
    with pytest.raises(NotFound):
        await hospital.key_packages.claim(subject, encode_id(bytes(16)))


async def test_key_packages_that_ran_out_are_not_handed_out(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    await hospital.key_packages.publish(
        await hospital.subject(bob), bodies.KeyPackages([bob.key_package(START, seconds=40 * DAY)])
    )
    hospital.clock.advance(2 * DAY)
    await hospital.sign_in(alice)
    subject = await hospital.subject(alice)
    assert len((await hospital.key_packages.claim(subject, bob.user_id)).devices) == 1
    assert (await hospital.key_packages.claim(subject, bob.user_id)).devices == []


async def test_a_device_publishes_only_key_packages_of_its_own(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    subject = await hospital.subject(alice)
    await hospital.key_packages.publish(subject, bodies.KeyPackages([alice.key_package(START)]))
    assert (await hospital.key_packages.count(subject)).available == 3
    with pytest.raises(RuleBroken) as refused:
        await hospital.key_packages.publish(subject, bodies.KeyPackages([bob.key_package(START)]))
    assert refused.value.check == "key_package.device"
    assert (await hospital.events())[-1].name is EventName.KEY_PACKAGE_REFUSED
    with pytest.raises(RuleBroken):
        await hospital.key_packages.publish(subject, bodies.KeyPackages([alice.key_package(START - 90_000)]))


async def test_a_leaf_key_that_is_not_the_certificates_is_refused(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join(name="Bob")
    alice.device_key = bob.device_key
    with pytest.raises(UntrustedDevice) as refused:
        await hospital.key_packages.publish(
            await hospital.subject(alice), bodies.KeyPackages([alice.key_package(START)])
        )
    assert refused.value.check == "trust.device.key"


async def test_no_more_than_a_hundred_key_packages_wait(hospital: Hospital) -> None:
    alice = await hospital.join()
    subject = await hospital.subject(alice)
    packages = [alice.key_package(START) for _ in range(KEY_PACKAGES_PER_DEVICE - 1)]
    with pytest.raises(TooLarge):
        await hospital.key_packages.publish(subject, bodies.KeyPackages(packages))
    await hospital.key_packages.publish(subject, bodies.KeyPackages(packages[:-1]))
    with pytest.raises(TooLarge):
        await hospital.key_packages.publish(subject, bodies.KeyPackages([alice.key_package(START)]))
    await hospital.key_packages.publish(subject, bodies.KeyPackages([], alice.key_package(START)))
    assert (await hospital.key_packages.count(subject)).available == KEY_PACKAGES_PER_DEVICE


async def test_devices_are_listed_to_their_owner(hospital: Hospital) -> None:
    alice = await hospital.join()
    listed = (await hospital.devices.list_devices(await hospital.subject(alice))).devices
    assert [(device.label, device.current, device.revoked) for device in listed] == [("ward phone", True, False)]


async def test_a_colleague_cannot_revoke_my_device_but_an_administrator_can(hospital: Hospital) -> None:
    alice, bob = await hospital.join(), await hospital.join("physician", "Bob")
    with pytest.raises(NotFound):
        await hospital.devices.revoke_device(await hospital.subject(bob), alice.device_id)
    await hospital.authenticate(alice)
    chief = await hospital.join("administrator", "Carol")
    await hospital.devices.revoke_device(await hospital.subject(chief), alice.device_id)
    event = (await hospital.events())[-2]
    assert (event.name, event.actor_role, event.object_id) == (
        EventName.DEVICE_REVOKED,
        "administrator",
        alice.device_id,
    )
    with pytest.raises(NotFound):
        await hospital.devices.revoke_device(await hospital.subject(chief), encode_id(bytes(16)))
