"""What routes may call: all services of a running server in one frozen value (`request.app.state.services`)."""

from __future__ import annotations

from typing import Protocol

from curbside.policy.access import Subject


class Session(Protocol):
    """An authenticated device. expires_at: Unix seconds."""

    @property
    def subject(self) -> Subject: ...

    @property
    def expires_at(self) -> int: ...


class Sessions(Protocol):
    """Who asks (curbside.server.sessions)."""

    async def verify(self, token: str, proof: str, htm: str, htu: str, nonce: str, now: int) -> Session:
        """The session of a token whose proof fits. nonce: "" where none was asked for.

        Raises: NotAuthenticated, DeviceRevoked.
        """
        ...
