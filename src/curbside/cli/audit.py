"""curbside audit: export, verify and show the audit log. Works on the server's database while the server runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import click
import msgspec

from curbside.audit.checkpoint import VerifierKey, parse_verifier_key, split_checkpoints
from curbside.audit.events import AuditEvent, EventName, Outcome
from curbside.audit.export import Report, verify_export
from curbside.audit.proof import FORMAT as PROOF_FORMAT
from curbside.audit.proof import Proven, verify_proof
from curbside.cli.folder_options import config_options, read_config
from curbside.cli.output import ExitCode, emit, progress_bar, progress_line
from curbside.clock import SystemClock
from curbside.errors import BadSignature, ConfigError, IntegrityError, Malformed
from curbside.server.audit_service import BATCH, AuditService, AuditSettings, ListedEvent, Operator, parse_records
from curbside.server.config import Config
from curbside.server.database import has_database, open_store
from curbside.server.keys import prepare_keys

EXAMPLES = """\b
Examples:
  curbside audit export --folder ./ward --output export.jsonl
  curbside audit key --folder ./ward > audit.key               # once; keep it elsewhere
  curbside audit verify export.jsonl --key-file audit.key --checkpoints audit.checkpoints
  curbside audit show --event auth.login.fail --since 2026-11-01 --json
  curbside audit prove 4711 --row 3 --output proof.json        # one event; verify it like an export
"""
NAMES: Final = tuple(name.value for name in EventName if name is not EventName.MESSAGE_BATCH)
"""What can be shown: a batch is shown as the messages it stands for."""
T = TypeVar("T")


@click.group("audit", epilog=EXAMPLES)
def audit() -> None:
    """The audit log: who did what, when and why; tamper-evident, verifiable without the server."""


@audit.command("export")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="File to write; standard output without it.")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (with --output).")
def export(output: Path | None, folder: Path, config_file: Path | None, as_json: bool) -> None:
    """Write the whole log as JSON lines that `curbside audit verify` checks without the server."""

    async def work(service: AuditService) -> int:
        entries = 0
        with click.open_file(str(output or "-"), "xb" if output else "wb") as file:
            async for chunk in service.export(Operator()):
                file.write(chunk)
                entries += chunk.count(b'"leaf":"')
                progress_line(f"{entries} entries", quiet=as_json or output is None)
        return entries

    try:
        entries = _with_service(read_config(folder, config_file), work)
    except FileExistsError as error:
        raise ConfigError(f"{output} exists already") from error
    if output is not None:
        emit({"file": str(output), "entries": entries}, f"{entries} entries are in {output}.", as_json=as_json)


@audit.command("verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The pinned audit key.")
@click.option(
    "--checkpoints",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoints that were kept elsewhere; the export must agree with each.",
)
@click.option("--record", is_flag=True, help="Leave an audit.verified event in the organisation's log.")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(
    file: Path,
    key_file: Path | None,
    checkpoints: Path | None,
    record: bool,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Verify an export, or a proof of one event. Needs no server. Ends with 3 when it does not verify, and names the
    first wrong entry."""
    pinned = parse_verifier_key(key_file.read_text("ascii", errors="replace")) if key_file else None
    if _is_proof(file):
        if checkpoints or record:
            raise click.UsageError("--checkpoints and --record are for exports")
        return _verify_one(file, pinned, as_json)
    kept = split_checkpoints(checkpoints.read_bytes()) if checkpoints else []
    with file.open("rb") as lines, progress_bar(lines, None, "Verifying", quiet=as_json) as shown:
        report = verify_export(shown, pinned, kept)
    if record:
        _with_service(read_config(folder, config_file), lambda service: service.record_verified(report))
    emit(msgspec.to_builtins(report), _describe(report), as_json=as_json)
    return ExitCode.OK if report.ok else ExitCode.NOT_VERIFIED


def _is_proof(file: Path) -> bool:
    with file.open("rb") as start:
        return start.read(64).startswith(b'{"format":"' + PROOF_FORMAT.encode() + b'"')


def _verify_one(file: Path, pinned: VerifierKey | None, as_json: bool) -> int:
    try:
        proven = verify_proof(file.read_bytes(), pinned)
    except (Malformed, BadSignature, IntegrityError) as error:
        emit({"ok": False, "reason": error.detail}, f"NOT VERIFIED: {error.detail}.", as_json=as_json)
        return ExitCode.NOT_VERIFIED
    result = {"ok": True, "is_pinned": proven.is_pinned, "size": proven.checkpoint.size, **_place(proven)}
    lines = [
        _line(proven.index, proven.row, proven.event),
        f"Verified: it is in the log of {proven.checkpoint.size} entries that {proven.checkpoint.origin} signed.",
    ]
    if not proven.is_pinned:
        lines.append("No key was pinned (--key-file): the proof vouches for itself only.")
    emit(result, "\n".join(lines), as_json=as_json)
    return ExitCode.OK


