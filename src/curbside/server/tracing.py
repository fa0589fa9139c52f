"""Tracing: how long a request and its parts took, without a word about whom or what.

A span's name is one of `SpanName`, its attributes are of `Attribute`, and a value is a number, a member of a fixed
list, a problem code, a route's template or a request id that we made: what cannot be put into a span cannot leak out.
Nothing here knows OpenTelemetry; `server.otlp` does, and is loaded only when a collector is configured.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

from curbside.errors import Malformed, UsageError
from curbside.server.logs import Code, Word, find_code
from curbside.server.origins import find_header

T = TypeVar("T")
_PARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")


class SpanName(Word):
    """All there is to time."""

    REQUEST = "http.request"
    STORE_WRITE = "store.write"
    STORE_READ = "store.read"
    STORE_CHECK = "store.check"
    BLOB_PUT = "blobs.put"
    BLOB_READ = "blobs.read"
    BLOB_DELETE = "blobs.delete"
    BLOB_FIND = "blobs.find"
    BUS_PUBLISH = "bus.publish"


class Attribute(StrEnum):
    """All there is to say about a span (names of the OpenTelemetry semantic conventions where there are any)."""

    METHOD = "http.request.method"
    ROUTE = "http.route"
    STATUS = "http.response.status_code"
    CODE = "error.type"
    REQUEST = "curbside.request"
    COUNT = "curbside.count"
    BYTES = "curbside.bytes"


class Route(str):
    """A route's template, such as /v1/blobs/{blob_id}; made by `find_route` alone."""

    __slots__ = ()


class RequestId(str):
    """The id of a request, made at random by the gateway."""

    __slots__ = ()


UNMATCHED: Final = Route("unmatched")
Value = bool | int | float | StrEnum | Code | Route | RequestId


class Span(Protocol):
    """A span that has begun."""

    def put(self, attribute: Attribute, value: Value) -> None:
        """Raises: UsageError for a value that could be free text."""
        ...

    def fail(self, error: BaseException) -> None:
        """It ended in this error, of which the code alone is told."""
        ...


class Tracing(Protocol):
    """Begins spans. One inside another, in the same task, is its child."""

    @property
    def is_on(self) -> bool: ...

    def span(self, name: SpanName, parent: str = "") -> AbstractContextManager[Span]:
        """parent: a checked traceparent (`find_parent`), or ""."""
        ...


class _NoSpan:
    def put(self, attribute: Attribute, value: Value) -> None: ...

    def fail(self, error: BaseException) -> None: ...

    def __enter__(self) -> _NoSpan:
        return self

    def __exit__(self, *_: object) -> None: ...


class NoTracing:
    """Nothing is traced, at the cost of a call."""

    is_on: Final = False
    _span: Final = _NoSpan()

    def span(self, name: SpanName, parent: str = "") -> AbstractContextManager[Span]:
        return self._span


NO_TRACING: Final = NoTracing()


def check_attribute(attribute: Attribute, value: Value) -> str | int | float | bool:
    """What may leave the process as this attribute's value.

    Raises: UsageError for anything that is not on the list.
    """
    if not isinstance(attribute, Attribute) or not isinstance(value, Value):
        raise UsageError("this may not be in a trace")
    return str(value) if isinstance(value, str) else value


def find_route(scope: Mapping[str, Any], templates: frozenset[str]) -> Route:
    """The template of the route that took the request, if it is one of `templates`."""
    template = scope.get("path_template", "")
    return Route(template) if template in templates else UNMATCHED


def find_parent(scope: Mapping[str, Any]) -> str:
    """The traceparent header (W3C Trace Context) of a request by a proxy of ours; "" for none, and for a wrong one."""
    try:
        parent = find_header(scope, b"traceparent")
    except Malformed:
        return ""
    return parent if parent is not None and _PARENT.match(parent) else ""


async def trace_call(tracing: Tracing, name: SpanName, work: Awaitable[T]) -> T:
    """The result of `work`, in a span that tells the code of the error it ends in."""
    with tracing.span(name) as span:
        try:
            return await work
        except Exception as error:
            span.put(Attribute.CODE, find_code(error))
            span.fail(error)
            raise
