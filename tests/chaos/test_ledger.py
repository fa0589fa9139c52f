"""The checker of the chaos tests finds what it is there to find."""

from __future__ import annotations

import pytest
from ledger import Ledger

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def ledger(**told: int) -> Ledger:
    found = Ledger()
    for message_id in (A, B, C):
        found.sent(message_id)
    for name, sequence in told.items():
        found.stored(name.encode() * 16, sequence)
    return found


def test_a_good_log_has_no_faults() -> None:
    assert ledger(a=2, b=3).check([(2, A), (3, B), (4, C)], first=2, complete=True) == []
    assert ledger(a=2).check([(2, A)], first=2, complete=False) == []


@pytest.mark.parametrize(
    ("log", "fault"),
    [
        ([(2, A), (3, C)], "acknowledged as 3 and is lost"),
        ([(2, A), (3, C), (4, B)], "acknowledged as 3 and is 4"),
        ([(2, A), (3, B), (4, B), (5, C)], "is there 2 times"),
        ([(2, A), (3, B), (5, C)], "gaps"),
        ([(3, B), (2, A), (4, C)], "gaps"),
        ([(2, A), (3, B), (4, b"x" * 16), (5, C)], "was never sent"),
        ([(2, A), (3, B)], "never arrived"),
    ],
)
def test_each_fault_is_found(log: list[tuple[int, bytes]], fault: str) -> None:
    assert any(fault in found for found in ledger(a=2, b=3).check(log, first=2, complete=True))


def test_two_answers_for_one_message_are_a_fault() -> None:
    told = ledger(a=2)
    told.stored(A, 2)
    assert told.faults == []
    told.stored(A, 3)
    assert told.check([(2, A), (3, B), (4, C)], first=2, complete=True)


def test_what_was_not_acknowledged_may_be_absent_for_now() -> None:
    told = ledger(a=2)
    assert told.missing() == [B, C]
    assert told.check([(2, A)], first=2, complete=False) == []
    assert len(told.check([(2, A)], first=2, complete=True)) == 2
