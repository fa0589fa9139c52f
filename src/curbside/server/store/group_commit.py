"""What an engine with one writing thread needs: the changes that wait, and the callers that hear how theirs ended."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from curbside.audit.events import AuditEvent
from curbside.errors import CurbsideError, StoreUnavailable

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

    def make_refusal(self) -> bytes | None:
        """The event that its refusal leaves, encoded. One that cannot be made fails the caller, not the thread."""
        if self.refusal is None or not isinstance(self.failure, CurbsideError):
            return None
        try:
            event = self.refusal(self.failure)
            return None if event is None else event.encode()
        except Exception as error:  # noqa: BLE001  whatever it is belongs to the caller, and the writer must live
            self.failure = error
            return None


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
