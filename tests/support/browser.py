"""People at a browser: Debian's Chromium with a profile of its own, used through what is on the screen, by its names.

Everything here finds things the way a screen reader does (role and name); nothing reaches behind the page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Dialog, Locator, Page, Playwright, expect

SECONDS = 60.0
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
# Besides what Playwright itself switches off.
QUIET = (
    "--no-sandbox",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--disable-domain-reliability",
    "--no-pings",
)
_URL = re.compile(r'"url":"((?:https?|wss?)://[^"]*)"')
_OPTIONS = re.compile(r"^Message options\. [^,]*(?:, (.*))?$")

# After a text stands an invisible copy of its time, which keeps room for the visible one.
_ROOM = r"(?:\d{1,2}:\d{2})?"


def find_chromium() -> str:
    """The browser's program. Raises: AssertionError saying how to get one."""
    named = os.environ.get("CURBSIDE_CHROMIUM", "")
    for each in (named, "/usr/bin/chromium", shutil.which("chromium") or "", shutil.which("chromium-browser") or ""):
        if each and Path(each).is_file():
            return each
    raise AssertionError("no Chromium was found: `make test` installs one, or name it in CURBSIDE_CHROMIUM")


@dataclass(frozen=True)
class Seen:
    """One message as it stands on the screen. state: as it is read out, "" for other people's."""

    kind: str
    text: str
    is_mine: bool
    state: str


