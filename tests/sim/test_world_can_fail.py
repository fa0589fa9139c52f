"""The simulation notices a broken client: each defect makes `settle` or `check` fail, and the failure names the seed.

A defect is put into the real client for the length of one test. It must be found within a few seeds, with which the
healthy client is content.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import world
from world import World

from curbside.client.effects import Effect
from curbside.client.outbox import Outbox
from curbside.client.rows import ConversationRow, VaultRows
from curbside.client.sync import Sync
from curbside.crypto.random import random_bytes
from curbside.ids import ConversationId, encode_id
from curbside.wire import frames

SEEDS = range(4)
STEPS = 150
SETTLE_SECONDS = 15.0
Break = Callable[[pytest.MonkeyPatch], None]


def forget_what_was_sent(patch: pytest.MonkeyPatch) -> None:
    """The outbox row goes when the frame is made, not when the server has it."""
    make_frame = Outbox._send_frame

    def send_frame(self: Outbox, conversation: ConversationId, message_id: str, *rest: Any) -> frames.Send:
        self._vault.rows.delete_outbox(message_id)
        return make_frame(self, conversation, message_id, *rest)

    patch.setattr(Outbox, "_send_frame", send_frame)


def keep_cursors_in_memory(patch: pytest.MonkeyPatch) -> None:
    """Where a conversation stands is not written to the disk."""
    held: dict[VaultRows, dict[str, int]] = defaultdict(dict)
    find = VaultRows.find_conversation

    def save_cursor(self: VaultRows, conversation: str, cursor: int) -> None:
        held[self][conversation] = cursor

    def find_conversation(self: VaultRows, conversation: str) -> ConversationRow | None:
        row = find(self, conversation)
        return row if row is None else replace(row, cursor=held[self].get(conversation, row.cursor))

    def cursors(self: VaultRows) -> dict[str, int]:
        found = {row.id: find_conversation(self, row.id) for row in self.conversations()}
        return {name: row.cursor for name, row in found.items() if row is not None}

    patch.setattr(VaultRows, "save_cursor", save_cursor)
    patch.setattr(VaultRows, "find_conversation", find_conversation)
    patch.setattr(VaultRows, "cursors", cursors)


def rename_after_reconnect(patch: pytest.MonkeyPatch) -> None:
    """What waits is sent under a new message id on each connection."""
    connected = Outbox.connected

    def rename(self: Outbox) -> None:
        connected(self)
        rows = self._vault.rows
        with self._vault.transaction():
            for item in rows.outbox():
                fresh = encode_id(random_bytes(16))
                rows._run("update outbox set id = ?, epoch = -1, envelope = x'' where id = ?", (fresh, item.id))
                rows._run("update message set id = ? where id = ?", (fresh, item.id))

    patch.setattr(Outbox, "connected", rename)


def ignore_the_order(patch: pytest.MonkeyPatch) -> None:
    """Entries are applied as they lie in the frame's memory, from the last, gaps or not."""
    in_order = Sync.entries

    def entries(self: Sync, items: list[frames.Entry], now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for entry in reversed(items):
            row = self._vault.rows.find_conversation(entry.conversation)
            if row is not None and entry.sequence > row.cursor + 1:
                self._vault.rows.save_cursor(entry.conversation, entry.sequence - 1)
            effects += in_order(self, [entry], now_ms)
        return effects

    patch.setattr(Sync, "entries", entries)


async def find_fault(seed: int, folder: Path) -> str:
    """Run the world; what it complains about, "" when it is content."""
    async with World(seed, folder) as ward:
        try:
            alice, bob = await ward.invite("alice"), await ward.invite("bob")
            await ward.gather(alice, [bob])
            for _ in range(STEPS):
                await ward.step()
            await ward.settle()
            ward.check()
        except AssertionError as error:
            return str(error)
    return ""


async def test_the_healthy_client_has_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "SETTLE_SECONDS", SETTLE_SECONDS)
    assert await find_fault(SEEDS[0], tmp_path) == ""


@pytest.mark.parametrize(
    "defect", [forget_what_was_sent, keep_cursors_in_memory, rename_after_reconnect, ignore_the_order]
)
async def test_a_defect_is_found_and_its_seed_is_named(
    defect: Break, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "SETTLE_SECONDS", SETTLE_SECONDS)
    defect(monkeypatch)
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        fault = await find_fault(seed, folder)
        if fault:
            assert f"seed {seed}" in fault, fault
            return
    pytest.fail(f"{defect.__name__} was not found with seeds {list(SEEDS)}")
