"""nginx and Caddy as deploy/proxies configures them, in front of a real server: sign-in, stream, upload, limits."""

from __future__ import annotations

import io
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import websockets
from fronts import Front, FrontPlan, run_caddy, run_nginx
from PIL import Image
from running import GENEROUS, Running, free_port
from self_signed import Certificate
from ward import eventually

from curbside.cli.invite import create_invite, upload_invites
from curbside.client.device import Device
from curbside.client.network import Internet
from curbside.server.config import Proxy
from curbside.wire import limits

PASSPHRASE = "violet kettle marching 47 otters"
FRONTS = {"nginx": run_nginx, "caddy": run_caddy}


class Scene:
    """A proxy, and the server behind it. origin: where clients go."""

    def __init__(self, running: Running, origin: str, certificate: Certificate, folder: Path) -> None:
        self.running, self.origin, self.folder = running, origin, folder
        self.trusted = str(certificate.chain)
        self.network = Internet(self.trusted)
        self.context = ssl.create_default_context(cafile=self.trusted)

    def open_http(self, source: str = "127.0.0.1") -> httpx.AsyncClient:
        """A client that comes from this address."""
        transport = httpx.AsyncHTTPTransport(verify=self.context, local_address=source)
        return httpx.AsyncClient(base_url=self.origin, transport=transport, timeout=30)

    async def join(self, name: str) -> Device:
        """Sign up through the proxy."""
        invite = create_invite(self.running.authority, self.origin, "nurse", 3600, self.running.clock.now())
        await upload_invites(self.origin, [invite.deposit], self.trusted)
        return await Device.join(self.folder / name, invite.link, name, PASSPHRASE, network=self.network)


@contextmanager
def open_scene(
    run: Callable[[FrontPlan], Front], folder: Path, root: Path, certificate: Certificate, **settings: Any
) -> Iterator[Scene]:
    port = free_port()
    origin = f"https://localhost:{port}"
    given = {"public_urls": (origin,), "proxy": Proxy(trusted=("127.0.0.1",)), "metrics": True}
    running = Running(folder, **(given | settings)).start()
    work = folder / "front"
    work.mkdir()
    plan = FrontPlan(root / "deploy/proxies", work, port, (running.config.port,), certificate)
    try:
        with run(plan):
            yield Scene(running, origin, certificate, folder)
    finally:
        running.stop()


@pytest.fixture(params=sorted(FRONTS))
def front(request: pytest.FixtureRequest) -> Callable[[FrontPlan], Front]:
    """One proxy after the other."""
    found: Callable[[FrontPlan], Front] = FRONTS[request.param]
    return found


async def test_people_sign_in_talk_and_share_pictures_through_it(
    front: Callable[[FrontPlan], Front], tmp_path: Path, root: Path, certificate: Certificate
) -> None:
    with open_scene(front, tmp_path, root, certificate) as scene:
        await (await scene.join("ada")).close()
        async with (
            await Device.open(tmp_path / "ada", PASSPHRASE, network=scene.network) as ada,
            await scene.join("bea") as bea,
        ):
            await ada.connection.wait_caught_up()  # signed in by OPAQUE, both steps through the proxy
            await bea.connection.wait_caught_up()
            group = await ada.start_conversation([bea.user_id], title="Ward 4")
            await ada.send_text(group, "hello")
            text = await eventually(lambda: [m for m in read(bea, group) if m.text == "hello"])
            assert text[0].sender == ada.user_id
            picture = await bea.send_picture(group, draw_noise(), caption="arm")
            await bea.wait_until_sent(picture, 60)
            (shown,) = await eventually(lambda: [m for m in read(ada, group) if m.attachments])
            assert len(await ada.open_attachment(shown.id)) > limits.BLOB_CHUNK_BYTES


def draw_noise() -> bytes:
    """A picture that does not compress: its upload takes several requests."""
    out = io.BytesIO()
    Image.effect_noise((2400, 1800), 120).convert("RGB").save(out, "JPEG", quality=95)
    return out.getvalue()


def read(device: Device, conversation: str) -> list[Any]:
    """A conversation's messages, as far as they have arrived."""
    known = {each.id for each in device.conversations()}
    return device.messages(conversation) if conversation in known else []


async def test_each_clients_own_address_counts_and_an_invented_one_does_not(
    front: Callable[[FrontPlan], Front], tmp_path: Path, root: Path, certificate: Certificate
) -> None:
    tight = msgspec.structs.replace(GENEROUS, attempts_per_second=0.001, attempts_burst=2)
    with open_scene(front, tmp_path, root, certificate, limits=tight) as scene:

        async def knock(source: str, **headers: str) -> int:
            async with scene.open_http(source) as http:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return (await http.post("/v1/signup/start", content=b"{}", headers=named)).status_code

        assert [await knock("127.0.0.1") for _ in range(3)] == [400, 400, 429]
        assert await knock("127.0.0.2") == 400
        assert await knock("127.0.0.1", x_forwarded_for="127.0.0.9") == 429
        assert await knock("127.0.0.1", forwarded="for=127.0.0.9", x_real_ip="127.0.0.9") == 429
        assert await knock("127.0.0.3", x_forwarded_for="127.0.0.1") == 400


async def test_what_passes_and_what_does_not(
    front: Callable[[FrontPlan], Front], tmp_path: Path, root: Path, certificate: Certificate
) -> None:
    with open_scene(front, tmp_path, root, certificate) as scene:
        async with scene.open_http() as http:
            ready = await http.get("/v1/health/ready")
            assert ready.json()["status"] == "ok"
            organization = await http.get("/v1/organization")
            assert organization.status_code == 200
            assert organization.headers["strict-transport-security"].startswith("max-age=")
            assert organization.headers["content-security-policy"].startswith("default-src 'none'")
            assert (await http.get("/metrics")).status_code == 404
            large = await http.post("/v1/signup/start", content=bytes(limits.BODY_BYTES + 1))
            assert large.status_code == 413
            assert large.json()["type"].endswith(":too_large"), "the server's own answer, which tells the limit"
            huge = await http.post("/v1/signup/start", content=bytes(8 * 1024 * 1024))
            assert huge.status_code in (413, 502), "Caddy 2.6 cuts such a body off and calls that a bad gateway"
            foreign = await http.get("/v1/organization", headers={"host": "evil.example"})
            assert foreign.status_code in (200, 400, 404, 421)
            assert "Sankt Elsewhere" not in foreign.text


async def test_a_stream_that_is_refused_says_why(
    front: Callable[[FrontPlan], Front], tmp_path: Path, root: Path, certificate: Certificate
) -> None:
    with open_scene(front, tmp_path, root, certificate) as scene:
        url = "wss" + scene.origin.removeprefix("https") + "/v1/stream"
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url, ssl=scene.context, origin=websockets.Origin("https://evil.example"))
        assert refused.value.response.status_code == 403
        assert b"policy_denied" in refused.value.response.body
        async with websockets.connect(url, ssl=scene.context) as socket:
            assert isinstance(await socket.recv(), bytes)


def test_nginx_logs_no_address_and_no_name(tmp_path: Path, root: Path, certificate: Certificate) -> None:
    with (
        open_scene(run_nginx, tmp_path, root, certificate) as scene,
        httpx.Client(base_url=scene.origin, verify=scene.context) as http,
    ):
        http.get("/v1/people/CANARY?query=CANARY", headers={"user-agent": "CANARY", "referer": "CANARY"})
    written = (tmp_path / "front" / "access.log").read_text()
    assert " 401 " in written
    assert written.endswith(" GET /v1/people\n")
    assert "CANARY" not in written
    assert "127.0.0.1" not in written