class BrowserPerson:
    """A person with one browser. folder: holds the profile, the temporary files and the log of all requests."""

    def __init__(
        self, playwright: Playwright, folder: Path, origin: str, *, scheme: str = "light", is_phone: bool = True
    ) -> None:
        self.origin = origin
        self.folder = folder
        self.profile = folder / "profile"
        self.temp = folder / "tmp"
        self.temp.mkdir(parents=True)
        self.faults: list[str] = []
        self._launches = 0
        self._is_running = False
        self._playwright = playwright
        self._scheme = scheme
        self._is_phone = is_phone
        self.context: BrowserContext
        self.page: Page
        self.start()

    # --- the browser ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the browser on its profile, with an empty tab."""
        self._launches += 1
        self._is_running = True
        self.context = self._playwright.chromium.launch_persistent_context(
            self.profile,
            executable_path=find_chromium(),
            args=[*QUIET, f"--log-net-log={self._request_log(self._launches)}"],
            env={**os.environ, "TMPDIR": str(self.temp)},
            viewport=PHONE if self._is_phone else DESKTOP,  # type: ignore[arg-type]
            has_touch=self._is_phone,
            is_mobile=self._is_phone,
            color_scheme="dark" if self._scheme == "dark" else "light",
            reduced_motion="reduce",
            locale="en-GB",
            permissions=["camera"],
        )
        self.context.set_default_timeout(SECONDS * 1000)
        self.page = self.context.pages[0]
        self.watch(self.page)

    def _request_log(self, launch: int) -> Path:
        return self.folder / f"requests-{launch}.json"

    def watch(self, page: Page) -> None:
        """Errors of the page, breaches of its policy and native dialogs become faults."""
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", lambda m: self.faults.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("dialog", self._refuse)

    def _refuse(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def close(self) -> None:
        """End the browser as a person does; nothing when it has ended."""
        if self._is_running:
            self._is_running = False
            self.context.close()

    def kill(self) -> None:
        """End the browser as an empty battery does."""
        process = os.readlink(self.profile / "SingletonLock").rpartition("-")[2]
        self._is_running = False
        with self.context.expect_event("close"):
            os.kill(int(process), signal.SIGKILL)

    def list_origins(self) -> set[str]:
        """Every origin that the closed browser asked for anything, by its own log of all requests."""
        found: set[str] = set()
        for launch in range(1, self._launches + 1):
            text = self._request_log(launch).read_text("utf-8", "replace")
            for match in _URL.finditer(text):
                parts = urlsplit(json.loads(f'"{match[1]}"'))
                found.add(f"{parts.scheme.replace('ws', 'http')}://{parts.netloc}")
        return found

    # --- in and out -------------------------------------------------------------------------------

    def visit(self, link: str = "") -> None:
        """Open the page, or an invite."""
        self.page.goto("about:blank")
        self.page.goto(link or self.origin)

    def join(self, link: str, name: str, passphrase: str) -> None:
        """Follow an invite to the empty list."""
        self.visit(link)
        self.page.get_by_role("textbox", name="Your name").fill(name)
        self.page.get_by_role("textbox", name="Passphrase").fill(passphrase)
        self.button("Join").click()
        self.wait_open()

    def unlock(self, passphrase: str) -> None:
        """Type the passphrase; returns when the list is there."""
        self.try_unlock(passphrase)
        self.wait_open()

    def try_unlock(self, passphrase: str) -> None:
        """Type a passphrase."""
        self.page.get_by_role("textbox", name="Passphrase").fill(passphrase)
        self.button("Unlock").click()

    def lock(self) -> None:
        """Lock, from the list."""
        self.go_to_list()
        self.button("Lock Curbside").click()
        self.page.get_by_role("heading", name="Curbside is locked").wait_for()

    def wait_open(self) -> None:
        """Wait for the list."""
        expect(self.navigation).to_be_visible(timeout=SECONDS * 1000)

    def is_open(self) -> bool:
        """Whether the vault is open, with the list or a conversation on the screen."""
        return self.navigation.is_visible() or self.composer.is_visible()

    @property
    def navigation(self) -> Locator:
        """The list of conversations."""
        return self.page.get_by_role("navigation", name="Conversations")

    def button(self, name: str, *, exact: bool = True) -> Locator:
        """A button by its name."""
        return self.page.get_by_role("button", name=name, exact=exact)

    # --- conversations ----------------------------------------------------------------------------

    def start_group(self, title: str, names: list[str]) -> None:
        """New conversation with these people."""
        self.go_to_list()
        self.button("New conversation").last.click()
        sheet = self.page.get_by_role("dialog", name="New conversation")
        for name in names:
            sheet.get_by_role("searchbox").fill(name.split()[0])
            sheet.get_by_role("button", name=name, exact=False).first.click()
        sheet.get_by_role("textbox", name="Name of the group").fill(title)
        sheet.get_by_role("button", name="Start group").click()
        self.wait_title(title)

    def start_direct(self, name: str) -> None:
        """New conversation with one person."""
        self.go_to_list()
        self.button("New conversation").last.click()
        sheet = self.page.get_by_role("dialog", name="New conversation")
        sheet.get_by_role("button", name=name, exact=False).first.click()
        sheet.get_by_role("button", name="Start conversation").click()
        self.wait_title(name)

    def open(self, title: str) -> None:
        """Open a conversation from the list."""
        self.go_to_list()
        self.navigation.get_by_role("button", name=title, exact=False).first.click()
        self.wait_title(title)

    def wait_title(self, title: str) -> None:
        """Wait until this conversation is on the screen."""
        self.page.get_by_role("heading", name=title, level=1, exact=True).wait_for()

    def go_to_list(self) -> None:
        """Back, if a conversation covers the list."""
        back = self.button("Back")
        if back.is_visible():
            back.click()
        self.wait_open()

    @property
    def composer(self) -> Locator:
        """The field to write in."""
        return self.page.get_by_role("textbox", name=re.compile("^Message to "))

    def send(self, text: str) -> None:
        """Write and send; returns when the bubble is there."""
        self.composer.fill(text)
        self.button("Send").click()
        self.item(text).wait_for()

    def reply(self, to: str, text: str) -> None:
        """Answer a message by its menu."""
        self.item(to).get_by_role("button", name=_OPTIONS).click()
        self.page.get_by_role("dialog", name=re.compile("^Message options")).get_by_role(
            "button", name="Reply", exact=True
        ).click()
        self.send(text)

    def take_photo(self, caption: str) -> None:
        """Take a photo in the page, and send it."""
        self.button("Take a photo").click()
        self.page.get_by_role("dialog", name="Camera").get_by_role("button", name="Take the photo").click()
        self.finish_photo(caption)

    def pick_photo(self, path: Path, caption: str) -> None:
        """Send a picture out of a folder."""
        self.choose_file(path)
        self.finish_photo(caption)

    def choose_file(self, path: Path) -> None:
        """Choose a file in the camera's picker."""
        self.button("Take a photo").click()
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("dialog", name="Camera").get_by_role("button", name="Choose a picture").click()
        chooser.value.set_files(path)

    def finish_photo(self, caption: str) -> None:
        """Caption and send what is being reviewed; returns when the bubble is there."""
        review = self.page.get_by_role("dialog", name="Your photo")
        review.get_by_role("textbox", name="Add a caption").fill(caption)
        review.get_by_role("button", name="Send photo").click()
        self.item(caption).wait_for()

    # --- what is on the screen --------------------------------------------------------------------

    @property
    def items(self) -> Locator:
        """The messages on the screen, in order."""
        messages = self.page.get_by_role("region", name="Messages")
        return messages.get_by_role("listitem").filter(has=self.page.get_by_role("button", name=_OPTIONS))

    def item(self, text: str) -> Locator:
        """The message with this text or caption."""
        whole = re.compile(rf"^\s*{re.escape(text)}{_ROOM}\s*$")
        return self.items.filter(has=self.page.locator("p.text", has_text=whole))

    def seen(self) -> list[Seen]:
        """All messages on the screen."""
        return [self._see(each) for each in self.items.all()]

    def _see(self, item: Locator) -> Seen:
        label = item.get_by_role("button", name=_OPTIONS).get_attribute("aria-label") or ""
        found = _OPTIONS.match(label)
        assert found is not None, label
        texts = item.locator("p.text")
        text = texts.first.inner_text().strip() if texts.count() else ""
        is_photo = item.get_by_role("button", name=re.compile("^Photo from")).count() > 0
        state = found[1] or ""
        return Seen("photo" if is_photo else "text", text, state != "", state)

    def texts(self) -> list[str]:
        """Texts and captions, in order."""
        return [each.text for each in self.seen()]

    def states(self) -> dict[str, str]:
        """How far each of the person's own messages has come, by its text."""
        return {each.text: each.state for each in self.seen() if each.is_mine}

    def wait_for(self, text: str) -> None:
        """Wait until a message with this text or caption is on the screen."""
        expect(self.item(text)).to_have_count(1, timeout=SECONDS * 1000)

    def wait_state(self, text: str, state: str) -> None:
        """Wait until an own message has come so far: "Read"."""
        options = self.item(text).get_by_role("button", name=re.compile(f", {state}$"))
        expect(options).to_have_count(1, timeout=SECONDS * 1000)

    def wait_status(self, text: str) -> None:
        """Wait until a status line on the screen says this."""
        status = self.page.get_by_role("status").filter(has_text=text)
        expect(status.first).to_be_visible(timeout=SECONDS * 1000)
