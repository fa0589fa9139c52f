"""The web client as people meet it: invites, locking, tabs, outages, keyboards, hostile messages, screen readers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from browser import BrowserPerson
from pictures import draw_picture, make_exif
from playwright.sync_api import Page, Playwright, expect
from python_person import PythonPerson
from serving import ROOT, wait_until
from stage import PASSPHRASE, Stage, find_faults, find_foreign, open_stage

from curbside.cli.invite import create_invite, upload_invites
from curbside.clock import SystemClock
from curbside.server.organization import find_organization, open_authority

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ALICE, ROBOT, DORA = "Amara Okafor", "Ward Robot", "Dora Lindqvist"
ALICE_LINE = 0
SECONDS = 60_000
AXE = ROOT / "web/node_modules/axe-core/axe.min.js"
AXE_RUN = "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
SERIOUS = {"serious", "critical"}
PAYLOADS = [
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "javascript:alert(1) <a href='javascript:alert(1)'>here</a>",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)}",
]
DISGUISED = {
    "page": b"<!doctype html><html><body><script>document.title = 'taken'</script></body></html>",
    "drawing": b"<svg xmlns='http://www.w3.org/2000/svg' onload='document.title=1'><rect width='9' height='9'/></svg>",
    "program": b"\x7fELF" + bytes(300),
    "damaged": b"\xff\xd8\xff\xe0" + bytes(range(256)),
}


@pytest.fixture(scope="module")
def stage(playwright: Playwright, built_web: Path) -> Iterator[Stage]:
    """Ends with a look at all that the browsers did: no error, no breach of the policy, nobody else was asked."""
    with open_stage(playwright, built_web) as made:
        yield made
        assert len(made.browsers) >= 1
        for person in made.browsers.values():
            person.close()
            assert find_faults(person) == []
            assert person.origin in person.list_origins()
            assert find_foreign(person) == set()


@pytest.fixture(scope="module")
def robot(stage: Stage) -> PythonPerson:
    return stage.join_python(ROBOT)


@pytest.fixture(scope="module")
def alice(stage: Stage, robot: PythonPerson) -> BrowserPerson:
    """Somebody with a phone, in a conversation with the robot that is called as the other is."""
    person = stage.join(ALICE, "physician", line=ALICE_LINE)
    person.start_direct(ROBOT)
    person.send("The first message")
    robot.wait_for(ALICE, "The first message")
    return person


@pytest.fixture
def at_conversation(alice: BrowserPerson) -> BrowserPerson:
    """Alice, with the conversation on her screen, whatever the test before left there."""
    if alice.page.get_by_role("dialog").count() or not alice.is_open():
        alice.page.reload()
        alice.unlock(PASSPHRASE)
    alice.open(ROBOT)
    return alice


@pytest.fixture(scope="module")
def guest(stage: Stage) -> BrowserPerson:
    """Somebody who has not joined."""
    return stage.browser("Guest", line=1)


# --- invites --------------------------------------------------------------------------------------


def _expired_link(stage: Stage, origin: str) -> str:
    """An invite that was good for a second."""
    authority = open_authority(find_organization(stage.server.folder).authority_key_file, None)
    made = create_invite(authority, origin, "nurse", 1, SystemClock().now())
    with ThreadPoolExecutor(1) as pool:  # this thread's loop is the browsers' driver's
        pool.submit(asyncio.run, upload_invites(stage.server.direct, [made.deposit])).result()
    wait_until(lambda: time.time() > made.expires_at + 1, "the invite expires")
    return made.link


def _refusal(guest: BrowserPerson, link: str) -> str:
    guest.visit(link)
    return guest.page.get_by_role("alert").inner_text()


def test_an_expired_invite_says_so_and_what_to_do(stage: Stage, guest: BrowserPerson) -> None:
    shown = _refusal(guest, _expired_link(stage, guest.origin))
    assert "This invite has expired." in shown
    assert "Ask the person who invited you for a new one." in shown


def test_a_used_invite_says_so_and_what_to_do(stage: Stage, guest: BrowserPerson) -> None:
    link = stage.server.invite("bot", origin=guest.origin)
    person = PythonPerson(stage.folder / "people" / "Used", "Used Robot", PASSPHRASE)
    try:
        person.join(link)
    finally:
        person.close()
    shown = _refusal(guest, link)
    assert "This invite was already used." in shown
    assert "Ask for a new invite." in shown


@pytest.mark.parametrize("place", [20, 60, 100])
def test_a_damaged_invite_is_refused_with_a_next_step(stage: Stage, guest: BrowserPerson, place: int) -> None:
    link = stage.server.invite("nurse", origin=guest.origin)
    start, payload = link[:-108], link[-108:]
    other = "A" if payload[place] != "A" else "B"
    shown = _refusal(guest, start + payload[:place] + other + payload[place + 1 :])
    assert "This link does not work" in shown
    assert "Copy the whole line again" in shown


def test_a_link_of_another_server_says_where_it_belongs(stage: Stage, guest: BrowserPerson) -> None:
    elsewhere = stage.server.invite("nurse", origin="https://chat.example.org")
    guest.visit()
    guest.page.get_by_role("textbox", name="Invite link").fill(elsewhere)
    guest.button("Check the link").click()
    shown = guest.page.get_by_role("alert").inner_text()
    assert "It was made for https://chat.example.org. Open it there." in shown


def test_a_link_that_lost_its_end_is_refused_with_a_next_step(stage: Stage, guest: BrowserPerson) -> None:
    shown = _refusal(guest, stage.server.invite("nurse", origin=guest.origin)[:-9])
    assert "This link does not work" in shown
    assert "Copy the whole line." in shown


def test_a_weak_passphrase_is_refused_before_anything_is_sent(stage: Stage, guest: BrowserPerson) -> None:
    guest.visit(stage.server.invite("nurse", origin=guest.origin))
    guest.page.get_by_role("textbox", name="Your name").fill("Gil Guest")
    guest.page.get_by_role("textbox", name="Passphrase").fill("password123")
    guest.button("Join").click()
    expect(guest.page.get_by_role("textbox", name="Passphrase")).to_be_focused()
    expect(guest.page.get_by_role("textbox", name="Passphrase")).to_have_attribute("aria-invalid", "true")
    assert guest.button("Join").is_visible()


# --- locking, reloading, tabs ---------------------------------------------------------------------


def test_a_wrong_passphrase_is_said_and_the_right_one_opens(at_conversation: BrowserPerson) -> None:
    alice = at_conversation
    alice.lock()
    alice.try_unlock("lamp kettle harbour ten")
    alice.page.get_by_text("That passphrase is not right. Check capital letters and spaces").wait_for()
    alice.unlock(PASSPHRASE)


def test_locking_keeps_draft_and_messages_and_leaves_nothing_on_the_page(at_conversation: BrowserPerson) -> None:
    alice = at_conversation
    alice.composer.fill("Half a sentence about bed 9")
    alice.go_to_list()
    alice.navigation.get_by_text("Half a sentence about bed 9").wait_for()
    alice.lock()
    shown = alice.page.content()
    for word in ("Half a sentence", "The first message", ROBOT):
        assert word not in shown
    alice.unlock(PASSPHRASE)
    alice.open(ROBOT)
    expect(alice.composer).to_have_value("Half a sentence about bed 9")
    alice.wait_for("The first message")
    alice.composer.fill("")


def test_the_key_chord_locks(at_conversation: BrowserPerson) -> None:
    at_conversation.page.keyboard.press("Control+Shift+L")
    at_conversation.page.get_by_role("heading", name="Curbside is locked").wait_for()
    at_conversation.unlock(PASSPHRASE)


def test_a_reload_asks_for_the_passphrase_and_shows_the_history(at_conversation: BrowserPerson) -> None:
    alice = at_conversation
    alice.page.reload()
    alice.page.get_by_role("heading", name="Curbside is locked").wait_for()
    assert "The first message" not in alice.page.content()
    alice.unlock(PASSPHRASE)
    alice.open(ROBOT)
    alice.wait_for("The first message")


def test_a_second_tab_says_so_kindly_and_takes_over(at_conversation: BrowserPerson) -> None:
    alice = at_conversation
    alice.go_to_list()
    first = alice.page
    second = alice.context.new_page()
    alice.watch(second)
    second.goto(alice.origin)
    second.get_by_role("heading", name="Curbside is open in another tab").wait_for()
    assert "none is lost or sent twice" in second.content()
    assert first.get_by_role("navigation", name="Conversations").count() == 1, "the first tab goes on"
    first.close()
    alice.page = second
    second.get_by_role("heading", name="Curbside is locked").wait_for()
    alice.unlock(PASSPHRASE)
    alice.open(ROBOT)
    alice.wait_for("The first message")


def test_what_was_written_offline_survives_the_end_of_the_page(
    stage: Stage, at_conversation: BrowserPerson, robot: PythonPerson
) -> None:
    alice = at_conversation
    stage.cut(alice, ALICE_LINE)
    alice.send("Written in the lift")
    assert alice.states()["Written in the lift"] == "Waiting to be sent"
    assert "Written in the lift" not in [message.text for message in robot.read(ALICE)]
    stage.mend(alice, ALICE_LINE)
    alice.page.reload()
    alice.unlock(PASSPHRASE)
    robot.wait_for(ALICE, "Written in the lift")
    alice.open(ROBOT)
    alice.wait_state("Written in the lift", "Read")
    assert alice.texts().count("Written in the lift") == 1
    assert [message.text for message in robot.read(ALICE)].count("Written in the lift") == 1


def test_people_appear_by_themselves_once_there_is_a_connection(stage: Stage, at_conversation: BrowserPerson) -> None:
    alice = at_conversation
    alice.go_to_list()
    stage.cut(alice, ALICE_LINE)
    alice.button("New conversation").last.click()
    sheet = alice.page.get_by_role("dialog", name="New conversation")
    expect(sheet.get_by_role("alert")).to_contain_text("there is no connection", timeout=SECONDS)
    sheet.get_by_role("button", name="Try again").click()
    expect(sheet.get_by_role("button", name=ROBOT)).to_have_count(0)
    stage.mend(alice, ALICE_LINE)
    expect(sheet.get_by_role("button", name=ROBOT).first).to_be_visible(timeout=SECONDS)
    expect(sheet.get_by_role("alert")).to_have_count(0)


# --- messages -------------------------------------------------------------------------------------


def test_a_reply_shows_what_it_answers_on_both_sides(at_conversation: BrowserPerson, robot: PythonPerson) -> None:
    alice = at_conversation
    robot.send(ALICE, "Which bed?")
    alice.wait_for("Which bed?")
    alice.reply("Which bed?", "Bed 12")
    expect(alice.item("Bed 12").get_by_role("button", name=re.compile("Which bed"))).to_be_visible()
    answered = robot.wait_for(ALICE, "Bed 12")
    robot.send(ALICE, "Thank you", in_reply_to=answered.id)
    alice.wait_for("Thank you")
    expect(alice.item("Thank you").get_by_role("button", name=re.compile("Bed 12"))).to_be_visible()


def test_the_viewer_opens_and_closes_with_escape(at_conversation: BrowserPerson, robot: PythonPerson) -> None:
    alice = at_conversation
    robot.send_picture(ALICE, draw_picture((20, 90, 160)), "Left forearm")
    alice.wait_for("Left forearm")
    photo = alice.item("Left forearm").get_by_role("button", name=f"Photo from {ROBOT}")
    photo.click()
    viewer = alice.page.get_by_role("dialog", name=f"Photo from {ROBOT}: Left forearm")
    viewer.get_by_role("img").wait_for()
    alice.page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    expect(photo).to_be_visible()


def test_markup_is_shown_as_it_was_written(at_conversation: BrowserPerson, robot: PythonPerson) -> None:
    alice = at_conversation
    for text in PAYLOADS:
        robot.send(ALICE, text)
    for text in PAYLOADS:
        alice.wait_for(text)
        alice.send(f"Quoted: {text}")
        assert robot.wait_for(ALICE, f"Quoted: {text}").text == f"Quoted: {text}"
    assert "taken" not in alice.page.title()
    assert alice.page.locator("[href^='javascript:']").count() == 0


@pytest.mark.parametrize("what", DISGUISED)
def test_a_file_disguised_as_a_picture_is_not_shown(
    at_conversation: BrowserPerson, robot: PythonPerson, what: str
) -> None:
    alice = at_conversation
    robot.send_disguised(ALICE, DISGUISED[what], f"A {what}")
    alice.wait_for(f"A {what}")
    button = alice.item(f"A {what}").get_by_role("button", name=f"Photo from {ROBOT}")
    shown = "all => all.filter((image) => image.complete && image.naturalWidth > 0).length"
    assert button.get_by_role("img").evaluate_all(shown) == 0
    assert button.locator("img").evaluate_all(shown) == 0
    button.click()
    viewer = alice.page.get_by_role("dialog", name=re.compile("^Photo from"))
    expect(viewer.get_by_role("alert")).to_contain_text("The file arrived damaged. Ask the sender to send it again.")
    assert viewer.locator("img").count() == 0
    alice.page.keyboard.press("Escape")


def test_a_picked_picture_leaves_without_its_exif(
    at_conversation: BrowserPerson, robot: PythonPerson, tmp_path: Path
) -> None:
    words = "taken by the patient's bed"
    path = tmp_path / "wound.jpg"
    path.write_bytes(draw_picture((180, 60, 60), make_exif(words)))
    assert words.encode() in path.read_bytes()
    at_conversation.pick_photo(path, "Day 3")
    message = robot.wait_for(ALICE, "Day 3")
    sealed, told = robot.open_unchanged(message), robot.content_of(message)
    assert sealed.startswith(b"\xff\xd8\xff")
    assert b"\xff\xd8\xff" in told, "the small preview"
    for arrived in (sealed, told):
        for word in (b"Exif", words.encode(), b"wound"):
            assert word not in arrived


def test_what_is_no_picture_is_not_taken(at_conversation: BrowserPerson, tmp_path: Path) -> None:
    alice = at_conversation
    path = tmp_path / "letter.txt"
    path.write_text("not a picture")
    alice.choose_file(path)
    alice.page.get_by_role("alert").filter(
        has_text="That is not a picture. Choose a JPEG, PNG or WebP file."
    ).wait_for()
    alice.page.get_by_role("dialog", name="Camera").get_by_role("button", name="Back").click()


# --- keyboard and screen reader -------------------------------------------------------------------


def test_from_list_to_sent_message_by_keyboard_alone(stage: Stage, robot: PythonPerson) -> None:
    dora = stage.join(DORA, "nurse", line=1, is_phone=False)
    press = dora.page.keyboard.press
    dora.page.locator("body").press("n")
    search = dora.page.get_by_role("dialog", name="New conversation").get_by_role("searchbox")
    expect(search).to_be_focused()
    dora.page.keyboard.type("Ward")
    choice = dora.page.get_by_role("dialog").get_by_role("button", name=ROBOT)
    choice.wait_for()
    press("ArrowDown")
    expect(choice).to_be_focused()
    press("Enter")
    for _ in range(12):
        if dora.button("Start conversation").evaluate("button => button === document.activeElement"):
            break
        press("Tab")
    press("Enter")
    expect(dora.composer).to_be_focused()
    dora.page.keyboard.type("By keyboard alone")
    press("Enter")
    robot.wait_for(DORA, "By keyboard alone")
    dora.wait_state("By keyboard alone", "Read")
    press("Shift+Tab")
    expect(dora.item("By keyboard alone").get_by_role("button", name=re.compile("^Message options"))).to_be_focused()
    assert find_faults(dora) == []


def _serious(page: Page) -> list[str]:
    page.evaluate(AXE.read_text("utf-8"))
    report = page.evaluate(AXE_RUN)
    assert report["passes"], "axe-core looked at nothing"
    return [
        f"{found['id']}: {found['nodes'][0]['html'][:160]}"
        for found in report["violations"]
        if found["impact"] in SERIOUS
    ]


def _both_schemes(page: Page) -> list[str]:
    faults = []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
        faults += [f"{scheme}: {fault}" for fault in _serious(page)]
    return faults


def test_joining_has_no_serious_accessibility_fault(stage: Stage, guest: BrowserPerson) -> None:
    guest.visit(stage.server.invite("nurse", origin=guest.origin))
    guest.page.get_by_role("textbox", name="Passphrase").fill("lamp kettle harbour nine")
    assert _both_schemes(guest.page) == []


def test_the_other_screens_have_no_serious_accessibility_fault(at_conversation: BrowserPerson) -> None:
    alice = at_conversation
    assert _both_schemes(alice.page) == [], "conversation"
    alice.button("Take a photo").click()
    camera = alice.page.get_by_role("dialog", name="Camera")
    expect(camera.get_by_role("button", name="Take the photo")).to_be_enabled()
    assert _both_schemes(alice.page) == [], "camera"
    camera.get_by_role("button", name="Back").click()
    alice.go_to_list()
    assert _both_schemes(alice.page) == [], "list"
    alice.lock()
    assert _both_schemes(alice.page) == [], "unlock"
    alice.unlock(PASSPHRASE)
