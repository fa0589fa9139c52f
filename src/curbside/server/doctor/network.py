"""What is reached over the network: the public addresses as clients reach them, NATS, the storage of attachments."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
import nats.errors
import websockets.asyncio.client as websocket
from nats.aio.client import Client
from websockets.exceptions import WebSocketException

from curbside.clock import Clock
from curbside.crypto.tls_certificate import parse_tls_certificate
from curbside.errors import CurbsideError, Malformed
from curbside.server.blob_opening import open_blob_store
from curbside.server.blob_store import INSTALLATION
from curbside.server.config import Config
from curbside.server.doctor.files import judge_expiry
from curbside.server.doctor.findings import Finding, fail, ok, warn
from curbside.server.stream import PATH as STREAM_PATH
from curbside.wire.frames import Challenge

SECONDS: Final = 10.0
SKEW_MS: Final = 30_000
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_FAILURES: Final = (OSError, TimeoutError, ValueError, WebSocketException, httpx.HTTPError, nats.errors.Error)
_challenge: Final = msgspec.msgpack.Decoder(Challenge)


async def check_network(config: Config, clock: Clock, make_tls: Callable[[], ssl.SSLContext]) -> list[Finding]:
    """All looks over the network. make_tls: what to trust."""
    found: list[Finding] = []
    for url in config.public_urls:
        found += await check_origin(url, clock, make_tls)
    found += check_proxy(config)
    if config.bus.nats is not None:
        found.append(await check_nats(config))
    found.append(await check_blobs(config))
    return found


async def check_origin(url: str, clock: Clock, make_tls: Callable[[], ssl.SSLContext]) -> list[Finding]:
    """Whether clients reach the server under this origin: HTTP, TLS, WebSocket, and the same time."""
    step = "See that the server and the proxy run, and that name, port and firewall fit."
    try:
        async with httpx.AsyncClient(base_url=url, timeout=SECONDS, verify=make_tls()) as client:
            answer = await client.get("/v1/health/ready")
    except _FAILURES as error:
        return [fail("url.http", f"{url} cannot be reached: {_describe(error)}.", step)]
    if answer.status_code != 200 or "status" not in answer.text:
        text = f"{url} answers {answer.status_code} to the question whether the server is ready."
        return [
            fail("url.http", text, "Ask /v1/health/ready on the server itself; if that is well, correct the proxy.")
        ]
    found = [ok("url.http", f"{url} answers, and the server is ready.")]
    if url.startswith("https://"):
        found.append(await _check_remote_certificate(url, clock, make_tls))
    return [*found, *await _check_stream(url, clock, make_tls)]


async def _check_stream(url: str, clock: Clock, make_tls: Callable[[], ssl.SSLContext]) -> list[Finding]:
    address = "ws" + url.removeprefix("http") + STREAM_PATH
    tls = make_tls() if url.startswith("https://") else None
    try:
        async with asyncio.timeout(SECONDS):
            connection = await websocket.connect(address, ssl=tls, proxy=None, compression=None)
            began = time.monotonic()
            data = await connection.recv(decode=False)
            await connection.close()
        challenge = _challenge.decode(data)
    except (*_FAILURES, msgspec.MsgspecError) as error:
        step = "The proxy must pass WebSocket upgrades on, with Host and Origin as they are (see docs/operate.md)."
        return [fail("url.stream", f"{url} carries no streams: {_describe(error)}.", step)]
    found = [ok("url.stream", f"{url} carries streams.")]
    skew = abs(challenge.server_time - clock.now_ms()) - int((time.monotonic() - began) * 1000)
    if skew > SKEW_MS:
        text = f"The clocks of the server and of this machine differ by {skew // 1000} seconds."
        found.append(fail("clock", text, "Set both by NTP: proofs and sessions go by the clock."))
    else:
        found.append(ok("clock", "The server's clock and this machine's agree."))
    return found


async def _check_remote_certificate(url: str, clock: Clock, make_tls: Callable[[], ssl.SSLContext]) -> Finding:
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=make_tls())
        try:
            connection = writer.get_extra_info("ssl_object")
            der = connection.getpeercert(binary_form=True)
        finally:
            writer.close()
            with contextlib.suppress(*_FAILURES):
                await writer.wait_closed()
        found = parse_tls_certificate(ssl.DER_cert_to_PEM_cert(der).encode())
    except (*_FAILURES, Malformed) as error:
        return fail("url.certificate", f"{url}: {_describe(error)}.", "Correct the certificate of the proxy.")
    return judge_expiry("url.certificate", found.not_after, clock)


def check_proxy(config: Config) -> list[Finding]:
    """Whether limits for each client's address can work behind a proxy."""
    is_behind = config.is_https and config.tls is None
    if not is_behind:
        return []
    if not config.proxy.trusted:
        text = "A proxy ends TLS, but no proxy is trusted: all clients seem to have its address, and share one limit."
        return [warn("proxy.trusted", text, "Set [proxy] trusted to the proxy's address.")]
    if config.host not in _LOCAL:
        text = f"The server listens on {config.host} without TLS, and not for the proxy alone."
        return [warn("proxy.trusted", text, "Listen on 127.0.0.1, or see that only the proxy reaches the port.")]
    return [ok("proxy.trusted", "The proxy in front is trusted to say where clients come from.")]


async def check_nats(config: Config) -> Finding:
    """Whether NATS takes a connection."""
    settings = config.bus.build_nats()
    assert settings is not None
    client = Client()
    try:
        async with asyncio.timeout(SECONDS):
            await client.connect(
                servers=settings.list_servers(),
                allow_reconnect=False,
                error_cb=_ignore,
                tls=settings.make_tls(),
                **settings.make_credentials(),
            )
            await client.flush()
    except CurbsideError as error:
        return fail("nats.reached", f"NATS cannot be used: {error.detail}.", "Correct [bus].")
    except _FAILURES as error:
        text = f"NATS cannot be reached: {_describe(error)}."
        return fail("nats.reached", text, "Messages still pass, more slowly. See that NATS runs.")
    finally:
        with contextlib.suppress(*_FAILURES):
            await client.close()
    return ok("nats.reached", "NATS takes connections.")


async def check_blobs(config: Config) -> Finding:
    """Whether the storage of attachments answers."""
    where = "The bucket of attachments" if config.blobs.is_s3 else "The folder of attachments"
    if not config.blobs.is_s3 and not config.blobs_path.exists():
        return warn("blobs.reached", f"{where} is not there yet.", "The server makes it at its first start.")
    try:
        async with asyncio.timeout(SECONDS):
            await open_blob_store(config).find(INSTALLATION)
    except (CurbsideError, TimeoutError) as error:
        reason = error.detail if isinstance(error, CurbsideError) else "no answer in time"
        return fail(
            "blobs.reached", f"{where} cannot be used: {reason}.", "Correct [blobs], or see that the storage runs."
        )
    return ok("blobs.reached", f"{where} answers.")


async def _ignore(error: Exception) -> None:
    """What NATS says on the side; the connection's own failure is told."""


def _describe(error: BaseException) -> str:
    """What went wrong, without addresses or contents; libraries wrap what the system or TLS said."""
    found: BaseException | None = error
    while found is not None:
        match found:
            case TimeoutError() | httpx.TimeoutException():
                return "no answer in time"
            case ssl.SSLCertVerificationError():
                return found.verify_message
            case OSError(strerror=str(text)) if text:
                return text
        found = found.__cause__ or found.__context__
    return type(error).__name__
