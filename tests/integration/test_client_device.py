"""Devices of the SDK on a real server in the same process: sign-up, conversations, removal, attachments, trouble."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image
from ward import PASSPHRASE, Ward, eventually, find_text, sees, texts

from curbside.client.device import Device
from curbside.client.vault import Vault
from curbside.crypto.secret import SecretBytes
from curbside.errors import (
    BlobCorrupt,
    CurbsideError,
    DeviceRevoked,
    IntegrityError,
    InviteExpired,
    InviteUsed,
    PeerUnavailable,
    RuleBroken,
    StorageFull,
    WrongPassphrase,
)
from curbside.ids import ConversationId
from curbside.wire import bodies
from curbside.wire.group_policy import GroupPolicy

DAY = 86_400
MEBIBYTE = 1024 * 1024


@dataclass
class Watch:
    """A middleman that changes nothing: it sees requests, and calls a hook before each is passed on."""

    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    before: Callable[[str, str, dict[str, str]], None] = lambda *_: None

    def middleman(self, app: Any, who: str) -> Any:
        async def handle(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
                seen = (scope["method"], scope["path"], headers)
                self.requests.append(seen)
                self.before(*seen)
            await app(scope, receive, send)

        return handle

    def values(self, method: str, header: str) -> list[str]:
        """A header of all requests of a method that have it."""
        return [headers[header] for m, _, headers in self.requests if m == method and header in headers]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest_asyncio.fixture
async def ward(tmp_path: Path, watch: Watch) -> AsyncIterator[Ward]:
    async with Ward.new(tmp_path / "ward", watch.middleman) as opened:
        yield opened


async def people(ward: Ward, *names: str) -> list[Device]:
    """Some people, signed up and connected."""
    for name in names:
        await ward.sign_up(name)
    return await ward.open_all(names)


# --- sign-up and sign-in --------------------------------------------------------------------


async def test_an_invite_works_once(ward: Ward) -> None:
    link = await ward.invite()
    await ward.sign_up("alice", link=link)
    with pytest.raises(InviteUsed) as refusal:
        await ward.sign_up("bob", link=link)
    assert "already used" in refusal.value.title
    assert not ward.vault_path("bob").exists()
    await ward.open("alice")


async def test_an_invite_ends(ward: Ward) -> None:
    link = await ward.invite(seconds=3600)
    ward.clock.advance(3601)
    with pytest.raises(InviteExpired):
        await ward.sign_up("alice", link=link)
    assert not ward.vault_path("alice").exists()


async def test_a_weak_passphrase_is_refused_before_anything_is_made(ward: Ward) -> None:
    with pytest.raises(RuleBroken) as refusal:
        await Device.join(
            ward.vault_path("alice"),
            await ward.invite(),
            "Alice",
            "passwordpassword",
            clock=ward.clock,
            network=ward.network("alice"),
        )
    assert refusal.value.check == "passphrase.strength"
    assert not ward.vault_path("alice").exists()


async def test_a_wrong_passphrase_neither_opens_nor_signs_in(ward: Ward) -> None:
    await ward.sign_up("alice")
    path, network = ward.vault_path("alice"), ward.network("alice")
    with pytest.raises(WrongPassphrase):
        await Device.open(path, "not the passphrase", clock=ward.clock, network=network)
    vault = Vault.open(path, PASSPHRASE)
    device = Device(vault, SecretBytes(b"not the passphrase"), ward.clock, network)
    async with device:
        with pytest.raises(WrongPassphrase):
            await device.connection.wait_signed_in()
        with pytest.raises(WrongPassphrase):
            await device.people()
    await ward.open("alice")


async def test_an_answer_that_is_lost_at_sign_up_loses_no_account(ward: Ward, watch: Watch) -> None:
    """The server enrolled the device, and its answer never came: signing in tells that the invite was used by us."""

    def lose(method: str, path: str, _: dict[str, str]) -> None:
        ward.weather["alice"].lose_answers = path == "/v1/signup/finish" and not lost
        lost.extend([path] if path == "/v1/signup/finish" else [])

    lost: list[str] = []
    link = await ward.invite()
    watch.before = lose
    await ward.sign_up("alice", link=link)
    assert len(lost) >= 2
    watch.before = lambda *_: None
    await ward.open("alice")


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_sign_up_whose_end_nobody_heard_is_finished_the_next_time(
    ward: Ward, watch: Watch, arrives: bool
) -> None:
    """The network goes away in the middle: the invite is used up by then, or it is not."""

    def lose(method: str, path: str, _: dict[str, str]) -> None:
        ward.weather["alice"].lose_answers |= path == "/v1/signup/finish" and arrives
        ward.weather["alice"].cut |= path == "/v1/signup/start" and not arrives  # from the next request on

    link = await ward.invite()
    watch.before = lose
    with pytest.raises(PeerUnavailable):
        await ward.sign_up("alice", link=link)
    watch.before = lambda *_: None
    ward.weather["alice"].lose_answers = ward.weather["alice"].cut = False
    await ward.sign_up("alice", link=link)
    await ward.open("alice")
    await ward.close("alice")
    with pytest.raises(IntegrityError):
        await ward.sign_up("alice", link=await ward.invite())


# --- conversations --------------------------------------------------------------------------


async def test_a_direct_conversation_is_found_again(ward: Ward) -> None:
    alice, bob = await people(ward, "alice", "bob")
    first = await alice.start_conversation([bob.user_id])
    assert await alice.start_conversation([bob.user_id]) == first
    assert await alice.start_conversation([bob.user_id, alice.user_id]) == first
    await alice.send_text(first, "hello")
    await sees(bob, first, "hello")
    assert await bob.start_conversation([alice.user_id]) == first
    assert await alice.start_conversation([bob.user_id], title="Ward 4") != first
    assert alice.safety_number(first) == bob.safety_number(first)


async def test_what_is_written_without_a_connection_goes_out_later(ward: Ward) -> None:
    alice, bob = await people(ward, "alice", "bob")
    conversation = await alice.start_conversation([bob.user_id])
    await ward.settle(conversation)
    await ward.close("alice")
    ward.weather["alice"].cut = True
    alone = await Device.open(ward.vault_path("alice"), PASSPHRASE, clock=ward.clock, network=ward.network("alice"))
    async with alone:
        first = await alone.send_text(conversation, "written in the lift")
        with pytest.raises(PeerUnavailable) as waiting:
            await alone.wait_until_sent(first, 0.3)
        assert "waits" in waiting.value.detail
        assert alone.message(first).delivery == "sending"
    assert find_text(bob, conversation, "written in the lift") is None
    ward.weather["alice"].cut = False
    alice = await ward.open("alice")
    assert (await alice.wait_until_sent(first)).delivery in ("sent", "delivered")
    await sees(bob, conversation, "written in the lift")
    assert texts(bob, conversation) == ["written in the lift"]


async def test_of_two_administrators_who_add_at_once_both_succeed_in_turn(ward: Ward) -> None:
    alice, bob, erin, olga = await people(ward, "alice", "bob", "erin", "olga")
    policy = GroupPolicy(1, "group", tuple(sorted((alice.user_id, bob.user_id))))
    request = alice.engine.create(policy, "", alice.clock.now_ms())
    conversation = ConversationId(request.conversation_id)
    await alice.transport.call("POST", "/v1/conversations", bodies.ConversationState, request)
    await alice.connection.follow(conversation)
    await alice.add_people(conversation, [bob.user_id])
    await eventually(lambda: bob.vault.rows.find_conversation(conversation))
    epoch = alice.engine.groups.get(conversation).epoch
    await asyncio.gather(alice.add_people(conversation, [erin.user_id]), bob.add_people(conversation, [olga.user_id]))
    await ward.settle(conversation)
    everybody = {device.user_id for device in (alice, bob, erin, olga)}
    for device in (alice, bob, erin, olga):
        assert {person.user_id for person in device.conversation(conversation).people} == everybody
        assert device.engine.groups.get(conversation).epoch == epoch + 2
    await olga.send_text(conversation, "all here")
    await sees(erin, conversation, "all here")


async def test_a_person_who_is_no_administrator_adds_nobody(ward: Ward) -> None:
    alice, bob, erin = await people(ward, "alice", "bob", "erin")
    conversation = await alice.start_conversation([bob.user_id], title="Ward 4")
    await eventually(lambda: bob.vault.rows.find_conversation(conversation))
    with pytest.raises(RuleBroken) as refusal:
        await bob.add_people(conversation, [erin.user_id])
    assert refusal.value.check == "group.add"
    await bob.send_text(conversation, "then you do it")
    await sees(alice, conversation, "then you do it")


async def test_a_device_that_was_away_for_long_follows_what_was_right_then(ward: Ward) -> None:
    """Key packages of people who were added meanwhile have expired since: lifetimes count as of the log's time."""
    alice, bob, erin = await people(ward, "alice", "bob", "erin")
    conversation = await alice.start_conversation([bob.user_id], title="Ward 4")
    await ward.settle(conversation)
    await ward.close("bob")
    await alice.add_people(conversation, [erin.user_id])
    await alice.send_text(conversation, "welcome")
    await sees(erin, conversation, "welcome")
    await ward.close("erin")
    await ward.close("alice")
    ward.clock.advance(60 * DAY)
    bob = await ward.open("bob")
    await sees(bob, conversation, "welcome")
    assert not bob.conversation(conversation).alarm
    assert erin.user_id in {person.user_id for person in bob.conversation(conversation).people}
    alice = await ward.open("alice")
    await bob.send_text(conversation, "I am back")
    await sees(alice, conversation, "I am back")


