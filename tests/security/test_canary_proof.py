"""The canary sweep can fail: with one field left in the clear it names the file or the stream where that went."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from canary import Canaries, Finder, Source, read_folder
from canary_places import provoke, read_lines, read_server
from pictures import draw_picture, make_exif
from playwright.sync_api import sync_playwright
from serving import SERVE, copy_build
from stage import PASSPHRASE, Stage, open_stage

from curbside.client.device import Device
from curbside.crypto.passphrase import unwrap
from curbside.mls.group import Group
from curbside.mls.messages import PrivateMessage, encode_message, parse_message
from curbside.wire import content

pytestmark = pytest.mark.slow

NO_WEB = "<!doctype html><title>none</title>"


class _ClearGroup:
    """A group whose envelopes hold what was written instead of its ciphertext. All else is the group's own."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    def encrypt(self, plaintext: bytes, authenticated_data: bytes = b"") -> bytes:
        """An envelope that passes the server's checks of its head."""
        message = parse_message(self._group.encrypt(plaintext, authenticated_data))
        assert isinstance(message, PrivateMessage)
        return encode_message(replace(message, ciphertext=plaintext))


class ClearDevice(Device):
    """A device that forgets to encrypt messages that hold a title, a text, a caption: all of them."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        get = self._groups.get
        self._groups.get = lambda conversation: _ClearGroup(get(conversation))  # type: ignore[method-assign, assignment, return-value]


@pytest.fixture
def static(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "index.html").write_text(NO_WEB)
    return folder


@pytest.fixture
def stage(static: Path) -> Iterator[Stage]:
    with open_stage(None, static, keeps=True) as made:
        yield made


def _hits(words: Canaries, sources: Iterator[Source]) -> dict[str, set[str]]:
    """Places of hits, each with the canaries found there."""
    found: dict[str, set[str]] = {}
    for hit in Finder(words).sweep(sources):
        found.setdefault(hit.place, set()).update(hit.canary.split(", "))
    return found


def _title(stage: Stage, kind: type[Device], words: Canaries) -> None:
    other = stage.join_python("Olga Other", "nurse")
    leaky = stage.join_python("Leo Leaky", "nurse", kind=kind)
    start = leaky.device.start_conversation([other.device.user_id], title=words.plant("title"))
    conversation = leaky.call(start)
    sent = leaky.call(leaky.device.send_text(conversation, words.plant("text")))
    leaky.call(leaky.device.wait_until_sent(sent))


def test_messages_in_the_clear_are_found_in_traffic_and_database(stage: Stage) -> None:
    words = Canaries()
    _title(stage, ClearDevice, words)
    found = _hits(words, iter([*read_lines(stage.lines), *read_server(stage.server)]))
    assert found["opened database, entries"] == {"title", "text"}
    frames = {place for place in found if "to the server, frame" in place}
    assert {canary for place in frames for canary in found[place]} == {"title", "text"}
    assert not [place for place in found if place.startswith(("server/", "logs/"))], "the file itself is encrypted"


def test_the_same_messages_encrypted_are_found_nowhere(stage: Stage) -> None:
    words = Canaries()
    _title(stage, Device, words)
    assert _hits(words, iter([*read_lines(stage.lines), *read_server(stage.server)])) == {}


def test_a_picture_in_the_clear_is_found_among_the_blobs(stage: Stage) -> None:
    words = Canaries()
    other = stage.join_python("Olga Other", "nurse")
    leaky = stage.join_python("Leo Leaky", "nurse")
    conversation = leaky.call(leaky.device.start_conversation([other.device.user_id]))
    picture = draw_picture((9, 9, 9), make_exif(words.plant("exif")))
    blob = content.blob("", content_type="image/jpeg", size=len(picture), key=bytes(32), content_hash=bytes(32))
    message = content.photo(blob, 640, 480, "", content.SinglePart("image/jpeg", b""))

    async def upload() -> None:
        sent = leaky.device.engine.write_with_upload(conversation, message, picture, leaky.device.clock.now_ms())
        leaky.device.connection.upload_soon()
        await leaky.device.wait_until_sent(sent)

    leaky.call(upload())
    found = _hits(words, iter([*read_lines(stage.lines), *read_server(stage.server)]))
    assert any(place.startswith("server/data/blobs/") for place in found)
    assert any(place.endswith("to the server") for place in found)
    assert all(canaries == {"exif"} for canaries in found.values())


def test_an_open_vault_is_found(stage: Stage, tmp_path: Path) -> None:
    words = Canaries()
    _title(stage, Device, words)
    leaky = stage.pythons["Leo Leaky"]
    assert _hits(words, read_folder(leaky.folder)) == {}
    copy = shutil.copytree(leaky.folder, tmp_path / "copy") / leaky.vault.name
    leaky.close()
    key = _vault_key(copy)
    with_key = apsw.Connection(str(copy))
    with_key.pragma("cipher", "chacha20")
    with_key.pragma("key", f"raw:{key.hex()}")
    with_key.pragma("journal_mode", "delete")
    with_key.pragma("rekey", "")
    with_key.close()
    assert sqlite3.connect(copy).execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] > 3
    found = _hits(words, read_folder(copy.parent, "copy"))
    assert found["copy/device.vault"] == {"title", "text"}


def _vault_key(vault: Path) -> bytes:
    wraps = json.loads(vault.with_name(vault.name + ".wraps").read_text())
    return unwrap(wraps["wraps"][0], PASSPHRASE, wraps["vault_id"]).reveal()


LEAKY_SERVER = """
import sys
from curbside.server import gateway
answer = gateway.Gateway.__call__
async def leak(self, scope, receive, send):
    print(scope["path"], scope["query_string"], scope["headers"], file=sys.stderr, flush=True)
    await answer(self, scope, receive, send)
