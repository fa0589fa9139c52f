"""CANARY: words planted where people write, and the search for them everywhere else.

All canaries of a run share one random beginning, and the search is for that: in every form in which software of this
kind keeps or sends text, also inside gzip and zlib streams, HTTP bodies and WebSocket frames. A hit names the place,
the form and, when enough of it is there, the canary.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from curbside.crypto.random import random_bytes

BEGINNING_BYTES = 8
INFLATED_MOST = 32 * 1024 * 1024
_COMPRESSED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
_PIECE = 64 * 1024
_DEPTH = 2


class Canaries:
    """The canaries of one run. They are words of lower-case letters and digits, so that every field takes them."""

    def __init__(self) -> None:
        self.beginning = "cnry" + random_bytes(BEGINNING_BYTES).hex()
        self.planted: dict[str, str] = {}

    def plant(self, where: str) -> str:
        """The canary for one place; the same for the same place."""
        assert where.isalnum(), "canaries are plain words"
        return self.planted.setdefault(where, f"{self.beginning}{where.lower()}end")


@dataclass(frozen=True)
class Source:
    """Something to search: a name for people, and its bytes."""

    place: str
    data: bytes


@dataclass(frozen=True)
class Hit:
    """A canary where it must not be. form: how it was written there. canary: "" when only the beginning was there."""

    place: str
    form: str
    canary: str
    offset: int

    def __str__(self) -> str:
        return f"{self.place}: {self.canary or 'a canary'} as {self.form} at byte {self.offset}"


@dataclass(frozen=True)
class Form:
    """A way to write a word. folds: whether upper and lower case are one."""

    name: str
    needle: bytes
    folds: bool


def list_forms(word: str) -> list[Form]:
    """Every form that is searched for."""
    raw = word.encode()
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in word).encode()
    found = [
        Form("text", raw, folds=True),
        Form("UTF-16LE", word.encode("utf-16-le"), folds=True),
        Form("UTF-16BE", word.encode("utf-16-be"), folds=True),
        Form("UTF-32LE", word.encode("utf-32-le"), folds=True),
        Form("hex", raw.hex().encode(), folds=True),
        Form("hex, spaced", raw.hex(" ").encode(), folds=True),
        Form("percent-encoding", "".join(f"%{byte:02x}" for byte in raw).encode(), folds=True),
        Form("JSON escapes", escaped, folds=True),
        Form("character references", "".join(f"&#{byte};" for byte in raw).encode(), folds=True),
        Form("reversed", raw[::-1], folds=True),
    ]
    return found + _base64_forms("base64", raw) + _base64_forms("base64 of UTF-16LE", word.encode("utf-16-le"))


def _base64_forms(name: str, raw: bytes) -> list[Form]:
    """The characters that depend on these bytes alone, for each place that they can have in a group of three."""
    forms = []
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw)
        start = (0, 2, 3)[before]
        end = (before + len(raw)) // 3 * 4
        middle = whole[start:end]
        forms.append(Form(f"{name}, place {before}", middle, folds=False))
        url = middle.replace(b"+", b"-").replace(b"/", b"_")
        if url != middle:
            forms.append(Form(f"{name} for URLs, place {before}", url, folds=False))
    return forms


class Finder:
    """Searches sources for any canary of a run, and counts what it looked at."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self._forms = list_forms(canaries.beginning)
        self.looked = 0
        self.bytes = 0
        self.places: list[str] = []

    def sweep(self, sources: Iterable[Source]) -> list[Hit]:
        """All hits."""
        hits: list[Hit] = []
        for source in sources:
            self.looked += 1
            self.bytes += len(source.data)
            self.places.append(source.place)
            hits += self._search(source.place, source.data, _DEPTH)
        return hits

    def _search(self, place: str, data: bytes, depth: int) -> list[Hit]:
        folded = data.lower()
        hits = []
        for form in self._forms:
            offset = (folded if form.folds else data).find(form.needle)
            if offset >= 0:
                hits.append(Hit(place, form.name, self._name(folded if form.folds else data, form), offset))
        if depth:
            for offset, inner in inflate_members(data):
                hits += self._search(f"{place} > compressed at {offset}", inner, depth - 1)
        return hits

    def _name(self, data: bytes, form: Form) -> str:
        """Which canaries are there in this form."""
        named = []
        for where, word in self._canaries.planted.items():
            same = next(each for each in list_forms(word) if each.name == form.name)
            if same.needle in data:
                named.append(where)
        return ", ".join(named)


def inflate_members(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What is inside the gzip and zlib streams of some data, and where each begins; broken ones as far as they go."""
    end_of_last = 0
    for found in _COMPRESSED.finditer(data):
        if found.start() < end_of_last:
            continue
        engine = zlib.decompressobj(47)
        out = bytearray()
        at = found.start()
        try:
            while at < len(data) and not engine.eof and len(out) < INFLATED_MOST:
                out += engine.decompress(data[at : at + _PIECE], INFLATED_MOST - len(out))
                at += _PIECE
        except zlib.error:
            pass
        if engine.eof:
            end_of_last = min(at, len(data)) - len(engine.unused_data)
        if out:
            yield found.start(), bytes(out)


# --- sources --------------------------------------------------------------------------------------


def read_folder(folder: Path, name: str = "") -> Iterator[Source]:
    """Every file below a folder, and every file's name."""
    for path in sorted(folder.rglob("*")):
        shown = f"{name or folder.name}/{path.relative_to(folder)}"
        yield Source(f"{shown} (its name)", str(path.relative_to(folder)).encode())
        if path.is_symlink():
            yield Source(f"{shown} (where it points)", str(path.readlink()).encode())
        elif path.is_file():
            yield Source(shown, path.read_bytes())


def read_overheard(name: str, up: bytes, down: bytes) -> Iterator[Source]:
    """One connection: its bytes as they are, and what its HTTP and WebSocket framing carries."""
    yield Source(f"{name}, to the server", up)
    yield Source(f"{name}, from the server", down)
    for way, data in (("to", up), ("from", down)):
        plain, frames = split_upgrade(data)
        yield Source(f"{name}, {way} the server, chunks joined", join_chunks(plain))
        for number, payload in enumerate(read_frames(frames)):
            yield Source(f"{name}, {way} the server, frame {number}", payload)


def split_upgrade(data: bytes) -> tuple[bytes, bytes]:
    """One direction of a connection: its HTTP, and the WebSocket bytes after a handshake (b"" when there was none)."""
    for found in re.finditer(rb"\r\n\r\n", data):
        head = data[: found.start()].rpartition(b"\r\n\r\n")[2].lower()
        if b"\r\nupgrade: websocket" in head:
            return data[: found.end()], data[found.end() :]
    return data, b""


def join_chunks(data: bytes) -> bytes:
    """HTTP with the sizes between chunks taken out, so that nothing hides across two of them."""
    return re.sub(rb"\r\n[0-9a-fA-F]{1,8}\r\n", b"", data)


def read_frames(data: bytes) -> Iterator[bytes]:
    """The payloads of WebSocket frames (RFC 6455 section 5.2), unmasked; a frame that was cut off as far as it goes."""
    at = 0
    while at + 2 <= len(data):
        is_masked, length = data[at + 1] & 0x80, data[at + 1] & 0x7F
        at += 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        mask = data[at : at + 4] if is_masked else b""
        at += len(mask)
        payload = data[at : at + length]
        at += length
        yield _unmask(payload, mask) if mask else payload


def _unmask(payload: bytes, mask: bytes) -> bytes:
    pad = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(payload), "big")
