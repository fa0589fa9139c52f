"""EVIL: a hostile server puts devices where none belong. Python devices refuse, name the device, and stop.

Each test has a second conversation that the attack leaves alone; in the end the server behaves, and that one goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from evil import DAY, GHOST, Evil, make_ghost, take_group
from scene import Scene, bob_user, open_stage, own_leaf, set_scene, stranger
from ward import START, eventually, sees

from curbside.crypto.random import random_bytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.x509 import make_authority
from curbside.errors import BadSignature, CurbsideError, UntrustedDevice
from curbside.ids import ConversationId, encode_base64url, encode_id
from curbside.mls.extensions import ExternalSender
from curbside.mls.group import CommitRequest, Group
from curbside.mls.key_package import make_key_package
from curbside.mls.nodes import Credential
from curbside.mls.public import PublicGroup
from curbside.mls.trust import UnsafeAcceptAll
from curbside.server.mls_groups import MlsGroup
from curbside.wire import frames

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with open_stage(tmp_path_factory.mktemp("evil") / "ward") as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def scene(stage: Scene) -> Scene:
    return await set_scene(stage)


# --- key packages ---------------------------------------------------------------------------


def of_another_authority(scene: Scene) -> bytes:
    return stranger(scene).package


def of_another_person(scene: Scene) -> bytes:
    return make_key_package(own_leaf(scene.mallory), 1, (scene.now - 300, scene.now + DAY)).public


def of_a_device_signed_by_another_key(scene: Scene) -> bytes:
    return make_ghost(*bob_user(scene), scene.now, signed_by=generate_signature_key("ed25519")).package


def of_an_expired_device(scene: Scene) -> bytes:
    return make_ghost(*bob_user(scene), scene.now, made_at=scene.now - 3 * 365 * DAY).package


def of_a_stolen_chain(scene: Scene) -> bytes:
    """Bob's genuine chain, another signature key."""
    leaf = own_leaf(scene.bob, generate_signature_key("ed25519"))
    return make_key_package(leaf, 1, (scene.now - 300, scene.now + DAY)).public


SWAPS: list[tuple[Callable[[Scene], bytes], str, str]] = [
    (of_another_authority, "trust.chain.issuer", GHOST),
    (of_another_person, "trust.user.match", "mallory's phone"),
    (of_a_device_signed_by_another_key, "trust.chain.signature", GHOST),
    (of_an_expired_device, "trust.device.validity", GHOST),
    (of_a_stolen_chain, "trust.device.key", "bob's phone"),
]


def swap(evil: Evil, user_id: str, package: bytes) -> None:
    """From now on, whoever claims this person's key packages gets this one."""

    def rule(_: str, __: str, path: str, answer: dict[str, Any]) -> dict[str, Any] | None:
        if path != f"/v1/people/{user_id}/key-packages/claim":
            return None
        return answer | {"devices": [{**d, "key_package": encode_base64url(package)} for d in answer["devices"]]}

    evil.answers.append(rule)


@pytest.mark.parametrize(("make", "check", "label"), SWAPS, ids=[make.__name__ for make, _, _ in SWAPS])
async def test_a_swapped_key_package_is_refused_by_name(
    scene: Scene, make: Callable[[Scene], bytes], check: str, label: str
) -> None:
    swap(scene.evil, scene.bob.user_id, make(scene))
    alone = await scene.alice.start_conversation([scene.mallory.user_id], title="Ward 6")
    before = {c.id for c in scene.alice.conversations()}
    with pytest.raises(UntrustedDevice) as starting:
        await scene.alice.start_conversation([scene.bob.user_id], title="Ward 7")
    with pytest.raises(UntrustedDevice) as adding:
        await scene.alice.add_people(alone, [scene.bob.user_id])
    for error in (starting.value, adding.value):
        assert (error.device, error.check) == (label, check)
        assert label in str(error)
        assert "vouched" in error.title
    assert {c.id for c in scene.alice.conversations()} == before
    assert {p.user_id for p in scene.alice.conversation(alone).people} == {scene.alice.user_id, scene.mallory.user_id}
    await scene.goes_on()
    direct = await scene.alice.start_conversation([scene.bob.user_id], title="Ward 7")
    await scene.alice.send_text(direct, "now it is you")
    await sees(scene.bob, direct, "now it is you")


