"""A process that writes to a PostgreSQL store in every way at once, until it is told to stop.

    python store_load.py PLAN.json RESULT.json      a line on standard input ends it; RESULT says what was acknowledged

What is refused for a while is tried again, as a client would: a send with the same message id.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from curbside.audit.events import AuditEvent, EventName, ObjectType
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import CurbsideError, DuplicateRequest, EpochConflict, StoreUnavailable
from curbside.ids import ConversationId, DeviceId, MessageId, UserId, encode_id
from curbside.server.store.ports import Change
from curbside.server.store.postgres import PostgresStore, open_postgres_store
from curbside.server.store.postgres_open import PostgresSettings
from curbside.server.store.records import EntryBatch, MemberRecord, NewEntry, NewQueueItem

T = TypeVar("T")
PAUSE = 0.02


def new_marker(name: EventName) -> tuple[str, AuditEvent]:
    """An event that can be told from all others."""
    marker = encode_id(random_bytes(16))
    return marker, AuditEvent(at=1, name=name, object_type=ObjectType.CONVERSATION, object_id=marker)


class Load:
    """What one process does, and what it was told."""

    def __init__(self, store: PostgresStore, plan: dict[str, Any]) -> None:
        self._store = store
        self._names = [ConversationId(name) for name in plan["conversations"]]
        self._devices = [DeviceId(name) for name in plan["devices"]]
        self._giver = DeviceId(plan["giver"])
        self._reader = DeviceId(plan["reader"])
        self.is_over = False
        self.places: dict[str, tuple[str, int]] = {}
        self.in_order: list[list[str]] = []
        self.kept: list[str] = []
        self.lost: list[str] = []
        self.commits: list[tuple[str, int, int]] = []
        self.claimed: list[str] = []
        self.revoked: list[str] = []
        self.refused = 0

    async def run(self) -> None:
        """All of it, until `is_over`."""
        sends = [self._send(number) for number in range(4)]
        await asyncio.gather(*sends, self._commit(), self._note(), self._note(), self._claim(), self._revoke())

    async def _write(self, make_change: Callable[[AuditEvent], Callable[[Change], T]], name: EventName) -> T:
        """Until it is stored. Each try leaves its own event, or none."""
        while True:
            marker, event = new_marker(name)
            try:
                result = await self._store.write(make_change(event))
            except StoreUnavailable:
                self.lost.append(marker)
                self.refused += 1
                await asyncio.sleep(PAUSE)
                continue
            except CurbsideError:
                self.lost.append(marker)
                raise
            self.kept.append(marker)
            return result

    async def _send(self, number: int) -> None:
        """Batches to several conversations, in an order of their own."""
        chance = random.Random(number)
        sent: list[str] = []
        while not self.is_over:
            names = chance.sample(self._names, 3)
            ids = [MessageId(random_bytes(16)) for _ in range(6)]
            wanted = list(zip(itertools.cycle(names), ids, strict=False))
            found = await self._send_until_stored(wanted)
            for (name, message_id), place in zip(wanted, found, strict=True):
                self.places[message_id.hex()] = (name, place)
                sent.append(message_id.hex())
        self.in_order.append(sent)

    async def _send_until_stored(self, wanted: list[tuple[ConversationId, MessageId]]) -> list[int]:
        def make_change(event: AuditEvent) -> Callable[[Change], list[int]]:
            return lambda tx: _append_missing(tx, wanted, event)

        while True:
            try:
                return await self._write(make_change, EventName.MESSAGE_SENT)
            except (EpochConflict, DuplicateRequest):
                continue

    async def _commit(self) -> None:
        """The conversation's next epoch: who reads changes, and a Welcome goes out."""
        for name in itertools.cycle(self._names):
            if self.is_over:
                return
            entry = NewEntry(1, MessageId(random_bytes(16)), 1, b"commit")
            payload = encode_id(random_bytes(16))

            def make_change(
                event: AuditEvent,
                name: ConversationId = name,
                entry: NewEntry = entry,
                payload: str = payload,
            ) -> Callable[[Change], tuple[int, int]]:
                def change(tx: Change) -> tuple[int, int]:
                    record = tx.delivery.find_conversation(name)
                    assert record is not None
                    place = tx.delivery.append_entries(name, record.epoch, [entry], while_waiting=True)
                    tx.delivery.advance_epoch(name, record.epoch + 1, b"state")
                    device_id = DeviceId(encode_id(random_bytes(16)))
                    tx.delivery.add_members(name, [MemberRecord(device_id, UserId(device_id), 1, place + 1)])
                    tx.delivery.end_members(name, [device_id], place)
                    tx.delivery.add_queue_items([NewQueueItem(self._reader, 1, name, place, payload.encode())])
                    tx.append_audit(event)
                    return record.epoch, place

                return change

            epoch, place = await self._write(make_change, EventName.COMMIT_ACCEPTED)
            self.commits.append((name, epoch, place))
            await asyncio.sleep(PAUSE)

    async def _note(self) -> None:
        """Nothing but audit events."""
        while not self.is_over:
            await self._write(lambda event: lambda tx: tx.append_audit(event), EventName.DIRECTORY_VIEWED)

    async def _claim(self) -> None:
        """Key packages of a device that has plenty."""
        while not self.is_over:

            def make_change(event: AuditEvent) -> Callable[[Change], bytes | None]:
                def change(tx: Change) -> bytes | None:
                    tx.append_audit(event)
                    return tx.identity.claim_key_package(self._giver)

                return change

            found = await self._write(make_change, EventName.KEY_PACKAGE_CLAIMED)
            if found is not None:
                self.claimed.append(found.decode())
            await asyncio.sleep(PAUSE)

    async def _revoke(self) -> None:
        """Devices that the other process wants to end too."""
        for device_id in self._devices:
            if self.is_over:
                return

            def make_change(event: AuditEvent, device_id: DeviceId = device_id) -> Callable[[Change], bool]:
                def change(tx: Change) -> bool:
                    tx.append_audit(event)
                    return tx.identity.revoke_device(device_id, 7)

                return change

            if await self._write(make_change, EventName.DEVICE_REVOKED):
                self.revoked.append(device_id)
            await asyncio.sleep(PAUSE)


