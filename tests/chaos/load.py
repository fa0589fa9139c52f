"""Load: senders on raw streams who never give up, and a reader of the log."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import msgspec
from ledger import Ledger
from running import Person, Running, Wire
from serving_process import ServingProcess
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from curbside.crypto.random import random_bytes
from curbside.ids import decode_base64url, encode_id
from curbside.mls.codec import u64, vector
from curbside.policy.validator import OrganizationValidator
from curbside.wire import bodies, frames

READ_SECONDS = 60.0
WINDOW = 24
"""Messages of one sender that wait for their answer."""
GONE = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, AssertionError)
"""How a server that was killed shows itself to a client; an answer of another kind is refused in `Wire.receive`."""


class Door:
    """What `running.Person` asks of a server, of a server in another process."""

    def __init__(self, server: ServingProcess) -> None:
        self.clock, self.url, self.authority = server.clock, server.url, server.authority
        raw = httpx.get(server.url + "/v1/organization").content
        sender = msgspec.json.decode(raw, type=bodies.Organization).external_sender
        self._validator = OrganizationValidator(server.authority.certificate.raw, decode_base64url(sender))

    def validator(self) -> OrganizationValidator:
        """What clients of this organisation check with."""
        return self._validator


@dataclass
class Sender:
    """Somebody who sends as fast as answers come, on whatever connection there is."""

    person: Person
    conversation: str
    epoch: int
    ledger: Ledger
    waiting: dict[int, bytes] = field(default_factory=dict)
    refusals: list[frames.Refused] = field(default_factory=list)
    closings: list[frames.Closing] = field(default_factory=list)
    envelopes: dict[bytes, bytes] = field(default_factory=dict)
    is_last: bool = False
    is_paused: bool = False
    _request: int = 0

    def envelope(self, message_id: bytes) -> bytes:
        """An envelope as a server sees it; the same for the same message."""
        if message_id not in self.envelopes:
            head = b"\x00\x01\x00\x02" + vector(decode_base64url(self.conversation)) + u64(self.epoch) + b"\x01"
            self.envelopes[message_id] = (
                head + vector(message_id) + vector(random_bytes(28)) + vector(random_bytes(900))
            )
        return self.envelopes[message_id]

    async def run(self) -> None:
        """Send until told that this is the last connection, then until everything is acknowledged."""
        while not (self.is_last and self._is_done()):
            try:
                await self._use_connection()
            except GONE:
                await asyncio.sleep(0.05)

    def _is_done(self) -> bool:
        return all(message_id in self.ledger.told for message_id in self.envelopes)

    async def _use_connection(self) -> None:
        wire = await Wire.open(self.person)
        try:
            if wire.closing is not None:
                raise ConnectionClosed(None, None)
            self.waiting.clear()
            for message_id in [m for m in self.envelopes if m not in self.ledger.told]:
                await self._send(wire, message_id)
            while not (self.is_last and not self.waiting):
                if self.is_paused and not self.waiting:
                    await asyncio.sleep(0.02)
                    continue
                while len(self.waiting) < WINDOW and not self.is_last and not self.is_paused:
                    message_id = random_bytes(16)
                    self.ledger.sent(message_id)
                    await self._send(wire, message_id)
                await self._take(wire, await wire.receive())
        except ConnectionClosed:
            await self._read_rest(wire)
            raise
        finally:
            self.person.wires.remove(wire)
            await wire.close()

    async def _read_rest(self, wire: Wire) -> None:
        """What had arrived before the connection was found to be closed."""
        with contextlib.suppress(*GONE):
            while True:
                frame = await wire.receive()
                if isinstance(frame, frames.Closing):
                    self.closings.append(frame)

    async def _send(self, wire: Wire, message_id: bytes) -> None:
        self._request += 1
        self.waiting[self._request] = message_id
        envelope = self.envelope(message_id)
        await wire.send(frames.Send(self._request, self.conversation, message_id, self.epoch, envelope))

    async def _take(self, wire: Wire, frame: Any) -> None:
        match frame:
            case frames.Stored():
                for item in frame.items:
                    self.ledger.stored(self.waiting.pop(item.request), item.sequence)
            case frames.Refused():
                self.refusals.append(frame)
                await asyncio.sleep(0.05)
                await self._send(wire, self.waiting.pop(frame.request))
            case frames.Closing():
                self.closings.append(frame)
                raise ConnectionClosed(None, None)


@dataclass
class Load:
    """Some senders in one conversation, and somebody who only reads. first: sequence of the first message."""

    server: ServingProcess
    senders: list[Sender]
    reader: Person
    first: int
    ledger: Ledger

    @classmethod
    async def begin(cls, server: ServingProcess, count: int = 3) -> Load:
        """People who share a conversation."""
        door = cast("Running", Door(server))
        people = [await Person.join(door, f"Person {number}") for number in range(count + 1)]
        group = await people[0].begin()
        appended = await people[0].add(group, *people[1:])
        name, ledger = encode_id(group.group_id), Ledger()
        senders = [Sender(person, name, group.epoch, ledger) for person in people[1:]]
        return cls(server, senders, people[0], appended.sequence + 1, ledger)

    async def read_log(self) -> list[tuple[int, bytes]]:
        """The whole log as a member reads it, as soon as there is a server that shows it."""
        deadline = asyncio.get_running_loop().time() + READ_SECONDS
        while True:
            try:
                return await self._read_once()
            except GONE:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def _read_once(self) -> list[tuple[int, bytes]]:
        wire = await Wire.open(self.reader)
        try:
            found = await wire.sync({self.senders[0].conversation: self.first - 1})
        finally:
            self.reader.wires.remove(wire)
            await wire.close()
        entries = [entry for frame in found if isinstance(frame, frames.Entries) for entry in frame.items]
        return [(entry.sequence, entry.message_id) for entry in entries]

    async def faults(self, *, complete: bool) -> list[str]:
        """What is wrong with the log now; what was told before it was read must be there.

        Nobody begins anything new meanwhile, so that the reading comes to an end; what waits is still sent.
        """
        told = self.ledger.snapshot()
        for sender in self.senders:
            sender.is_paused = True
        try:
            log = await self.read_log()
        finally:
            for sender in self.senders:
                sender.is_paused = False
        told.wanted = dict(self.ledger.wanted)
        return told.check(log, first=self.first, complete=complete)

    async def finish(self, running: list[asyncio.Task[None]]) -> list[str]:
        """Let everybody send what waits; what is wrong with the log in the end."""
        for sender in self.senders:
            sender.is_last = True
        await asyncio.wait_for(asyncio.gather(*running), 60)
        return await self.faults(complete=True)

    def start(self) -> list[asyncio.Task[None]]:
        """Begin to send."""
        return [asyncio.get_running_loop().create_task(sender.run()) for sender in self.senders]

    async def close(self, running: list[asyncio.Task[None]]) -> None:
        """Hang up."""
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for person in (self.reader, *(sender.person for sender in self.senders)):
            await person.close()

    async def wait_for(self, count: int) -> None:
        """Returns when that many more messages have been acknowledged."""
        wanted = len(self.ledger.told) + count
        async with asyncio.timeout(60):
            while len(self.ledger.told) < wanted:  # noqa: ASYNC110  a sender's loop has no place for an event
                await asyncio.sleep(0.01)
