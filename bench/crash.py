"""What an acknowledgement is worth: kill -9 to every process of a backend under load, restart, and look."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.plan import Plan, Sizes, sizes_of
from bench.target import Conversation, Target, open_target
from bench.wire import RawStream, make_envelope
from curbside.crypto.random import random_bytes
from curbside.wire import frames

PAIRS = 20
IN_FLIGHT = 4


@dataclass
class _Ledger:
    """What one conversation's sender was told. acked: message id by sequence."""

    conversation: Conversation
    acked: dict[int, bytes] = field(default_factory=dict)
    asked: dict[int, bytes] = field(default_factory=dict)
    log: list[frames.Entry] = field(default_factory=list)

    def list_missing(self) -> int:
        """Acknowledged messages that are not in the log where the acknowledgement said."""
        found = {entry.sequence: entry.message_id for entry in self.log}
        return sum(found.get(sequence) != message_id for sequence, message_id in self.acked.items())

    def list_wrong(self) -> int:
        """Entries that came twice or out of order."""
        ids = [entry.message_id for entry in self.log]
        first = self.conversation.begun + 1
        steps = sum(entry.sequence != first + place for place, entry in enumerate(self.log))
        return len(ids) - len(set(ids)) + steps


async def measure_crash(plan: Plan) -> list[Figure]:
    """w6: acknowledged messages missing, doubled or moved after kill -9 under load."""
    sizes, figures = sizes_of(plan), list[Figure]()
    for name in plan.ours:
        pairs = min(PAIRS, sizes.pairs)
        groups = [(2 * number, 2 * number + 1) for number in range(pairs)]
        with tempfile.TemporaryDirectory(prefix="curbside-bench-") as folder:
            async with open_target(name, Path(folder) / name, 2 * pairs, groups) as target:
                ledgers = [_Ledger(each) for each in target.conversations]
                restarts, acked = [], []
                for _ in range(sizes.kills):
                    before = sum(len(each.acked) for each in ledgers)
                    restarts.append(await _crash(target, ledgers, sizes))
                    acked.append(float(sum(len(each.acked) for each in ledgers) - before))
                await asyncio.gather(*(_read_log(target, each) for each in ledgers))
        missing = float(sum(each.list_missing() for each in ledgers))
        wrong = float(sum(each.list_wrong() for each in ledgers))
        figures += [
            Figure("crash", f"acknowledged, then missing after {sizes.kills} kills", "messages", [missing], (), 0.0,
                   backend=name),
            Figure("crash", "doubled or out of order", "messages", [wrong], (), 0.0, backend=name),
            Figure("crash", "acknowledged before each kill", "messages", acked, backend=name),
            Figure("crash", "from kill to the first answer", "s", restarts, backend=name),
        ]  # fmt: skip
    return figures


async def _crash(target: Target, ledgers: list[_Ledger], sizes: Sizes) -> float:
    """Load, kill, start again; the seconds of the start."""
    streams = [await target.connect(each.conversation.members[0]) for each in ledgers]
    for stream, ledger in zip(streams, ledgers, strict=True):
        _Sender(stream, ledger)
    await asyncio.sleep(sizes.seconds)
    target.kill()
    began = time.perf_counter()
    await asyncio.gather(*(stream.closed for stream in streams))
    target.start()
    return time.perf_counter() - began


class _Sender:
    """Keeps messages of one conversation on their way until the stream ends."""

    def __init__(self, stream: RawStream, ledger: _Ledger) -> None:
        self._stream, self._ledger = stream, ledger
        self._request = 0
        stream.on_frame = self._heard
        for _ in range(IN_FLIGHT):
            self._send()

    def _send(self) -> None:
        self._request += 1
        message_id, conversation = random_bytes(16), self._ledger.conversation
        self._ledger.asked[self._request] = message_id
        envelope = make_envelope(conversation.group_id, message_id, conversation.epoch)
        self._stream.send(frames.Send(self._request, conversation.id, message_id, conversation.epoch, envelope))

    def _heard(self, frame: Any) -> None:
        if isinstance(frame, frames.Stored):
            for item in frame.items:
                self._ledger.acked[item.sequence] = self._ledger.asked[item.request]
                self._send()


async def _read_log(target: Target, ledger: _Ledger) -> None:
    """The receiver's whole log."""
    stream = await target.connect(ledger.conversation.members[1])
    for frame in await stream.sync({ledger.conversation.id: ledger.conversation.begun}):
        if isinstance(frame, frames.Entries):
            ledger.log += frame.items
    await stream.close()
