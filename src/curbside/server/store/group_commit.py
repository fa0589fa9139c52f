"""What an engine with one writing thread needs: the changes that wait, their audit events, the callers that hear how
theirs ended."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from curbside.audit.batch import MessageRow, build_batch, encode_row, split_batches
from curbside.audit.events import AuditEvent
from curbside.audit.merkle import hash_leaf
from curbside.errors import CurbsideError, StoreUnavailable
from curbside.server.store.records import AuditLeaf

WAITING_CHANGES: Final = 20_000
"""Above this the store says it is busy instead of filling memory."""


@dataclass(slots=True)
class Job:
    """A change that waits. outcome: its result, or `failure`, the error it raises."""

    change: Callable[[Any], Any]
    refusal: Callable[[CurbsideError], AuditEvent | None] | None
    future: asyncio.Future[Any]
    outcome: Any = None
    failure: BaseException | None = None

    def make_refusal(self) -> AuditEvent | None:
        """The event that its refusal leaves. One that cannot be made fails the caller, not the thread."""
        if self.refusal is None or not isinstance(self.failure, CurbsideError):
            return None
        try:
            return self.refusal(self.failure)
        except Exception as error:  # noqa: BLE001  whatever it is belongs to the caller, and the writer must live
            self.failure = error
            return None


class PendingAudit:
    """What a transaction will leave in the audit log: its events, and messages that share leaves (audit.batch)."""

    __slots__ = ("_events", "_rows")

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._rows: list[MessageRow] = []

    def append_event(self, event: AuditEvent) -> None:
        """One leaf."""
        self._events.append(event.encode())

    def append_messages(self, rows: Iterable[MessageRow]) -> None:
        """Rows of leaves that the whole transaction shares."""
        self._rows.extend(rows)

    def mark(self) -> tuple[int, int]:
        """Where `undo` goes back to."""
        return len(self._events), len(self._rows)

    def undo(self, mark: tuple[int, int]) -> None:
        """Forget what came after the mark."""
        del self._events[mark[0] :]
        del self._rows[mark[1] :]

    def clear(self) -> None:
        """Forget everything."""
        self.undo((0, 0))

    def take(self) -> list[AuditLeaf]:
        """The transaction's leaves in order, and nothing is pending any more. A row that is alone is an event."""
        events, rows = self._events, self._rows
        self._events, self._rows = [], []
        if len(rows) == 1:
            events.append(encode_row(rows.pop()))
        batches = [build_batch(part) for part in split_batches(rows)]
        return [AuditLeaf(event, hash_leaf(event)) for event in events] + [
            AuditLeaf(batch.event, hash_leaf(batch.event), batch.rows) for batch in batches
        ]


class WriteQueue:
    """Changes on their way from the callers to the one thread that writes. group_changes: most in one transaction."""

    def __init__(self, group_changes: int) -> None:
        self._group_changes = group_changes
        self._waiting: deque[Job] = deque()
        self._wake = threading.Condition()
        self._is_closed = False

    def __len__(self) -> int:
        """Changes that wait to be taken."""
        return len(self._waiting)

    @property
    def is_closed(self) -> bool:
        """Whether no more changes are taken."""
        return self._is_closed

    def submit(self, job: Job) -> None:
        """Raises: StoreUnavailable when the store is closed or too much waits."""
        with self._wake:
            if self._is_closed or len(self._waiting) >= WAITING_CHANGES:
                raise StoreUnavailable
            self._waiting.append(job)
            self._wake.notify()

    def take(self) -> list[Job]:
        """The next group, once there is one; [] when the queue is closed and worked off."""
        with self._wake:
            while not self._waiting and not self._is_closed:
                self._wake.wait()
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._group_changes))]

    def pause(self, seconds: float) -> bool:
        """Let time pass, in the writing thread; True when the queue was closed before or meanwhile."""
        with self._wake:
            return self._wake.wait_for(lambda: self._is_closed, seconds)

    def close(self) -> None:
        """Take no more; what waits is still worked off."""
        with self._wake:
            self._is_closed = True
            self._wake.notify_all()


def tell_callers(group: Sequence[Job]) -> None:
    """Wake the callers, once for each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in group:
        loops.setdefault(job.future.get_loop(), []).append(job)
    for loop, jobs in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, jobs)


def _resolve(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.failure is not None:
            job.future.set_exception(job.failure)
        else:
            job.future.set_result(job.outcome)
