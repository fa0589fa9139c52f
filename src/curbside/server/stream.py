"""The stream: one WebSocket for each device (frames: wire.frames; sockets: websocket.py).

[Note: slow readers] Nothing that waits for a connection is unbounded. Live entries wait in memory up to
`limits.pending_bytes`; above that the connection merely remembers that it is behind, and later reads the log from where
it stands, as after a Sync. Sends in flight are counted, and above the limit no more frames are read.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Mapping
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
    UsageError,
)
from curbside.server.config import Config
from curbside.server.connection import Connection, ConnectionParts, build_closing, choose_code
from curbside.server.delivery import DeliveryService
from curbside.server.fanout import Fanout
from curbside.server.flusher import Flusher
from curbside.server.limits import RateLimit
from curbside.server.logs import LogEvent, find_code, find_place, show_id
from curbside.server.metrics import Metrics
from curbside.server.origins import find_origin, is_foreign
from curbside.server.presence import PresenceService
from curbside.server.sessions import Authenticated, ProvedRequest, SessionService
from curbside.server.sockets import Hold, Socket
from curbside.wire import limits as sizes
from curbside.wire.frames import (
    PROTOCOL,
    Acknowledge,
    Authenticate,
    Challenge,
    ClientFrame,
    Closing,
    Ready,
    Send,
    Signal,
    Sync,
)

PATH: Final = "/v1/stream"
LEAVE_TICK: Final = 0.05
LEAVING_AT_ONCE: Final = 10
"""Streams that are told to leave in one tick, when they are told one after another."""
LEAVE_PART: Final = 0.4
"""Part of the time to drain in which sends in flight may still be answered."""

_decoder: Final[msgspec.msgpack.Decoder[ClientFrame]] = msgspec.msgpack.Decoder(ClientFrame)
_encoder: Final = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class StreamParts:
    """What the stream is wired to."""

    config: Config
    sessions: SessionService
    delivery: DeliveryService
    presence: PresenceService
    fanout: Fanout
    clock: Clock
    metrics: Metrics
    log: FilteringBoundLogger


class StreamEndpoint:
    """The path /v1/stream: who may open one, how many, and how all of them end."""

    def __init__(self, parts: StreamParts) -> None:
        self.parts = parts
        limits, clock = parts.config.limits, parts.clock
        self.connection_parts = ConnectionParts(parts.delivery, parts.fanout, Flusher(parts.metrics), limits)
        self.sends = RateLimit(limits.sends_per_second, limits.sends_burst, clock)
        self.frames = RateLimit(limits.requests_per_second, limits.requests_burst, clock)
        self.cursors = RateLimit(limits.cursors_per_second, limits.cursors_burst, clock)
        self.unproven = 0
        self.open: dict[Stream, None] = {}
        self.is_draining = False
        self.all_ended = asyncio.Event()
        self._addresses = parts.config.proxy.build_addresses()
        self._connects = RateLimit(limits.connects_per_second, limits.connects_burst, clock)

    def admit(self, scope: Mapping[str, Any], socket: Socket) -> Stream:
        """Who talks on a new socket. scope: `path`, `headers`, `client`. Raises: CurbsideError."""
        config = self.parts.config
        if scope["path"] != PATH:
            raise PolicyDenied(rule="R-stream", reason="path")
        if self.is_draining:
            raise StoreUnavailable("the server restarts")
        origin = find_origin(scope, config.public_urls)
        if is_foreign(scope, config.public_urls):
            raise PolicyDenied(rule="R-stream", reason="foreign_origin")
        self._connects.take(self._addresses.find(scope))
        if self.unproven >= config.limits.unproven_streams or len(self.open) >= config.limits.streams:
            raise TooMany(retry_after=5)
        return Stream(self, socket, origin)

    async def drain(self, seconds: float, spread_seconds: float = 0.0) -> None:
        """Take no new streams, tell the open ones to come back elsewhere or later, and wait for them to end.

        What was read before is answered first, as far as the time allows. spread_seconds: over which many are told, so
        that they do not all come back at once.
        """
        self.is_draining = True
        streams = tuple(self.open)
        at_once = max(LEAVING_AT_ONCE, math.ceil(len(streams) * LEAVE_TICK / max(spread_seconds, LEAVE_TICK)))
        for number, stream in enumerate(streams, 1):
            stream.leave()
            if spread_seconds and number % at_once == 0 and number < len(streams):
                await asyncio.sleep(LEAVE_TICK)
        await self._wait_for_ends(seconds * LEAVE_PART)
        for stream in tuple(self.open):
            stream.leave_now()
        await self._wait_for_ends(seconds * (1 - LEAVE_PART))
        for stream in tuple(self.open):
            stream.abort()
        await self._wait_for_ends(seconds)

    async def _wait_for_ends(self, seconds: float) -> None:
        if self.open:
            self.all_ended.clear()
            try:
                await asyncio.wait_for(self.all_ended.wait(), seconds)
            except TimeoutError:
                return

    def end_expired(self) -> None:
        """Close the streams whose session is over."""
        now = self.parts.clock.now()
        for listener in self.parts.fanout.list_listeners():
            if isinstance(listener, Connection) and now >= listener.expires_at:
                listener.end(NotAuthenticated())


class Stream:
    """Implements Speaker: one device's stream, from the challenge to its end."""

    __slots__ = ("_connection", "_endpoint", "_failure", "_nonce", "_origin", "_socket", "_task", "_timer")

    def __init__(self, endpoint: StreamEndpoint, socket: Socket, origin: str) -> None:
        self._endpoint = endpoint
        self._socket = socket
        self._origin = origin
        self._nonce = b""
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: CurbsideError | None = None

    # --- Speaker --------------------------------------------------------------------------------

    def opened(self) -> None:
        endpoint, parts = self._endpoint, self._endpoint.parts
        endpoint.open[self] = None
        endpoint.unproven += 1
        self._nonce = random_bytes(32)
        self._timer = asyncio.get_running_loop().call_later(parts.config.limits.handshake_seconds, self._be_late)
        self._write(Challenge(self._nonce, parts.clock.now_ms(), PROTOCOL))

    def received(self, message: bytes | None) -> None:
        try:
            if message is None:
                raise Malformed("frames are binary")
            if self._connection is None:
                self._begin(_decode(message))
            else:
                self._take(self._connection, message)
        except Exception as error:  # noqa: BLE001  a mistake of ours ends this stream, and no other
            self._fail(error)

    def writable(self) -> None:
        if self._connection is not None:
            self._connection.writable()

    def lost(self) -> None:
        endpoint, parts = self._endpoint, self._endpoint.parts
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        connection, self._connection = self._connection, None
        if connection is None:
            endpoint.unproven -= 1
        else:
            connection.lost()
            parts.metrics.streams.dec()
            parts.fanout.forget(connection, connection.list_subscribed())
        del endpoint.open[self]
        if not endpoint.open:
            endpoint.all_ended.set()
        parts.log.info(LogEvent.STREAM_CLOSED, code=find_code(self._failure))

    # --- endings --------------------------------------------------------------------------------

    def leave(self) -> None:
        """The server restarts: end once what is in flight is answered."""
        if self._connection is None:
            self._end(StoreUnavailable("the server restarts"))
        else:
            self._connection.leave(_DRAINING)

    def leave_now(self) -> None:
        """The server restarts, and there is no more time."""
        if self._connection is not None:
            self._connection.close_with(_DRAINING)

    def abort(self) -> None:
        """End it without a word."""
        self._socket.abort()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, CurbsideError):
            self._end(error)
        else:
            self._endpoint.parts.log.error(LogEvent.STREAM_FAILED, code=find_code(error), place=find_place(error))
            self._end(UsageError())

    def _end(self, error: CurbsideError) -> None:
        self._failure = error
        if self._connection is not None:
            self._connection.end(error)
        else:
            closing = build_closing(error)
            self._write(closing)
            self._socket.close(choose_code(closing), closing.code)

    def _be_late(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._end(NotAuthenticated("no proof in time"))

    # --- what takes time --------------------------------------------------------------------------

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        """Read no further until this is done."""
        self._socket.hold(Hold.WORK)
        self._task = asyncio.create_task(self._finish(work), name="stream-work")

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  as in `received`
            self._fail(error)
        finally:
            self._task = None
            self._socket.release(Hold.WORK)

    def _begin(self, frame: ClientFrame) -> None:
        if not isinstance(frame, Authenticate) or frame.protocol != PROTOCOL:
            raise Malformed("the first frame is Authenticate, of this protocol")
        self._work(self._prove(frame))

    async def _prove(self, frame: Authenticate) -> None:
        proved = ProvedRequest("GET", self._origin + PATH, frame.token, frame.proof, self._nonce)
        session = await self._endpoint.parts.sessions.authenticate(proved)
        if self._endpoint.is_draining:
            raise StoreUnavailable("the server restarts")
        self._accept(session)

    def _accept(self, session: Authenticated) -> None:
        endpoint, parts = self._endpoint, self._endpoint.parts
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        subject = session.subject
        self._write(Ready(subject.user_id, subject.device_id, session.expires_at))
        self._socket.allow(sizes.FRAME_BYTES)
        self._connection = Connection(session, endpoint.connection_parts, self._socket, self._fail)
        endpoint.unproven -= 1
        former = parts.fanout.register(self._connection)
        if former is not None:
            former.replace()
        parts.metrics.streams.inc()
        parts.log.info(LogEvent.STREAM_OPENED, device=show_id(subject.device_id))

    # --- frames -----------------------------------------------------------------------------------

    def _take(self, connection: Connection, message: bytes) -> None:
        endpoint, parts = self._endpoint, self._endpoint.parts
        now = parts.clock.now()
        if now >= connection.expires_at:
            raise NotAuthenticated
        frame = _decode(message)
        device_id = connection.subject.device_id
        parts.sessions.see(device_id, now)
        match frame:
            case Send():
                try:
                    endpoint.sends.take(device_id)
                    connection.count_send()
                    parts.delivery.submit(connection.subject, frame, connection)
                except TooMany as error:
                    connection.refuse(frame.request, error)
            case Sync():
                self._check_cursors(connection, frame.cursors)
                connection.sync(frame)
            case Acknowledge():
                self._check_cursors(connection, frame.cursors)
                self._work(parts.delivery.acknowledge(device_id, frame.cursors, frame.queue))
            case Signal():
                parts.presence.take(connection, frame)
            case Authenticate():
                raise Malformed("this connection is authenticated already")

    def _check_cursors(self, connection: Connection, cursors: dict[str, int]) -> None:
        self._endpoint.frames.take(connection.subject.device_id)
        if len(cursors) > sizes.CURSORS_PER_SYNC:
            raise TooLarge(limit=sizes.CURSORS_PER_SYNC)
        self._endpoint.cursors.take(connection.subject.device_id, len(cursors))
        if any(sequence < 0 for sequence in cursors.values()):
            raise Malformed("a cursor is below zero")

    def _write(self, frame: Challenge | Ready | Closing) -> None:
        self._socket.write((_encoder.encode(frame),))


_DRAINING: Final = Closing("draining", "the server restarts", 1000)


def _decode(data: bytes) -> ClientFrame:
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Malformed("not a frame of this protocol") from None
