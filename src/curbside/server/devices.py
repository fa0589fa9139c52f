"""Devices: a user's own list, and the end of one that was lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from curbside.audit.events import EventName, ObjectType
from curbside.clock import Clock
from curbside.errors import NotFound
from curbside.ids import DeviceId, UserId, decode_id
from curbside.policy.access import Relation, Subject, check_access
from curbside.server.recording import About, Actor, Recorder
from curbside.server.store.ports import Change, Store, View
from curbside.server.store.records import DeviceRecord
from curbside.wire import bodies

SWEEP_SECONDS: Final = 60
PAGE: Final = 500
OnRevoked = Callable[[UserId, DeviceId], Awaitable[None]]
"""Called after a device's end is durable: close its stream, propose its removal from its conversations."""


class DeviceService:
    """Lists and revokes devices."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._recorder = Recorder(clock)
        self.on_device_revoked: list[OnRevoked] = []
        self._swept_at = 0
        self._asked: set[DeviceId] = set()
        """Whose conversations were all asked since this process began: asking once is enough."""

    async def list_devices(self, subject: Subject) -> bodies.DeviceList:
        """The asker's own devices, revoked ones too."""
        about = About(EventName.DEVICES_VIEWED, "R-devices-list", ObjectType.USER, subject.user_id)

        def view(tx: Change) -> list[DeviceRecord]:
            check_access("R-devices-list", subject, Relation.OWN)
            tx.append_audit(self._recorder.done(about, Actor.of(subject)))
            return tx.identity.list_devices(subject.user_id)

        found = await self._store.write(view, self._recorder.refused(about, Actor.of(subject)))
        return bodies.DeviceList([_show(device, subject) for device in found])

    async def revoke_device(self, subject: Subject, device_id: str) -> None:
        """End a device: its sessions and key packages are gone when this returns.

        Repeating is harmless, and asks those conversations that were not asked, as `sweep` does by itself.

        Raises: NotFound, also when the device is not for the asker to end; Malformed.
        """
        decode_id(device_id)
        target = DeviceId(device_id)
        about = About(
            EventName.DEVICE_REVOKED, "R-device-revoke", ObjectType.DEVICE, target, refused=EventName.ACCESS_DENIED
        )

        def revoke(tx: Change) -> UserId:
            device = tx.identity.find_device(target)
            if device is None:
                raise NotFound
            relation = Relation.OWN if device.user_id == subject.user_id else Relation.NONE
            check_access("R-device-revoke", subject, relation)
            if not tx.identity.revoke_device(target, self._clock.now()):
                return device.user_id
            tx.append_audit(self._recorder.done(about, Actor.of(subject)))
            ended = About(EventName.SESSION_REVOKED, about.rule, ObjectType.DEVICE, target, {"cause": "device.revoked"})
            tx.append_audit(self._recorder.done(ended, Actor.of(subject)))
            return device.user_id

        owner = await self._store.write(revoke, self._recorder.refused(about, Actor.of(subject)))
        await self._tell(owner, target)

    async def sweep(self) -> None:
        """Once a minute: do what follows a device's end where a process ended before it was done."""
        now = self._clock.now()
        if now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        after = DeviceId("")
        while found := await self._store.read(partial(_list_left_behind, after)):
            for device_id, user_id in found:
                if device_id not in self._asked:
                    await self._tell(user_id, device_id)
            after = found[-1][0]

    async def _tell(self, owner: UserId, device_id: DeviceId) -> None:
        for call in self.on_device_revoked:
            await call(owner, device_id)
        self._asked.add(device_id)


def _list_left_behind(after: DeviceId, view: View) -> list[tuple[DeviceId, UserId]]:
    return view.delivery.list_left_behind(after, PAGE)


def _show(device: DeviceRecord, subject: Subject) -> bodies.DeviceInfo:
    return bodies.DeviceInfo(
        device_id=device.device_id,
        label=device.label,
        created_at=device.created_at,
        last_seen_at=device.last_seen_at,
        revoked=device.revoked_at != 0,
        current=device.device_id == subject.device_id,
    )
