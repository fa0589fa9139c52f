"""Objects in a folder of this machine."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Final

from obstore.store import LocalStore

_STAGED: Final = re.compile(r".*#\d+\Z")
"""The object store's library writes beside the name first and renames."""


class DiskMedium:
    """Implements Medium. The folder is made if it is not there, for this user alone."""

    attributes: dict[str, str] | None = None
    page_size = 50_000
    is_ordered = False

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.objects = LocalStore(str(folder), automatic_cleanup=True)

    async def settle(self, name: str) -> None:
        await asyncio.to_thread(self._sync, name)

    async def sign(self, name: str, seconds: int) -> str | None:
        return None

    async def end_unfinished(self, before: int) -> int:
        return await asyncio.to_thread(self._remove_staged, before)

    def _sync(self, name: str) -> None:
        path = self._folder / name
        while path != self._folder.parent:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            path = path.parent

    def _remove_staged(self, before: int) -> int:
        removed = 0
        for folder, _, names in os.walk(self._folder):
            for path in (Path(folder) / name for name in names if _STAGED.match(name)):
                if path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed
