"""One trial: people send, something goes wrong again and again, and each time the log is held against the ledger."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable

from load import Load
from serving_process import ServingProcess

KILLS = int(os.environ.get("CHAOS_KILLS", "3"))
"""How often something goes wrong in each trial; `make chaos` asks for more."""
SEED = int(os.environ.get("CHAOS_SEED", "1"))
"""At which moments."""
BETWEEN = 50
"""Messages that are acknowledged from one time to the next, at least."""

Disturb = Callable[[random.Random], Awaitable[object]]


async def run_trial(server: ServingProcess, disturb: Disturb, allowed: frozenset[str] = frozenset()) -> Load:
    """Disturb KILLS times under load. allowed: codes with which a send may be refused meanwhile.

    Raises: AssertionError naming what was acknowledged and is lost, doubled or moved; or that the audit log is wrong.
    """
    dice = random.Random(SEED)
    load = await Load.begin(server)
    running = load.start()
    try:
        for number in range(KILLS):
            await load.wait_for(BETWEEN)
            await disturb(dice)
            assert await load.faults(complete=False) == [], f"after number {number}, seed {SEED}"
        assert await load.finish(running) == [], f"in the end, seed {SEED}"
        assert load.ledger.missing() == []
        assert len(load.ledger.told) > KILLS * BETWEEN
        others = {f"{r.code}: {r.detail}" for sender in load.senders for r in sender.refusals if r.code not in allowed}
        assert not others
    finally:
        await load.close(running)
    assert server.stop() == 0
    assert "verified" in server.verify_audit().lower()
    return load
