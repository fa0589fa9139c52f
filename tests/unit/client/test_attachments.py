"""Downloads: pieces, links, and servers and storages that lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from asgi import AsgiNetwork

from curbside.client import attachments
from curbside.client.attachments import download_attachment, is_safe_link
from curbside.client.transport import Transport
from curbside.clock import ManualClock
from curbside.crypto.random import random_bytes
from curbside.crypto.sign import generate_signature_key
from curbside.crypto.stream_aead import hash_file
from curbside.errors import BlobCorrupt, Malformed, NotFound, StoreUnavailable
from curbside.ids import encode_id
from curbside.wire.bodies import BlobLocation
from curbside.wire.limits import BLOB_CHUNK_BYTES

PART = BLOB_CHUNK_BYTES
BLOB = encode_id(bytes(16))
LINK = "https://storage.example/bucket/object?signature=1"


@dataclass
class Lying:
    """A server, and a storage under another name, that answer as they are told to."""

    data: bytes
    has_links: bool = True
    link: str = LINK
    stored: bytes = b""
    refuse_link_after: int = 10**9
    busy: int = 0
    ignores_ranges: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    foreign_headers: set[str] = field(default_factory=set)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        host = headers["host"].partition(".")[0]
        self.asked.append((host, scope["path"].rpartition("/")[2], headers.get("range", "")))
        if host == "storage":
            self.foreign_headers |= set(headers)
            if sum(who == "storage" for who, _, _ in self.asked) > self.refuse_link_after:
                await self._answer(send, 403, b"expired", {})
            else:
                await self._part(send, headers, self.stored or self.data, {})
        elif self.busy:
            self.busy -= 1
            problem = b'{"type":"urn:curbside:problem:store_unavailable","detail":"busy"}'
            await self._answer(send, 503, problem, {"content-type": "application/problem+json"})
        elif scope["path"] == f"/v1/blobs/{BLOB}/location":
            location = BlobLocation(self.link, len(self.data), 1)
            await self._answer(send, 200, msgspec.json.encode(location), {"content-type": "application/json"})
        elif scope["path"] != f"/v1/blobs/{BLOB}":
            problem = b'{"type":"urn:curbside:problem:not_found","detail":"no"}'
            await self._answer(send, 404, problem, {"content-type": "application/problem+json"})
        elif self.ignores_ranges:
            await self._answer(send, 200, self.data, {})
        else:
            await self._part(send, headers, self.data, {"curbside-location": "1"} if self.has_links else {})

    async def _part(self, send: Any, headers: dict[str, str], data: bytes, more: dict[str, str]) -> None:
        first, last = (int(word) for word in headers["range"].removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        span = {"content-range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"}
        await self._answer(send, 206, part, span | more)

    async def _answer(self, send: Any, status: int, body: bytes, headers: dict[str, str]) -> None:
        sent = {"content-length": str(len(body))} | headers
        raw = [(name.encode(), value.encode()) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async def download(self) -> bytes:
        """What a device gets."""
        return await download_attachment(open_transport(self), BLOB, hash_file(self.data))

    @property
    def pieces(self) -> list[str]:
        """Who gave each piece."""
        return [host for host, path, _ in self.asked if path != "location"]


def open_transport(server: Lying) -> Transport:
    """A device's, without a session."""
    key = generate_signature_key("ed25519")
    return Transport("https://server.example", key, ManualClock(1_790_000_000), AsgiNetwork(server))


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "FIRST_WAIT", 0.0)


async def test_what_is_left_is_read_by_a_link_and_the_storage_learns_nothing_of_us() -> None:
    server = Lying(random_bytes(2 * PART + 5))
    assert await server.download() == server.data
    assert server.pieces == ["server", "storage", "storage"]
    assert server.asked[-1][2] == f"bytes={2 * PART}-{2 * PART + 4}"
    assert not {"authorization", "dpop", "cookie", "referer"} & server.foreign_headers


async def test_a_small_attachment_needs_no_link() -> None:
    server = Lying(random_bytes(PART))
    assert await server.download() == server.data
    assert server.asked == [("server", BLOB, f"bytes=0-{PART - 1}")]


async def test_without_links_every_piece_comes_from_the_server() -> None:
    server = Lying(random_bytes(2 * PART + 5), has_links=False)
    assert await server.download() == server.data
    assert server.asked == [("server", BLOB, f"bytes={at}-{at + PART - 1}") for at in (0, PART, 2 * PART)]


async def test_a_link_that_ended_is_asked_for_anew_and_then_the_server_goes_on() -> None:
    server = Lying(random_bytes(6 * PART), refuse_link_after=1)
    assert await server.download() == server.data
    assert server.pieces.count("server") == 5
    assert sum(path == "location" for _, path, _ in server.asked) == 3


@pytest.mark.parametrize("change", ["bits", "shorter", "longer"])
async def test_the_storage_s_word_is_not_taken(change: str) -> None:
    server = Lying(random_bytes(3 * PART))
    changes = {"bits": random_bytes(3 * PART), "shorter": server.data[:-1], "longer": server.data + b"x"}
    server.stored = changes[change]
    assert await server.download() == server.data


async def test_a_server_that_lies_is_found_out() -> None:
    for links in (True, False):
        server = Lying(random_bytes(2 * PART), has_links=links)
        honest, server.data = server.data, random_bytes(2 * PART)
        transport = open_transport(server)
        with pytest.raises(BlobCorrupt):
            await download_attachment(transport, BLOB, hash_file(honest))


async def test_a_server_that_is_busy_or_gives_everything_at_once() -> None:
    server = Lying(random_bytes(2 * PART), busy=3, has_links=False)
    assert await server.download() == server.data
    whole = Lying(random_bytes(2 * PART), ignores_ranges=True)
    assert await whole.download() == whole.data
    assert len(whole.asked) == 1
    with pytest.raises(StoreUnavailable):
        await Lying(random_bytes(5), busy=100).download()


async def test_only_ids_become_paths() -> None:
    server = Lying(b"x")
    transport = open_transport(server)
    for name in ("../people", "", BLOB + "?x"):
        with pytest.raises(Malformed):
            await download_attachment(transport, name, bytes(32))
    assert server.asked == []
    with pytest.raises(NotFound):
        await download_attachment(transport, encode_id(bytes([1] * 16)), bytes(32))


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://s3.example.org/x?y", True),
        ("http://127.0.0.1:9000/x", True),
        ("http://localhost/x", True),
        ("http://[::1]:9/x", True),
        ("http://s3.example.org/x", False),
        ("http://localhost.example.org/x", False),
        ("http://127.0.0.1@s3.example.org/x", False),
        ("https://user@s3.example.org/x", False),
        ("https:///x", False),
        ("file:///etc/passwd", False),
        ("//s3.example.org/x", False),
        ("http://[::1/x", False),
        ("", False),
    ],
)
async def test_links_without_tls_are_for_this_machine(url: str, is_safe: bool) -> None:
    assert is_safe_link(url) == is_safe
    server = Lying(random_bytes(2 * PART), link=url, has_links=True)
    if not is_safe:
        assert await server.download() == server.data
        assert set(server.pieces) == {"server"}
