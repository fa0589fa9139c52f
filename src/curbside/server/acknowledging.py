"""Acknowledgements of devices: those that come while others are being made durable share the next write."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from curbside.ids import ConversationId, DeviceId
from curbside.server.store.ports import Change, Store

ACKS_AT_ONCE: Final = 256
_LARGEST: Final = 2**53 - 1
"""What a cursor may say; more is the same."""


class Acknowledgements:
    """Acknowledgements that gather while those before them are being made durable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Ack] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, device_id: DeviceId, cursors: Mapping[str, int], queue: int) -> None:
        """Until it is durable. queue: items up to this position go; 0: none. Raises: what the store raises."""
        known = {ConversationId(name): min(sequence, _LARGEST) for name, sequence in cursors.items()}
        ack = _Ack(device_id, known, min(queue, _LARGEST), asyncio.get_running_loop().create_future())
        self._waiting.append(ack)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="acknowledgements")
        await ack.done

    async def _run(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:ACKS_AT_ONCE], self._waiting[ACKS_AT_ONCE:]
                failure: Exception | None = None
                try:
                    await self._store.write(partial(_advance, group))
                except Exception as error:  # noqa: BLE001  it belongs to those who wait for it
                    failure = error
                for ack in group:
                    if ack.done.done():
                        continue
                    if failure is None:
                        ack.done.set_result(None)
                    else:
                        ack.done.set_exception(failure)
        finally:
            self._task = None


@dataclass(slots=True)
class _Ack:
    device_id: DeviceId
    cursors: Mapping[ConversationId, int]
    queue: int
    done: asyncio.Future[None]


def _advance(group: Sequence[_Ack], tx: Change) -> None:
    for ack in group:
        if ack.cursors:
            tx.delivery.advance_cursors(ack.device_id, ack.cursors)
        if ack.queue > 0:
            tx.delivery.delete_queue(ack.device_id, ack.queue)
