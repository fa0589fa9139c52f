"""A restore for practice: everything a real one does, into a folder that is removed again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from curbside.audit.events import EventName
from curbside.clock import Clock
from curbside.server.backup.create import Progress, record
from curbside.server.backup.restore import RestoreRequest, RestoreResult, restore_backup
from curbside.server.backup.verify import VerifyRequest
from curbside.server.config import Config
from curbside.server.database import open_store

LAST_DRILL: Final = "backup.last_drill"
"""Setting: when the last drill ended well (8 bytes, Unix seconds)."""


async def drill(source: VerifyRequest, within: Path | None, clock: Clock, progress: Progress) -> RestoreResult:
    """Restore into an embedded database. within: where there is room for it; None: the usual temporary folder.

    Raises: as `restore_backup`.
    """
    with tempfile.TemporaryDirectory(prefix="curbside-drill-", dir=within) as folder:
        return await restore_backup(RestoreRequest(source, Path(folder) / "restored"), clock, progress)


async def remember_check(config: Config, clock: Clock, result: str, number: int, is_drill: bool) -> None:
    """Leave backup.verified in the organisation's own log. result: "ok" or a problem's code.

    Raises: ConfigError; StoreUnavailable.
    """
    store = open_store(config, is_server=False)
    try:
        if is_drill and result == "ok":
            value = clock.now().to_bytes(8, "big")
            await store.write(lambda tx: tx.identity.put_setting(LAST_DRILL, value))
        name = EventName.BACKUP_VERIFIED if result == "ok" else EventName.BACKUP_FAILED
        await record(store, clock, name, result, number)
    finally:
        await store.close()
