"""Clock: the only place that asks for the time. Everything else takes it as an argument or a Clock."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Source of time; tests inject one they can move."""

    def now(self) -> int:
        """Unix time in whole seconds."""
        ...

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return int(time.time())

    def now_ms(self) -> int:
        return int(time.time() * 1000)


class ManualClock:
    """A clock that stands still until it is moved; for simulations and tests."""

    def __init__(self, start: int) -> None:
        self._ms = start * 1000

    def now(self) -> int:
        return self._ms // 1000

    def now_ms(self) -> int:
        return self._ms

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`."""
        self._ms += int(seconds * 1000)
