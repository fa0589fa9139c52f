"""Network: how a device reaches its server. The real one uses sockets; a simulation brings its own."""

from __future__ import annotations

import ssl
from typing import Protocol

import httpx
import websockets.asyncio.client as websocket
from websockets.exceptions import ConnectionClosed, WebSocketException

from curbside.errors import Malformed, PeerUnavailable
from curbside.wire import limits

REQUEST_SECONDS = 20.0
CONNECT_SECONDS = 10.0


class Socket(Protocol):
    """A WebSocket of binary frames."""

    async def send(self, data: bytes) -> None:
        """Send one frame. Raises: PeerUnavailable."""

    async def receive(self) -> bytes:
        """The next frame. Raises: PeerUnavailable (closed), Malformed (a text frame)."""
        ...

    async def close(self) -> None:
        """Close; harmless when it is closed."""


class Network(Protocol):
    """Opens connections to a server."""

    def open_http(self, origin: str) -> httpx.AsyncClient:
        """A client whose requests go to `origin`."""
        ...

    async def open_socket(self, url: str) -> Socket:
        """A WebSocket. Raises: PeerUnavailable."""
        ...


class Internet:
    """The real network. trusted: a certificate (PEM file) to trust besides the system's."""

    def __init__(self, trusted: str = "") -> None:
        self._context = ssl.create_default_context()
        if trusted:
            self._context.load_verify_locations(trusted)

    def open_http(self, origin: str) -> httpx.AsyncClient:
        timeout = httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS)
        return httpx.AsyncClient(base_url=origin, timeout=timeout, verify=self._context)

    async def open_socket(self, url: str) -> Socket:
        try:
            connection = await websocket.connect(
                url,
                max_size=limits.FRAME_BYTES,
                compression=None,
                open_timeout=CONNECT_SECONDS,
                proxy=None,
                ssl=self._context if url.startswith("wss:") else None,
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            raise PeerUnavailable() from error
        return _InternetSocket(connection)


class _InternetSocket:
    def __init__(self, connection: websocket.ClientConnection) -> None:
        self._connection = connection

    async def send(self, data: bytes) -> None:
        try:
            await self._connection.send(data)
        except (ConnectionClosed, OSError) as error:
            raise PeerUnavailable() from error

    async def receive(self) -> bytes:
        try:
            data = await self._connection.recv()
        except (ConnectionClosed, OSError) as error:
            raise PeerUnavailable() from error
        if isinstance(data, str):
            raise Malformed("the stream carries binary frames only")
        return data

    async def close(self) -> None:
        await self._connection.close()
