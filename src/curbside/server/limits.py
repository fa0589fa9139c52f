"""Rates: token buckets by key, in bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from curbside.clock import Clock
from curbside.errors import TooMany

KEYS: Final = 50_000
"""Buckets kept by one limiter; the one that was used longest ago goes first."""


class RateLimit:
    """`rate` per second for each key, with `burst` to spend at once.

    [Note: forgotten buckets] A forgotten bucket is a full one. To forget one before it is full again, an attacker must
    use more keys than KEYS meanwhile, which costs more tries than it wins.
    """

    def __init__(self, rate: float, burst: int, clock: Clock) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, key: str, count: int = 1) -> None:
        """Spend `count`.

        Raises: TooMany (retry_after, whole seconds).
        """
        left, now = self._refill(key)
        is_enough = left >= count
        self._buckets[key] = (left - count if is_enough else left, now)
        if not is_enough:
            raise self._refuse(count - left)

    def check(self, key: str) -> None:
        """Whether one could be spent; spends nothing.

        Raises: TooMany (retry_after, whole seconds).
        """
        left, now = self._refill(key)
        self._buckets[key] = (left, now)
        if left < 1:
            raise self._refuse(1 - left)

    def _refill(self, key: str) -> tuple[float, int]:
        now = self._clock.now_ms()
        left, since = self._buckets.pop(key, (self._burst, now))
        while len(self._buckets) >= KEYS:
            self._buckets.popitem(last=False)
        return min(self._burst, left + max(0, now - since) * self._rate / 1000), now

    def _refuse(self, missing: float) -> TooMany:
        return TooMany(retry_after=max(1, math.ceil(missing / self._rate)))
