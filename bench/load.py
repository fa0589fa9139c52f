"""Messages in flight: sends them, and knows when each one is acknowledged and has reached everybody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.process import SERVER_CORE, core_busy_seconds
from bench.target import Conversation, Target
from bench.wire import RawStream, make_envelope
from curbside.crypto.random import random_bytes
from curbside.wire import frames

WARM_UP_SECONDS = 0.5
WAIT = 60.0


@dataclass(frozen=True)
class Rates:
    """What a load came to. spans: milliseconds from send to acknowledged and delivered to everybody, sorted.

    server_us: processor time of the backend for each message. load_share: of its core, that the load generator used.
    others_share: of the server's core, that was used by neither (0 when nothing is pinned).
    """

    messages: int
    seconds: float
    spans: Sequence[float]
    server_us: float
    load_share: float
    others_share: float

    @property
    def per_second(self) -> float:
        """Messages acknowledged and delivered to everybody."""
        return self.messages / self.seconds

    def span(self, part: float) -> float:
        """A percentile of the spans, milliseconds."""
        return self.spans[min(len(self.spans) - 1, int(len(self.spans) * part))]


class Meter:
    """Processor time of the backend, of this process, and of everybody on the server's core, since it was made."""

    def __init__(self, target: Target, is_pinned: bool) -> None:
        self._target, self._is_pinned = target, is_pinned
        self._began = self._read()

    def _read(self) -> tuple[float, float, float, float]:
        busy = core_busy_seconds(SERVER_CORE) if self._is_pinned else 0.0
        return time.perf_counter(), self._target.cpu_seconds(), time.process_time(), busy

    def rates(self, spans: Sequence[float]) -> Rates:
        """What it came to until now."""
        wall, server, load, busy = (now - then for now, then in zip(self._read(), self._began, strict=True))
        if not spans:
            raise RuntimeError("no message landed")
        others = max(0.0, busy - server) / wall
        return Rates(len(spans), wall, sorted(spans), server * 1e6 / len(spans), load / wall, others)


@dataclass(slots=True)
class _Flight:
    """A message on its way. left: answers that are still to come, the acknowledgement and one for each receiver."""

    lane: Lane
    message_id: bytes
    began: float
    left: int


class Lane:
    """One conversation: its founder sends, or all members in turn; everybody else receives."""

    def __init__(self, conversation: Conversation, streams: Sequence[RawStream], load: Load, senders: int) -> None:
        self._conversation = conversation
        self._load = load
        self._senders = streams[:senders]
        self._next = 0
        self._answers = len(streams)
        pattern = make_envelope(conversation.group_id, bytes(16), conversation.epoch)
        self._head, _, self._tail = pattern.partition(b"\x10" + bytes(16))
        self._head += b"\x10"
        for stream in streams:
            stream.on_frame = load.heard

    def send(self, began: float) -> None:
        """Put one more message on its way. began: when it was due, on the performance counter."""
        load, conversation = self._load, self._conversation
        request, message_id = load.next_message()
        load.requests[request] = load.flights[message_id] = _Flight(self, message_id, began, self._answers)
        envelope = self._head + message_id + self._tail
        sender = self._senders[self._next]
        self._next = (self._next + 1) % len(self._senders)
        sender.send(frames.Send(request, conversation.id, message_id, conversation.epoch, envelope))


@dataclass
class Load:
    """All lanes of one target. count: messages sent so far."""

    target: Target
    is_pinned: bool = False
    flights: dict[bytes, _Flight] = field(default_factory=dict)
    requests: dict[int, _Flight] = field(default_factory=dict)
    spans: list[float] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    _landed: Callable[[Lane], None] = field(default=lambda _: None)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _prefix: bytes = field(default_factory=lambda: random_bytes(8))
    count: int = 0
    _failure: str = ""

    @classmethod
    async def open(
        cls, target: Target, *, is_pinned: bool = False, all_send: bool = False, listening: bool = True
    ) -> Load:
        """Connect everybody in the target's conversations; listening False: only the founders."""
        load, streams = cls(target, is_pinned), dict[int, RawStream]()
        for conversation in target.conversations:
            members = conversation.members if listening else conversation.members[:1]
            for place in members:
                if place not in streams:
                    streams[place] = await target.connect(place)
                await streams[place].sync({conversation.id: conversation.begun})
            senders = len(members) if all_send else 1
            load.lanes.append(Lane(conversation, [streams[place] for place in members], load, senders))
        return load

    def next_message(self) -> tuple[int, bytes]:
        """A request number and a message id that were not used yet."""
        self.count += 1
        return self.count, self._prefix + self.count.to_bytes(8, "big")

    # --- what the streams tell ------------------------------------------------------------------

    def heard(self, frame: Any) -> None:
        """A frame of the server, to whichever device."""
        if isinstance(frame, frames.Entries):
            for entry in frame.items:
                flight = self.flights.get(entry.message_id)
                if flight is not None:
                    self._answered(flight)
        elif isinstance(frame, frames.Stored):
            for item in frame.items:
                self._answered(self.requests.pop(item.request))
        elif isinstance(frame, frames.Refused | frames.Closing):
            self._failure = f"{self.target.name} refused: {frame.code} {frame.detail}"
            self._idle.set()

    def _answered(self, flight: _Flight) -> None:
        """One of the answers to a message is here."""
        flight.left -= 1
        if flight.left == 0:
            del self.flights[flight.message_id]
            self.spans.append((time.perf_counter() - flight.began) * 1000)
            self._landed(flight.lane)
            if not self.flights:
                self._idle.set()

    # --- loads ------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Until everything has landed. Raises: RuntimeError when something was refused."""
        self._idle.clear()
        if self.flights and not self._failure:
            await asyncio.wait_for(self._idle.wait(), WAIT)
        if self._failure:
            raise RuntimeError(self._failure)

    async def run_closed(self, in_flight: int, seconds: float) -> Rates:
        """Each lane keeps `in_flight` messages on their way, for this long after a warm-up."""
        self._landed = lambda lane: lane.send(time.perf_counter())
        for lane in self.lanes:
            for _ in range(in_flight):
                lane.send(time.perf_counter())
        await asyncio.sleep(min(WARM_UP_SECONDS, seconds))
        self.spans, meter = [], Meter(self.target, self.is_pinned)
        await asyncio.sleep(seconds)
        rates = meter.rates(self.spans)
        self._landed = lambda _: None
        await self._settle()
        return rates

    async def run_open(self, per_second: float, seconds: float) -> Rates:
        """Messages at fixed times, whatever becomes of the ones before; the lanes take turns."""
        self._landed = lambda _: None
        self.spans, meter = [], Meter(self.target, self.is_pinned)
        began = time.perf_counter()
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self.lanes[number % len(self.lanes)].send(due)
        await self._settle()
        return meter.rates(self.spans)

    async def fill(self, count: int) -> Rates:
        """`count` messages on each lane, all at once."""
        self._landed = lambda _: None
        self.spans, meter = [], Meter(self.target, self.is_pinned)
        for lane in self.lanes:
            for _ in range(count):
                lane.send(time.perf_counter())
        await self._settle()
        return meter.rates(self.spans)
