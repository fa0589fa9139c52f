"""What commands print: results on standard output (text or JSON), progress and errors on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, TypeVar

import click
import msgspec

from curbside.errors import CurbsideError, IntegrityError, PeerUnavailable

T = TypeVar("T")


class ExitCode(IntEnum):
    """How a command ends; written in `curbside --help`."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_VERIFIED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


def emit(value: object, text: str, *, as_json: bool) -> None:
    """Print a result: `value` as one line of JSON, or `text` for people."""
    click.echo(msgspec.json.encode(value).decode() if as_json else text)


def emit_rows(rows: Sequence[Mapping[str, Any]], empty: str, *, as_json: bool) -> None:
    """Print a table, or one JSON object a line. empty: what people read when there are no rows."""
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row).decode())
        return
    if not rows:
        click.echo(empty)
        return
    heads = list(rows[0])
    cells = [heads, *([_cell(row.get(head)) for head in heads] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(heads))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def progress_line(text: str, *, quiet: bool = False) -> None:
    """One line of progress, for people at a terminal only."""
    if not quiet and sys.stderr.isatty():
        click.echo(f"… {text}", err=True)


@contextmanager
def progress_bar(items: Iterable[T], length: int | None, label: str, *, quiet: bool = False) -> Iterator[Iterable[T]]:
    """A bar while `items` are gone through; nothing when standard error is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield items
        return
    with click.progressbar(items, length=length, label=label, file=sys.stderr) as bar:
        yield bar


def report_error(error: CurbsideError, *, as_json: bool) -> ExitCode:
    """Print an error: what happened, the detail, what to do next. The exit code that goes with it."""
    if as_json:
        problem = {
            **{name: value for name, value in error.members.items() if isinstance(value, str | int | list)},
            "code": error.code,
            "title": error.title,
            "detail": error.detail,
            "next_step": error.next_step,
        }
        click.echo(msgspec.json.encode(problem).decode(), err=True)
    else:
        click.echo(click.style(error.title, bold=True), err=True)
        if error.detail != error.title:
            click.echo(f"  {error.detail}", err=True)
        if error.next_step:
            click.echo(f"  Next: {error.next_step}", err=True)
    if isinstance(error, PeerUnavailable):
        return ExitCode.UNREACHABLE
    return ExitCode.NOT_VERIFIED if isinstance(error, IntegrityError) else ExitCode.REFUSED


def _cell(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return ""
        case _:
            return str(value)
