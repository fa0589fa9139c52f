"""GET /v1/devices and DELETE /v1/devices/{device_id}."""

from __future__ import annotations

from litestar import delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from curbside.policy.access import Subject
from curbside.server.devices import DeviceService
from curbside.wire import bodies


@get("/v1/devices", opt={"rule": "R-devices-list"})
async def list_devices(subject: NamedDependency[Subject], devices: NamedDependency[DeviceService]) -> bodies.DeviceList:
    """The asker's own devices."""
    return await devices.list_devices(subject)


@delete("/v1/devices/{device_id:str}", status_code=204, opt={"rule": "R-device-revoke"})
async def revoke_device(
    device_id: FromPath[str], subject: NamedDependency[Subject], devices: NamedDependency[DeviceService]
) -> None:
    """End a device: its sessions are dead at once."""
    await devices.revoke_device(subject, device_id)