# --- removal --------------------------------------------------------------------------------


async def test_a_revoked_device_is_committed_out_before_anybody_sends(ward: Ward) -> None:
    """RFC 9420 section 12.4: who holds the server's proposal to remove it commits that, and only then encrypts."""
    alice, bob, carol = await people(ward, "alice", "bob", "carol")
    conversation = await alice.start_conversation([bob.user_id, carol.user_id], title="Ward 4")
    await alice.send_text(conversation, "before")
    await sees(bob, conversation, "before")
    await ward.settle(conversation)
    epoch = carol.engine.groups.get(conversation).epoch
    await bob.transport.call("DELETE", f"/v1/devices/{bob.device_id}", type(None))
    ended = await eventually(lambda: bob.connection.ended_by)
    assert isinstance(ended, DeviceRevoked)
    assert any(isinstance(event.error, DeviceRevoked) for event in ward.notices("bob"))
    await eventually(lambda: carol.engine.groups.get(conversation).pending)
    assert bob.user_id in {p.user_id for p in carol.conversation(conversation).people}
    await carol.send_text(conversation, "after")
    await sees(alice, conversation, "after")
    for device in (alice, carol):
        assert {p.user_id for p in device.conversation(conversation).people} == {alice.user_id, carol.user_id}
        assert device.engine.groups.get(conversation).epoch == epoch + 1
    services = ward.app.services
    assert services is not None
    name = ConversationId(conversation)
    log = await services.store.read(lambda view: view.delivery.read_entries(name, 0, 10_000, 10_000))
    kinds = [entry.kind for entry in log][-4:]
    assert kinds.index(2) < kinds.index(1) < max(i for i, kind in enumerate(kinds) if kind == 0)
    assert texts(bob, conversation) == ["before"]
    with pytest.raises(DeviceRevoked):
        await bob.connection.wait_caught_up()
    await ward.close("bob")
    again = await Device.open(ward.vault_path("bob"), PASSPHRASE, clock=ward.clock, network=ward.network("bob"))
    async with again:
        with pytest.raises(DeviceRevoked):
            await again.connection.wait_signed_in()
        assert texts(again, conversation) == ["before"]