gateway.Gateway.__call__ = leak
from curbside.cli.main import main
main()
"""


@pytest.mark.parametrize(("serve", "is_found"), [(("-c", LEAKY_SERVER, "serve"), True), (SERVE, False)])
def test_a_server_that_logs_what_it_is_asked_is_found(static: Path, serve: tuple[str, ...], is_found: bool) -> None:
    words = Canaries()
    with open_stage(None, static, serve=serve) as stage:
        list(provoke(stage.server, words.plant("provoked")))
        found = _hits(words, read_server(stage.server))
    assert found == ({"logs/stderr": {"provoked"}} if is_found else {})


LEAKS: dict[str, tuple[str, str]] = {
    "local storage": ("(word) => localStorage.setItem('first', word)", "Local Storage"),
    "local storage, UTF-16": ("(word) => localStorage.setItem('second', word + '\u2713')", "Local Storage"),
    "cache": ("(word) => caches.open('a').then((c) => c.put('/a', new Response(word)))", "Service Worker/CacheStorage"),
    "file": (
        """async (word) => {
            const folder = await navigator.storage.getDirectory();
            const file = await (await folder.getFileHandle('a', { create: true })).createWritable();
            await file.write(word); await file.close(); }""",
        "File System",
    ),
    "address": ("(word) => history.replaceState(null, '', '/#' + word)", "Sessions"),
    "database": (
        """(word) => new Promise((resolve) => { const asked = indexedDB.open('a', 1);
            asked.onupgradeneeded = () => asked.result.createObjectStore('s');
            asked.onsuccess = () => { const change = asked.result.transaction('s', 'readwrite');
              change.objectStore('s').put(word, 'k'); change.oncomplete = resolve; }; })""",
        "IndexedDB",
    ),
}


@pytest.mark.e2e
def test_what_a_page_keeps_in_the_clear_is_found_in_the_profile(tmp_path: Path) -> None:
    words = Canaries()
    with sync_playwright() as playwright, open_stage(playwright, copy_build(tmp_path / "web")) as stage:
        alice = stage.join("Amara Okafor", "physician", passphrase=PASSPHRASE)
        for number, (script, _) in enumerate(LEAKS.values()):
            alice.page.evaluate(script, words.plant(f"leak{number}"))
        alice.close()
        found = _hits(words, read_folder(alice.profile, "profile"))
    for number, (name, (_, folder)) in enumerate(LEAKS.items()):
        places = [place for place, canaries in found.items() if f"leak{number}" in canaries]
        assert any(folder in place for place in places), f"{name}: {places}; {found}"
