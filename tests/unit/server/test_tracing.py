"""Spans hold nothing that somebody wrote; engines that are traced behave as they did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import NotFound, UsageError
from curbside.ids import DeviceId, encode_id
from curbside.server.bus import NoBus, QueueFilled
from curbside.server.logs import Code, Method
from curbside.server.store.sqlite import open_sqlite_store
from curbside.server.traced import TracedBus, TracedStore, trace_bus, trace_store
from curbside.server.tracing import (
    NO_TRACING,
    UNMATCHED,
    Attribute,
    RequestId,
    Route,
    Span,
    SpanName,
    check_attribute,
    find_parent,
    find_route,
)

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Heard:
    """Implements Tracing: remembers spans, what was put into them and how they failed."""

    is_on = True

    def __init__(self) -> None:
        self.spans: list[tuple[str, dict[str, Any], str]] = []

    @contextmanager
    def span(self, name: SpanName, parent: str = "") -> Iterator[Span]:
        span = _HeardSpan()
        try:
            yield span
        finally:
            self.spans.append((name.value, span.put_in, span.failed))


class _HeardSpan:
    def __init__(self) -> None:
        self.put_in: dict[str, Any] = {}
        self.failed = ""

    def put(self, attribute: Attribute, value: Any) -> None:
        self.put_in[attribute.value] = check_attribute(attribute, value)

    def fail(self, error: BaseException) -> None:
        self.failed = type(error).__name__


def test_what_may_be_in_a_span() -> None:
    for value, shown in (
        (5, 5),
        (1.5, 1.5),
        (True, True),
        (Method.GET, "GET"),
        (Code("not_found"), "not_found"),
        (Route("/v1/blobs/{blob_id}"), "/v1/blobs/{blob_id}"),
        (RequestId("r" * 22), "r" * 22),
    ):
        found = check_attribute(Attribute.CODE, value)
        assert (found, type(found)) == (shown, type(shown))


@pytest.mark.parametrize("value", ["GET", "A" * 22, "/v1/people/Alice", b"x", None, ["x"], {"a": 1}, NotFound("Alice")])
def test_free_text_may_not(value: Any) -> None:
    with pytest.raises(UsageError) as refused:
        check_attribute(Attribute.ROUTE, value)
    assert "Alice" not in str(refused.value)


def test_a_name_of_ones_own_may_not_be_either() -> None:
    class Own(StrEnum):
        PATIENT = "patient"

    with pytest.raises(UsageError):
        check_attribute(Own.PATIENT, 5)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        check_attribute("patient", 5)  # type: ignore[arg-type]


def test_only_templates_that_exist_are_routes() -> None:
    templates = frozenset({"/v1/blobs/{blob_id}"})
    assert find_route({"path_template": "/v1/blobs/{blob_id}"}, templates) == "/v1/blobs/{blob_id}"
    for scope in ({}, {"path_template": "/v1/Alice"}, {"path": "/v1/blobs/{blob_id}"}):
        assert find_route(scope, templates) is UNMATCHED


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [PARENT, PARENT],
        [PARENT + b"\n"],
        [PARENT.upper()],
        [b"01" + PARENT[2:]],
        [PARENT + b"-more"],
        [PARENT.replace(b"b7ad6b7169203331", b"0" * 16)],
        [b"\xff" * 55],
    ],
)
def test_a_wrong_traceparent_is_none(values: list[bytes]) -> None:
    assert find_parent({"headers": [(b"traceparent", value) for value in values]}) == ""


def test_a_right_traceparent_is_taken() -> None:
    assert find_parent({"headers": [(b"traceparent", PARENT)]}) == PARENT.decode()


async def test_a_traced_store_answers_and_refuses_as_it_did(tmp_path: Path) -> None:
    engine, heard = open_sqlite_store(str(tmp_path / "a.db"), SecretBytes(random_bytes(32))), Heard()
    assert trace_store(engine, NO_TRACING) is engine
    store = trace_store(engine, heard)
    assert isinstance(store, TracedStore)
    await store.write(lambda tx: tx.identity.put_setting("a", b"1"))
    assert await store.read(lambda view: view.identity.find_setting("a")) == b"1"
    await store.check()
    assert store.waiting == 0

    def refuse(tx: Any) -> None:
        raise NotFound("Alice")

    with pytest.raises(NotFound):
        await store.write(refuse)
    await store.close()
    assert [name for name, _, _ in heard.spans] == ["store.write", "store.read", "store.check", "store.write"]
    assert heard.spans[-1][1:] == ({"error.type": "not_found"}, "NotFound")


async def test_a_traced_bus_says_the_same() -> None:
    engine, heard = NoBus(is_alone=False), Heard()
    assert trace_bus(engine, NO_TRACING) is engine
    bus = trace_bus(engine, heard)
    assert isinstance(bus, TracedBus)
    assert (bus.is_alone, bus.is_up) == (False, False)
    bus.publish(QueueFilled(DeviceId(encode_id(random_bytes(16)))))
    await bus.close()
    assert heard.spans == [("bus.publish", {}, "")]