# --- storage --------------------------------------------------------------------------------


async def test_a_device_without_room_loses_nothing(ward: Ward) -> None:
    alice, bob = await people(ward, "alice", "bob")
    conversation = await alice.start_conversation([bob.user_id])
    await ward.settle(conversation)
    database = bob.vault.rows._db
    database.pragma("max_page_count", database.pragma("page_count"))

    async def fill() -> None:
        for _ in range(200):
            await bob.send_text(conversation, "x" * 3000)

    with pytest.raises(StorageFull):
        await fill()
    written = len(bob.messages(conversation, limit=10_000))
    for number in range(30):
        await alice.send_text(conversation, f"{number} " + "y" * 3000)
    database.pragma("max_page_count", 1_000_000)
    await sees(bob, conversation, "29 " + "y" * 3000)
    await ward.settle(conversation)
    for device in (alice, bob):
        seen = texts(device, conversation)
        assert [text.split(" ")[0] for text in seen if "y" in text] == [str(number) for number in range(30)]
        assert len([text for text in seen if "x" in text]) == written


# --- attachments ----------------------------------------------------------------------------


def noise(side: int = 1900) -> bytes:
    """A picture that does not compress: several upload chunks."""
    raw = random.Random(7).randbytes(side * side * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (side, side), raw).save(out, "JPEG", quality=90)
    return out.getvalue()


