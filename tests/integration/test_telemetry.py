"""Counts, traces and health: what they tell, where they go, and that nothing that anybody wrote is in them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from collector import Collector, read_attributes
from prometheus_client.parser import text_string_to_metric_families
from running import Person, Running

from curbside.crypto.random import random_bytes
from curbside.errors import ConfigError, StoreUnavailable
from curbside.ids import encode_base64url, encode_id
from curbside.server.config import Proxy, Telemetry
from curbside.server.logs import build_logger
from curbside.server.tracing import Attribute

CANARY = "CANARY" + encode_base64url(random_bytes(9))
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as found:
        yield found


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Running]:
    """A server with these settings, which ends with the test."""
    running = Running(folder, **settings)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def trace_to(collector: Collector, **more: Any) -> Telemetry:
    """Everything is traced, and counts are sent every second."""
    return Telemetry(endpoint=collector.endpoint, trace_ratio=1.0, export_seconds=1, **more)


async def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The condition's value once it is true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < deadline, "this did not come true"
        await asyncio.sleep(0.02)
    return found


async def be_hostile(running: Running, alice: Person) -> None:
    """The canary in every place of a request that a stranger fills in, and of a conversation that people do."""
    async with httpx.AsyncClient(base_url=running.url) as http:
        for path in (f"/{CANARY}", f"/v1/{CANARY}", f"/v1/blobs/{CANARY}", f"/v1/people/{CANARY}?query={CANARY}"):
            for method in ("GET", "POST", CANARY):
                await http.request(method, path, headers={CANARY: CANARY, "user-agent": CANARY, "host": CANARY})
                await http.request(method, path, headers={CANARY: CANARY, "traceparent": CANARY, "tracestate": CANARY})
        await http.post("/v1/signup/start", content=json.dumps({CANARY: CANARY}), headers={"dpop": CANARY})
        await http.get("/v1/devices", headers={"authorization": f"DPoP {CANARY}", "dpop": CANARY})
    group = await alice.begin()
    wire = await alice.connect()
    await wire.say(group, CANARY.encode())
    await wire.send_envelope(group, random_bytes(16), 0, CANARY.encode())
    await alice.get(f"/v1/people?query={CANARY}")


async def test_traces_and_counts_reach_the_collector_and_name_nobody(tmp_path: Path, collector: Collector) -> None:
    token = tmp_path / "token"
    token.write_text("collector-token-1234\n")
    with serving(tmp_path, metrics=True, telemetry=trace_to(collector, token_file=token)) as running:
        alice = await Person.join(running, name=f"Alice {CANARY}")
        await be_hostile(running, alice)
        shown = (await alice.http.get("/metrics")).text
        await wait_for(lambda: "curbside_messages_stored" in collector.metrics)
        await alice.close()
    names = {span.name for span in collector.spans}
    assert names >= {"http.request", "store.write", "store.read", "store.check", "blobs.find"}
    allowed = {attribute.value for attribute in Attribute}
    assert all(set(read_attributes(span)) <= allowed for span in collector.spans)
    requests = [span for span in collector.spans if span.name == "http.request"]
    routes = {read_attributes(span)["http.route"] for span in requests}
    assert routes >= {"/v1/signup/finish", "/v1/blobs/{blob_id}", "/v1/people/{user_id}", "unmatched", "/metrics"}
    assert {read_attributes(span)["http.request.method"] for span in requests} == {"GET", "POST", "OTHER"}
    secrets = [CANARY, alice.newcomer.user_id, alice.device_id, alice.newcomer.invite_id, alice.token, "Alice"]
    for secret in secrets:
        assert secret not in shown
        assert all(secret.encode() not in body for body in collector.raw), secret
    assert collector.authorizations == {"Bearer collector-token-1234"}
    told = {each.key for resource in collector.resources for each in resource.attributes}
    assert told == {"service.name", "service.version"}, "not even the machine's name"


async def test_a_requests_parts_are_its_children_and_its_log_line_has_its_id(
    tmp_path: Path, collector: Collector
) -> None:
    with serving(tmp_path, telemetry=trace_to(collector)) as running:
        alice = await Person.join(running)
        answer = await alice.get("/v1/devices")
        await alice.close()
    spans = {span.span_id: span for span in collector.spans}
    (request,) = [s for s in spans.values() if read_attributes(s).get("http.route") == "/v1/devices"]
    assert read_attributes(request)["curbside.request"] == answer.headers["x-request-id"]
    children = {s.name for s in spans.values() if s.parent_span_id == request.span_id}
    assert children == {"store.read", "store.write"}


@pytest.mark.parametrize(("trusted", "is_taken"), [((), False), (("127.0.0.1",), True)])
async def test_only_a_trusted_proxy_says_which_trace_a_request_is_of(
    tmp_path: Path, collector: Collector, trusted: tuple[str, ...], is_taken: bool
) -> None:
    with serving(tmp_path, telemetry=trace_to(collector), proxy=Proxy(trusted=trusted)) as running:
        async with httpx.AsyncClient(base_url=running.url) as http:
            await http.get("/v1/organization", headers={"traceparent": PARENT, "tracestate": f"x={CANARY}"})
            for wrong in (PARENT[:-1], "00-" + "0" * 32 + PARENT[35:], PARENT.upper(), f"{PARENT}-{CANARY}"):
                await http.get("/v1/health/live", headers={"traceparent": wrong})
    traces = {
        read_attributes(span)["http.route"]: span.trace_id.hex()
        for span in collector.spans
        if span.name == "http.request"
    }
    assert (traces["/v1/organization"] == TRACE) is is_taken
    assert traces["/v1/health/live"] != TRACE
    assert all(CANARY.encode() not in body for body in collector.raw)


async def test_histograms_and_counters_arrive_as_they_are(tmp_path: Path, collector: Collector) -> None:
    with serving(tmp_path, metrics=True, telemetry=trace_to(collector)) as running:
        alice = await Person.join(running)
        group = await alice.begin()
        wire = await alice.connect()
        for number in range(5):
            await wire.say(group, b"%d" % number)
        await wait_for(lambda: has_sum(collector, "curbside_messages_stored", 5))
        await alice.close()
    histogram = collector.metrics["curbside_send_write_seconds"].histogram
    (point,) = histogram.data_points
    assert point.count == sum(point.bucket_counts) == 5
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert point.sum > 0
    assert not point.HasField("min")
    assert collector.metrics["curbside_messages_stored"].sum.is_monotonic
    assert collector.metrics["curbside_store_up"].gauge.data_points[0].as_double == 1


def has_sum(collector: Collector, name: str, value: float) -> bool:
    """Whether a counter arrived with this value."""
    metric = collector.metrics.get(name)
    return metric is not None and metric.sum.data_points[0].as_double == value


async def test_a_collector_that_is_away_or_refuses_disturbs_nobody(tmp_path: Path, collector: Collector) -> None:
    written = io.StringIO()
    collector.status = 400
    with serving(tmp_path, telemetry=trace_to(collector)) as running:
        running.app._telemetry._log = build_logger("info", written)
        alice = await Person.join(running)
        await wait_for(lambda: "telemetry.lost" in written.getvalue())
        await alice.get("/v1/devices")
        collector.status = 200
        await wait_for(lambda: "telemetry.heard" in written.getvalue())
        await alice.close()


def test_nothing_of_opentelemetry_is_loaded_when_nothing_is_sent() -> None:
    code = (
        "import sys; import curbside.server.app; "
        "found = [name for name in sys.modules if name.startswith('opentelemetry')]; "
        "sys.exit(str(found) if found else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_endpoint_without_the_packages_stops_the_start_and_says_what_is_missing(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from curbside.errors import ConfigError\n"
        "from curbside.server.config import Telemetry\n"
        "from curbside.server.telemetry import open_telemetry\n"
        "try: open_telemetry(Telemetry(endpoint='http://127.0.0.1:4318'), None, None)\n"
        "except ConfigError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "requirements/otlp.txt" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    "settings",
    [
        {"endpoint": "ftp://collector.example"},
        {"endpoint": "collector.example:4318"},
        {"endpoint": "http://user:secret@collector.example"},
        {"trace_ratio": 1.5},
        {"export_seconds": 0},
        {"metrics_networks": ("10.0.0.0/64",)},
    ],
)
def test_settings_that_make_no_sense_stop_the_start(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        Running(tmp_path, telemetry=Telemetry(**settings))
    assert "secret" not in str(refused.value)


# --- what is counted --------------------------------------------------------------------------------


def read_metrics(text: str) -> dict[str, float]:
    """Samples by name and labels."""
    return {
        sample.name + "".join(f"|{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_counts_tell_how_the_server_is(tmp_path: Path) -> None:
    with serving(tmp_path, metrics=True) as running:
        alice = await Person.join(running)
        group = await alice.begin()
        wire = await alice.connect()
        await wire.say(group, b"hello")
        await wire.send_envelope(group, random_bytes(16), 7, b"of an epoch that is not there yet")
        found = read_metrics((await alice.http.get("/metrics")).text)
        assert found["curbside_messages_stored_total"] == 1
        assert sum(value for name, value in found.items() if name.startswith("curbside_messages_refused_total|")) == 1
        assert found["curbside_send_write_seconds_count"] == found["curbside_send_batch_count"] == 2
        assert found["curbside_streams_open"] == 1
        for name in ("ready", "store_up", "blobs_up"):
            assert found[f"curbside_{name}"] == 1, name
        for name in ("live_backlog_bytes", "streams_waiting", "sends_waiting", "store_waiting"):
            assert found[f"curbside_{name}"] == 0, name
        assert found["curbside_audit_events"] == len(running.events())
        assert found["curbside_audit_events_unsigned"] > 0
        assert found["curbside_http_requests_total|/v1/signup/finish|200"] == 1
        assert any(name.startswith("curbside_build_info|") for name in found)
        assert found["process_resident_memory_bytes"] > 0
        await alice.close()


async def test_whatever_strangers_ask_for_the_counts_stay_few(tmp_path: Path) -> None:
    with serving(tmp_path, metrics=True) as running:
        async with httpx.AsyncClient(base_url=running.url) as http:
            await http.get("/v1/nowhere")
            await http.request("ODD", "/")
            await http.get("/v1/devices", headers={"authorization": "DPoP x", "dpop": "y"})
            before = set(read_metrics((await http.get("/metrics")).text))
            for number in range(50):
                await http.request(f"ODD{number}", f"/{number}")
                await http.get(f"/v1/{number}")
                await http.get(f"/v1/blobs/{encode_id(random_bytes(16))}", headers={"authorization": f"DPoP {number}"})
            after = set(read_metrics((await http.get("/metrics")).text))
    assert {name for name in after - before if name.startswith("curbside_") and "_created|" not in name} <= {
        "curbside_http_requests_total|/metrics|200",
        "curbside_http_requests_total|/v1/blobs/{blob_id}|401",
    }


# --- health -----------------------------------------------------------------------------------------


async def test_health_names_what_is_wrong_and_only_the_store_makes_it_unready(tmp_path: Path) -> None:
    with serving(tmp_path, metrics=True) as running:
        services = running.app.services
        assert services is not None
        async with httpx.AsyncClient(base_url=running.url) as http:
            assert (await http.get("/v1/health/live")).json() == {"status": "ok", "checks": {}}
            ready = await http.get("/v1/health/ready")
            assert ready.json() == {"status": "ok", "checks": {"store": "ok", "blobs": "ok"}}

            async def be_away() -> None:
                raise StoreUnavailable("secret")

            services.health._look_at_blobs, services.health._checked_at = be_away, -(10**9)
            degraded = await http.get("/v1/health/ready")
            assert degraded.status_code == 200
            assert degraded.json() == {"status": "degraded", "checks": {"store": "ok", "blobs": "store_unavailable"}}
            found = read_metrics((await http.get("/metrics")).text)
            assert (found["curbside_ready"], found["curbside_blobs_up"]) == (1, 0)

            async def hang() -> None:
                await asyncio.sleep(60)

            services.health._look_at_blobs, services.health._checked_at = hang, -(10**9)
            assert (await http.get("/v1/health/ready")).json()["checks"]["blobs"] == "late"
            services.health.drain()
            leaving = await http.get("/v1/health/ready")
            assert leaving.status_code == 503
            assert leaving.json()["checks"] == {"store": "ok", "blobs": "late", "server": "draining"}
            assert (await http.get("/v1/health/live")).status_code == 200
            assert read_metrics((await http.get("/metrics")).text)["curbside_ready"] == 0
