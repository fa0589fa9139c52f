"""A server whose database may not grow while there is a file `full` in its folder.

python cramped_server.py --folder FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from curbside.cli.main import run
from curbside.server.store import sqlite

SQLITE_MAX = 0xFFFFFFFE


def cramp(folder: Path, run_transaction: Callable[..., None]) -> Callable[..., None]:
    """SqliteStore._run_transaction that looks at the file first."""

    def cramped(self: Any, group: Sequence[Any]) -> None:
        is_full = (folder / "full").exists()
        pages = self._connection.pragma("page_count")
        self._connection.pragma("max_page_count", pages if is_full else SQLITE_MAX)
        run_transaction(self, group)

    return cramped


if __name__ == "__main__":
    place = Path(sys.argv[sys.argv.index("--folder") + 1])
    store = sqlite.SqliteStore
    store._run_transaction = cramp(place, store._run_transaction)  # type: ignore[method-assign]
    sys.exit(run(["serve", *sys.argv[1:]]))
