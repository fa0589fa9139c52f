"""The preview of the page (web/preview) for tools: build it, serve it under the product's policy, walk it.

Used by tools/screens.py. The Content-Security-Policy is the product's, so that a screen which needs an inline style or
a script from elsewhere comes out broken here too.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, Playwright

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = os.environ.get("CURBSIDE_CHROMIUM", "/usr/bin/chromium")
CSP = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types curbside svelte-trusted-html",
    ]
)
SIZES = {"phone": (390, 844), "desktop": (1280, 800), "narrow": (320, 640)}
LINK = "#/join/" + "A" * 108

Walk = Callable[[Page, str], None]


class StrictHandler(http.server.SimpleHTTPRequestHandler):
    """Files of the preview build, under the product's policy."""

    def end_headers(self) -> None:
        """Adds the policy to every answer."""
        self.send_header("Content-Security-Policy", CSP)
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Keeps quiet."""


def build_preview(out: Path) -> None:
    """Builds web/preview into `out`."""
    vite = ROOT / "web/node_modules/vite/bin/vite.js"
    subprocess.run(
        ["node", str(vite), "build", "--config", "preview/vite.config.ts", "--logLevel", "error"],
        cwd=ROOT / "web",
        env={**os.environ, "CURBSIDE_PREVIEW_OUT": str(out)},
        check=True,
    )


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serves `folder` on a free port; yields the address of the preview page."""
    handler = functools.partial(StrictHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/preview/index.html"
        server.shutdown()


def launch(driver: Playwright, work: Path) -> Browser:
    """Chromium whose camera looks at an ECG strip."""
    draw_scene(work / "scene.mjpeg")
    return driver.chromium.launch(
        executable_path=CHROMIUM,
        args=[
            "--no-sandbox",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-video-capture={work}/scene.mjpeg",
        ],
    )


def draw_scene(path: Path) -> None:
    """What the pretend camera sees: an ECG strip on a desk, as one MJPEG frame."""
    image = Image.new("RGB", (1280, 960), "#6b5a46")
    ink = ImageDraw.Draw(image)
    ink.rectangle((0, 700, 1280, 960), fill="#5d4d3b")
    ink.polygon([(90, 190), (1210, 150), (1240, 760), (70, 800)], fill="#fbeee6")
    for step in range(60):
        x = 100 + step * 19
        ink.line([(x, 190 - step * 0.6), (x, 795 - step * 0.6)], fill="#efc5bd", width=2 if step % 5 == 0 else 1)
    for step in range(31):
        y = 200 + step * 19
        ink.line([(90, y), (1225, y - 38)], fill="#efc5bd", width=2 if step % 5 == 0 else 1)
    times = (0, 18, 26, 34, 46, 50, 58, 66, 72, 92, 110, 128, 150)
    heights = (0, 0, -12, 0, 0, 14, -112, 30, -20, -24, -44, 0, 0)
    for lead, middle in enumerate((330, 510, 690)):
        gain = 1 - lead * 0.18
        points = [(110 + 150 * beat + x, y * gain) for beat in range(7) for x, y in zip(times, heights, strict=True)]
        ink.line([(x, middle - x * 0.034 + y) for x, y in points], fill="#1d1b22", width=4, joint="curve")
    image.save(path, "JPEG", quality=90)


# --- walks: from an empty tab to one state of the page ------------------------------------------


def opens(scene: str, fragment: str = "") -> Walk:
    """A walk that only opens a scene of web/preview/scenes.ts."""

    def walk(page: Page, address: str) -> None:
        page.goto(f"{address}?scene={scene}{fragment}")
        page.evaluate("document.fonts.ready")
        page.locator("main, .splash").first.wait_for()

    return walk


def then(before: Walk, *clicks: str) -> Walk:
    """A walk that goes on from another by pressing buttons, each by the start of its name, in the top dialog if any."""

    def walk(page: Page, address: str) -> None:
        before(page, address)
        for name in clicks:
            inside = page.locator("dialog[open]").last if page.locator("dialog[open]").count() else page.locator("body")
            inside.get_by_role("button", name=name).first.click()
            page.wait_for_timeout(150)

    return walk


def join(page: Page, address: str) -> None:
    """The invite, half filled in."""
    opens("invite", LINK)(page, address)
    page.get_by_label("Your name").fill("Amara Okafor")
    page.get_by_label("Passphrase", exact=True).fill("lamp kettle harbour nine")
    page.get_by_text("Good").first.wait_for()


def unlock(page: Page, address: str) -> None:
    """The locked vault, passphrase typed."""
    opens("locked")(page, address)
    page.get_by_label("Passphrase", exact=True).fill("lamp kettle harbour nine")


def wrong_passphrase(page: Page, address: str) -> None:
    """The locked vault after a wrong passphrase."""
    opens("locked")(page, address)
    page.get_by_label("Passphrase", exact=True).fill("wrong")
    page.get_by_role("button", name="Unlock").click()
    page.get_by_role("alert").first.wait_for()


def conversations(page: Page, address: str) -> None:
    """The list."""
    opens("list")(page, address)
    page.get_by_text("Fiona Wu").first.wait_for()


def conversation(page: Page, address: str) -> None:
    """A conversation with a picture."""
    then(conversations, "Jun Lee")(page, address)
    page.get_by_text("V4R is running").last.wait_for()


def camera(page: Page, address: str) -> None:
    """The camera, looking at an ECG."""
    then(conversation, "Take a photo")(page, address)
    page.locator("button[aria-label='Take the photo']:enabled").wait_for()
    page.wait_for_timeout(600)


SCREENS: dict[str, Walk] = {
    "join": join,
    "unlock": unlock,
    "list": conversations,
    "conversation": conversation,
    "camera": camera,
}

STATES: dict[str, Walk] = SCREENS | {
    "welcome": opens("welcome"),
    "invite-expired": opens("invite-expired", LINK),
    "wrong-passphrase": wrong_passphrase,
    "empty": opens("empty"),
    "offline": opens("offline"),
    "group": then(conversations, "Ward 7 nights"),
    "alarm": then(conversations, "Ben Haddad"),
    "message-menu": then(conversation, "Message options"),
    "details": then(conversation, "Conversation details"),
    "new": then(conversations, "New conversation", "Fiona Wu", "Jun Lee"),
    "viewer": then(conversation, "Photo from"),
    "review": then(camera, "Take the photo"),
    "sent-photo": then(camera, "Take the photo", "Send photo"),
    "other-tab": opens("other-tab"),
    "unsupported": opens("unsupported"),
}
