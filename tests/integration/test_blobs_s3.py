"""Attachments over HTTP, with their bytes in a real S3-compatible storage: links, rights, damage, a storage away."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import obstore
import pytest
import pytest_asyncio
from obstore.store import S3Store
from PIL import Image
from running import Person, Running
from s3 import ACCESS_KEY, SECRET_KEY, bucket_of, s3_server
from test_blobs import PART, begin_upload, code_of, put, upload
from ward import PASSPHRASE, eventually, sees

from curbside.audit.events import EventName
from curbside.cli.invite import create_invite, upload_invites
from curbside.client.device import Device
from curbside.crypto.random import random_bytes
from curbside.mls.group import CommitRequest
from curbside.wire.bodies import BlobLocation

LINK_SECONDS = 60


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """Links are switched on; they end within seconds where a test waits for that."""
    settings = s3_server().settings(bucket_of(tmp_path), presign_seconds=LINK_SECONDS, timeout_seconds=30.0)
    server = Running(tmp_path, blobs=settings).start()
    yield server
    server.stop()


@pytest.fixture
def beside(tmp_path: Path, running: Running) -> S3Store:
    return s3_server().client(bucket_of(tmp_path))


async def locate(person: Person, blob_id: str) -> BlobLocation:
    answer = await person.get(f"/v1/blobs/{blob_id}/location")
    return msgspec.json.decode(answer.content, type=BlobLocation)


async def test_the_bucket_holds_ciphertext_under_random_names_and_nothing_else(
    running: Running, alice: Person, beside: S3Store
) -> None:
    group = await alice.begin()
    data = random_bytes(PART + 10)
    blob_id = await upload(alice, group, data)
    names = [found["path"] async for page in obstore.list(beside) for found in page]
    assert set(names) - {"installation"} == {blob_id}
    assert bytes((await obstore.get_async(beside, blob_id)).bytes()) == data
    assert not running.config.blobs_path.exists()


async def test_a_link_gives_what_the_server_gives_for_its_time(running: Running, alice: Person) -> None:
    group = await alice.begin()
    data = random_bytes(2 * PART)
    blob_id = await upload(alice, group, data)
    first = await alice.get(f"/v1/blobs/{blob_id}", headers={"range": f"bytes=0-{PART - 1}"})
    assert first.headers["curbside-location"] == "1"
    last = await alice.get(f"/v1/blobs/{blob_id}", headers={"range": f"bytes={PART}-"})
    assert "curbside-location" not in last.headers
    location = await locate(alice, blob_id)
    assert location.size == 2 * PART
    assert abs(location.expires_at - time.time() - LINK_SECONDS) < 30
    assert location.url.startswith(s3_server().endpoint)
    assert SECRET_KEY not in location.url
    async with httpx.AsyncClient() as stranger:
        part = await stranger.get(location.url, headers={"range": f"bytes={PART}-{2 * PART - 1}"})
        assert (part.status_code, part.content) == (206, data[PART:])
    event = running.events()[-1]
    assert (event.name, event.extra, event.object_id) == (EventName.ATTACHMENT_DOWNLOADED, {"result": "link"}, blob_id)


async def test_a_link_ends(tmp_path: Path) -> None:
    settings = s3_server().settings(bucket_of(tmp_path), presign_seconds=2)
    running = Running(tmp_path, blobs=settings).start()
    try:
        alice = await Person.join(running)
        blob_id = await upload(alice, await alice.begin(), random_bytes(PART))
        url = (await locate(alice, blob_id)).url
        limit = time.monotonic() + 60
        async with httpx.AsyncClient() as stranger:
            while True:
                if (await stranger.get(url)).status_code == 403:
                    break
                assert time.monotonic() < limit, "the link goes on"
                await asyncio.sleep(0.2)
        assert len((await alice.get(f"/v1/blobs/{blob_id}")).content) == PART
        await alice.close()
    finally:
        running.stop()


async def test_only_members_get_links(running: Running, alice: Person, bob: Person) -> None:
    group = await alice.begin()
    blob_id = await upload(alice, group, random_bytes(10))
    pending = await begin_upload(alice, group, random_bytes(10))
    for person, name in ((bob, blob_id), (alice, pending)):
        assert (await person.problem("GET", f"/v1/blobs/{name}/location"))["status"] == 404
    await alice.add(group, bob)
    assert (await locate(bob, blob_id)).url
    staged = group.stage_commit(CommitRequest(removes=(1,)), running.clock.now())
    await alice.commit(group, staged.commit)
    assert (await bob.problem("GET", f"/v1/blobs/{blob_id}/location"))["status"] == 404
    assert (await alice.request("GET", f"/v1/blobs/{blob_id}/location", proof=False)).status_code == 401
    refused = [event for event in running.events() if event.name == EventName.ATTACHMENT_REFUSED]
    assert [event.actor_device for event in refused] == [bob.device_id, alice.device_id, bob.device_id]


async def test_pages_may_reach_the_storage_only_where_there_are_links(running: Running, tmp_path: Path) -> None:
    async with httpx.AsyncClient() as client:
        policy = (await client.get(f"{running.url}/v1/health/live")).headers["content-security-policy"]
    (connect,) = [part for part in policy.split("; ") if part.startswith("connect-src")]
    assert s3_server().endpoint in connect.split()
    (tmp_path / "other").mkdir()
    settings = s3_server().settings(bucket_of(tmp_path / "other"))
    other = Running(tmp_path / "other", blobs=settings).start()
    try:
        async with httpx.AsyncClient() as client:
            policy = (await client.get(f"{other.url}/v1/health/live")).headers["content-security-policy"]
        assert s3_server().endpoint not in policy
    finally:
        other.stop()


async def test_a_whole_that_was_changed_in_the_bucket_never_ends_well(alice: Person, beside: S3Store) -> None:
    group = await alice.begin()
    for size in (1000, 3 * PART):
        data = random_bytes(size)
        blob_id = await upload(alice, group, data)
        await obstore.put_async(beside, blob_id, data[:-1] + bytes([data[-1] ^ 1]))
        if size <= PART:
            assert (await alice.problem("GET", f"/v1/blobs/{blob_id}"))["type"].endswith(":blob_corrupt")
            continue
        with pytest.raises(httpx.RemoteProtocolError):
            await alice.get(f"/v1/blobs/{blob_id}")
        await obstore.put_async(beside, blob_id, data[:-1])
        assert (await alice.problem("GET", f"/v1/blobs/{blob_id}"))["type"].endswith(":blob_corrupt")
    healthy = await upload(alice, group, random_bytes(20))
    assert len((await alice.get(f"/v1/blobs/{healthy}")).content) == 20


async def test_a_storage_that_is_away_is_said_and_the_rest_goes_on(running: Running, alice: Person) -> None:
    group = await alice.begin()
    data = random_bytes(2 * PART)
    blob_id = await begin_upload(alice, group, data)
    assert (await put(alice, blob_id, 0, data[:PART])).status_code == 200
    with s3_server().down():
        away = await put(alice, blob_id, PART, data[PART:])
        assert (away.status_code, code_of(away), away.headers["retry-after"]) == (503, "store_unavailable", "2")
        assert (await alice.get("/v1/conversations")).status_code == 200
        assert (await alice.request("GET", "/v1/health/ready", proof=False)).status_code == 200
    assert (await put(alice, blob_id, PART, data[PART:])).json()["complete"] is True
    assert (await alice.get(f"/v1/blobs/{blob_id}")).content == data


async def test_no_key_and_no_link_is_ever_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = s3_server().settings(bucket_of(tmp_path), presign_seconds=60, timeout_seconds=5.0)
    running = Running(tmp_path, blobs=settings, log_level="debug").start()
    try:
        alice = await Person.join(running)
        blob_id = await upload(alice, await alice.begin(), random_bytes(2 * PART))
        url = (await locate(alice, blob_id)).url
        with s3_server().paused():
            assert (await alice.problem("GET", f"/v1/blobs/{blob_id}"))["status"] == 503
        await alice.close()
    finally:
        running.stop()
    written = "".join(capfd.readouterr())
    assert "http.request" in written
    for secret in (SECRET_KEY, ACCESS_KEY, "X-Amz-", url.rpartition("=")[2], bucket_of(tmp_path)):
        assert secret not in written


# --- devices of the SDK -------------------------------------------------------------------------


def noise(side: int = 1900) -> bytes:
    """A picture that does not compress."""
    image = Image.frombytes("RGB", (side, side), random.Random(7).randbytes(side * side * 3))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest_asyncio.fixture
async def devices(running: Running, tmp_path: Path) -> AsyncIterator[list[Device]]:
    """Alice's and Bob's, over sockets."""
    opened: list[Device] = []
    for name in ("alice", "bob"):
        made = create_invite(running.authority, running.url, "physician", 3600, running.clock.now())
        await upload_invites(running.url, [made.deposit])
        device = await Device.join(tmp_path / f"{name}.vault", made.link, name, PASSPHRASE)
        opened.append(await device.__aenter__())
        await device.connection.wait_caught_up()
    yield opened
    for device in opened:
        await device.close()


async def test_a_photo_goes_from_device_to_device_through_the_bucket(
    running: Running, devices: list[Device], beside: S3Store
) -> None:
    alice, bob = devices
    conversation = await alice.start_conversation([bob.user_id])
    await alice.send_picture(conversation, noise(), caption="wound")
    shown = await sees(bob, conversation, "wound")
    picture = await bob.open_attachment(shown.id)
    assert Image.open(io.BytesIO(picture)).size == (1900, 1900)
    names: list[Any] = [event.extra.get("result") for event in running.events()]
    assert names.count("link") == 1, "the first piece came from the server, what was left by a link"
    assert await eventually(lambda: bob.message(shown.id).attachments)
    stored = [found async for page in obstore.list(beside) for found in page if found["path"] != "installation"]
    assert len(stored) == 1
    assert stored[0]["size"] > 2 * PART
    raw = bytes((await obstore.get_async(beside, stored[0]["path"])).bytes())
    for telling in (b"\xff\xd8\xff", b"JFIF", b"wound", ACCESS_KEY.encode()):
        assert telling not in raw[:4096]
