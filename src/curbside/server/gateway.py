"""The gateway: what every HTTP request passes, whatever answers it.

Request id, size and time limits, host and origin checks, rates, security headers, problems for what goes wrong, one log
line. Then the web client's files, or the routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from structlog.typing import FilteringBoundLogger

from curbside.clock import Clock
from curbside.crypto.random import random_bytes
from curbside.errors import (
    CurbsideError,
    Malformed,
    NotFound,
    PolicyDenied,
    StoreUnavailable,
    TooLarge,
    TooMany,
    UsageError,
)
from curbside.ids import encode_base64url
from curbside.server.config import Config
from curbside.server.headers import Headers, build_security_headers
from curbside.server.limits import RateLimit
from curbside.server.logs import LogEvent, Method, find_code, find_place, show_id
from curbside.server.metrics import Metrics
from curbside.server.metrics_access import MetricsAccess
from curbside.server.origins import find_header, find_origin, is_foreign
from curbside.server.problems import encode_problem
from curbside.server.sessions import hash_token
from curbside.server.tracing import (
    NO_TRACING,
    UNMATCHED,
    Attribute,
    RequestId,
    Route,
    Span,
    SpanName,
    Tracing,
    find_parent,
    find_route,
)
from curbside.server.turned_away import TurnedAway
from curbside.server.web import WebClient
from curbside.wire import limits as sizes

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

API: Final = "/v1/"
METRICS: Final = "/metrics"
HEALTH: Final = "/v1/health/"
DISCARDED_BYTES: Final = 16 * 1024 * 1024
HANDLER_SECONDS: Final = 120.0
_ATTEMPTS: Final = ("/v1/signin/", "/v1/signup/", "/v1/invites")
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NO_STORE: Final = (b"cache-control", b"no-store")
_WEB: Final = Route("web")
_METRICS: Final = Route(METRICS)
_STATUSES: Final = frozenset(HTTPStatus)


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """What the gateway is wired to."""

    config: Config
    web: WebClient
    clock: Clock
    metrics: Metrics
    log: FilteringBoundLogger
    tracing: Tracing = NO_TRACING


class Gateway:
    """Calls `routes` for the API once they are there; until then it answers store_unavailable.

    look: brings the gauges up to date before they are shown. templates: of the routes, which alone are named in counts
    and traces; a path never is.
    """

    def __init__(self, parts: GatewayParts) -> None:
        self._parts = parts
        limits, clock = parts.config.limits, parts.clock
        self._addresses = parts.config.proxy.build_addresses()
        self._metrics_access = MetricsAccess(parts.config, self._addresses)
        self._requests = RateLimit(limits.requests_per_second, limits.requests_burst, clock)
        self._attempts = RateLimit(limits.attempts_per_second, limits.attempts_burst, clock)
        self._security = build_security_headers(
            parts.config.public_urls, parts.config.is_https, parts.config.blobs.links_origin
        )
        self.turned_away = TurnedAway(clock, parts.metrics)
        self.routes: App | None = None
        self.templates: frozenset[str] = frozenset()
        self.look: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(encode_base64url(random_bytes(16)), send, self._security, scope["path"].startswith(API))
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        tracing = self._parts.tracing
        parent = find_parent(scope) if tracing.is_on and self._addresses.is_from_proxy(scope) else ""
        with tracing.span(SpanName.REQUEST, parent) as span:
            await self._serve(scope, receive, exchange, span)

    async def _serve(self, scope: Scope, receive: Receive, exchange: _Exchange, span: Span) -> None:
        began = time.perf_counter()
        failure: BaseException | None = None
        try:
            async with asyncio.timeout(HANDLER_SECONDS):
                await self._answer(scope, self._limit_body(receive, exchange), exchange)
        except CurbsideError as error:
            failure = error
            self.turned_away.count(error)
            await exchange.send_problem(error)
        except TimeoutError as error:
            failure = error
            await exchange.send_problem(StoreUnavailable())
        except Exception as error:  # noqa: BLE001 - the last place that can still answer; the cause is never told
            failure = error
            self._parts.log.error(
                LogEvent.REQUEST_FAILED, place=find_place(error), request=show_id(exchange.request_id)
            )
            await exchange.send_problem(UsageError())
        finally:
            self._count(scope, exchange)
            self._tell(scope, exchange, failure, time.perf_counter() - began, span)

    def _tell(
        self, scope: Scope, exchange: _Exchange, failure: BaseException | None, seconds: float, span: Span
    ) -> None:
        """How it ended: to the counts, the log and the trace."""
        metrics, method = self._parts.metrics, _word(scope["method"])
        route = exchange.route if exchange.route is not UNMATCHED else find_route(scope, self.templates)
        metrics.requests.labels(route, _name_status(exchange.status)).inc()
        metrics.request_seconds.observe(seconds)
        if failure is not None:
            span.put(Attribute.CODE, find_code(failure))
            if exchange.status >= 500:
                span.fail(failure)
        span.put(Attribute.METHOD, method)
        span.put(Attribute.ROUTE, route)
        span.put(Attribute.STATUS, exchange.status)
        span.put(Attribute.REQUEST, RequestId(exchange.request_id))
        self._parts.log.info(
            LogEvent.REQUEST,
            method=method,
            status=exchange.status,
            code=find_code(failure),
            ms=round(seconds * 1000, 1),
            request=show_id(exchange.request_id),
        )

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        config, path = self._parts.config, scope["path"]
        if path == METRICS and self._metrics_access.is_allowed(scope):
            exchange.route = _METRICS
            if self.look is not None:
                await self.look()
            shown = self._parts.metrics.render()
            await exchange.send_whole(200, [(b"content-type", b"text/plain; version=0.0.4")], shown)
            return
        if not path.startswith(HEALTH):
            find_origin(scope, config.public_urls)
        if path.startswith(API):
            try:
                self._check_api(scope)
            except TooLarge:
                exchange.must_close = True
                await discard_body(receive, config.limits.idle_seconds)
                raise
            if self.routes is None:
                raise StoreUnavailable("the server starts")
            await self.routes(scope, receive, exchange.send)
            return
        answer = self._parts.web.find(scope) if scope["method"] in ("GET", "HEAD") else None
        if answer is None:
            raise NotFound
        exchange.route = _WEB
        await exchange.send_whole(answer.status, answer.headers, answer.body)

    def _check_api(self, scope: Scope) -> None:
        """Raises: PolicyDenied, TooLarge, TooMany."""
        if scope["method"] not in _SAFE and is_foreign(scope, self._parts.config.public_urls):
            raise PolicyDenied(rule="R-web", reason="foreign_origin")
        length = find_header(scope, b"content-length")
        if length is not None and length.isdecimal() and int(length) > sizes.BODY_BYTES:
            raise TooLarge(limit=sizes.BODY_BYTES)
        address, token = self._addresses.find(scope), find_header(scope, b"authorization")
        if scope["path"].startswith(_ATTEMPTS) and scope["method"] != "HEAD":
            self._attempts.take(address)
        if token is None:
            self._requests.take(address)
        else:  # a session has its own budget; tokens that are none are counted on the address, see _count
            self._requests.check(address)
            self._requests.take("token " + hash_token(token).hex())  # as long as a peer likes, and kept

    def _count(self, scope: Scope, exchange: _Exchange) -> None:
        """Made-up tokens cost the address that showed them."""
        if exchange.status == 401 and find_token(scope) is not None:
            try:
                self._requests.take(self._addresses.find(scope))
            except TooMany:
                return

    def _limit_body(self, receive: Receive, exchange: _Exchange) -> Receive:
        """A body within its limit, each part of it in time. Past either, the connection is of no more use."""
        seconds = self._parts.config.limits.idle_seconds
        held, is_whole = 0, False

        async def limited() -> Event:
            nonlocal held, is_whole
            if is_whole:
                return await receive()  # the disconnect, whenever it comes
            try:
                event = await asyncio.wait_for(receive(), seconds)
            except TimeoutError:
                exchange.must_close = True
                raise Malformed("the rest of the request did not come in time") from None
            held += len(event.get("body", b""))
            is_whole = not event.get("more_body", False)
            if held > sizes.BODY_BYTES:
                exchange.must_close = True
                if not is_whole:
                    await discard_body(receive, seconds)
                raise TooLarge(limit=sizes.BODY_BYTES)
            return event

        return limited


async def discard_body(receive: Receive, seconds: float) -> None:
    """Read on without keeping anything, within bounds: a peer that still sends would not hear the answer."""
    left = DISCARDED_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while left > 0:
                event = await receive()
                left -= len(event.get("body", b""))
                if not event.get("more_body", False):
                    return


def find_token(scope: Scope) -> str | None:
    """The Authorization header; None also when it is there twice."""
    try:
        return find_header(scope, b"authorization")
    except Malformed:
        return None


class _Exchange:
    """One response: adds the headers that none goes without, and remembers how far it is."""

    def __init__(self, request_id: str, send: Send, security: Headers, is_api: bool) -> None:
        self.request_id = request_id
        self.status = 0
        self.route = UNMATCHED
        self.must_close = False
        self._send = send
        self._security = security
        self._is_api = is_api
        self._is_started = False

    async def send(self, event: Event) -> None:
        if event["type"] == "http.response.start":
            self._is_started = True
            self.status = event["status"]
            event = {**event, "headers": self._complete(list(event.get("headers", [])))}
        await self._send(event)

    async def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def send_problem(self, error: CurbsideError) -> None:
        """Answer with a problem, if nothing was answered yet; else the connection is cut by the server."""
        if self._is_started:
            return
        status, headers, body = encode_problem(error, self.request_id)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send_whole(status, [*raw, (b"content-length", str(len(body)).encode())], body)

    def _complete(self, headers: Headers) -> Headers:
        own = {name.lower() for name, _ in self._security}
        kept = [(name, value) for name, value in headers if name.lower() not in own]
        if self._is_api and b"cache-control" not in {name.lower() for name, _ in kept}:
            kept.append(_NO_STORE)
        if self.must_close:
            kept.append((b"connection", b"close"))
        return [*kept, *self._security, (b"x-request-id", self.request_id.encode())]


def _name_status(status: int) -> str:
    return str(status) if status in _STATUSES else "none"


def _word(method: str) -> Method:
    return Method(method) if method in Method.__members__ else Method.OTHER
