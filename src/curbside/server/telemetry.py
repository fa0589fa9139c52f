"""Telemetry: whether counts and traces are sent anywhere, and the task that sends the counts.

Without `telemetry.endpoint` nothing of OpenTelemetry is even imported.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from structlog.typing import FilteringBoundLogger

from curbside.errors import ConfigError
from curbside.server.config import Telemetry
from curbside.server.logs import LogEvent, find_code, find_place
from curbside.server.metrics import Metrics
from curbside.server.tracing import NO_TRACING, Tracing

if TYPE_CHECKING:
    from curbside.server.otlp import Otlp

_LIBRARY: Final = "opentelemetry"


class Exporting:
    """Sends the counts every so often while the server runs. `tracing` is for whoever has something to trace."""

    def __init__(self, settings: Telemetry, metrics: Metrics, log: FilteringBoundLogger, otlp: Otlp | None) -> None:
        self.tracing: Tracing = NO_TRACING if otlp is None else otlp
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._otlp = otlp
        self._task: asyncio.Task[None] | None = None
        self._is_heard = True

    def start(self, look: Callable[[], Awaitable[None]]) -> None:
        """look: brings the gauges up to date."""
        if self._otlp is not None:
            self._task = asyncio.create_task(self._run(self._otlp, look), name="telemetry")

    async def close(self) -> None:
        """Send what waits, as far as that is quick."""
        if self._task is not None and self._otlp is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            await asyncio.to_thread(self._otlp.close)

    async def _run(self, otlp: Otlp, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._settings.export_seconds)
            try:
                await look()
                is_heard = await asyncio.to_thread(otlp.send_counts, self._metrics.registry)
            except Exception as error:  # noqa: BLE001 - counting must go on whatever is wrong with telling
                self._log.error(LogEvent.TELEMETRY_FAILED, code=find_code(error), place=find_place(error))
                is_heard = False
            if is_heard != self._is_heard:
                self._is_heard = is_heard
                self._log.warning(LogEvent.TELEMETRY_HEARD if is_heard else LogEvent.TELEMETRY_LOST)


def open_telemetry(settings: Telemetry, metrics: Metrics, log: FilteringBoundLogger) -> Exporting:
    """What the configuration asks for; with no endpoint, something that does nothing.

    Raises: ConfigError when the packages are missing or the token file cannot be read.
    """
    if not settings.endpoint:
        return Exporting(settings, metrics, log, None)
    try:
        from curbside.server.otlp import Otlp
    except ImportError as error:
        raise ConfigError(
            "telemetry.endpoint needs the packages of requirements/otlp.txt: pip install 'curbside[otlp]'"
        ) from error
    # The library's own messages are free text, with addresses: whether it is heard, our log says.
    library = logging.getLogger(_LIBRARY)
    library.propagate = False
    library.addHandler(logging.NullHandler())
    return Exporting(settings, metrics, log, Otlp(settings))
