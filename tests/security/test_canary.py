"""INV-13: what people write is found nowhere outside their vaults, after browsers and a Python device used it all."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from browser import BrowserPerson
from canary import Canaries, Finder, Hit, Source, read_folder
from canary_places import provoke, read_answers, read_audit, read_lines, read_server
from pictures import draw_picture, make_exif
from playwright.sync_api import Playwright, expect, sync_playwright
from python_person import PythonPerson
from serving import copy_build
from stage import LINES, Stage, open_stage

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@dataclass
class Swept:
    """What a scenario left. shown: what the people had on their screens, where every canary belongs."""

    words: Canaries
    names: Canaries
    finder: Finder
    hits: list[Hit] = field(default_factory=list)
    name_hits: list[Hit] = field(default_factory=list)
    looked_for_names: int = 0
    shown: str = ""
    vaults: list[int] = field(default_factory=list)


@dataclass
class Scenario:
    """Two browsers and a Python device; a canary in everything that they write."""

    stage: Stage
    gallery: Path
    words: Canaries
    names: Canaries
    shown: list[str] = field(default_factory=list)

    def run(self) -> tuple[BrowserPerson, BrowserPerson, PythonPerson]:
        """All of it; at the end Alice is locked, Bob has a draft on his screen, the robot is connected."""
        plant = self.words.plant
        robot = self.stage.join_python(self._name("robot"), "clerk", passphrase=plant("passphraserobot"))
        bob = self._join_after_a_damaged_link("bob", line=1)
        alice = self._join_after_a_damaged_link("alice", line=0)
        title = plant("title")
        alice.start_group(title, [self._name("bob"), self._name("robot")])
        self._texts(title, alice, bob, robot)
        self._pictures(title, alice, bob, robot)
        self._searches(title, alice, bob, robot)
        self.shown += [alice.page.content(), bob.page.content()]
        self._drafts_and_locking(title, alice, bob)
        return alice, bob, robot

    def _name(self, who: str) -> str:
        return f"{who.title()} {self.names.plant(who)}"

    def _join_after_a_damaged_link(self, who: str, line: int) -> BrowserPerson:
        person = self.stage.browser(self._name(who), line=line)
        person.visit()
        damaged = (self.words.plant("link" + who) * 4)[:108]
        person.page.get_by_role("textbox", name="Invite link").fill(f"{person.origin}/#/join/{damaged}")
        person.button("Check the link").click()
        person.page.get_by_role("alert").wait_for()
        link = self.stage.server.invite("physician", origin=person.origin)
        person.join(link, self._name(who), self.words.plant("passphrase" + who))
        return person

    def _texts(self, title: str, alice: BrowserPerson, bob: BrowserPerson, robot: PythonPerson) -> None:
        plant = self.words.plant
        alice.send(plant("textalice"))
        bob.open(title)
        bob.wait_for(plant("textalice"))
        bob.reply(plant("textalice"), plant("replybob"))
        message = robot.wait_for(title, plant("replybob"))
        robot.send(title, plant("textrobot"), in_reply_to=message.id)
        for person in (alice, bob):
            person.wait_for(plant("replybob"))
            person.wait_for(plant("textrobot"))

    def _pictures(self, title: str, alice: BrowserPerson, bob: BrowserPerson, robot: PythonPerson) -> None:
        plant = self.words.plant
        alice.take_photo(plant("captionalice"))
        exif = make_exif(plant("exif"))
        picture = self.gallery / f"{plant('filename')}.jpg"
        picture.write_bytes(draw_picture((90, 40, 150), exif))
        bob.pick_photo(picture, plant("captionbob"))
        robot.send_picture(title, draw_picture((9, 90, 9), exif), plant("captionrobot"))
        letter = self.gallery / f"{plant('wrongname')}.txt"
        letter.write_text(plant("wrongfile"))
        bob.choose_file(letter)
        bob.page.get_by_role("alert").wait_for()
        bob.page.get_by_role("dialog", name="Camera").get_by_role("button", name="Back").click()
        for caption in ("captionalice", "captionbob", "captionrobot"):
            alice.wait_for(plant(caption))
            bob.wait_for(plant(caption))
            robot.open_picture(robot.wait_for(title, plant(caption)))
        bob.item(plant("captionrobot")).get_by_role("button", name="Photo from").click()
        viewer = bob.page.get_by_role("dialog", name="Photo from")
        viewer.get_by_role("img").wait_for()
        bob.page.keyboard.press("Escape")
        expect(viewer).to_have_count(0)

    def _searches(self, title: str, alice: BrowserPerson, bob: BrowserPerson, robot: PythonPerson) -> None:
        plant = self.words.plant
        robot.call(robot.device.people(plant("searchrobot")))
        bob.go_to_list()
        bob.button("New conversation").last.click()
        sheet = bob.page.get_by_role("dialog", name="New conversation")
        sheet.get_by_role("searchbox").fill(plant("searchpeople"))
        sheet.get_by_text("Nobody found.").wait_for()
        sheet.get_by_role("button", name="Close").click()
        alice.go_to_list()
        alice.navigation.get_by_role("searchbox").fill(plant("searchlist"))
        alice.page.get_by_text("Nobody and nothing found for").wait_for()
        self.shown.append(alice.page.content())
        alice.button("Clear search").click()
        for person in (alice, bob):
            person.open(title)

    def _drafts_and_locking(self, title: str, alice: BrowserPerson, bob: BrowserPerson) -> None:
        plant = self.words.plant
        alice.composer.fill(plant("draftalice"))
        alice.go_to_list()
        alice.navigation.get_by_text(plant("draftalice")).wait_for()
        self.shown.append(alice.page.content())
        alice.lock()
        alice.try_unlock(plant("wrongpassphrase"))
        alice.page.get_by_text("That passphrase is not right.").wait_for()
        bob.composer.fill(plant("draftbob"))
        bob.go_to_list()
        bob.navigation.get_by_text(plant("draftbob")).wait_for()
        self.shown.append(bob.page.content())
        bob.open(title)


def _command_line(stage: Stage, robot: PythonPerson, words: Canaries) -> Source:
    """The same vault by the command line; the text comes by a pipe."""
    vault = ["--vault", str(robot.vault)]
    secret = {"CURBSIDE_PASSPHRASE": words.plant("passphraserobot")}
    done = stage.server.curbside("send", words.plant("title"), "-", *vault, given=words.plant("textcli"), more=secret)
    return Source("command line", done.encode())


def _sweep(swept: Swept, stage: Stage, *, index: int) -> None:
    """Everything that is there now; a second time after all ended."""
    server, people = stage.server, stage.folder / "people"
    left = [*read_server(server), *read_folder(people, "people"), *read_lines(stage.lines)]
    told = [*read_audit(server, index=index)]
    swept.hits += swept.finder.sweep([*left, *told])
    unnamed = ("logs", "server-tmp", "people/")
    names = Finder(swept.names)
    swept.name_hits += names.sweep([*told, *(source for source in left if source.place.startswith(unnamed))])
    swept.looked_for_names += names.looked


def _run(playwright: Playwright, web: Path, gallery: Path) -> Swept:
    words, names = Canaries(), Canaries()
    found = Swept(words, names, Finder(words))
    with open_stage(playwright, web, keeps=True) as stage:
        scenario = Scenario(stage, gallery, words, names)
        alice, bob, robot = scenario.run()
        answers = [*read_answers(stage.server), *provoke(stage.server, words.plant("provoked"))]
        found.hits += found.finder.sweep(answers)
        found.name_hits += Finder(names).sweep(answers)
        _sweep(found, stage, index=1)
        alice.close()
        bob.kill()
        robot.close()
        found.hits += found.finder.sweep([_command_line(stage, robot, words)])
        stage.server.stop()
        _sweep(found, stage, index=2)
        found.shown = "".join(scenario.shown)
        opfs = (stage.folder / "people").glob("*/profile/**/File System/**/*")
        found.vaults = [path.stat().st_size for path in opfs if path.is_file()]
        found.vaults.append(robot.vault.stat().st_size)
    return found


EVERYWHERE = [
    "server/data/curbside.db",
    "server/data/curbside.db-wal",
    "server/data/blobs/",
    "server/authority/authority.der",
    "logs/stderr",
    "logs/stdout",
    "opened database, entries",
    "opened database, audit_events",
    "answer to /metrics",
    "answer to /v1/openapi.json",
    "answer to POST /v1/signup/start",
    "answer to wrong frame 2",
    "audit export",
    "audit show",
    "line 0, connection 0, to the server, chunks joined",
    "line 1, connection 0, from the server",
    "people/Robot/device.vault",
    "people/Robot/device.vault-wal",
    "people/Robot/device.vault.wraps",
    "people/Alice/profile/Default/File System/",
    "people/Bob/profile/Default/File System/",
    "people/Bob/profile/Default/Sessions/",
    "people/Alice/tmp",
    "command line",
]
OFF_SCREEN = ("filename", "exif", "wrong", "provoked", "search", "textcli", "passphrase", "link")


def test_what_people_write_is_found_nowhere(tmp_path: Path) -> None:
    """One test, because the scenario behind it is played once."""
    web, gallery = copy_build(tmp_path / "web"), tmp_path / "gallery"
    gallery.mkdir()
    with sync_playwright() as playwright:
        swept = _run(playwright, web, gallery)
    _check_that_all_was_looked_at(swept)
    assert not swept.hits, "\n" + "\n".join(sorted({str(hit) for hit in swept.hits}))
    # The server knows its staff's names; nothing else may. A browser fills in its owner's name: it remembers that.
    wrong = {str(hit) for hit in swept.name_hits if not _is_own(hit)}
    assert not wrong, "\n" + "\n".join(sorted(wrong))


def _is_own(hit: Hit) -> bool:
    owner = hit.place.split("/")[1].lower() if hit.place.startswith("people/") else ""
    return hit.canary == owner and "/profile/Default/" in hit.place


def _check_that_all_was_looked_at(swept: Swept) -> None:
    """Otherwise a scenario in which nothing was said, or a sweep of nothing, would pass."""
    places = swept.finder.places
    missing = [place for place in EVERYWHERE if not any(each.startswith(place) for each in places)]
    assert not missing
    for line in range(LINES):
        for way in ("to", "from"):
            mine = [place for place in places if place.startswith(f"line {line},")]
            assert sum(f"{way} the server, frame" in place for place in mine) > 10
    assert swept.finder.looked > 1000
    assert swept.finder.bytes > 20_000_000
    assert swept.looked_for_names > 100
    assert sum(size > 50_000 for size in swept.vaults) >= 3, "both browsers' vaults and the robot's were among it"
    unseen = [where for where, word in swept.words.planted.items() if word not in swept.shown]
    assert [where for where in unseen if not where.startswith(OFF_SCREEN)] == []
    assert len(swept.words.planted) - len(unseen) >= 10, "people saw what was planted"
