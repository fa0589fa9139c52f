"""Flushing: every connection that got something in one turn of the event loop writes it once, after that turn.

A commit answers and delivers all its sends in one turn, so that each device hears of it in one write, and a message in
a group is joined into a frame once for all who get the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from curbside.server.fanout import PublishedEntry
from curbside.server.metrics import Metrics

_ENTRIES_HEAD: Final = b"\x92" + msgspec.msgpack.encode("entries") + b"\xdc"


class Flushed(Protocol):
    """A connection with something to write."""

    def flush(self) -> None:
        """Write it. Raises nothing."""
        ...


class Flusher:
    """One for all connections of an event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._due: list[Flushed] = []
        self._joined: tuple[Sequence[PublishedEntry], bytes] = ((), b"")
        self._delivered = 0

    def plan(self, connection: Flushed) -> None:
        """Flush it after this turn. To be called once until then."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._flush)
        self._due.append(connection)

    def join(self, entries: Sequence[PublishedEntry]) -> bytes:
        """An Entries frame of these; the same ones as last time cost nothing."""
        self._delivered += len(entries)
        former, frame = self._joined
        if entries != former:
            encoded = [entry.encoded for entry in entries]
            frame = b"".join((_ENTRIES_HEAD, len(encoded).to_bytes(2, "big"), *encoded))
            self._joined = (entries, frame)
        return frame

    def _flush(self) -> None:
        due, self._due = self._due, []
        for connection in due:
            connection.flush()
        self._joined = ((), b"")
        self._metrics.delivered.inc(self._delivered)
        self._delivered = 0