async def hang_up(device: Device) -> None:
    """The stream breaks."""
    stream = device.connection._stream
    if stream is not None:
        await stream.close()


async def test_an_interrupted_upload_goes_on_where_it_was(ward: Ward, watch: Watch) -> None:
    alice, bob = await people(ward, "alice", "bob")
    conversation = await alice.start_conversation([bob.user_id])

    def cut_after_two(method: str, _: str, __: dict[str, str]) -> None:
        if method == "PATCH" and len(watch.values("PATCH", "upload-offset")) == 2:
            ward.weather["alice"].lose_answers = True

    watch.before = cut_after_two
    message = await alice.send_picture(conversation, noise(), caption="wound")
    await eventually(lambda: len(watch.values("PATCH", "upload-offset")) == 2)
    await hang_up(alice)
    watch.before = lambda *_: None
    ward.weather["alice"].lose_answers = False
    shown = await sees(bob, conversation, "wound")
    assert alice.message(message).sequence == shown.sequence
    offsets = [int(value) for value in watch.values("PATCH", "upload-offset")]
    assert offsets[:2] == [0, MEBIBYTE]
    assert offsets[-1] >= 2 * MEBIBYTE
    assert offsets.count(MEBIBYTE) == 1, "what the server held was sent again"
    picture = await bob.open_attachment(shown.id)
    assert Image.open(io.BytesIO(picture)).size == (1900, 1900)


async def test_an_interrupted_download_goes_on_where_it_was(ward: Ward, watch: Watch) -> None:
    alice, bob = await people(ward, "alice", "bob")
    conversation = await alice.start_conversation([bob.user_id])
    await alice.send_picture(conversation, noise(), caption="wound")
    shown = await sees(bob, conversation, "wound")

    def lose_the_second(method: str, path: str, headers: dict[str, str]) -> None:
        if method == "GET" and path.startswith("/v1/blobs/"):
            ward.weather["bob"].lose_answers = len(watch.values("GET", "range")) == 2

    watch.before = lose_the_second
    picture = await bob.open_attachment(shown.id)
    assert Image.open(io.BytesIO(picture)).size == (1900, 1900)
    starts = [int(value.removeprefix("bytes=").partition("-")[0]) for value in watch.values("GET", "range")]
    assert starts[:4] == [0, MEBIBYTE, MEBIBYTE, 2 * MEBIBYTE]
    count = len(starts)
    assert await bob.open_attachment(shown.id) == picture
    assert len(watch.values("GET", "range")) == count, "what the vault holds was fetched again"


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [flip, cut, empty])
async def test_a_file_that_is_damaged_on_the_server_is_named_as_such(ward: Ward, spoil: Callable[[Path], None]) -> None:
    alice, bob = await people(ward, "alice", "bob")
    conversation = await alice.start_conversation([bob.user_id])
    await alice.send_picture(conversation, noise(300), caption="wound")
    shown = await sees(bob, conversation, "wound")
    blobs = [path for path in (ward.folder / "data" / "blobs").rglob("*") if path.is_file()]
    assert blobs
    for path in blobs:
        spoil(path)
    with pytest.raises(BlobCorrupt) as refusal:
        await bob.open_attachment(shown.id)
    assert refusal.value.title == "The file arrived damaged."
    assert "again" in refusal.value.next_step
    await bob.send_text(conversation, "please again")
    await sees(alice, conversation, "please again")


async def test_a_picture_that_is_none_is_not_sent(ward: Ward) -> None:
    alice, bob = await people(ward, "alice", "bob")
    conversation = await alice.start_conversation([bob.user_id])
    with pytest.raises(CurbsideError) as refusal:
        await alice.send_picture(conversation, b"<html>")
    assert refusal.value.code == "malformed"
    assert alice.messages(conversation) == []
