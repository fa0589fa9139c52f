"""Devices that know more than a server which was restored from a backup.

[Note: logs that ended earlier] A restored log is shorter than some devices remember. Its next entries get numbers that
these devices have passed already, so they would never ask for them: silent loss. A restore therefore notes, for each
device and each of its conversations, where the log ended in the backup. The first Sync of such a conversation tells:
a cursor beyond the end means that the device is ahead, and it is refused with `log_rolled_back`, again and again, until
somebody decides; a cursor at or before the end means that it is not, and the note is removed before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from curbside.ids import ConversationId, DeviceId
from curbside.server.store.ports import Change, IdentityChange, Store

RESTORED: Final = "store.restored"
"""Setting: there are notes. Absent in a store that was never restored."""
_NOTE: Final = "store.restored."


class RestoredLogs:
    """Called by the stream for each Sync; costs nothing on a server that was never restored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_restored: bool | None = None

    async def find_ahead(self, device_id: DeviceId, cursors: Mapping[ConversationId, int]) -> dict[ConversationId, int]:
        """Of these conversations those in which the device knows more than the log had, with the log's end then."""
        if self._is_restored is None:
            marker = await self._store.read(lambda view: view.identity.find_setting(RESTORED))
            self._is_restored = marker is not None
        if not self._is_restored:
            return {}
        name = _NOTE + device_id

        def change(tx: Change) -> dict[ConversationId, int]:
            ends = _decode(tx.identity.find_setting(name))
            named = {conversation: ends[conversation] for conversation in cursors if conversation in ends}
            ahead = {conversation: end for conversation, end in named.items() if cursors[conversation] > end}
            passed = named.keys() - ahead.keys()
            if passed:
                left = {conversation: end for conversation, end in ends.items() if conversation not in passed}
                tx.identity.put_setting(name, msgspec.msgpack.encode(left))
            return ahead

        held = await self._store.read(lambda view: view.identity.find_setting(name))
        if not _decode(held).keys() & cursors.keys():
            return {}
        return await self._store.write(change)


def note_restored(identity: IdentityChange, stays: Iterable[tuple[str, ConversationId, int]]) -> None:
    """Note where logs ended. stays: device, conversation, last sequence. A note of an earlier restore that nobody
    answered stays: that log ended even before."""
    ends: dict[str, dict[ConversationId, int]] = {}
    for device, conversation, last in stays:
        ends.setdefault(device, {})[conversation] = last
    for device, found in ends.items():
        name = _NOTE + device
        identity.put_setting(name, msgspec.msgpack.encode(found | _decode(identity.find_setting(name))))
    identity.put_setting(RESTORED, b"1")


def _decode(value: bytes | None) -> dict[ConversationId, int]:
    return msgspec.msgpack.decode(value, type=dict[ConversationId, int]) if value else {}
