"""Throttle: rising delays for tries that may be guesses. In memory; a restart forgives, it never locks anybody out."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from curbside.errors import TooMany

KEYS_KEPT: Final = 50_000
"""Keys remembered at most; the one untouched for longest is forgotten first."""


@dataclass(frozen=True, slots=True)
class ThrottleSettings:
    """free: tries without delay. cap_seconds: longest delay. forget_seconds: silence after which all is forgotten; not
    below cap_seconds."""

    free: int
    cap_seconds: int
    forget_seconds: int


@dataclass(slots=True)
class _Tries:
    count: int
    last_at: int
    blocked_until: int


class Throttle:
    """Counts tries by key. After `free` tries each further one doubles the wait: 1, 2, 4 … cap_seconds."""

    def __init__(self, settings: ThrottleSettings) -> None:
        self._settings = settings
        self._tries: OrderedDict[tuple[str, ...], _Tries] = OrderedDict()

    def check(self, key: tuple[str, ...], now: int) -> None:
        """May this key try now? Counts nothing.

        Raises: TooMany with retry_after in seconds.
        """
        tries = self._find(key, now)
        if tries is not None and now < tries.blocked_until:
            raise TooMany(retry_after=tries.blocked_until - now)

    def count(self, key: tuple[str, ...], now: int) -> None:
        """A try was made."""
        tries = self._find(key, now) or _Tries(0, now, 0)
        tries.count += 1
        tries.last_at = now
        over = tries.count - self._settings.free
        if over > 0:
            tries.blocked_until = now + min(self._settings.cap_seconds, 1 << min(over - 1, 30))
        self._tries[key] = tries
        self._tries.move_to_end(key)
        while len(self._tries) > KEYS_KEPT:
            self._tries.popitem(last=False)

    def clear(self, key: tuple[str, ...]) -> None:
        """The key proved itself: forget its tries."""
        self._tries.pop(key, None)

    def _find(self, key: tuple[str, ...], now: int) -> _Tries | None:
        tries = self._tries.get(key)
        if tries is not None and now - tries.last_at >= self._settings.forget_seconds:
            del self._tries[key]
            return None
        return tries
