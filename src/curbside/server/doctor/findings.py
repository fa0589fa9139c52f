"""What the doctor finds."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One look. check: its stable name. text: a sentence. next_step: what to do; "" when nothing is."""

    check: str
    verdict: Verdict
    text: str
    next_step: str = ""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Verdict.OK, text)


def warn(check: str, text: str, next_step: str) -> Finding:
    """It works, but it should not stay as it is."""
    return Finding(check, Verdict.WARN, text, next_step)


def fail(check: str, text: str, next_step: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(check, Verdict.FAIL, text, next_step)


def find_worst(findings: Iterable[Finding]) -> Verdict:
    """The worst of them."""
    verdicts = {finding.verdict for finding in findings}
    return next((each for each in (Verdict.FAIL, Verdict.WARN) if each in verdicts), Verdict.OK)
