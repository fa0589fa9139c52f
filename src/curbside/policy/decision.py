"""Decision: what every pure `decide_*` function answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Duty(StrEnum):
    """What the caller must still do when a decision allows."""

    ONLY_SHARED = "only_shared"
    """Show only people with whom the asker shares a conversation (45 CFR 164.502(b), minimum necessary)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """allow: whether it may happen. rule: the stable id of the rule that decided. reason: a stable word, for the audit
    event and the problem. duties: what the caller must still do when it may."""

    allow: bool
    rule: str
    reason: str
    duties: frozenset[Duty] = frozenset()

    def __bool__(self) -> bool:
        return self.allow
