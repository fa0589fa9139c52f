"""Software of one device: an encrypted vault, an MLS client, a stream to the server. `Device` is its public face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curbside.client.device import Device

__all__ = ["Device"]


def __getattr__(name: str) -> Any:
    """Load Device on first use, so that importing one module of the client does not load all of them."""
    if name == "Device":
        from curbside.client.device import Device

        return Device
    raise AttributeError(name)
