"""Attachments down: fetched in pieces that are asked for again, from the server or by a link; checked by their hash.

Twin of web/src/core/attachments.ts.
"""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

import httpx

from curbside.client.transport import Transport
from curbside.crypto.stream_aead import hash_file
from curbside.errors import BlobCorrupt, CurbsideError
from curbside.ids import decode_id
from curbside.wire import bodies, limits

TRIES: Final = 6
FIRST_WAIT: Final = 0.2
LINKS: Final = 3
"""How often a link that has ended is asked for anew."""
_NEAR: Final = ("localhost", "127.0.0.1", "::1")


async def download_attachment(transport: Transport, blob_id: str, content_hash: bytes) -> bytes:
    """The ciphertext whose hash (of hash_file) this is.

    What a link led to is never trusted: if its hash does not fit, the server's own copy decides.

    Raises: Malformed (no blob's id), NotFound, PeerUnavailable, StoreUnavailable, BlobCorrupt (another file).
    """
    decode_id(blob_id)  # it becomes part of a path
    for links in (LINKS, 0):
        download = _Download(transport, blob_id, links)
        ciphertext = await download.run()
        if hash_file(ciphertext) == content_hash:
            return ciphertext
        if not download.has_used_link:
            break
    raise BlobCorrupt("the file is not the one that was sent")


def is_safe_link(url: str) -> bool:
    """Whether a link may be followed: TLS, or this machine; no name or password in it."""
    try:
        parts = urlsplit(url)
        near = parts.scheme == "http" and parts.hostname in _NEAR
        return (near or parts.scheme == "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        return False


class _Download:
    """One download. links: how many links to ask for at most."""

    def __init__(self, transport: Transport, blob_id: str, links: int) -> None:
        self._transport = transport
        self._path = f"/v1/blobs/{blob_id}"
        self._links = links
        self._url = ""
        self._held = bytearray()
        self._total = -1
        self.has_used_link = False

    async def run(self) -> bytes:
        failures = 0
        while self._total < 0 or len(self._held) < self._total:
            try:
                await (self._fetch_by_link() if self._url else self._fetch())
            except CurbsideError as error:
                if error.retry != "later":
                    raise
                if self._url:  # the server knows better
                    self._url = ""
                    continue
                failures += 1
                if failures > TRIES:
                    raise
                await asyncio.sleep(FIRST_WAIT * 2**failures)
        return bytes(self._held)

    def _wanted(self) -> tuple[int, int]:
        first = len(self._held)
        return first, first + limits.BLOB_CHUNK_BYTES - 1

    async def _fetch(self) -> None:
        first, last = self._wanted()
        response = await self._transport.request("GET", self._path, headers={"range": f"bytes={first}-{last}"})
        if response.status_code == 200:  # everything, whatever was asked for
            self._held.clear()
        self._take(response)
        if len(self._held) < self._total and self._links and "curbside-location" in response.headers:
            self._links -= 1
            location = await self._transport.call("GET", f"{self._path}/location", bodies.BlobLocation)
            self._url = location.url if is_safe_link(location.url) else ""

    async def _fetch_by_link(self) -> None:
        first, last = self._wanted()
        self.has_used_link = True
        self._held += await self._transport.fetch(self._url, first, min(last, self._total - 1))

    def _take(self, response: httpx.Response) -> None:
        declared = response.headers.get("content-range", "").rpartition("/")[2]
        total = int(declared) if declared.isdecimal() else len(response.content)
        if total > limits.BLOB_BYTES or not response.content or len(self._held) + len(response.content) > total:
            raise BlobCorrupt("the server's answer does not fit the file")
        self._total = total
        self._held += response.content
