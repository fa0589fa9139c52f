"""The reference: a bare WebSocket relay that speaks the same frames and makes each message durable before it answers.

    python -m bench.relay PORT FOLDER

No log-in, no rights, no duplicates, no audit, no encryption at rest: an append to a file and one fdatasync for all
messages that wait. It runs on uvicorn's WebSocket layer, which costs more than the server's own (docs/adr/0013).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from curbside.wire import frames, limits

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[frames.ClientFrame] = msgspec.msgpack.Decoder(frames.ClientFrame)


class Relay:
    """ASGI application: /v1/health/ready and /v1/stream."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "relay.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._logs: dict[str, list[frames.Entry]] = defaultdict(list)
        self._listeners: dict[str, set[Peer]] = defaultdict(set)
        self._waiting: list[tuple[Peer, frames.Send]] = []
        self._wake = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        elif scope["type"] == "websocket":
            await self._serve(receive, send)

    async def _serve(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": _encoder.encode(frames.Challenge(bytes(32), 0, 1))})
        await receive()
        await send({"type": "websocket.send", "bytes": _encoder.encode(frames.Ready("", "", 0))})
        peer = Peer(send)
        pump = asyncio.create_task(peer.pump())
        try:
            while (event := await receive())["type"] == "websocket.receive":
                self._take(peer, _decoder.decode(event["bytes"]))
        finally:
            pump.cancel()
            for listeners in self._listeners.values():
                listeners.discard(peer)

    def _take(self, peer: Peer, frame: frames.ClientFrame) -> None:
        if isinstance(frame, frames.Send):
            self._waiting.append((peer, frame))
            self._wake.set()
        elif isinstance(frame, frames.Sync):
            for name, cursor in frame.cursors.items():
                self._listeners[name].add(peer)
                peer.entries += self._logs[name][cursor:]
            peer.is_caught_up = True
            peer.wake.set()

    async def work(self) -> None:
        """Append what waits, make it durable, answer and deliver; for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            await loop.run_in_executor(None, self._append, [send.envelope for _, send in batch])
            now = int(time.time() * 1000)
            for peer, sent in batch:
                log = self._logs[sent.conversation]
                entry = frames.Entry(sent.conversation, len(log) + 1, 0, sent.message_id, now, sent.envelope)
                log.append(entry)
                peer.stored.append(frames.StoredItem(sent.request, entry.sequence, now))
                peer.wake.set()
                for listener in self._listeners[sent.conversation]:
                    if listener is not peer:
                        listener.entries.append(entry)
                        listener.wake.set()

    def _append(self, envelopes: list[bytes]) -> None:
        os.write(self._file, b"".join(envelopes))
        os.fdatasync(self._file)


class Peer:
    """One connection: what waits to be sent, joined into as few frames as it goes."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self.wake = asyncio.Event()
        self.stored: list[frames.StoredItem] = []
        self.entries: list[frames.Entry] = []
        self.is_caught_up = False

    async def pump(self) -> None:
        """Send until cancelled."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            if self.stored:
                items, self.stored = self.stored, []
                await self._emit(frames.Stored(items))
            while self.entries:
                part = self.entries[: limits.ENTRIES_PER_FRAME]
                del self.entries[: limits.ENTRIES_PER_FRAME]
                await self._emit(frames.Entries(part))
            if self.is_caught_up:
                self.is_caught_up = False
                await self._emit(frames.CaughtUp())

    async def _emit(self, frame: frames.ServerFrame) -> None:
        await self._send({"type": "websocket.send", "bytes": _encoder.encode(frame)})


async def serve(port: int, folder: Path) -> None:
    """Serve until SIGTERM."""
    relay = Relay(folder)
    config = uvicorn.Config(
        relay,
        host="127.0.0.1",
        port=port,
        ws="websockets-sansio",
        ws_max_size=limits.FRAME_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
    )
    work = asyncio.create_task(relay.work())
    await uvicorn.Server(config).serve()
    work.cancel()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
