"""Nodes: what this process tells the others that serve the same database, and what it does with what they tell.

[Note: what is believed] Nothing that comes over the bus gives a right or is the last word. Entries are handed on to
connections only that stand right before them and whose device is a member in this node's own view of the group, and
only after the audit events of the delivery are durable here, as for a local delivery. Everything else is a hint:
somebody is told to look into the log, into the queue, into the sessions.

[Note: gaps] Several nodes add to one log, so entries overtake one another on their way here. What comes early waits
EARLY_SECONDS for what comes before it: entries of this node in each connection, entries of others here. A gap that
stays, whatever its reason, sends connections to the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from structlog.typing import FilteringBoundLogger

from curbside.crypto.random import random_bytes
from curbside.errors import CurbsideError
from curbside.ids import ConversationId, DeviceId, encode_id
from curbside.server.bus import (
    Bus,
    BusMessage,
    DeviceEnded,
    EntriesAdded,
    Hello,
    QueueFilled,
    Signalled,
    StreamOpened,
    build_entries_added,
)
from curbside.server.delivery import DeliveryService, Handed
from curbside.server.fanout import EARLY_SECONDS, Fanout, Listener, PublishedEntry
from curbside.server.groups import GroupCache
from curbside.server.logs import LogEvent, find_code, find_place
from curbside.server.metrics import Metrics
from curbside.server.presence import PresenceService
from curbside.server.watch import StoreWatch

HELLO_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 3.5
"""A node that has not said hello for so long is missed: the bus may be broken for it, so the store is asked often."""
MISSED_SECONDS: Final = 120.0
"""After so long it is taken for gone."""
TICK_SECONDS: Final = 0.05
"""When time is up, it is up by so much."""
ARRIVED_BYTES: Final = 16 * 1024 * 1024
"""Entries that wait for their audit events; above this they are read from the log."""


@dataclass(frozen=True, slots=True)
class NodesParts:
    """What it is wired to."""

    bus: Bus
    fanout: Fanout
    cache: GroupCache
    delivery: DeliveryService
    watch: StoreWatch
    presence: PresenceService
    metrics: Metrics
    log: FilteringBoundLogger


@dataclass(frozen=True, slots=True)
class _Early:
    """That entries wait here: what is missing follows `reached`, and nothing came since then."""

    reached: int
    since: float


class Nodes:
    """Implements Neighbours for fan-out and BusEars for the bus."""

    def __init__(self, parts: NodesParts) -> None:
        self._parts = parts
        self.node_id: Final = encode_id(random_bytes(16))
        self._heard_at: dict[str, float] = {}
        self._arrived: dict[ConversationId, dict[int, bytes]] = {}
        self._arrived_bytes = 0
        self._early: dict[ConversationId, _Early] = {}
        self._filled = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to talk and to listen; needs a running loop."""
        parts = self._parts
        if parts.bus.is_alone:
            return
        parts.fanout.neighbours = self
        parts.presence.tell = parts.bus.publish
        parts.bus.start(self)
        parts.watch.start(lambda: self.is_degraded)
        self._tasks = [
            asyncio.create_task(self._hand_on(), name="nodes-entries"),
            asyncio.create_task(self._greet(), name="nodes-hello"),
        ]

    async def close(self) -> None:
        """Say good-bye and stop."""
        self._parts.bus.publish(Hello(self.node_id, is_leaving=True))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._parts.watch.close()
        await self._parts.bus.close()

    @property
    def is_degraded(self) -> bool:
        """Whether messages of other nodes may not come, so that the store must be asked often."""
        if self._parts.bus.is_alone:
            return False
        return not self._parts.bus.is_up or any(
            time.monotonic() - heard_at > SILENT_SECONDS for heard_at in self._heard_at.values()
        )

    def describe(self) -> str:
        """For readiness: "" for a node that is alone. A node without its bus serves all the same, a little later."""
        if self._parts.bus.is_alone:
            return ""
        return "degraded" if self.is_degraded else "ok"

    # --- Neighbours ---------------------------------------------------------------------------

    @property
    def is_heard(self) -> bool:
        return bool(self._heard_at) and not self.is_degraded

    def follow(self, conversation_id: ConversationId) -> None:
        self._parts.bus.follow(conversation_id)

    def unfollow(self, conversation_id: ConversationId) -> None:
        self._parts.bus.unfollow(conversation_id)

    def tell_entry(self, entry: PublishedEntry) -> None:
        self._parts.bus.publish(build_entries_added(entry))
        if entry.conversation_id in self._early:  # it may be what others waited for
            self._filled.set()

    def tell_queue(self, device_id: DeviceId) -> None:
        self._parts.bus.publish(QueueFilled(device_id))

    def tell_stream(self, device_id: DeviceId, stream: int) -> None:
        self._parts.bus.publish(StreamOpened(device_id, stream))

    def tell_ended(self, device_id: DeviceId) -> None:
        self._parts.bus.publish(DeviceEnded(device_id))

    # --- BusEars ------------------------------------------------------------------------------

    def heard(self, message: BusMessage) -> None:
        parts = self._parts
        match message:
            case EntriesAdded():
                self._take_entries(message)
            case QueueFilled(device=device):
                parts.fanout.offer_queue_here(device)
            case StreamOpened(device=device, number=number):
                parts.fanout.end_older_here(device, number)
            case DeviceEnded(device=device):
                parts.watch.check_device(device)
            case Signalled():
                parts.presence.heard(message)
            case Hello(node=node, is_leaving=is_leaving):
                if is_leaving:
                    self._heard_at.pop(node, None)
                else:
                    self._heard_at[node] = time.monotonic()

    def followed(self, conversation_ids: Sequence[ConversationId]) -> None:
        self._parts.watch.check_conversations(conversation_ids)

    def missed(self) -> None:
        self._parts.watch.check_all()

    # --- entries ------------------------------------------------------------------------------

    def _take_entries(self, message: EntriesAdded) -> None:
        name = message.conversation
        if message.is_handshake:
            self._parts.cache.drop(name)
        is_whole = len(message.encoded) == message.last - message.first + 1
        if not is_whole or self._arrived_bytes >= ARRIVED_BYTES:
            self._parts.fanout.note(name, message.last)
            return
        waiting = self._arrived.setdefault(name, {})
        for sequence, encoded in enumerate(message.encoded, message.first):
            self._arrived_bytes += len(encoded) - len(waiting.get(sequence, b""))
            waiting[sequence] = encoded
        self._filled.set()

    async def _hand_on(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            arrived, self._arrived, self._arrived_bytes = self._arrived, {}, 0
            try:
                await self._hand_on_all(arrived)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not end all delivery; the log has it
                self._parts.log.error(LogEvent.BUS_FAILED, code=find_code(error), place=find_place(error))
                self._note_all(arrived)

    async def _hand_on_all(self, arrived: dict[ConversationId, dict[int, bytes]]) -> None:
        """Record who gets what, then hand it on; when it cannot be recorded, the log is read once it can."""
        takers: dict[ConversationId, dict[Listener, range]] = {}
        handed: list[Handed] = []
        for name, entries in arrived.items():
            found = await self._list_takers(name, entries)
            takers[name] = found
            handed += [Handed(listener.subject, name, part[0], part[-1]) for listener, part in found.items() if part]
        try:
            await self._parts.delivery.record_handed(handed)
        except CurbsideError:
            self._note_all(arrived)
            return
        for name, entries in arrived.items():
            self._offer(name, entries, takers[name])

    async def _list_takers(self, name: ConversationId, entries: dict[int, bytes]) -> dict[Listener, range]:
        """Who may have these entries and has those before them: what each gets, nothing as long as something is missing
        before it."""
        audience = [each for each in self._parts.fanout.list_audience(name) if each.is_live(name)]
        if not audience:
            return {}
        try:
            view = await self._parts.cache.get_view(name)
        except CurbsideError:
            return {}
        found: dict[Listener, range] = {}
        for listener in audience:
            sent = listener.find_sent(name)
            if sent is None or listener.subject.device_id not in view.leaves:
                continue
            last = sent
            while last + 1 in entries:
                last += 1
            found[listener] = range(sent + 1, last + 1)
        return found

    def _offer(self, name: ConversationId, entries: dict[int, bytes], takers: dict[Listener, range]) -> None:
        """Hand on, and keep what is early for somebody."""
        published = [PublishedEntry(name, sequence, entries[sequence]) for sequence in sorted(entries)]
        stands: list[int] = []
        for listener in self._parts.fanout.list_audience(name):
            part = takers.get(listener)
            if part is None:
                for entry in published:
                    listener.offer(entry, is_live=False)
                continue
            for entry in published:
                if entry.sequence in part:
                    listener.offer(entry, is_live=True)
            if part:
                self._parts.fanout.confirm(name, part[-1])
            if listener.is_live(name):
                stands.append(listener.find_sent(name) or 0)
        reached = min(stands, default=max(entries))
        self._keep(name, reached, {sequence: encoded for sequence, encoded in entries.items() if sequence > reached})
        if any(stand + 1 in entries for stand in stands):  # our own entries have filled a gap meanwhile
            self._filled.set()

    def _keep(self, name: ConversationId, reached: int, early: dict[int, bytes]) -> None:
        """Wait for what is missing, anew whenever some of it came; then give up."""
        if not early:
            self._early.pop(name, None)
            return
        now, before = time.monotonic(), self._early.get(name)
        if before is None or reached > before.reached:
            self._early[name] = _Early(reached, now)
            asyncio.get_running_loop().call_later(EARLY_SECONDS + TICK_SECONDS, self._filled.set)
        elif now - before.since >= EARLY_SECONDS or not self.is_heard:
            del self._early[name]
            self._parts.fanout.note(name, max(early))
            return
        waiting = self._arrived.setdefault(name, {})
        for sequence, encoded in early.items():
            if sequence not in waiting:
                self._arrived_bytes += len(encoded)
                waiting[sequence] = encoded

    def _note_all(self, arrived: dict[ConversationId, dict[int, bytes]]) -> None:
        for name, entries in arrived.items():
            self._early.pop(name, None)
            self._parts.fanout.note(name, max(entries))

    # --- hellos -------------------------------------------------------------------------------

    async def _greet(self) -> None:
        """Say that this node is there, and notice who is not."""
        while True:
            now = time.monotonic()
            for node in [node for node, at in self._heard_at.items() if now - at > MISSED_SECONDS]:
                del self._heard_at[node]
            self._parts.bus.publish(Hello(self.node_id, is_leaving=False))
            self._parts.metrics.nodes_heard.set(len(self._heard_at))
            self._parts.metrics.bus_degraded.set(self.is_degraded)
            await asyncio.sleep(HELLO_SECONDS)
