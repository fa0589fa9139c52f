"""Messages in flight: sends them, and knows when each one is acknowledged and has reached everybody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.target import Conversation, Target
from bench.wire import RawStream, make_envelope
from curbside.crypto.random import random_bytes
from curbside.wire import frames

WARM_UP_SECONDS = 0.5
WAIT = 60.0


@dataclass(frozen=True)
class Rates:
    """What a load came to. spans: milliseconds from send to acknowledged and delivered, sorted.

    cpu_us: processor time of the server for each message.
    """

    messages: int
    seconds: float
    spans: Sequence[float]
    cpu_us: float

    @property
    def per_second(self) -> float:
        """Messages acknowledged and delivered to everybody."""
        return self.messages / self.seconds

    def span(self, part: float) -> float:
        """A percentile of the spans, milliseconds."""
        return self.spans[min(len(self.spans) - 1, int(len(self.spans) * part))]


@dataclass(slots=True)
class _Flight:
    """A message on its way. left: answers that are still to come, the acknowledgement and one for each receiver."""

    lane: Lane
    message_id: bytes
    began: float
    left: int


class Lane:
    """One conversation: its founder sends, the others listen."""

    def __init__(self, conversation: Conversation, streams: Sequence[RawStream], load: Load) -> None:
        self._conversation = conversation
        self._load = load
        self._sender = streams[0]
        self._answers = len(streams)
        self._flights: dict[int, _Flight] = {}
        self._request = 0
        self._prefix = random_bytes(8)
        pattern = make_envelope(conversation.group_id, bytes(16), conversation.epoch)
        self._head, _, self._tail = pattern.partition(b"\x10" + bytes(16))
        streams[0].on_frame = self._heard
        for stream in streams[1:]:
            stream.on_frame = load.arrived

    def send(self, began: float) -> None:
        """Put one more message on its way. began: when it was due, on the performance counter."""
        self._request += 1
        message_id = self._prefix + self._request.to_bytes(8, "big")
        envelope = b"".join((self._head, b"\x10", message_id, self._tail))
        flight = _Flight(self, message_id, began, self._answers)
        self._flights[self._request] = self._load.flights[message_id] = flight
        conversation = self._conversation
        self._sender.send(frames.Send(self._request, conversation.id, message_id, conversation.epoch, envelope))

    def _heard(self, frame: Any) -> None:
        if isinstance(frame, frames.Stored):
            for item in frame.items:
                self._load.answered(self._flights.pop(item.request))
        elif isinstance(frame, frames.Refused | frames.Closing):
            self._load.fail(f"the server refused: {frame.code} {frame.detail}")


@dataclass
class Load:
    """All lanes of one target. landed: called with a message's lane when everybody has it."""

    flights: dict[bytes, _Flight] = field(default_factory=dict)
    spans: list[float] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    _landed: Callable[[Lane], None] = field(default=lambda _: None)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _in_flight: int = 0
    _failure: str = ""

    @classmethod
    async def open(cls, target: Target, *, listening: bool = True) -> Load:
        """Connect everybody in the target's conversations; listening False: only the founders."""
        load, streams = cls(), dict[int, RawStream]()
        for conversation in target.conversations:
            members = conversation.members if listening else conversation.members[:1]
            for place in members:
                if place not in streams:
                    streams[place] = await target.connect(place)
                await streams[place].sync({conversation.id: conversation.begun})
            load.lanes.append(Lane(conversation, [streams[place] for place in members], load))
        return load

    # --- what the streams tell ------------------------------------------------------------------

    def arrived(self, frame: Any) -> None:
        """A receiver's frame."""
        if isinstance(frame, frames.Entries):
            for entry in frame.items:
                flight = self.flights.get(entry.message_id)
                if flight is not None:
                    self.answered(flight)

    def answered(self, flight: _Flight) -> None:
        """One of the answers to a message is here."""
        flight.left -= 1
        if flight.left == 0:
            del self.flights[flight.message_id]
            self.spans.append((time.perf_counter() - flight.began) * 1000)
            self._in_flight -= 1
            self._landed(flight.lane)
            if not self._in_flight:
                self._idle.set()

    def fail(self, why: str) -> None:
        """A message will never land."""
        self._failure = why
        self._idle.set()

    # --- loads ------------------------------------------------------------------------------------

    def _send(self, lane: Lane, began: float) -> None:
        self._in_flight += 1
        self._idle.clear()
        lane.send(began)

    async def _settle(self) -> None:
        """Until everything has landed. Raises: RuntimeError when something was refused."""
        if self._in_flight:
            await asyncio.wait_for(self._idle.wait(), WAIT)
        if self._failure:
            raise RuntimeError(self._failure)

    async def run_closed(self, target: Target, in_flight: int, seconds: float) -> Rates:
        """Each lane keeps `in_flight` messages on their way, for this long after a warm-up."""
        self._landed = lambda lane: self._send(lane, time.perf_counter())
        for lane in self.lanes:
            for _ in range(in_flight):
                self._send(lane, time.perf_counter())
        await asyncio.sleep(min(WARM_UP_SECONDS, seconds))
        self.spans = []
        began, processor = time.perf_counter(), target.server.cpu_seconds()
        await asyncio.sleep(seconds)
        took, spans = time.perf_counter() - began, sorted(self.spans)
        processor = target.server.cpu_seconds() - processor
        self._landed = lambda _: None
        await self._settle()
        if not spans:
            raise RuntimeError("no message landed")
        return Rates(len(spans), took, spans, processor * 1e6 / len(spans))

    async def run_open(self, target: Target, per_second: float, seconds: float) -> Rates:
        """Messages at fixed times, whatever becomes of the ones before; the lanes take turns."""
        self._landed = lambda _: None
        self.spans = []
        began, processor = time.perf_counter(), target.server.cpu_seconds()
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._send(self.lanes[number % len(self.lanes)], due)
        await self._settle()
        took, spans = time.perf_counter() - began, sorted(self.spans)
        return Rates(len(spans), took, spans, (target.server.cpu_seconds() - processor) * 1e6 / len(spans))

    async def fill(self, count: int) -> None:
        """`count` messages on each lane, all at once."""
        self._landed = lambda _: None
        for lane in self.lanes:
            for _ in range(count):
                self._send(lane, time.perf_counter())
        await self._settle()
