"""Makes docs/screens/*.png: the five screens, light and dark, on a phone and a desktop, from the preview build.

The build is served with the Content-Security-Policy of the product, so that a screen which needs an inline style or a
script from elsewhere comes out broken here too. Run: .venv/bin/python tools/screens.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = os.environ.get("CURBSIDE_CHROMIUM", "/usr/bin/chromium")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; font-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
    "trusted-types curbside svelte-trusted-html"
)
SIZES = {"phone": (390, 844), "desktop": (1280, 800)}
LINK = "#/join/" + "A" * 108
COLOURS = 128


class StrictHandler(http.server.SimpleHTTPRequestHandler):
    """Files of the preview build, under the product's policy."""

    def end_headers(self) -> None:
        """Adds the policy to every answer."""
        self.send_header("Content-Security-Policy", CSP)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet."""


def build_preview(out: Path) -> None:
    """Builds web/preview into `out`."""
    vite = ROOT / "web/node_modules/vite/bin/vite.js"
    subprocess.run(
        ["node", str(vite), "build", "--config", "preview/vite.config.ts", "--logLevel", "warn"],
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
    beat = [(0, 0), (18, 0), (26, -12), (34, 0), (46, 0), (50, 14), (58, -112), (66, 30), (72, -20), (92, -24), (110, -44), (128, 0), (150, 0)]
    for lead, middle in enumerate((330, 510, 690)):
        line = [(110 + 150 * turn + x, middle - (110 + 150 * turn + x) * 0.034 + y * (1 - lead * 0.18)) for turn in range(7) for x, y in beat]
        ink.line(line, fill="#1d1b22", width=4, joint="curve")
    image.save(path, "JPEG", quality=90)


def open_scene(page: Page, address: str, scene: str, fragment: str = "") -> None:
    """Opens the preview in one of its scenes and waits for fonts."""
    page.goto(f"{address}?scene={scene}{fragment}")
    page.evaluate("document.fonts.ready")


def join(page: Page, address: str) -> None:
    """The invite, half filled in."""
    open_scene(page, address, "invite", LINK)
    page.get_by_label("Your name").fill("Amara Okafor")
    page.get_by_label("Passphrase", exact=True).fill("lamp kettle harbour nine")
    page.get_by_text("Good", exact=False).first.wait_for()


def unlock(page: Page, address: str) -> None:
    """The locked vault."""
    open_scene(page, address, "locked")
    page.get_by_label("Passphrase", exact=True).fill("lamp kettle harbour nine")


def conversations(page: Page, address: str) -> None:
    """The list."""
    open_scene(page, address, "list")
    page.get_by_text("Fiona Wu").first.wait_for()


def conversation(page: Page, address: str) -> None:
    """A conversation with a picture."""
    conversations(page, address)
    page.get_by_role("button", name="Jun Lee").first.click()
    page.get_by_text("V4R is running").last.wait_for()
    page.wait_for_timeout(300)


def camera(page: Page, address: str) -> None:
    """The camera, looking at an ECG."""
    conversation(page, address)
    page.get_by_role("button", name="Take a photo").click()
    page.locator("button[aria-label='Take the photo']:enabled").wait_for()
    page.wait_for_timeout(800)


SCREENS: dict[str, Callable[[Page, str], None]] = {
    "join": join,
    "unlock": unlock,
    "list": conversations,
    "conversation": conversation,
    "camera": camera,
}


def shoot(browser: Browser, address: str, out: Path, only: str) -> list[str]:
    """Takes every picture whose name holds `only`. Returns what the browser complained about."""
    complaints: list[str] = []
    for size, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": width, "height": height},
                device_scale_factor=2 if size == "phone" else 1.5,
                color_scheme="light" if scheme == "light" else "dark",
                has_touch=size == "phone",
                is_mobile=size == "phone",
                locale="en-GB",
                permissions=["camera"],
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            for name, walk in SCREENS.items():
                if only in f"{name}-{size}-{scheme}":
                    walk(page, address)
                    save(page, out / f"{name}-{size}-{scheme}.png")
            context.close()
    return complaints


def save(page: Page, path: Path) -> None:
    """One picture, with few enough colours to be small."""
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> int:
    """Builds, serves, walks, saves. 1 when the browser complained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/screens")
    parser.add_argument("--only", default="", help="part of a picture's name")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        build = Path(work) / "build"
        build_preview(build)
        draw_scene(Path(work) / "scene.mjpeg")
        with serve(build) as address, sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=CHROMIUM,
                args=[
                    "--no-sandbox",
                    "--use-fake-device-for-media-stream",
                    "--use-fake-ui-for-media-stream",
                    f"--use-file-for-fake-video-capture={work}/scene.mjpeg",
                ],
            )
            complaints = shoot(browser, address, options.out, options.only)
            browser.close()
    for complaint in sorted(set(complaints)):
        print(f"screens: {complaint}", file=sys.stderr)
    print(f"screens: {len(list(options.out.glob('*.png')))} pictures in {options.out}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
