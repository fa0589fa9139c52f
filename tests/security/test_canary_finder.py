"""The canary finder finds: every form, every alignment, compressed, framed, and nothing where nothing is."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from pathlib import Path
from urllib.parse import quote

import pytest
from canary import Canaries, Finder, Source, inflate_members, list_forms, read_folder, read_frames, read_overheard

from curbside.crypto.random import random_bytes


def _find(canaries: Canaries, data: bytes) -> set[tuple[str, str]]:
    return {(hit.form, hit.canary) for hit in Finder(canaries).sweep([Source("here", data)])}


@pytest.fixture
def canaries() -> Canaries:
    made = Canaries()
    made.plant("draft")
    made.plant("caption")
    return made


def _forms(word: str) -> dict[str, bytes]:
    raw = word.encode()
    return {
        "text": f"so {word}.".encode(),
        "upper case": word.upper().encode(),
        "UTF-16LE": ("é" + word).encode("utf-16-le"),
        "UTF-16BE": ("é" + word).encode("utf-16-be"),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "hex, spaced": raw.hex(" ").encode(),
        "percent": quote("/" + word, safe="").encode(),
        "percent, all": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "JSON": json.dumps({"é": "\n" + word}).encode(),
        "JSON, all": "".join(f"\\u{ord(letter):04X}" for letter in word).encode(),
        "references": "".join(f"&#{byte};" for byte in raw).encode(),
        "gzip": random_bytes(40) + gzip.compress(b"x" * 4000 + raw) + random_bytes(40),
        "zlib": random_bytes(40) + zlib.compress(random_bytes(3000) + raw) + b"tail",
        "gzip in gzip": gzip.compress(gzip.compress(raw)),
        "gzip, cut off": gzip.compress(raw + random_bytes(5000))[:-900],
        "base64 in gzip": gzip.compress(base64.b64encode(b"ab" + raw)),
        "base64 of UTF-16": base64.b64encode(("(" + word + ")").encode("utf-16-le")),
    } | {
        f"base64 {kind} place {before} rest {after}": encode(random_bytes(before) + raw + random_bytes(after))
        for kind, encode in (("plain", base64.b64encode), ("url", base64.urlsafe_b64encode))
        for before in range(6)
        for after in range(3)
    }


@pytest.mark.parametrize("name", _forms("x"))
def test_every_form_is_found(canaries: Canaries, name: str) -> None:
    data = random_bytes(513) + _forms(canaries.plant("draft"))[name] + random_bytes(64)
    found = _find(canaries, data)
    assert found, name
    assert any("draft" in canary for _, canary in found), "the canary is named"
    assert not any("caption" in canary for _, canary in found)


def test_the_beginning_alone_is_enough(canaries: Canaries) -> None:
    assert _find(canaries, b"..." + canaries.beginning.encode()) == {("text", "")}


def test_nothing_is_found_in_noise(canaries: Canaries) -> None:
    other = Canaries()
    noise = random_bytes(2_000_000) + other.plant("draft").encode() + gzip.compress(random_bytes(2000))
    finder = Finder(canaries)
    assert finder.sweep([Source("noise", noise), Source("nothing", b"")]) == []
    assert (finder.looked, finder.bytes) == (2, len(noise))


def test_every_form_has_enough_of_the_word() -> None:
    assert all(len(form.needle) >= 20 for form in list_forms(Canaries().beginning))


def test_members_are_found_one_after_the_other() -> None:
    data = b"--" + gzip.compress(b"one") + b"--" + zlib.compress(b"two")
    assert [inner for _, inner in inflate_members(data)] == [b"one", b"two"]


def _frame(payload: bytes, mask: bytes = b"") -> bytes:
    size = len(payload)
    head = bytes([0x82])
    flag = 0x80 if mask else 0
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += bytes([flag | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + size.to_bytes(8, "big")
    covered = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if mask else payload
    return head + mask + covered


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70001])
@pytest.mark.parametrize("mask", [b"", b"\x00\xff\x10\x37"])
def test_frames_are_read(size: int, mask: bytes) -> None:
    payload = random_bytes(size)
    assert list(read_frames(_frame(payload, mask) + _frame(b"next", mask))) == [payload, b"next"]


def test_what_goes_over_a_connection_is_found(canaries: Canaries) -> None:
    word = canaries.plant("caption").encode()
    shake = b"GET /v1/stream HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    up = b"GET / HTTP/1.1\r\n\r\n" + shake + _frame(b"zzz" + word, b"\x01\x02\x03\x04")
    down = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n" + word[:9] + b"\r\n9\r\n" + word[9:]
    hits = Finder(canaries).sweep(read_overheard("Alice", up, down))
    assert {hit.place for hit in hits} == {"Alice, to the server, frame 0", "Alice, from the server, chunks joined"}


def test_names_of_files_are_searched(canaries: Canaries, tmp_path: Path) -> None:
    (tmp_path / canaries.plant("caption")).mkdir()
    (tmp_path / "link").symlink_to(canaries.plant("draft"))
    hits = Finder(canaries).sweep(read_folder(tmp_path, "data"))
    assert sorted(hit.canary for hit in hits) == ["caption", "draft"]