@audit.command("prove")
@click.argument("index", type=click.IntRange(min=0))
@click.option("--row", type=click.IntRange(min=0), help="The row, where `audit show` prints INDEX.ROW.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="File to write; standard output without it.")
@config_options
def prove(index: int, row: int | None, output: Path | None, folder: Path, config_file: Path | None) -> None:
    """Prove that one event is in the log, without showing the rest of the log. Looking leaves an event of its own."""
    proof = _with_service(read_config(folder, config_file), lambda service: service.prove(Operator(), index, row))
    try:
        with click.open_file(str(output or "-"), "xb" if output else "wb") as file:
            file.write(proof + b"\n")
    except FileExistsError as error:
        raise ConfigError(f"{output} exists already") from error


@audit.command("checkpoint")
@config_options
def checkpoint(folder: Path, config_file: Path | None) -> None:
    """Sign the log as it stands, and print the checkpoint. Keep it on another machine."""

    async def work(service: AuditService) -> str:
        return (await service.get_signed_checkpoint(Operator())).decode()

    click.echo(_with_service(read_config(folder, config_file), work), nl=False)


@audit.command("key")
@config_options
def key(folder: Path, config_file: Path | None) -> None:
    """Print the key that checkpoints verify under. Pin it: keep it where the server cannot change it."""

    async def work(service: AuditService) -> VerifierKey:
        return service.key

    click.echo(_with_service(read_config(folder, config_file), work).encode())


@audit.command("show")
@click.option("--event", "name", type=click.Choice(NAMES), help="Only events of this name.")
@click.option("--since", help="Only from then on: 2026-11-01, or 2026-11-01T08:30 (UTC).")
@click.option("--actor", help="Only what this user did.")
@click.option("--refused", is_flag=True, help="Only what was refused or failed.")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an event.")
def show(
    name: str | None,
    since: str | None,
    actor: str | None,
    refused: bool,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Show events, oldest first. Looking leaves an event of its own."""
    start = parse_since(since) if since else 0

    def is_wanted(event: AuditEvent) -> bool:
        return (
            (name is None or event.name == name)
            and event.at >= start
            and (actor is None or event.actor_user == actor)
            and (not refused or event.outcome is not Outcome.OK)
        )

    async def work(service: AuditService) -> None:
        async for each in _read_all(service):
            if is_wanted(each.event):
                emit(_place(each), _line(each.index, each.row, each.event), as_json=as_json)

    _with_service(read_config(folder, config_file), work)


def parse_since(text: str) -> int:
    """Unix milliseconds of a date, or of a date and time, in UTC.

    Raises: Malformed.
    """
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?)?", text):
        raise Malformed(f"{text!r} is no date such as 2026-11-01 or 2026-11-01T08:30")
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError as error:
        raise Malformed(f"{text!r} is no date of the calendar") from error


async def _read_all(service: AuditService) -> AsyncIterator[ListedEvent]:
    """Events up to the moment of asking, in one look."""
    end = await service.count()
    at = 0
    await service.record_view(Operator(), 0, end)
    while at < end:
        found = await service.read_events(at, min(BATCH, end - at))
        if not found:
            raise IntegrityError("the audit log became shorter")
        for each in parse_records(found):
            yield each
        at += len(found)


def _with_service(config: Config, work: Callable[[AuditService], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_audit(config) as service:
            return await work(service)

    return asyncio.run(run())


@asynccontextmanager
async def open_audit(config: Config) -> AsyncIterator[AuditService]:
    """The audit log of an organisation, also while its server runs.

    Raises: ConfigError when the server never ran.
    """
    if not has_database(config):
        raise ConfigError("there is no log yet: the server has not run")
    store = open_store(config, is_server=False)
    try:
        keys = await prepare_keys(store, None)
        yield AuditService(store, SystemClock(), keys, AuditSettings(file=config.audit.checkpoint_file))
    finally:
        await store.close()


def _describe(report: Report) -> str:
    lines = []
    if report.ok:
        held = f" with {report.rows} messages" if report.rows else ""
        lines.append(f"Verified: {report.checked} entries{held}, {report.covered} of them under signed checkpoints.")
    else:
        lines.append(f"NOT VERIFIED: {report.reason.replace('_', ' ')}.")
        if report.bad_index is not None and report.bad_before is not None:
            last = report.bad_before - 1
            where = f"entry {report.bad_index}" if last <= report.bad_index else f"entries {report.bad_index} to {last}"
            lines.append(f"The first wrong entry: {where}. {report.checked} entries before it were read.")
    if not report.is_pinned:
        lines.append("No key was pinned (--key-file): the export vouches for itself only.")
    return "\n".join(lines)


def _place(listed: ListedEvent | Proven) -> dict[str, object]:
    row = {} if listed.row is None else {"row": listed.row}
    return {"index": listed.index, **row, "event": listed.event}


def _line(index: int, row: int | None, event: AuditEvent) -> str:
    place = str(index) if row is None else f"{index}.{row}"
    when = datetime.fromtimestamp(event.at / 1000, UTC).isoformat(timespec="seconds")
    who = event.actor_user or event.actor_role or "-"
    what = f"{event.object_type}:{event.object_id}" if event.object_id else event.object_type.value
    ending = "" if event.outcome is Outcome.OK else f" REFUSED {event.reason}"
    return f"{place:>10}  {when}  {event.name:<24} {who:<22} {what}{ending}".rstrip()
