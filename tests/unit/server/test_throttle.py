"""Throttle: bounded, and exact about what it counts."""

from __future__ import annotations

import pytest

from curbside.errors import TooMany
from curbside.server import throttle as module
from curbside.server.throttle import Throttle, ThrottleSettings

SETTINGS = ThrottleSettings(free=2, cap_seconds=8, forget_seconds=100)
KEY = ("alice", "phone")


def wait_of(throttle: Throttle, now: int, key: tuple[str, ...] = KEY) -> int:
    """Seconds to wait; 0 when a try is free."""
    try:
        throttle.check(key, now)
    except TooMany as error:
        return int(error.members["retry_after"])
    return 0


def test_waits_double_up_to_the_cap() -> None:
    throttle = Throttle(SETTINGS)
    waits = []
    for _ in range(8):
        throttle.count(KEY, 0)
        waits.append(wait_of(throttle, 0))
    assert waits == [0, 0, 1, 2, 4, 8, 8, 8]
    assert wait_of(throttle, 7) == 1
    assert wait_of(throttle, 8) == 0


def test_one_key_does_not_slow_another_down() -> None:
    throttle = Throttle(SETTINGS)
    for _ in range(5):
        throttle.count(KEY, 0)
    assert wait_of(throttle, 0, ("alice", "laptop")) == 0


def test_silence_and_success_forgive() -> None:
    throttle = Throttle(SETTINGS)
    for _ in range(5):
        throttle.count(KEY, 0)
    assert wait_of(throttle, 3) == 1
    throttle.clear(KEY)
    assert wait_of(throttle, 3) == 0
    for _ in range(3):
        throttle.count(KEY, 10)
    throttle.count(KEY, 110)
    assert wait_of(throttle, 110) == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_KEPT", 3)
    throttle = Throttle(SETTINGS)
    for name in "abcd":
        for _ in range(4):
            throttle.count((name,), 0)
    assert [wait_of(throttle, 0, (name,)) for name in "abcd"] == [0, 2, 2, 2]
