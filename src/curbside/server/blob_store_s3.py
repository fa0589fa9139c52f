"""Objects in a bucket of S3-compatible storage, through obstore.

What obstore has no word for, unfinished multipart uploads, is asked for with requests of our own, signed with AWS
Signature Version 4 (Amazon S3 API reference, "Authenticating requests: using the Authorization header").
"""

from __future__ import annotations

import hashlib
import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import httpx
import obstore
from obstore.store import S3Store

from curbside.clock import Clock
from curbside.crypto.kdf import compute_mac
from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, StoreUnavailable
from curbside.server.blob_settings import BlobSettings
from curbside.server.blob_store import is_blob

if TYPE_CHECKING:
    from obstore.store import ClientConfig

CONNECT_SECONDS: Final = 3
RETRIES: Final = 2
_EMPTY: Final = hashlib.sha256(b"").hexdigest()
_UPLOAD = re.compile(rb"<Upload>(.*?)</Upload>", re.DOTALL)
_SAFE: Final = "-._~"


class S3Medium:
    """Implements Medium. clock: the true time, which the storage compares signatures with."""

    attributes: dict[str, str] | None = {  # noqa: RUF012 - never changed; a Protocol's member
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "attachment",
        "Cache-Control": "no-store",
    }
    page_size = 1000
    is_ordered = True

    def __init__(self, settings: BlobSettings, clock: Clock) -> None:
        self._settings = settings
        self._secret = settings.read_secret()
        self._clock = clock
        authority = _read_authority(settings)
        client: ClientConfig = {
            "allow_http": settings.base_url.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=settings.timeout_seconds),
        }
        if authority:
            client["root_certificate"] = authority
        self.objects = S3Store(
            settings.bucket,
            endpoint=settings.base_url if not settings.path_style else settings.endpoint or _amazon(settings),
            region=settings.region,
            access_key_id=settings.access_key_id or "",
            secret_access_key=self._secret.reveal().decode(),
            virtual_hosted_style_request=not settings.path_style,
            client_options=client,
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=settings.timeout_seconds)},
        )
        self._context = ssl.create_default_context()
        if authority:
            self._context.load_verify_locations(cadata=authority)

    async def settle(self, name: str) -> None:
        """The storage answered: it has it."""

    async def sign(self, name: str, seconds: int) -> str | None:
        return str(await obstore.sign_async(self.objects, "GET", name, timedelta(seconds=seconds)))

    async def end_unfinished(self, before: int) -> int:
        timeout = httpx.Timeout(self._settings.timeout_seconds, connect=CONNECT_SECONDS)
        ended = 0
        async with httpx.AsyncClient(timeout=timeout, verify=self._context, trust_env=False) as client:
            listed = await self._ask(client, "GET", "", {"uploads": ""})
            for upload in _UPLOAD.findall(listed):
                name, upload_id, began = (_text(upload, tag) for tag in ("Key", "UploadId", "Initiated"))
                if is_blob(name) and _seconds(began) < before:
                    await self._ask(client, "DELETE", name, {"uploadId": upload_id})
                    ended += 1
        return ended

    async def _ask(self, client: httpx.AsyncClient, method: str, name: str, query: dict[str, str]) -> bytes:
        """The body of one answer; that there is nothing (404) is as good as an empty one. Raises: StoreUnavailable."""
        at = datetime.fromtimestamp(self._clock.now(), UTC)
        words = "&".join(f"{quote(key, _SAFE)}={quote(value, _SAFE)}" for key, value in sorted(query.items()))
        base = self._settings.base_url
        url = f"{base}/{quote(name, _SAFE + '/')}" if name or not self._settings.path_style else base
        signed = RequestToSign(method, url, words, at.strftime("%Y%m%dT%H%M%SZ"))
        headers = sign_request(signed, self._settings.access_key_id or "", self._secret, self._settings.region)
        try:
            answer = await client.request(method, f"{url}?{words}", headers=headers)
        except httpx.HTTPError as error:
            raise StoreUnavailable from error
        if answer.status_code == 404 and b"NoSuchBucket" not in answer.content:
            return b""
        if answer.status_code >= 300:
            raise StoreUnavailable
        return answer.content


@dataclass(frozen=True, slots=True)
class RequestToSign:
    """A request without a body. query: encoded and in order. at: 20261123T220000Z."""

    method: str
    url: str
    query: str
    at: str


def sign_request(request: RequestToSign, access_key_id: str, secret: SecretBytes, region: str) -> dict[str, str]:
    """The headers that prove the request: x-amz-date, x-amz-content-sha256, authorization."""
    parts = urlsplit(request.url)
    names = "host;x-amz-content-sha256;x-amz-date"
    canonical = "\n".join(
        (
            request.method,
            parts.path or "/",
            request.query,
            f"host:{parts.netloc}",
            f"x-amz-content-sha256:{_EMPTY}",
            f"x-amz-date:{request.at}",
            "",
            names,
            _EMPTY,
        )
    )
    day = request.at[:8]
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", request.at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = b"AWS4" + secret.reveal()
    for word in (day, region, "s3", "aws4_request"):
        key = compute_mac("sha256", key, word.encode())
    signature = compute_mac("sha256", key, text.encode()).hex()
    return {
        "x-amz-date": request.at,
        "x-amz-content-sha256": _EMPTY,
        "authorization": f"AWS4-HMAC-SHA256 Credential={access_key_id}/{scope},SignedHeaders={names},"
        f"Signature={signature}",
    }


def _amazon(settings: BlobSettings) -> str:
    return settings.base_url.rpartition("/")[0]


def _read_authority(settings: BlobSettings) -> str | None:
    if settings.certificate_authority is None:
        return None
    try:
        return settings.certificate_authority.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("blobs: certificate_authority cannot be read") from error


def _text(upload: bytes, tag: str) -> str:
    found = re.search(rf"<{tag}>([^<]*)</{tag}>".encode(), upload)
    return found[1].decode() if found else ""


def _seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return float("inf")
