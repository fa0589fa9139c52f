"""Structured logs that cannot hold content: event names from an enum, values from an allow-list of types.

A value is a number, a bool, an id (`show_id`), a problem code, a place in the source, or a member of a StrEnum.
Anything else is refused, also a string that looks like one of these: what cannot be written cannot leak.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import structlog

from curbside.errors import CurbsideError, UsageError

_ID = re.compile(r"[A-Za-z0-9_-]{22}\Z")
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LogEvent(StrEnum):
    """All there is to log."""

    SERVER_STARTED = "server.started"
    SERVER_DRAINING = "server.draining"
    FLUSH_FAILED = "server.flush_failed"
    SERVER_STOPPED = "server.stopped"
    REQUEST = "http.request"
    REQUEST_FAILED = "http.failed"
    STREAM_OPENED = "stream.opened"
    STREAM_CLOSED = "stream.closed"
    STREAM_FAILED = "stream.failed"
    SWEEP_FAILED = "sweep.failed"
    BUS_CONNECTED = "bus.connected"
    BUS_LOST = "bus.lost"
    BUS_FAILED = "bus.failed"
    WATCH_FAILED = "watch.failed"
    SWEPT = "sweep.done"
    TELEMETRY_HEARD = "telemetry.heard"
    TELEMETRY_LOST = "telemetry.lost"
    TELEMETRY_FAILED = "telemetry.failed"
    BLOBS_DAMAGED = "blobs.damaged"


class Word(StrEnum):
    """A word that may stand in a log. Subclassed where words are made, from fixed lists only."""


class Method(Word):
    """HTTP methods; any other is OTHER."""

    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"
    PATCH = "PATCH"
    PUT = "PUT"
    DELETE = "DELETE"
    OTHER = "OTHER"


class Code(str):
    """A problem code, or "" for none. Made by `find_code` alone."""

    __slots__ = ()


class Id(str):
    """An id of something of ours. Made by `show_id` alone."""

    __slots__ = ()


def show_id(raw: str) -> Id:
    """An id that the caller made or has found in the store; never what a request says one is.

    Raises: UsageError for what has not the form of an id.
    """
    if not _ID.match(raw):
        raise UsageError("not the form of an id")
    return Id(raw)


def find_code(error: BaseException | None) -> Code:
    """The code of an error; "internal" for what is none of ours."""
    if error is None:
        return Code("")
    return Code(error.code if isinstance(error, CurbsideError) else "internal")


class Place(str):
    """Where in our source an error arose: "file.py:line" for each frame, and the error's class. Never its text."""

    __slots__ = ()


def find_place(error: BaseException) -> Place:
    """The place of an error, innermost frame last; its cause's too."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    trail = " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    cause = f" from {find_place(error.__cause__)}" if error.__cause__ is not None else ""
    return Place(f"{type(error).__name__} {trail}{cause}")


def refuse_free_text(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor. Raises: UsageError for a value that could be free text."""
    for name, value in fields.items():
        is_allowed = isinstance(value, bool | int | float | StrEnum | Code | Place | Id)
        if not is_allowed or (name == "event" and not isinstance(value, LogEvent)):
            raise UsageError(f"field {name} of a log event may not be logged")
    return fields


def build_logger(level: str = "info", stream: Any = None) -> structlog.typing.FilteringBoundLogger:
    """A logger that writes one JSON object a line. stream: None for standard error."""
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(stream or sys.stderr),
        processors=[
            refuse_free_text,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
    )
    return logger
