"""A network without sockets: HTTP and the stream go straight into the ASGI application, unless the weather is bad."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import httpx

from curbside.errors import PeerUnavailable


class Weather:
    """What the network does to one device. cut: no connection works. lose_answers: requests arrive, answers do not."""

    def __init__(self) -> None:
        self.cut = False
        self.lose_answers = False


class AsgiNetwork:
    """Implements `curbside.client.network.Network` over one application."""

    def __init__(self, app: Any, weather: Weather | None = None) -> None:
        self._app = app
        self.weather = weather or Weather()

    def open_http(self, origin: str) -> httpx.AsyncClient:
        inner = httpx.ASGITransport(app=self._app, client=("127.0.0.1", 40000))
        return httpx.AsyncClient(base_url=origin, transport=_WeatheredTransport(inner, self.weather))

    async def open_socket(self, url: str) -> AsgiSocket:
        if self.weather.cut:
            raise PeerUnavailable
        socket = AsgiSocket(self._app, url)
        await socket.connect()
        return socket


class _WeatheredTransport(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.ASGITransport, weather: Weather) -> None:
        self._inner = inner
        self._weather = weather

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._weather.cut:
            raise httpx.ConnectError("cut")
        response = await self._inner.handle_async_request(request)
        if self._weather.lose_answers:
            raise httpx.ReadError("the answer was lost")
        return response


class AsgiSocket:
    """The client's side of one WebSocket, spoken in ASGI events."""

    def __init__(self, app: Any, url: str) -> None:
        parts = urlsplit(url)
        self._scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": parts.scheme,
            "server": (parts.hostname, parts.port),
            "client": ("127.0.0.1", 40000),
            "root_path": "",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": b"",
            "headers": [(b"host", parts.netloc.encode())],
            "subprotocols": [],
            "state": {},
            "extensions": {},
        }
        self._app = app
        self._up: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._down: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._coming: asyncio.Future[dict[str, Any]] | None = None
        self._closed = False

    async def connect(self) -> None:
        """Open. Raises: PeerUnavailable when the application refuses."""
        self._up.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.create_task(self._app(self._scope, self._up.get, self._down.put))
        event = await self._next()
        if event["type"] != "websocket.accept":
            raise PeerUnavailable("the application refused the connection")

    async def _next(self) -> dict[str, Any]:
        """The next event; a caller that gives up waiting loses none."""
        assert self._task is not None
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._down.get())
        both: set[asyncio.Future[Any]] = {self._coming, self._task}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self._coming.done():
            coming, self._coming = self._coming, None
            return coming.result()
        self._coming.cancel()
        self._task.result()
        raise PeerUnavailable

    async def send(self, data: bytes) -> None:
        if self._closed:
            raise PeerUnavailable
        self._up.put_nowait({"type": "websocket.receive", "bytes": data})

    async def receive(self) -> bytes:
        if self._closed:
            raise PeerUnavailable
        event = await self._next()
        if event["type"] != "websocket.send":
            raise PeerUnavailable
        data = event["bytes"]
        assert isinstance(data, bytes)
        return data

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._up.put_nowait({"type": "websocket.disconnect", "code": 1001})
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=5)
            self._task.cancel()
        if self._coming is not None:
            self._coming.cancel()
