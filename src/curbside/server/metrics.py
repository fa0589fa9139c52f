"""Counts without names (prometheus). One registry for each app, so that tests do not share counts."""

from __future__ import annotations

import platform
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

import curbside

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class ByLabel:
    """A counter's children, each looked up once. Their labels come from fixed lists, so they are few."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._children: dict[tuple[str, ...], Counter] = {}

    def labels(self, *values: str) -> Counter:
        """The child of these label values."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._counter.labels(*values)
        return child


class Metrics:
    """What the server counts as it happens. What is looked up when somebody asks: server.vitals."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.stored = Counter("curbside_messages_stored", "Sends made durable.", registry=own)
        self.refused = ByLabel(
            Counter("curbside_messages_refused", "Sends refused, by problem code.", ["code"], registry=own)
        )
        self.turned_away = ByLabel(
            Counter(
                "curbside_turned_away", "Refused before anybody was known, by problem code.", ["code"], registry=own
            )
        )
        self.delivered = Counter("curbside_entries_delivered", "Log entries handed to connections.", registry=own)
        self.log_reads = Counter("curbside_log_reads", "Looks of connections into the log.", registry=own)
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
        self.requests = ByLabel(
            Counter("curbside_http_requests", "HTTP requests, by route and status.", ["route", "status"], registry=own)
        )
        self.request_seconds = Histogram(
            "curbside_http_seconds", "From a request's first byte to its answer's last.", registry=own, buckets=_SECONDS
        )
        self.vitals = Vitals(own)
        Gauge("curbside_build_info", "1, with the versions.", ["version", "python"], registry=own).labels(
            curbside.__version__, platform.python_version()
        ).set(1)
        ProcessCollector(registry=own)

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class Vitals:
    """Gauges that are set when somebody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"curbside_{name}", text, registry=registry)

        self.ready: Final = gauge("ready", "1 while requests are served.")
        self.store_up: Final = gauge("store_up", "1 while the store takes writes.")
        self.blobs_up: Final = gauge("blobs_up", "1 while the storage of attachments answers.")
        self.store_waiting: Final = gauge("store_waiting", "Changes that wait for the store's writer.")
        self.sends_waiting: Final = gauge("sends_waiting", "Sends that wait for the next batch.")
        self.streams_waiting: Final = gauge(
            "streams_waiting", "Streams with live entries that their peer has not read."
        )
        self.backlog_bytes: Final = gauge("live_backlog_bytes", "Live entries that wait in memory for slow peers.")
        self.audit_events: Final = gauge("audit_events", "Events in the audit log.")
        self.audit_unsigned: Final = gauge("audit_events_unsigned", "Of these, behind the last checkpoint.")
        self.checkpoint_age: Final = gauge("audit_checkpoint_age_seconds", "Age of the audit log's last checkpoint.")