async def test_a_key_package_with_a_changed_bit_is_refused(scene: Scene) -> None:
    spoilt = bytearray(make_ghost(*bob_user(scene), scene.now).package)
    spoilt[-1] ^= 1
    swap(scene.evil, scene.bob.user_id, bytes(spoilt))
    with pytest.raises(BadSignature):
        await scene.alice.start_conversation([scene.bob.user_id], title="Ward 7")
    await scene.goes_on()


async def test_a_hidden_device_is_left_out_and_nobody_else_comes_in(scene: Scene) -> None:
    """A server may hide a device (it could as well take it off the network); it cannot put another in its place."""

    def hide(_: str, __: str, path: str, answer: dict[str, Any]) -> dict[str, Any] | None:
        return answer | {"devices": []} if path.endswith("/claim") else None

    scene.evil.answers.append(hide)
    with pytest.raises(CurbsideError) as refusal:
        await scene.alice.start_conversation([scene.bob.user_id], title="Ward 7")
    assert refusal.value.code == "not_found"
    await scene.goes_on()


# --- ghosts in commits ----------------------------------------------------------------------


async def test_a_members_commit_that_adds_an_untrusted_device_stops_the_conversation(scene: Scene) -> None:
    """The server lets it through; every honest device refuses, says whose device it is, and says nothing more."""
    ghost = stranger(scene)
    staged = take_group(scene.mallory, scene.attacked).stage_commit(CommitRequest(adds=(ghost.package,)), scene.now)
    for name in ("alice", "bob"):
        before = scene.ward.devices[name].vault.rows.get_conversation(scene.attacked)
        await scene.push(name, frames.KIND_COMMIT, staged.commit)
        alarm = await scene.stopped(name)
        assert alarm["code"] == "untrusted_device"
        assert alarm["members"]["device"] == GHOST
        assert GHOST in alarm["detail"]
        after = scene.ward.devices[name].vault.rows.get_conversation(scene.attacked)
        assert (after.mls, after.cursor) == (before.mls, before.cursor)
        await scene.says_nothing(name)
    await scene.goes_on()


async def test_a_commit_by_somebody_without_the_right_stops_the_conversation(scene: Scene) -> None:
    """A genuine colleague's device, added by a member who is no administrator."""
    erin = await scene.ward.open("erin") if "erin" not in scene.ward.devices else scene.ward.devices["erin"]
    package = make_key_package(own_leaf(erin), 1, (scene.now - 300, scene.now + DAY)).public
    staged = take_group(scene.mallory, scene.attacked).stage_commit(CommitRequest(adds=(package,)), scene.now)
    await scene.push("alice", frames.KIND_COMMIT, staged.commit)
    alarm = await scene.stopped("alice")
    assert alarm["members"]["check"] == "group.add"
    assert {p.user_id for p in scene.alice.conversation(scene.attacked).people}.isdisjoint({erin.user_id})
    await scene.says_nothing("alice")
    await scene.goes_on()


