"""Engines with a span for each call: the store, attachments' storage, the bus.

They are put around the engines only while something is traced: the way of a message pays for no tracing that is off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from curbside.audit.events import AuditEvent
from curbside.errors import CurbsideError
from curbside.ids import ConversationId
from curbside.server.blob_store import BlobStore, Medium, StoredObject
from curbside.server.bus import Bus, BusEars, BusMessage
from curbside.server.store.ports import Change, Store, View
from curbside.server.tracing import Attribute, SpanName, Tracing, trace_call

T = TypeVar("T")


class TracedStore:
    """Implements Store."""

    def __init__(self, store: Store, tracing: Tracing) -> None:
        self._store = store
        self._tracing = tracing

    @property
    def waiting(self) -> int:
        return self._store.waiting

    async def write(
        self, change: Callable[[Change], T], refusal: Callable[[CurbsideError], AuditEvent | None] | None = None
    ) -> T:
        return await trace_call(self._tracing, SpanName.STORE_WRITE, self._store.write(change, refusal))

    async def read(self, question: Callable[[View], T]) -> T:
        return await trace_call(self._tracing, SpanName.STORE_READ, self._store.read(question))

    async def check(self) -> None:
        await trace_call(self._tracing, SpanName.STORE_CHECK, self._store.check())

    async def close(self) -> None:
        await self._store.close()


class TracedBlobStore(BlobStore):
    """A BlobStore; what the sweep alone does is not timed."""

    def __init__(self, medium: Medium, tracing: Tracing) -> None:
        super().__init__(medium)
        self._tracing = tracing

    async def put(self, name: str, data: bytes) -> None:
        with self._tracing.span(SpanName.BLOB_PUT) as span:
            span.put(Attribute.BYTES, len(data))
            await super().put(name, data)

    async def put_verified(self, name: str, parts: AsyncIterator[bytes], size: int, sha256: bytes) -> bool:
        with self._tracing.span(SpanName.BLOB_PUT) as span:
            span.put(Attribute.BYTES, size)
            return await super().put_verified(name, parts, size, sha256)

    async def find(self, name: str) -> StoredObject | None:
        return await trace_call(self._tracing, SpanName.BLOB_FIND, super().find(name))

    async def read(self, name: str, first: int, last: int) -> tuple[int, bytes] | None:
        return await trace_call(self._tracing, SpanName.BLOB_READ, super().read(name, first, last))

    async def delete(self, names: list[str]) -> None:
        await trace_call(self._tracing, SpanName.BLOB_DELETE, super().delete(names))


class TracedBus:
    """Implements Bus."""

    def __init__(self, bus: Bus, tracing: Tracing) -> None:
        self._bus = bus
        self._tracing = tracing

    @property
    def is_alone(self) -> bool:
        return self._bus.is_alone

    @property
    def is_up(self) -> bool:
        return self._bus.is_up

    def start(self, ears: BusEars) -> None:
        self._bus.start(ears)

    async def close(self) -> None:
        await self._bus.close()

    def follow(self, conversation_id: ConversationId) -> None:
        self._bus.follow(conversation_id)

    def unfollow(self, conversation_id: ConversationId) -> None:
        self._bus.unfollow(conversation_id)

    def publish(self, message: BusMessage) -> None:
        with self._tracing.span(SpanName.BUS_PUBLISH):
            self._bus.publish(message)


def trace_store(store: Store, tracing: Tracing) -> Store:
    """The store itself while nothing is traced."""
    return TracedStore(store, tracing) if tracing.is_on else store


def trace_blobs(objects: BlobStore, tracing: Tracing) -> BlobStore:
    """The same for attachments' storage."""
    return TracedBlobStore(objects.medium, tracing) if tracing.is_on else objects


def trace_bus(bus: Bus, tracing: Tracing) -> Bus:
    """The same for the bus."""
    return TracedBus(bus, tracing) if tracing.is_on else bus
