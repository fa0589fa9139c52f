"""Two people at browsers and a Python device in one conversation, through a lost network and a killed server.

Nothing is lost, nothing comes twice, the order is one order, and the delivery states end at "Read".
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import BrowserPerson
from pictures import draw_picture
from PIL import Image
from playwright.sync_api import Playwright, expect
from python_person import PythonPerson
from serving import wait_until
from stage import Stage, find_faults, find_foreign, open_stage

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TITLE = "Ward 7 nights"
FLURRY = 6
BOB_LINE = 1


@pytest.fixture
def stage(playwright: Playwright, built_web: Path) -> Iterator[Stage]:
    with open_stage(playwright, built_web) as made:
        yield made


def _open_on_screen(person: BrowserPerson, caption: str) -> None:
    """The whole picture, decoded by the browser."""
    person.item(caption).get_by_role("button", name=re.compile("^Photo from")).click()
    viewer = person.page.get_by_role("dialog", name=re.compile("^Photo from"))
    picture = viewer.get_by_role("img", name=re.compile("^Photo from"))
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    person.page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)


def _texts_both_ways(alice: BrowserPerson, bob: BrowserPerson, robot: PythonPerson) -> None:
    alice.send("Bed 4 has chest pain.")
    bob.open(TITLE)
    bob.wait_for("Bed 4 has chest pain.")
    robot.wait_for(TITLE, "Bed 4 has chest pain.")
    bob.send("On my way.")
    robot.send(TITLE, "ECG is recorded.")
    for person in (alice, bob):
        person.wait_for("On my way.")
        person.wait_for("ECG is recorded.")


def _photos_both_ways(alice: BrowserPerson, bob: BrowserPerson, robot: PythonPerson) -> None:
    alice.take_photo("Monitor")
    bob.take_photo("Left arm")
    robot.send_picture(TITLE, draw_picture((30, 160, 60)), "Strip")
    for person, captions in ((alice, ("Left arm", "Strip")), (bob, ("Monitor", "Strip"))):
        for caption in captions:
            person.wait_for(caption)
            _open_on_screen(person, caption)
    for caption in ("Monitor", "Left arm"):
        message = robot.wait_for(TITLE, caption)
        with Image.open(io.BytesIO(robot.open_picture(message))) as picture:
            assert picture.size == (message.attachments[0].width, message.attachments[0].height)


def _while_bob_is_away(stage: Stage, alice: BrowserPerson, bob: BrowserPerson, robot: PythonPerson) -> list[str]:
    """Everybody writes; the server is killed in the middle of it. All that was written."""
    stage.cut(bob, BOB_LINE)
    bob.wait_status("Offline: messages will go out by themselves")
    away = [f"Bob, in the lift, {number}" for number in range(3)]
    for text in away:
        bob.send(text)
    bob.take_photo("Bob's photo in the lift")
    assert set(bob.states().values()) >= {"Waiting to be sent"}
    flurry = [f"Alice, number {number}" for number in range(FLURRY)]
    for text in flurry:
        alice.send(text)
    stage.server.kill()
    robot.send(TITLE, "The robot, while the server is down")
    alice.send("Alice, while the server is down")
    assert alice.states()["Alice, while the server is down"] == "Waiting to be sent"
    stage.server.start()
    stage.mend(bob, BOB_LINE)
    down = ["The robot, while the server is down", "Alice, while the server is down"]
    return [*away, "Bob's photo in the lift", *flurry, *down]


def _transcript(robot: PythonPerson) -> list[tuple[str, str]]:
    return [(message.kind, message.text) for message in robot.read(TITLE) if message.kind in ("text", "photo")]


def _on_screen(person: BrowserPerson) -> list[tuple[str, str]]:
    return [(seen.kind, seen.text) for seen in person.seen()]


def _of(author: str, transcript: list[tuple[str, str]]) -> list[str]:
    return [text for kind, text in transcript if kind == "text" and text.startswith(author)]


def test_text_and_photo_all_ways_through_an_outage(stage: Stage) -> None:
    robot = stage.join_python("Ward Robot")
    alice = stage.join("Amara Okafor", "physician", line=0)
    bob = stage.join("Bea Jansen", "nurse", line=BOB_LINE)
    alice.start_group(TITLE, ["Bea Jansen", "Ward Robot"])
    _texts_both_ways(alice, bob, robot)
    _photos_both_ways(alice, bob, robot)
    written = _while_bob_is_away(stage, alice, bob, robot)

    for text in written:
        robot.wait_for(TITLE, text, seconds=90)
        alice.wait_for(text)
        bob.wait_for(text)
    expected = sorted(
        ["Bed 4 has chest pain.", "On my way.", "ECG is recorded.", "Monitor", "Left arm", "Strip", *written]
    )
    wait_until(lambda: _on_screen(alice) == _transcript(robot) == _on_screen(bob), "three equal transcripts", 30)
    transcript = _transcript(robot)
    assert sorted(text for _, text in transcript) == expected, "nothing lost, nothing twice"
    for author in ("Alice", "Bob, in the lift"):
        assert _of(author, transcript) == _of(author, [("text", text) for text in written]), "the author's order"

    robot.read(TITLE)
    for person in (alice, bob):
        for text in person.states():
            person.wait_state(text, "Read")
    wait_until(lambda: {m.delivery for m in robot.read(TITLE) if m.is_mine and m.text} == {"read"}, "the robot's read")
    for person in (alice, bob):
        assert find_faults(person) == []
        person.close()
        assert find_foreign(person) == set()
