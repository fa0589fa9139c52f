"""Counts without names (prometheus). One registry for each app, so that tests do not share counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Metrics:
    """What the server counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.stored = Counter("curbside_messages_stored", "Sends made durable.", registry=own)
        self.refused = Counter("curbside_messages_refused", "Sends refused, by problem code.", ["code"], registry=own)
        self.delivered = Counter("curbside_entries_delivered", "Log entries handed to connections.", registry=own)
        self.batch = Histogram("curbside_send_batch", "Sends in one write.", registry=own, buckets=_SIZES)
        self.write_seconds = Histogram(
            "curbside_send_write_seconds", "From a batch's hand-over to its durability.", registry=own, buckets=_SECONDS
        )
        self.streams = Gauge("curbside_streams_open", "Streams that have proven a session.", registry=own)
        self.bus_up = Gauge("curbside_bus_up", "1 while the bus between nodes is connected.", registry=own)
        self.bus_degraded = Gauge("curbside_bus_degraded", "1 while the store is asked instead.", registry=own)
        self.bus_sent = Counter("curbside_bus_sent", "Messages told to other nodes.", registry=own)
        self.bus_heard = Counter("curbside_bus_heard", "Messages of other nodes.", registry=own)
        self.bus_dropped = Counter("curbside_bus_dropped", "Messages given up: the bus was down or slow.", registry=own)
        self.bus_refused = Counter("curbside_bus_refused", "Bus messages that no node of ours sealed.", registry=own)
        self.nodes_heard = Gauge("curbside_nodes_heard", "Other nodes that say hello.", registry=own)
        self.watch_found = Counter(
            "curbside_watch_found", "Conversations in which the store had news that the bus had not.", registry=own
        )
        self.requests = Counter("curbside_http_requests", "HTTP requests, by status class.", ["status"], registry=own)

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
