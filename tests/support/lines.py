"""A network that can be cut and overheard: a TCP proxy between one person and the server, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass, field

WAIT = 20.0
PIECE = 64 * 1024


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Overheard:
    """The bytes of one connection, both ways."""

    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


class Line:
    """One person's line to the server: listens on a port of its own, passes bytes on, keeps them when asked to."""

    def __init__(self, *, keeps: bool = False) -> None:
        self.port = free_port()
        self.origin = f"http://localhost:{self.port}"
        self.overheard: list[Overheard] = []
        self._keeps = keeps
        self._upstream = 0
        self._is_cut = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)
        self._server: asyncio.Server

    def start(self, upstream: int) -> None:
        """Begin to listen; `upstream` is the server's port on this machine."""
        self._upstream = upstream
        self._thread.start()
        self._call(self._listen())

    def cut(self) -> None:
        """Every connection ends in the middle of whatever it was saying; new ones are refused."""
        self._is_cut = True
        self._call(self._drop())

    def stall(self) -> None:
        """Nothing gets through and nobody hears why: connections stay open, as when a cable is pulled."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def mend(self) -> None:
        """Connections are accepted again; what was held up goes on."""
        self._is_cut = False
        self._loop.call_soon_threadsafe(self._flows.set)

    def close(self) -> None:
        """Hang up for good."""
        self._is_cut = True
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _drop(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        await self._drop()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if not self._is_cut:
                await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # an end of the line went away: the other is closed below
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._open.add(far_writer)
        heard = Overheard()
        self.overheard.append(heard)
        try:
            ways = [self._pass(reader, far_writer, heard.up), self._pass(far_reader, writer, heard.down)]
            await asyncio.gather(*ways)
        finally:
            self._open.discard(far_writer)
            far_writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
        while piece := await reader.read(PIECE):
            if self._keeps:
                kept += piece
            await self._flows.wait()
            writer.write(piece)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
