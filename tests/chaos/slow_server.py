"""A server on a disk that takes its time with every commit.

python slow_server.py --folder FOLDER
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from curbside.cli.main import run
from curbside.server.store import sqlite

LONGEST_SECONDS = 0.4


def wait() -> int:
    """SQLite's commit hook: everything is written and nothing is durable. 0: go on."""
    time.sleep(random.random() * LONGEST_SECONDS)
    return 0


def slow(run_transaction: Callable[..., None]) -> Callable[..., None]:
    """SqliteStore._run_transaction whose commit waits."""

    def slowed(self: Any, group: Sequence[Any]) -> None:
        self._connection.set_commit_hook(wait)
        run_transaction(self, group)

    return slowed


if __name__ == "__main__":
    store = sqlite.SqliteStore
    store._run_transaction = slow(store._run_transaction)  # type: ignore[method-assign]
    sys.exit(run(["serve", *sys.argv[1:]]))
