"""A server with a defect: it answers before the transaction is committed. The chaos test must notice.

python hasty_server.py --folder FOLDER
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from curbside.cli.main import run
from curbside.server.store import sqlite
from curbside.server.store.group_commit import tell_callers

BETWEEN_SECONDS = 0.1


def run_transaction_hastily(self: Any, group: Sequence[Any]) -> None:
    """SqliteStore._run_transaction, but who called is told before the last line."""
    run, change = self._connection.execute, self._change
    run("BEGIN IMMEDIATE")
    change.delivery.begin()
    for job in group:
        self._run_job(job)
    if leaves := change.pending.take():
        change.audit.append_leaves(leaves)
    tell_callers(group)
    time.sleep(BETWEEN_SECONDS)
    run("COMMIT")


if __name__ == "__main__":
    sqlite.SqliteStore._run_transaction = run_transaction_hastily  # type: ignore[method-assign]
    sys.exit(run(["serve", *sys.argv[1:]]))
