"""How long a cold restore takes: a backup of about a gigabyte, an increment, and a restore with equal hashes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backups import Ward, sum_tables

from bench.figures import Figure
from bench.plan import Plan

ENGINES: Final = {"embedded": "sqlite", "postgres": "postgres"}
CHANGED_ON_PURPOSE: Final = ("audit_events", "sessions", "settings", "blobs", "blob_pieces")
"""A restore ends sessions and uploads, and leaves an event and notes."""
RESTORE_SECONDS: Final = 600.0
_MB: Final = 1_000_000


@dataclass(frozen=True)
class _Amount:
    """conversations, each with `entries` of 1 KiB; attachments of `size` bytes."""

    conversations: int
    entries: int
    attachments: int
    size: int


FULL: Final = _Amount(100, 4_000, 70, 8 * 1024 * 1024)
QUICK: Final = _Amount(2, 50, 2, 100_000)


async def measure_restore(plan: Plan) -> list[Figure]:
    """Backup, increment and cold restore of a gigabyte: messages and attachments, with equal hashes."""
    figures: list[Figure] = []
    for backend in plan.ours:
        if backend in ENGINES:
            figures += await _measure(backend, QUICK if plan.is_quick else FULL, plan)
    return figures


async def _measure(backend: str, amount: _Amount, plan: Plan) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="curbside-bench-") as folder:
        ward = await Ward(Path(folder), ENGINES[backend]).prepare()
        await ward.fill(conversations=amount.conversations, entries=0)
        for conversation in ward.conversations:
            await ward.write(conversation, amount.entries, 1024)
        for number in range(amount.attachments):
            await ward.attach(ward.conversations[number % amount.conversations], amount.size)
        first = await ward.back_up()
        await ward.write(ward.conversations[0], 100, 1024)
        second = await ward.back_up()
        began = time.monotonic()
        await asyncio.to_thread(ward.verify)
        verified = time.monotonic() - began
        before = sum_tables(ward.config, CHANGED_ON_PURPOSE)
        restored, config = await ward.restore("restored")
        after = sum_tables(config, CHANGED_ON_PURPOSE)
        differing = sum(before[name] != after.get(name) for name in before) + len(restored.missing)
    budget = None if plan.is_quick else RESTORE_SECONDS

    def figure(name: str, unit: str, value: float, most: float | None = None) -> Figure:
        return Figure("restore", name, unit, [value], budget=most, backend=backend)

    return [
        figure("size of the backup", "MB", first.new_bytes / _MB),
        figure("first backup", "s", first.seconds),
        figure("increment after 100 messages", "s", second.seconds),
        figure("written by the increment", "MB", second.new_bytes / _MB),
        figure("verification, opened", "s", verified),
        figure("cold restore (RTO)", "s", restored.rto, budget),
        figure("what differs afterwards", "tables", float(differing), None if plan.is_quick else 0.0),
    ]
