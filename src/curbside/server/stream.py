"""The stream: one WebSocket for each device, as a raw ASGI handler (frames: wire.frames).

[Note: slow readers] Nothing that waits for a connection is unbounded. Live entries wait in memory up to
`limits.pending_bytes`; above that the connection merely remembers that it is behind, and later reads the log from where
it stands, as after a Sync. Sends in flight are counted, and above the limit no more frames are read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from structlog.typing import FilteringBoundLogger

from curbside.clock import Clock
from curbside.crypto.random import random_bytes
from curbside.errors import (
    CurbsideError,
    Malformed,
    NotAuthenticated,
    PolicyDenied,
    StoreUnavailable,
    TooLarge,
    TooMany,
    Unavailable,
)
from curbside.ids import encode_base64url
from curbside.policy.access import Subject
from curbside.server.config import Config
from curbside.server.connection import Connection
from curbside.server.delivery import DeliveryService
from curbside.server.fanout import Fanout
from curbside.server.limits import RateLimit
from curbside.server.logs import LogEvent, find_code
from curbside.server.metrics import Metrics
from curbside.server.origins import find_origin, is_foreign
from curbside.server.problems import encode_problem, hide_internal
from curbside.server.sessions import ProvedRequest, SessionService
from curbside.wire import limits as sizes
from curbside.wire.frames import PROTOCOL, Acknowledge, Authenticate, Challenge, ClientFrame, Closing, Ready, Send, Sync

PATH: Final = "/v1/stream"
Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
SendEvent = Callable[[MutableMapping[str, Any]], Any]

_decoder: Final[msgspec.msgpack.Decoder[ClientFrame]] = msgspec.msgpack.Decoder(ClientFrame)
_encoder: Final = msgspec.msgpack.Encoder()


class _PeerClosed(Exception):
    """The other side hung up."""


@dataclass(frozen=True, slots=True)
class StreamParts:
    """What the stream is wired to."""

    config: Config
    sessions: SessionService
    delivery: DeliveryService
    fanout: Fanout
    clock: Clock
    metrics: Metrics
    log: FilteringBoundLogger


class StreamEndpoint:
    """ASGI application for the path /v1/stream."""

    def __init__(self, parts: StreamParts) -> None:
        self._parts = parts
        limits, clock = parts.config.limits, parts.clock
        self._addresses = parts.config.proxy.build_addresses()
        self._connects = RateLimit(limits.connects_per_second, limits.connects_burst, clock)
        self._sends = RateLimit(limits.sends_per_second, limits.sends_burst, clock)
        self._frames = RateLimit(limits.requests_per_second, limits.requests_burst, clock)
        self._unproven = 0
        self._open: set[asyncio.Task[Any]] = set()
        self._is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: SendEvent) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._serve(scope, receive, send)
        finally:
            self._open.discard(task)

    async def drain(self, seconds: float) -> None:
        """Take no new streams, tell the open ones to come back elsewhere or later, and wait for them to end."""
        self._is_draining = True
        for listener in self._parts.fanout.list_listeners():
            if isinstance(listener, Connection):
                listener.close_with(Closing("draining", "the server restarts", 1000))
        if self._open:
            _, late = await asyncio.wait(set(self._open), timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def end_expired(self) -> None:
        """Close the streams whose session is over."""
        now = self._parts.clock.now()
        for listener in self._parts.fanout.list_listeners():
            if isinstance(listener, Connection) and now >= listener.expires_at:
                listener.end(NotAuthenticated())

    # --- one connection -----------------------------------------------------------------------

    async def _serve(self, scope: Scope, receive: Receive, send: SendEvent) -> None:
        await receive()  # websocket.connect
        try:
            origin = self._check_handshake(scope)
        except CurbsideError as error:
            await _refuse_handshake(scope, send, error)
            return
        await send({"type": "websocket.accept"})
        failure: BaseException | None = None
        try:
            await self._talk(origin, receive, send)
        except _PeerClosed:
            pass
        except CurbsideError as error:
            failure = error
            await _close(send, error)
        finally:
            self._parts.log.info(LogEvent.STREAM_CLOSED, code=find_code(failure))

    def _check_handshake(self, scope: Scope) -> str:
        """The origin under which the client reached us. Raises: CurbsideError."""
        config = self._parts.config
        if self._is_draining:
            raise StoreUnavailable("the server restarts")
        origin = find_origin(scope, config.public_urls)
        if is_foreign(scope, config.public_urls):
            raise PolicyDenied(rule="R-stream", reason="foreign_origin")
        self._connects.take(self._addresses.find(scope))
        if self._unproven >= config.limits.unproven_streams or len(self._open) > config.limits.streams:
            raise TooMany(retry_after=5)
        return origin

    async def _talk(self, origin: str, receive: Receive, send: SendEvent) -> None:
        self._unproven += 1
        try:
            async with asyncio.timeout(self._parts.config.limits.handshake_seconds):
                connection = await self._authenticate(origin, receive, send)
        except TimeoutError:
            raise NotAuthenticated("no proof in time") from None
        finally:
            self._unproven -= 1
        former = self._parts.fanout.register(connection)
        if former is not None:
            former.replace()
        self._parts.metrics.streams.inc()
        self._parts.log.info(LogEvent.STREAM_OPENED, device=connection.subject.device_id)
        pump = asyncio.create_task(connection.pump(), name="stream-pump")
        reader = asyncio.create_task(self._read(connection, receive), name="stream-read")
        try:
            done, _ = await asyncio.wait({pump, reader}, return_when=asyncio.FIRST_COMPLETED)
            if reader in done and pump not in done and (error := reader.exception()) is not None:
                if isinstance(error, CurbsideError):
                    connection.end(error)
                    await pump
                else:
                    raise error
            elif pump in done:
                pump.result()
        finally:
            pump.cancel()
            reader.cancel()
            await asyncio.gather(pump, reader, return_exceptions=True)
            self._parts.metrics.streams.dec()
            self._parts.fanout.forget(connection, connection.list_subscribed())

    async def _authenticate(self, origin: str, receive: Receive, send: SendEvent) -> Connection:
        parts = self._parts
        nonce = random_bytes(32)
        await _send_frame(send, Challenge(nonce, parts.clock.now_ms(), PROTOCOL))
        frame = _decode(await _receive_bytes(receive))
        if not isinstance(frame, Authenticate) or frame.protocol != PROTOCOL:
            raise Malformed("the first frame is Authenticate, of this protocol")
        proved = ProvedRequest("GET", origin + PATH, frame.token, frame.proof, nonce)
        session = await parts.sessions.authenticate(proved)
        subject = session.subject
        await _send_frame(send, Ready(subject.user_id, subject.device_id, session.expires_at))
        return Connection(session, parts.delivery, parts.fanout, send, parts.config.limits)

    async def _read(self, connection: Connection, receive: Receive) -> None:
        """Read frames until the peer hangs up. Raises: CurbsideError that ends the connection."""
        while True:
            await connection.wait_for_room()
            data = await _receive_bytes(receive)
            if self._parts.clock.now() >= connection.expires_at:
                raise NotAuthenticated
            frame = _decode(data)
            with contextlib.suppress(Unavailable):  # a sign of life that cannot be written down is no reason to hang up
                await self._parts.sessions.touch(connection.subject.device_id)
            match frame:
                case Send():
                    self._take_send(connection, frame)
                case Sync():
                    self._take_cursors(connection.subject, frame.cursors)
                    connection.sync(frame)
                case Acknowledge():
                    self._take_cursors(connection.subject, frame.cursors)
                    await self._parts.delivery.acknowledge(connection.subject.device_id, frame.cursors, frame.queue)
                case Authenticate():
                    raise Malformed("this connection is authenticated already")

    def _take_send(self, connection: Connection, frame: Send) -> None:
        try:
            self._sends.take(connection.subject.device_id)
            connection.count_send()
            self._parts.delivery.submit(connection.subject, frame, connection)
        except TooMany as error:
            connection.refuse(frame.request, error)

    def _take_cursors(self, subject: Subject, cursors: dict[str, int]) -> None:
        self._frames.take(subject.device_id)
        if len(cursors) > sizes.CURSORS_PER_SYNC:
            raise TooLarge(limit=sizes.CURSORS_PER_SYNC)
        if any(sequence < 0 for sequence in cursors.values()):
            raise Malformed("a cursor is below zero")


def _decode(data: bytes) -> ClientFrame:
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Malformed("not a frame of this protocol") from None


async def _receive_bytes(receive: Receive) -> bytes:
    event = await receive()
    if event["type"] == "websocket.disconnect":
        raise _PeerClosed
    data = event.get("bytes")
    if data is None:
        raise Malformed("frames are binary")
    if len(data) > sizes.FRAME_BYTES:
        raise TooLarge(limit=sizes.FRAME_BYTES)
    return bytes(data)


async def _send_frame(send: SendEvent, frame: Challenge | Ready | Closing) -> None:
    await send({"type": "websocket.send", "bytes": _encoder.encode(frame)})


async def _close(send: SendEvent, error: CurbsideError) -> None:
    shown = hide_internal(error)
    retry_after = int(shown.members.get("retry_after", 0)) * 1000 or (-1 if shown.retry == "never" else 1000)
    try:
        await _send_frame(send, Closing(shown.code, shown.detail, retry_after))
        await send({"type": "websocket.close", "code": 1008, "reason": shown.code})
    except (OSError, RuntimeError):
        return  # the peer was faster


async def _refuse_handshake(scope: Scope, send: SendEvent, error: CurbsideError) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    status, headers, body = encode_problem(error, encode_base64url(random_bytes(16)))
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "websocket.http.response.start", "status": status, "headers": raw})
    await send({"type": "websocket.http.response.body", "body": body})
