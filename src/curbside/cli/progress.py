"""One line that tells how far long work is and how long it will still take; for people at a terminal only."""

from __future__ import annotations

import sys
import time
from typing import Final

import click

_SECONDS: Final = 0.2
_CLEAR: Final = "\r\x1b[K"


class ProgressLine:
    """Called with what is being done, how much of it is done, and how much there is."""

    def __init__(self, quiet: bool = False) -> None:
        self._is_shown = not quiet and sys.stderr.isatty()
        self._what = ""
        self._began = self._told = 0.0

    def __call__(self, what: str, done: int, whole: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._began = what, now
        elif now - self._told < _SECONDS and done < whole:
            return
        self._told = now
        if self._is_shown:
            click.echo(_CLEAR + describe_progress(what, done, whole, now - self._began), nl=False, err=True)

    def close(self) -> None:
        """Leave an empty line."""
        if self._is_shown:
            click.echo(_CLEAR, nl=False, err=True)


def describe_progress(what: str, done: int, whole: int, seconds: float) -> str:
    """The line. seconds: that this work has taken so far."""
    share = done / whole if whole else 1.0
    text = f"… {what}: {done:,} of {whole:,} ({share:.0%})"
    if done and seconds >= 1 and done < whole:
        text += f", {describe_seconds(seconds * (whole - done) / done)} left"
    return text


def describe_seconds(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} d"


def describe_bytes(size: int) -> str:
    """A number of bytes for people."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
