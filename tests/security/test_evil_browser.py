"""EVIL: the web client in a real Chromium refuses a swapped key package and a ghost device, and names the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest
import running as running_module
from browser import BrowserPerson
from evil import GHOST, Evil, build_evil_server, make_entry, make_ghost, make_user, take_group
from playwright.sync_api import expect, sync_playwright
from python_person import PythonPerson
from running import Running
from serving import copy_build

from curbside.cli.invite import create_invite
from curbside.crypto.x509 import make_authority
from curbside.ids import UserId, encode_base64url
from curbside.mls.group import CommitRequest
from curbside.wire import frames

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PASSPHRASE = "lamp kettle harbour nine"
SECONDS = 60_000


@dataclass
class Hall:
    """A server that lies, Alice at a browser, Bob and Mallory with Python devices."""

    running: Running
    evil: Evil
    alice: BrowserPerson
    bob: PythonPerson
    mallory: PythonPerson

    def ghost(self, user_id: str) -> bytes:
        """A key package under an authority that the attacker made, for a person of this organisation."""
        now = self.running.clock.now()
        user, enrolment = make_user(make_authority("Sankt Elsewhere", now), UserId(user_id), "Bob Berg", now)
        return make_ghost(user, enrolment, now).package


def invite(running: Running) -> str:
    made = create_invite(running.authority, running.url, "physician", 3600, running.clock.now())
    body = {"invite_id": made.deposit.invite_id, "enrolment_certificate": made.deposit.enrolment_certificate}
    httpx.post(running.url + "/v1/invites", json=body).raise_for_status()
    return made.link


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    folder = tmp_path_factory.mktemp("e")
    evil = Evil()
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setattr(running_module, "build_server", partial(build_evil_server, evil=evil))
        running = Running(folder, static_folder=copy_build(folder / "dist")).start()
        bob, mallory = (PythonPerson(folder / name, name, PASSPHRASE) for name in ("Bob Berg", "Mallory Moor"))
        alice = BrowserPerson(playwright, folder / "alice", running.url, is_phone=False)
        try:
            alice.join(invite(running), "Alice Ang", PASSPHRASE)
            for person in (bob, mallory):
                person.join(invite(running))
            yield Hall(running, evil, alice, bob, mallory)
        finally:
            alice.close()
            bob.close()
            mallory.close()
            running.stop()


def test_a_swapped_key_package_is_refused_on_the_screen(hall: Hall) -> None:
    bob = hall.bob.device.user_id
    package = encode_base64url(hall.ghost(bob))

    def swap(_: str, __: str, path: str, answer: dict[str, Any]) -> dict[str, Any] | None:
        if path != f"/v1/people/{bob}/key-packages/claim":
            return None
        return answer | {"devices": [{**device, "key_package": package} for device in answer["devices"]]}

    hall.evil.answers.append(swap)
    page = hall.alice.page
    hall.alice.button("New conversation").last.click()
    sheet = page.get_by_role("dialog", name="New conversation")
    sheet.get_by_role("button", name="Bob Berg", exact=False).first.click()
    sheet.get_by_role("button", name="Start conversation").click()
    alert = page.get_by_role("alert").filter(has_text="not vouched for by your organisation")
    expect(alert).to_be_visible(timeout=SECONDS)
    expect(alert).to_contain_text(f"Refused device: {GHOST}")
    expect(alert).to_contain_text("security officer")
    hall.evil.be_honest()
    hall.alice.visit()
    hall.alice.unlock(PASSPHRASE)
    hall.alice.start_direct("Bob Berg")
    hall.alice.send("now it is you")
    hall.bob.wait_for("Alice Ang", "now it is you")


def test_a_ghost_in_a_commit_stops_the_conversation_on_the_screen(hall: Hall) -> None:
    alice, evil = hall.alice, hall.evil
    for title in ("Ward 4", "Ward 5"):
        alice.start_group(title, ["Bob Berg", "Mallory Moor"])
        alice.send(f"hello {title}")
        hall.mallory.wait_for(title, f"hello {title}")
        hall.bob.wait_for(title, f"hello {title}")
        alice.wait_state(f"hello {title}", "Read")
    alice.open("Ward 4")
    conversation = hall.mallory.find("Ward 4").id

    async def betray() -> bytes:
        group = take_group(hall.mallory.device, conversation)
        package = hall.ghost(hall.bob.device.user_id)
        return group.stage_commit(CommitRequest(adds=(package,)), hall.running.clock.now()).commit

    commit = hall.mallory.call(betray())
    people = hall.mallory.device.conversation(conversation).people
    device_id = next(person.device_id for person in people if person.name == "Alice Ang")
    services = hall.running.app.services
    assert services is not None
    record = hall.running.call(lambda: services.store.read(lambda view: view.delivery.find_conversation(conversation)))
    entry = make_entry(
        conversation, record.last_sequence + 1, frames.KIND_COMMIT, commit, at=hall.running.clock.now_ms()
    )
    hall.running.call(lambda: evil.push(device_id, frames.Entries([entry])))

    banner = alice.page.get_by_role("alert").filter(has_text="stopped to protect it")
    expect(banner).to_be_visible(timeout=SECONDS)
    expect(banner).to_contain_text(f"Refused device: {GHOST}")
    expect(banner).to_contain_text("not vouched for by your organisation")
    before = len(evil.envelopes("", conversation))
    if alice.composer.is_visible():
        alice.send("this must not leave the browser")
        assert alice.states()["this must not leave the browser"] == "Waiting to be sent"
    alice.go_to_list()
    expect(alice.navigation.get_by_text("Something was refused")).to_be_visible()
    alice.open("Ward 5")
    alice.send("all well here")
    hall.mallory.wait_for("Ward 5", "all well here")
    assert len(evil.envelopes("", conversation)) == before
    assert hall.mallory.find("Ward 4").people == people
