"""The wiring of what only a server needs that is one of several: bus, watch, nodes."""

from __future__ import annotations

from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from curbside.clock import Clock
from curbside.server.bus import Bus, NoBus
from curbside.server.bus_sealing import BusSealer
from curbside.server.config import Config
from curbside.server.database_key import load_database_key
from curbside.server.delivery import DeliveryService
from curbside.server.fanout import Fanout
from curbside.server.groups import GroupCache
from curbside.server.metrics import Metrics
from curbside.server.nodes import Nodes, NodesParts
from curbside.server.presence import PresenceService, PresenceSettings
from curbside.server.store.ports import Store
from curbside.server.traced import trace_bus
from curbside.server.tracing import NO_TRACING, Tracing
from curbside.server.watch import StoreWatch, WatchParts, WatchSettings


def build_bus(config: Config, metrics: Metrics, log: FilteringBoundLogger) -> Bus:
    """The engine that the configuration names. Raises: ConfigError."""
    settings = config.bus.build_nats()
    if settings is None:
        return NoBus(is_alone=not config.bus.is_shared)
    from curbside.server.bus_nats import NatsBus, NatsParts  # a tenth of the start of a server that needs none

    return NatsBus(NatsParts(settings, BusSealer(load_database_key(config.database_key)), metrics, log))


def build_presence(config: Config, fanout: Fanout, cache: GroupCache, clock: Clock) -> PresenceService:
    """Typing and presence, as far as they are switched on."""
    signals = config.signals
    settings = PresenceSettings(signals.typing, signals.presence, signals.per_second, signals.burst)
    return PresenceService(fanout, cache, clock, settings)


@dataclass(frozen=True, slots=True)
class NodeWiring:
    """What a node is made of."""

    config: Config
    store: Store
    fanout: Fanout
    cache: GroupCache
    delivery: DeliveryService
    presence: PresenceService
    metrics: Metrics
    log: FilteringBoundLogger
    tracing: Tracing = NO_TRACING


def build_nodes(wiring: NodeWiring) -> Nodes:
    """This process among its neighbours. Raises: ConfigError."""
    config, fanout, cache = wiring.config, wiring.fanout, wiring.cache
    metrics, log = wiring.metrics, wiring.log
    settings = WatchSettings(config.bus.sweep_seconds, config.bus.poll_seconds)
    watch = StoreWatch(WatchParts(wiring.store, fanout, cache, metrics, log, settings))
    bus = trace_bus(build_bus(config, metrics, log), wiring.tracing)
    return Nodes(NodesParts(bus, fanout, cache, wiring.delivery, watch, wiring.presence, metrics, log))