def _append_missing(tx: Change, wanted: list[tuple[ConversationId, MessageId]], event: AuditEvent) -> list[int]:
    """Where these messages stand; those that do not yet are appended at the present epoch."""
    found = tx.delivery.find_places([(name, message_id, message_id) for name, message_id in wanted])
    missing: dict[ConversationId, list[MessageId]] = {}
    for (name, message_id), place in zip(wanted, found, strict=True):
        if place is None:
            missing.setdefault(name, []).append(message_id)
    batches = []
    for name, ids in missing.items():
        record = tx.delivery.find_conversation(name)
        assert record is not None
        batches.append(EntryBatch(name, record.epoch, [NewEntry(0, each, 1, each) for each in ids]))
    places: dict[MessageId, int] = {}
    for batch, first in zip(batches, tx.delivery.append_batches(batches), strict=True):
        if isinstance(first, CurbsideError):
            raise first
        places |= {entry.message_id: first + offset for offset, entry in enumerate(batch.entries)}
    tx.append_audit(event)
    return [
        place.sequence if place is not None else places[message_id]
        for (_, message_id), place in zip(wanted, found, strict=True)
    ]


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    """What was acknowledged, by the names of Load's public members."""
    settings = PostgresSettings(SecretBytes(plan["url"].encode()), is_shared=True)
    store = open_postgres_store(settings, SecretBytes(bytes.fromhex(plan["key"])))
    load = Load(store, plan)
    working = asyncio.create_task(load.run())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    load.is_over = True
    await working
    await store.close()
    return {name: value for name, value in vars(load).items() if not name.startswith("_")}


if __name__ == "__main__":
    told = asyncio.run(run(json.loads(Path(sys.argv[1]).read_text())))
    Path(sys.argv[2]).write_text(json.dumps(told))