async def test_a_commit_that_the_server_made_itself_stops_the_conversation(scene: Scene) -> None:
    """It has the public tree and every handshake, but no member's keys: nothing it signs can be right."""
    group = take_group(scene.mallory, scene.attacked)
    genuine = group.stage_commit(CommitRequest(), scene.now).commit
    for number, place in enumerate((len(genuine) // 2, len(genuine) - 5)):
        name = ("alice", "bob")[number]
        forged = bytearray(genuine)
        forged[place] ^= 1
        await scene.push(name, frames.KIND_COMMIT, bytes(forged))
        assert (await scene.stopped(name))["code"] in ("bad_signature", "malformed", "decryption_failed")
        await scene.says_nothing(name)
    await scene.goes_on()


async def test_the_servers_own_proposal_to_add_a_device_adds_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delivery service can sign proposals; members heed those to remove somebody, and commit without the others."""
    services = scene.ward.app.services
    assert services is not None
    package = make_ghost(*bob_user(scene), scene.now).package

    def add_instead(group: MlsGroup, leaf: int, now: int) -> bytes:
        message = group._group.propose_add(package, group._sender.private)
        group._group.receive_proposal(message, now)
        return message

    monkeypatch.setattr(MlsGroup, "propose_remove", add_instead)
    await services.conversations._propose_locked(ConversationId(scene.attacked), scene.bob.device_id)
    await eventually(lambda: scene.alice.engine.groups.get(scene.attacked).pending)
    before = {p.device_id for p in scene.alice.engine.groups.members(scene.attacked)}
    await scene.alice.send_text(scene.attacked, "who else is here")
    for device in (scene.bob, scene.mallory):
        await sees(device, scene.attacked, "who else is here")
        assert {p.device_id for p in device.engine.groups.members(scene.attacked)} == before
        assert not device.conversation(scene.attacked).alarm
    await scene.goes_on()


async def test_a_proposal_to_add_an_untrusted_device_stops_the_conversation(scene: Scene) -> None:
    services = scene.ward.app.services
    assert services is not None
    info = take_group(scene.alice, scene.attacked).group_info()
    public = PublicGroup.from_group_info(info, UnsafeAcceptAll(), scene.now)
    proposal = public.propose_add(stranger(scene).package, services.keys.sender.private)
    await scene.push("alice", frames.KIND_PROPOSAL, proposal)
    alarm = await scene.stopped("alice")
    assert (alarm["code"], alarm["members"]["device"]) == ("untrusted_device", GHOST)
    await scene.says_nothing("alice")
    await scene.goes_on()


async def test_nobody_joins_by_an_external_commit(scene: Scene) -> None:
    """A GroupInfo that leaked: an untrusted device, and a genuine person who was not asked."""
    info = take_group(scene.mallory, scene.attacked).group_info()
    _, untrusted = Group.join_external(info, stranger(scene).leaf, UnsafeAcceptAll(), scene.now)
    await scene.push("alice", frames.KIND_COMMIT, untrusted)
    assert (await scene.stopped("alice"))["members"]["device"] == GHOST
    erin = await scene.ward.open("erin") if "erin" not in scene.ward.devices else scene.ward.devices["erin"]
    _, uninvited = Group.join_external(info, own_leaf(erin), UnsafeAcceptAll(), scene.now)
    await scene.push("bob", frames.KIND_COMMIT, uninvited)
    assert (await scene.stopped("bob"))["members"]["check"] == "group.external.commit"
    await scene.says_nothing("alice")
    await scene.says_nothing("bob")
    await scene.goes_on()


async def test_a_welcome_into_a_group_with_a_ghost_is_refused(scene: Scene) -> None:
    lawless = take_group(scene.mallory, scene.attacked)
    settings_of = scene.mallory.engine.groups.get(scene.spared)
    group = Group.create(
        random_bytes(16),
        own_leaf(scene.mallory),
        1,
        settings_of.extensions,
        lawless.state.settings,
        UnsafeAcceptAll(),
        scene.now,
    )
    claimed = await scene.mallory._claim([scene.alice.user_id])
    staged = group.stage_commit(CommitRequest(adds=(*claimed, stranger(scene).package)), scene.now)
    assert staged.welcome is not None
    conversation = encode_id(group.group_id)
    position = scene.alice.vault.rows.queue_position() + 1
    item = frames.QueueItem(position, frames.QUEUE_WELCOME, conversation, 1, staged.welcome)
    await scene.evil.push("alice", frames.QueueItems([item]))
    (notice,) = await eventually(lambda: scene.ward.notices("alice"))
    assert isinstance(notice.error, UntrustedDevice)
    assert notice.error.device == GHOST
    assert GHOST in str(notice.error)
    assert scene.alice.vault.rows.find_conversation(conversation) is None
    await scene.goes_on()


# --- what is pinned at sign-up --------------------------------------------------------------


def another_sender(_: str, __: str, path: str, answer: dict[str, Any]) -> dict[str, Any] | None:
    if path != "/v1/organization":
        return None
    public = Signer("ed25519", generate_signature_key("ed25519")).public
    sender = ExternalSender(public, Credential.basic(b"curbside delivery service"))
    return answer | {"external_sender": encode_base64url(sender.encode())}


async def test_a_delivery_key_that_was_swapped_at_sign_up_lets_nobody_in(scene: Scene) -> None:
    """Nothing signs that key, so a newcomer pins what they are told; but then no conversation accepts them or is
    accepted by them, and the difference is named."""
    scene.evil.answers.append(another_sender)
    await scene.ward.sign_up("nora")
    nora = await scene.ward.open("nora")
    await scene.alice.start_conversation([nora.user_id], title="Ward 7")
    (notice,) = await eventually(lambda: scene.ward.notices("nora"))
    assert isinstance(notice.error, UntrustedDevice)
    assert notice.error.device == "delivery service"
    assert notice.error.check == "group.sender.key"
    assert nora.conversations() == []
    with pytest.raises(CurbsideError) as refusal:
        await nora.start_conversation([scene.bob.user_id])
    assert refusal.value.members["check"] == "group.sender.key"
    await scene.goes_on()


async def test_a_delivery_key_that_is_swapped_later_is_never_asked_for(scene: Scene) -> None:
    scene.evil.answers.append(another_sender)
    await scene.ward.close("alice")
    scene.alice = await scene.ward.open("alice")
    await scene.alice.send_text(scene.attacked, "still here")
    await sees(scene.bob, scene.attacked, "still here")
    await scene.goes_on()


async def test_an_invite_that_names_another_authority_is_refused(scene: Scene) -> None:
    other = make_authority("Sankt Elsewhere", START)

    def rule(_: str, __: str, path: str, answer: dict[str, Any]) -> dict[str, Any] | None:
        swapped = answer | {"authority_certificate": encode_base64url(other.certificate.raw)}
        return swapped if path.startswith("/v1/invites/") else None

    link = await scene.ward.invite()
    scene.evil.answers.append(rule)
    with pytest.raises(UntrustedDevice) as refusal:
        await scene.ward.sign_up("olga", link=link)
    assert (refusal.value.device, refusal.value.check) == ("invite", "trust.invite.authority")
    assert not list(scene.ward.folder.glob("olga.vault*.wraps"))
    scene.evil.be_honest()
    await scene.ward.sign_up("olga", link=link)
    await scene.goes_on()


@pytest.mark.parametrize("field", ["user_id", "name", "role"])
async def test_a_directory_that_names_somebody_else_than_the_certificate_is_refused(scene: Scene, field: str) -> None:
    def rule(_: str, __: str, path: str, answer: dict[str, Any]) -> dict[str, Any] | None:
        if path != "/v1/people":
            return None
        lies = {"user_id": scene.mallory.user_id, "name": "Dr Bob Berg", "role": "administrator"}
        return answer | {"people": [p | {field: lies[field]} for p in answer["people"] if p["name"] == "bob"]}

    scene.evil.answers.append(rule)
    with pytest.raises(UntrustedDevice) as refusal:
        await scene.alice.people("b")
    assert refusal.value.check == "trust.user.match"
    assert "names somebody else" in refusal.value.detail
    await scene.goes_on()
    assert [p.name for p in await scene.alice.people("b")] == ["bob"]


async def test_a_directory_with_a_stranger_in_it_is_refused(scene: Scene) -> None:
    ghost = stranger(scene)
    _, user, enrolment = ghost.leaf.credential.certificates

    def rule(_: str, __: str, path: str, answer: dict[str, Any]) -> dict[str, Any] | None:
        forged = {"user_certificate": encode_base64url(user), "enrolment_certificate": encode_base64url(enrolment)}
        return answer | {"people": [p | forged for p in answer["people"]]} if path == "/v1/people" else None

    scene.evil.answers.append(rule)
    with pytest.raises(UntrustedDevice) as refusal:
        await scene.alice.people("b")
    assert (refusal.value.device, refusal.value.check) == ("bob", "trust.chain.issuer")
    await scene.goes_on()
