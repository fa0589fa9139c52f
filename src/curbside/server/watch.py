"""The watch: what other nodes did, found out in the store.

Now and then every conversation with listeners is compared with the store, every connection with its session, every
device with its queue: seldom while the bus carries the news, every second or so while it does not. So whatever the bus
loses is found, and a revoked device's stream ends within a few seconds with no bus at all. A round is three queries for
each thousand connections, at times that are spread, so that many nodes do not ask at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from structlog.typing import FilteringBoundLogger

from curbside.crypto.random import random_bytes
from curbside.errors import DeviceRevoked, NotAuthenticated
from curbside.ids import ConversationId, DeviceId
from curbside.server.fanout import Fanout, Listener
from curbside.server.groups import GroupCache
from curbside.server.logs import LogEvent, find_code, find_place
from curbside.server.metrics import Metrics
from curbside.server.store.ports import Store, View
from curbside.server.store.records import ConversationRecord

T = TypeVar("T")
ASKED_AT_ONCE: Final = 1_000
TICK_SECONDS: Final = 0.25
"""How often it is noticed that a round is due."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Seconds between two rounds: while the bus carries the news, and while it does not."""

    sweep_seconds: float = 3.0
    poll_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class WatchParts:
    """What it is wired to."""

    store: Store
    fanout: Fanout
    cache: GroupCache
    metrics: Metrics
    log: FilteringBoundLogger
    settings: WatchSettings


class StoreWatch:
    """One task that asks; `check_…` make it ask at once."""

    def __init__(self, parts: WatchParts) -> None:
        self._parts = parts
        self._conversations: dict[ConversationId, None] = {}
        self._devices: dict[DeviceId, None] = {}
        self._queue_ends: dict[DeviceId, int] = {}
        self._suspected: dict[ConversationId, int] = {}
        self._is_all_due = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, is_degraded: Callable[[], bool]) -> None:
        """Begin. is_degraded: whether the bus cannot be relied on now."""
        self._task = asyncio.create_task(self._run(is_degraded), name="watch")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def check_conversations(self, conversation_ids: Iterable[ConversationId]) -> None:
        """Something may have been added to them."""
        self._conversations |= dict.fromkeys(conversation_ids)
        self._wake.set()

    def check_device(self, device_id: DeviceId) -> None:
        """Its session may be over."""
        if self._parts.fanout.find_listener(device_id) is not None:
            self._devices[device_id] = None
            self._wake.set()

    def check_all(self) -> None:
        """Anything may have happened."""
        self._is_all_due = True
        self._wake.set()

    # --- rounds -------------------------------------------------------------------------------

    async def _run(self, is_degraded: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_SECONDS)
            self._wake.clear()
            is_sure = is_degraded()
            try:
                self._note_suspected()
                await self._look()
                if self._is_all_due or loop.time() - looked_at >= self._pick_wait(is_sure):
                    is_sure, self._is_all_due, looked_at = is_sure or self._is_all_due, False, loop.time()
                    await self.look_at_all(is_sure)
            except Exception as error:  # noqa: BLE001 - the next round may succeed
                self._parts.log.error(LogEvent.WATCH_FAILED, code=find_code(error), place=find_place(error))

    def _pick_wait(self, is_degraded: bool) -> float:
        settings = self._parts.settings
        seconds = settings.poll_seconds if is_degraded else settings.sweep_seconds
        return seconds * (0.8 + 0.4 * random_bytes(1)[0] / 256)

    async def _look(self) -> None:
        """At what was asked for."""
        conversations, self._conversations = list(self._conversations), {}
        devices, self._devices = list(self._devices), {}
        await self._look_at_conversations(conversations, is_sure=True)
        found = [self._parts.fanout.find_listener(device_id) for device_id in devices]
        await self._look_at_connections([listener for listener in found if listener is not None])

    async def look_at_all(self, is_sure: bool) -> None:
        """One whole round. is_sure: the bus does not bring what it finds."""
        fanout = self._parts.fanout
        await self._look_at_conversations(fanout.list_conversations(), is_sure)
        listeners = fanout.list_listeners()
        await self._look_at_connections(listeners)
        await self._look_at_queues(listeners)

    async def _look_at_conversations(self, conversation_ids: Sequence[ConversationId], is_sure: bool) -> None:
        for part in _cut(conversation_ids):
            for record in (await self._ask_conversations(part)).values():
                self._compare(record, is_sure)

    def _compare(self, record: ConversationRecord, is_sure: bool) -> None:
        parts, name = self._parts, record.conversation_id
        view = parts.cache.find_view(name)
        if view is not None and (view.epoch < record.epoch or len(view.waiting) < record.waiting):
            parts.cache.drop(name)
        if record.last_sequence > parts.fanout.find_known(name):
            self._suspected[name] = record.last_sequence
            if is_sure:
                self._note(name)

    def _note_suspected(self) -> None:
        """News that is on its way has come meanwhile; what has not was lost."""
        for name in list(self._suspected):
            self._note(name)

    def _note(self, name: ConversationId) -> None:
        sequence = self._suspected.pop(name)
        if self._parts.fanout.list_audience(name) and sequence > self._parts.fanout.find_known(name):
            self._parts.metrics.watch_found.inc()
            self._parts.fanout.note(name, sequence)
            self._parts.fanout.confirm(name, sequence)

    async def _look_at_connections(self, listeners: Sequence[Listener]) -> None:
        """End those whose session or device is over, or whose device has a newer one."""
        for part in _cut(listeners):
            numbers = await self._ask_streams([listener.token_hash for listener in part])
            for listener in part:
                number = numbers.get(listener.token_hash)
                if number is None:
                    await self._end(listener)
                elif number > listener.stream:
                    listener.replace()

    async def _end(self, listener: Listener) -> None:
        device_id = listener.subject.device_id
        device = await self._ask(lambda view: view.identity.find_device(device_id))
        is_revoked = device is None or device.revoked_at
        listener.end(DeviceRevoked() if is_revoked else NotAuthenticated())

    async def _look_at_queues(self, listeners: Sequence[Listener]) -> None:
        ends: dict[DeviceId, int] = {}
        for part in _cut(listeners):
            ends |= await self._ask_queue_ends([listener.subject.device_id for listener in part])
        for device_id, end in ends.items():
            if end > self._queue_ends.get(device_id, 0):
                self._parts.fanout.offer_queue_here(device_id)
        self._queue_ends = ends

    async def _ask_conversations(self, names: Sequence[ConversationId]) -> dict[ConversationId, ConversationRecord]:
        return await self._ask(lambda view: view.watch.find_conversations(names))

    async def _ask_streams(self, token_hashes: Sequence[bytes]) -> dict[bytes, int]:
        return await self._ask(lambda view: view.watch.find_streams(token_hashes))

    async def _ask_queue_ends(self, device_ids: Sequence[DeviceId]) -> dict[DeviceId, int]:
        return await self._ask(lambda view: view.watch.find_queue_ends(device_ids))

    async def _ask(self, question: Callable[[View], T]) -> T:
        return await self._parts.store.read(question)


def _cut(everything: Sequence[T]) -> list[Sequence[T]]:
    return [everything[start : start + ASKED_AT_ONCE] for start in range(0, len(everything), ASKED_AT_ONCE)]
