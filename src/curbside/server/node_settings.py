"""Settings of a server that is one of several, of typing and presence, and of how a server goes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError
from curbside.server.bus_settings import NatsSettings


class Bus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The other servers on the same database, and how news passes between them."""

    shared: bool = False
    """Other servers use this database too. Without NATS they find each other's work in the database."""
    nats: SecretBytes | None = None
    """nats:// or tls:// addresses, separated by commas; implies `shared`."""
    credentials: Path | None = None
    """A NATS credentials file (.creds): user JWT and seed."""
    ca: Path | None = None
    """PEM of the authority that signed the NATS servers' certificates; None: the system's."""
    certificate: Path | None = None
    """PEM of this server's own certificate, where NATS asks for one."""
    key: Path | None = None
    sweep_seconds: float = 3.0
    """Between two looks into the database while the bus carries the news."""
    poll_seconds: float = 1.0
    """The same while it does not."""

    @property
    def is_shared(self) -> bool:
        """Whether this server may be one of several."""
        return self.shared or self.nats is not None

    def build_nats(self) -> NatsSettings | None:
        """How to reach NATS, if it is to be reached."""
        if self.nats is None:
            return None
        return NatsSettings(self.nats, self.credentials, self.ca, self.certificate, self.key)

    def check(self) -> None:
        """Raises: ConfigError."""
        if not 0.05 <= self.poll_seconds <= self.sweep_seconds <= 4.0:  # 5 seconds for a stream of a revoked device
            raise ConfigError("bus: poll_seconds and sweep_seconds must be at least 0.05 and at most 4, in this order")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("bus: certificate and key belong together")
        settings = self.build_nats()
        if settings is not None:
            settings.check()


class Signals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is typing and who is there, shown to the other members at that moment and kept nowhere."""

    typing: bool = True
    presence: bool = True
    per_second: float = 2.0
    """Signals of one device; more are dropped."""
    burst: int = 20


class Drain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server goes, so that its devices come back one after another, and elsewhere."""

    notice_seconds: float = 0.0
    """Not ready, but still serving: the time a proxy needs to notice. Twice its interval of health checks."""
    spread_seconds: float = 5.0
    """Over which open streams are closed, when there are many; a few close at once."""
