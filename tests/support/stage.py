"""A server process, people at browsers and people with Python devices, each on a line of their own that can be cut."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import BrowserPerson
from lines import Line
from playwright.sync_api import Playwright
from python_person import PythonPerson
from serving import SERVE, ServerProcess

from curbside.client.device import Device

PASSPHRASE = "lamp kettle harbour nine"
LINES = 3
_OF_THE_NETWORK = re.compile(r"net::ERR_|WebSocket connection to")
# Chromium's own services, which it asks without the page's doing.
OF_CHROMIUM = {
    "https://accounts.google.com",
    "https://clients2.google.com",
    "http://clients2.google.com",
    "https://content-autofill.googleapis.com",
    "https://passwordsleakcheck-pa.googleapis.com",
    "https://update.googleapis.com",
    "http://update.googleapis.com",
    "https://safebrowsing.googleapis.com",
    "https://optimizationguide-pa.googleapis.com",
    "https://android.clients.google.com",
    "https://www.google.com",
    "https://redirector.gvt1.com",
}


class Stage:
    """Begin with `start`; `close` ends everybody."""

    def __init__(
        self,
        playwright: Playwright | None,
        folder: Path,
        static: Path,
        *,
        keeps: bool = False,
        serve: tuple[str, ...] = SERVE,
    ) -> None:
        self.playwright = playwright
        self.folder = folder
        self.lines = [Line(keeps=keeps) for _ in range(LINES)]
        self.server = ServerProcess(folder / "ward", static, [line.origin for line in self.lines], serve)
        self.browsers: dict[str, BrowserPerson] = {}
        self.pythons: dict[str, PythonPerson] = {}

    def start(self) -> None:
        """The server and the lines to it."""
        for line in self.lines:
            line.start(self.server.port)
        self.server.start()

    def close(self) -> None:
        """End browsers, devices, server and lines."""
        for browser in self.browsers.values():
            browser.close()
        for person in self.pythons.values():
            person.close()
        self.server.stop()
        for line in self.lines:
            line.close()

    def browser(self, name: str, *, line: int = 0, scheme: str = "light", is_phone: bool = True) -> BrowserPerson:
        """A browser with an empty tab."""
        assert self.playwright is not None
        folder = self.folder / "people" / name.split()[0]
        made = BrowserPerson(self.playwright, folder, self.lines[line].origin, scheme=scheme, is_phone=is_phone)
        self.browsers[name] = made
        return made

    def join(
        self, name: str, role: str, *, line: int = 0, passphrase: str = PASSPHRASE, is_phone: bool = True
    ) -> BrowserPerson:
        """Somebody who followed an invite in a browser."""
        person = self.browser(name, line=line, is_phone=is_phone)
        person.join(self.server.invite(role, origin=person.origin), name, passphrase)
        return person

    def join_python(
        self, name: str, role: str = "bot", *, passphrase: str = PASSPHRASE, kind: type[Device] = Device
    ) -> PythonPerson:
        """Somebody with a Python device."""
        person = PythonPerson(self.folder / "people" / name.split()[0], name, passphrase, kind)
        self.pythons[name] = person
        person.join(self.server.invite(role, origin=self.lines[LINES - 1].origin))
        return person

    def cut(self, person: BrowserPerson, line: int) -> None:
        """The person loses the network: the browser notices, and nothing gets through."""
        self.lines[line].cut()
        person.context.set_offline(True)

    def mend(self, person: BrowserPerson, line: int) -> None:
        """The network is back."""
        self.lines[line].mend()
        person.context.set_offline(False)


@contextmanager
def open_stage(
    playwright: Playwright | None, static: Path, *, keeps: bool = False, serve: tuple[str, ...] = SERVE
) -> Iterator[Stage]:
    """A stage whose server runs, below a folder with a short name: a browser's socket must fit in 108 characters."""
    with tempfile.TemporaryDirectory(prefix="curbside-", ignore_cleanup_errors=True) as folder:
        made = Stage(playwright, Path(folder), static, keeps=keeps, serve=serve)
        try:
            made.start()
            yield made
        finally:
            made.close()


def find_faults(person: BrowserPerson) -> list[str]:
    """What went wrong in a page, apart from a network that the test took away."""
    return [fault for fault in person.faults if not _OF_THE_NETWORK.search(fault)]


def find_foreign(person: BrowserPerson) -> set[str]:
    """Origins that the closed browser asked and that are neither the server's nor Chromium's own."""
    return person.list_origins() - {person.origin} - OF_CHROMIUM
