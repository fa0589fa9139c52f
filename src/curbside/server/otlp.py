"""OpenTelemetry: spans and counts to a collector, over OTLP and HTTP.

Loaded only when `telemetry.endpoint` is set; the packages are those of the extra `otlp` (requirements/otlp.txt). Counts
are read from the same registry that /metrics shows, so nothing is counted twice and nothing here is on a message's way.
The library's own settings are passed over: what is sent and where to stands in our configuration alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family

import curbside
from curbside.errors import CurbsideError
from curbside.server.config import Telemetry
from curbside.server.metrics_access import read_token
from curbside.server.tracing import Attribute, Span, SpanName, Value, check_attribute

SEND_SECONDS: Final = 5
"""For one attempt to reach the collector; what it does not take is dropped, never kept for long."""
SPANS_WAITING: Final = 4_096
_UNKNOWN: Final[Any] = None
"""Left out: the registry does not keep it."""
_SCOPE: Final = InstrumentationScope("curbside", curbside.__version__)
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Otlp:
    """Implements Tracing, and sends counts when asked to."""

    is_on: Final = True

    def __init__(self, settings: Telemetry) -> None:
        """Raises: ConfigError when the token file cannot be read."""
        base, headers = settings.endpoint.rstrip("/"), _build_headers(settings)
        self._resource = Resource({"service.name": "curbside", "service.version": curbside.__version__})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)),
            resource=self._resource,
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attributes=len(Attribute), max_events=0, max_links=0),
        )
        spans = OTLPSpanExporter(endpoint=f"{base}/v1/traces", headers=headers, timeout=SEND_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(spans, max_queue_size=SPANS_WAITING))
        self._tracer = self._provider.get_tracer("curbside", curbside.__version__)
        self._counts = OTLPMetricExporter(endpoint=f"{base}/v1/metrics", headers=headers, timeout=SEND_SECONDS)
        self._started_at = time.time_ns()

    def span(self, name: SpanName, parent: str = "") -> AbstractContextManager[Span]:
        return self._span(name, _PROPAGATOR.extract({"traceparent": parent}) if parent else None)

    @contextmanager
    def _span(self, name: SpanName, context: Context | None) -> Iterator[Span]:
        kind = SpanKind.SERVER if name is SpanName.REQUEST else SpanKind.INTERNAL
        with self._tracer.start_as_current_span(
            name.value, context, kind, record_exception=False, set_status_on_exception=False
        ) as span:
            yield _Span(span)

    def send_counts(self, registry: CollectorRegistry) -> bool:
        """Send what the registry holds now; whether the collector took it. Blocks, for SEND_SECONDS at most."""
        metrics = list(build_metrics(registry.collect(), self._started_at, time.time_ns()))
        scope = ScopeMetrics(_SCOPE, metrics, "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        return self._counts.export(data, timeout_millis=SEND_SECONDS * 1000) is MetricExportResult.SUCCESS

    def close(self) -> None:
        """Send what waits and end. Blocks, for a few seconds at most."""
        self._provider.force_flush(SEND_SECONDS * 1000)
        self._provider.shutdown()
        self._counts.shutdown(timeout_millis=SEND_SECONDS * 1000)


class _Span:
    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    def put(self, attribute: Attribute, value: Value) -> None:
        self._span.set_attribute(attribute.value, check_attribute(attribute, value))

    def fail(self, error: BaseException) -> None:
        code = error.code if isinstance(error, CurbsideError) else "internal"
        self._span.set_status(Status(StatusCode.ERROR, code))


def build_metrics(families: Iterable[Family], began: int, now: int) -> Iterator[Metric]:
    """Prometheus' families as OpenTelemetry's metrics. began, now: Unix nanoseconds."""
    for family in families:
        points: list[Any]
        if family.type == "histogram":
            points = [_build_histogram(attributes, samples, began, now) for attributes, samples in _by_labels(family)]
            shape: Any = Histogram(points, AggregationTemporality.CUMULATIVE)
        else:
            points = [
                NumberDataPoint(dict(sample.labels), began, now, sample.value)
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            is_count = family.type == "counter"
            shape = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True) if is_count else Gauge(points)
        if points:
            yield Metric(family.name, family.documentation, family.unit or "1", shape)


def _by_labels(family: Family) -> Iterator[tuple[dict[str, str], dict[str, float]]]:
    """Each histogram of a family: its labels, and its samples by bound, `sum` and `count`."""
    found: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        suffix = sample.name.removeprefix(family.name + "_")
        if suffix in ("bucket", "sum", "count"):
            key = sample.labels["le"] if suffix == "bucket" else suffix
            found.setdefault(tuple(sorted(labels.items())), {})[key] = sample.value
    for labels_key, samples in found.items():
        yield dict(labels_key), samples


def _build_histogram(labels: dict[str, str], samples: dict[str, float], began: int, now: int) -> HistogramDataPoint:
    bounds = sorted(float(key) for key in samples if key not in ("sum", "count"))
    totals = {float(key): value for key, value in samples.items() if key not in ("sum", "count")}
    counts, former = [], 0.0
    for bound in bounds:
        counts.append(int(totals[bound] - former))
        former = totals[bound]
    explicit = [bound for bound in bounds if bound != float("inf")]
    return HistogramDataPoint(
        attributes=labels,
        start_time_unix_nano=began,
        time_unix_nano=now,
        count=int(samples["count"]),
        sum=samples["sum"],
        bucket_counts=counts,
        explicit_bounds=explicit,
        min=_UNKNOWN,
        max=_UNKNOWN,
    )


def _build_headers(settings: Telemetry) -> dict[str, str]:
    if settings.token_file is None:
        return {}
    return {"authorization": "Bearer " + read_token(settings.token_file, "telemetry.token_file").decode("ascii")}
