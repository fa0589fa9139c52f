"""curbside backup: make, verify and restore backups. Works while the server runs."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from curbside.audit.checkpoint import parse_verifier_key
from curbside.cli.audit import open_audit
from curbside.cli.folder_options import BACKUP_PASSPHRASE, TARGET_DATABASE, config_options, read_config
from curbside.cli.output import ExitCode, emit, emit_rows
from curbside.cli.progress import ProgressLine, describe_bytes, describe_seconds
from curbside.clock import SystemClock
from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, CurbsideError, WrongPassphrase
from curbside.server.backup import chain as chains
from curbside.server.backup.create import BackupRequest, BackupResult, create_backup
from curbside.server.backup.drill import drill as run_drill
from curbside.server.backup.drill import remember_check
from curbside.server.backup.place import open_place
from curbside.server.backup.recipient import is_wrapped, make_backup_key, open_backup_key, read_recipient
from curbside.server.backup.restore import RestoreRequest, RestoreResult, restore_backup
from curbside.server.backup.verify import VerifyRequest, VerifyResult, verify_backups
from curbside.server.config import Config

EXAMPLES = """\b
Examples:
  curbside backup keygen --folder ./ward --private ./usb/backup.key --public ./ward/keys/backup.pub
  curbside backup create --folder ./ward --to /mnt/backups/ward --recipient ./ward/keys/backup.pub
  curbside backup verify --from /mnt/backups/ward --max-age 26h
  curbside backup drill --from /mnt/backups/ward --key ./usb/backup.key
  curbside backup restore --from /mnt/backups/ward --key ./usb/backup.key --into ./ward-restored
"""
_DURATION: Final = re.compile(r"(\d+)([smhd])\Z")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])
Checked = TypeVar("Checked", VerifyResult, RestoreResult)


@click.group("backup", epilog=EXAMPLES)
def backup() -> None:
    """Backups: encrypted to a key that the server does not have, and incremental.

    Set [backup] place, recipient_file and receipts_file in the configuration, and `curbside backup create` needs
    nothing but the folder: run it from a timer, every 24 hours or more often.
    """


# --- options ----------------------------------------------------------------------------------


def _source_options(command: AnyCommand) -> AnyCommand:
    """Which backups, and how they are known to be the right ones."""
    options = [
        click.option(
            "--from", "where", help="The place of the backups; without it, [backup] place of the configuration."
        ),
        click.option("--receipts", type=_FILE, help="Receipts that were kept elsewhere; a rollback is seen by them."),
        click.option("--audit-key", type=_FILE, help="The pinned audit key (curbside audit key); else that of --key."),
        click.option("--number", type=click.IntRange(1), help="Which backup; the newest without it."),
        click.option("--passphrase-file", type=_FILE, help=f"Of the private key; or set {BACKUP_PASSPHRASE}."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _build_request(key: Path | None, options: dict[str, Any], config: Config | None) -> VerifyRequest:
    """What is common to verify, restore and drill."""
    where = options["where"] or (config.backup.place if config else None)
    if where is None:
        raise ConfigError("which backups? give --from, or set [backup] place")
    receipts = options["receipts"] or (config.backup.receipts_file if config else None)
    pinned = options["audit_key"]
    return VerifyRequest(
        place=open_place(where),
        key=open_backup_key(key, _read_passphrase(key, options["passphrase_file"])) if key else None,
        audit_key=parse_verifier_key(pinned.read_text("ascii", errors="replace")) if pinned else None,
        receipts=receipts,
        number=options["number"],
    )


def _read_passphrase(key: Path, file: Path | None, *, new: bool = False) -> str | None:
    if not new and not is_wrapped(key):
        return None
    if file is not None:
        return file.read_text("utf-8").rstrip("\r\n")
    if (given := os.environ.get(BACKUP_PASSPHRASE)) is not None:
        return given
    if not sys.stdin.isatty():
        raise WrongPassphrase(f"no passphrase: give --passphrase-file or set {BACKUP_PASSPHRASE}")
    return str(click.prompt("Passphrase of the backup key", hide_input=True, confirmation_prompt=new, err=True))


def _find_config(folder: Path, config_file: Path | None, *, needed: bool) -> Config | None:
    """The configuration; None where it may be missing: backups are restored where there is none yet."""
    try:
        return read_config(folder, config_file)
    except ConfigError:
        if needed or config_file is not None:
            raise
        return None


def parse_duration(text: str) -> int:
    """Seconds of a length of time such as 90s, 30m, 26h or 2d. Raises: ConfigError."""
    match = _DURATION.match(text)
    if match is None:
        raise ConfigError(f"{text!r} is no length of time such as 26h or 2d")
    return int(match[1]) * _UNITS[match[2]]


# --- commands ---------------------------------------------------------------------------------


@backup.command("keygen")
@click.option(
    "--private", "private_file", required=True, type=click.Path(path_type=Path), help="New file; keep offline."
)
@click.option(
    "--public", "public_file", required=True, type=click.Path(path_type=Path), help="New file; for the server."
)
@click.option("--passphrase-file", type=_FILE, help=f"Of the private key; or set {BACKUP_PASSPHRASE}.")
@click.option("--no-passphrase", is_flag=True, help="Leave the private key open. For tests only.")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def keygen(
    private_file: Path,
    public_file: Path,
    passphrase_file: Path | None,
    no_passphrase: bool,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Make the key pair of backups. The server gets the public half; the private half opens every backup.

    The private file also pins the organisation's audit key, so the server must have run once. Keep two copies of the
    private file offline, and away from the authority key: whoever has it and a backup reads all that the server knows.
    """
    config = read_config(folder, config_file)
    for path in (private_file.resolve(), public_file.resolve()):
        if path.is_relative_to(config.data_folder.resolve()):
            raise ConfigError("the keys of backups must not lie in the data folder")

    async def find_key() -> Any:
        async with open_audit(config) as service:
            return service.key

    audit_key = asyncio.run(find_key())
    passphrase = None if no_passphrase else _read_passphrase(private_file, passphrase_file, new=True)
    make_backup_key(private_file, public_file, passphrase, audit_key)
    text = f"Private half  {private_file}  (move it offline, keep a second copy)\nPublic half   {public_file}"
    emit({"private_file": str(private_file), "public_file": str(public_file)}, text, as_json=as_json)


@backup.command("create")
@click.option("--to", "where", help="A folder, or a URL such as s3://bucket/prefix; else [backup] place.")
@click.option("--recipient", type=_FILE, help="The public half of the backup key; else [backup] recipient_file.")
@click.option("--receipts", type=click.Path(path_type=Path), help="Append a receipt here; else [backup] receipts_file.")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def create(
    where: str | None,
    recipient: Path | None,
    receipts: Path | None,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Make one more backup while the server runs. What earlier backups hold is not copied again."""
    config = read_config(folder, config_file)
    where, recipient = where or config.backup.place, recipient or config.backup.recipient_file
    if where is None or recipient is None:
        raise ConfigError("where to, and for whom? give --to and --recipient, or set [backup] place and recipient_file")
    request = BackupRequest(open_place(where), read_recipient(recipient), receipts or config.backup.receipts_file)
    with _progress(as_json) as progress:
        result = asyncio.run(create_backup(config, request, SystemClock(), progress))
    emit(asdict(result), _describe_created(result), as_json=as_json)
    return ExitCode.NOT_VERIFIED if result.missing else ExitCode.OK


@backup.command("verify")
@click.option("--key", type=_FILE, help="The private half: opens the contents too. Without it: bytes and chain only.")
@click.option("--max-age", help="Fail when the newest backup is older: 26h, 2d; else [backup] most_age_seconds.")
@click.option("--record", is_flag=True, help="Leave an event in the organisation's audit log.")
@_source_options
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(
    key: Path | None,
    max_age: str | None,
    record: bool,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
    **more: Any,
) -> int:
    """Verify all backups of a place without restoring them: signatures, order, every object; with --key every row too.

    Ends with 3 when something is wrong, and says what.
    """
    config = _find_config(folder, config_file, needed=record)
    request = _build_request(key, more, config)
    if max_age is not None:
        request = replace(request, most_age=parse_duration(max_age))
    elif config is not None and more["where"] is None:
        request = replace(request, most_age=config.backup.most_age_seconds)
    with _progress(as_json) as progress:
        result = _checked(config if record else None, False, lambda: verify_backups(request, SystemClock(), progress))
    emit(asdict(result), _describe_verified(result), as_json=as_json)
    return ExitCode.OK


@backup.command("restore")
@click.option("--key", required=True, type=_FILE, help="The private half of the backup key.")
@click.option("--into", required=True, type=click.Path(file_okay=False, path_type=Path), help="A new or empty folder.")
@click.option(
    "--database-url",
    envvar=TARGET_DATABASE,
    show_envvar=True,
    help="postgres://… of an empty database; without it an encrypted SQLite file in the folder.",
)
@_source_options
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def restore(
    key: Path,
    into: Path,
    database_url: str | None,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
    **more: Any,
) -> int:
    """Make an organisation's folder out of a backup: a cold start on a bare machine.

    Nothing is overwritten, and nothing appears under the folder's name before all of it was checked. The database gets
    a new key. Everybody signs in again; devices that know messages which the backup does not have are told.
    """
    request = RestoreRequest(
        _build_request(key, more, _find_config(folder, config_file, needed=False)),
        into,
        SecretBytes(database_url.encode()) if database_url else None,
    )
    with _progress(as_json) as progress:
        result = asyncio.run(restore_backup(request, SystemClock(), progress))
    emit(asdict(result), _describe_restored(result, is_drill=False), as_json=as_json)
    return ExitCode.OK


@backup.command("drill")
@click.option("--key", required=True, type=_FILE, help="The private half of the backup key.")
@click.option("--within", type=click.Path(file_okay=False, exists=True, path_type=Path), help="Where there is room.")
@click.option("--record", is_flag=True, help="Leave an event, and the time of this drill, with the organisation.")
@_source_options
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def drill(
    key: Path, within: Path | None, record: bool, folder: Path, config_file: Path | None, as_json: bool, **more: Any
) -> int:
    """Restore into a temporary folder, check everything, print RTO and RPO, and remove it again."""
    config = _find_config(folder, config_file, needed=record)
    request = _build_request(key, more, config)
    with _progress(as_json) as progress:
        result = _checked(
            config if record else None, True, lambda: asyncio.run(run_drill(request, within, SystemClock(), progress))
        )
    emit(asdict(result), _describe_restored(result, is_drill=True), as_json=as_json)
    return ExitCode.OK


@backup.command("list")
@_source_options
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a backup.")
def list_backups(folder: Path, config_file: Path | None, as_json: bool, **more: Any) -> None:
    """List the backups of a place, oldest first. Needs no key."""
    request = _build_request(None, more, _find_config(folder, config_file, needed=False))
    chain = request.read_chain()
    rows = [
        {
            "number": each.head.number,
            "made": datetime.fromtimestamp(each.head.created_at, UTC).isoformat(),
            "objects": len(each.head.objects),
            "recipient": each.head.recipient.hex(),
            "manifest": each.digest.hex(),
        }
        for each in chain.manifests
    ]
    emit_rows(rows, "There is no backup.", as_json=as_json)


@backup.command("prune")
@click.option("--keep", default="35d", show_default=True, help="Remove backups that are older; never the newest.")
@_source_options
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def prune(keep: str, folder: Path, config_file: Path | None, as_json: bool, **more: Any) -> None:
    """Remove old backups and what only they need. No backup may be under way."""
    request = _build_request(None, more, _find_config(folder, config_file, needed=False))
    done = chains.prune(request.place, request.read_chain(), SystemClock().now() - parse_duration(keep))
    text = f"{done.backups} backups and {done.objects} objects ({describe_bytes(done.bytes)}) went; {done.kept} stay."
    emit(asdict(done), text, as_json=as_json)


# --- what they share --------------------------------------------------------------------------


@contextmanager
def _progress(as_json: bool) -> Iterator[ProgressLine]:
    line = ProgressLine(quiet=as_json)
    try:
        yield line
    finally:
        line.close()


def _checked(config: Config | None, is_drill: bool, check: Callable[[], Checked]) -> Checked:
    """Run a check and, with a configuration, remember how it ended, also when it failed."""
    try:
        result = check()
    except CurbsideError as error:
        if config is not None:
            asyncio.run(remember_check(config, SystemClock(), error.code, 0, is_drill))
        raise
    if config is not None:
        number = result.number if isinstance(result, RestoreResult) else result.newest
        asyncio.run(remember_check(config, SystemClock(), "ok", number, is_drill))
    return result


def _describe_created(result: BackupResult) -> str:
    kind = "an increment" if result.is_increment else "with nothing to build on"
    lines = [
        f"Backup {result.number} is made, {kind}, in {describe_seconds(result.seconds)}.",
        f"  {result.rows:,} rows and {result.blobs:,} attachments in {result.objects:,} objects; "
        f"{result.new_objects:,} of them are new ({describe_bytes(result.new_bytes)}).",
        f"  Manifest  {result.manifest}",
    ]
    return "\n".join(lines + _describe_missing(result.missing))


def _describe_verified(result: VerifyResult) -> str:
    lines = [
        f"Verified: {result.backups} backups, {result.objects:,} objects ({describe_bytes(result.bytes)}), "
        f"in {describe_seconds(result.seconds)}.",
        f"  The newest is number {result.newest}, {describe_seconds(result.age)} old.",
    ]
    if result.is_opened:
        lines.append(f"  Opened: {result.rows:,} rows and {result.blobs:,} attachments are whole.")
    else:
        lines.append("  Not opened: without --key nobody can say what is inside.")
    if not result.is_pinned:
        lines.append("  No audit key was pinned (--key or --audit-key): the backup vouches for itself only.")
    return "\n".join(lines + _describe_missing(result.missing))


def _describe_restored(result: RestoreResult, *, is_drill: bool) -> str:
    newest = "not there at all" if result.newest_age is None else f"{describe_seconds(result.newest_age)} old"
    lines = [
        f"Backup {result.number} was restored"
        + (" for practice, and removed." if is_drill else f" into {result.folder}."),
        f"  RTO  {describe_seconds(result.rto)}: how long it took",
        f"  RPO  {describe_seconds(result.rpo)}: what was written since is lost; the newest message is {newest}",
        f"  {result.rows:,} rows in {len(result.tables)} tables, counts and sums agree; {result.blobs:,} attachments.",
        f"  The audit log verifies: {result.log_entries:,} entries, {result.log_covered:,} under signed checkpoints.",
    ]
    if not result.is_pinned:
        lines.append("  No audit key was pinned (--audit-key): the backup vouches for itself only.")
    if not is_drill:
        lines += [
            "Next:",
            f"  curbside doctor --folder {result.folder}",
            f"  curbside serve --folder {result.folder}",
            "  Revoke again the devices, and remove again the members, that went after the backup was made.",
        ]
    return "\n".join(lines + _describe_missing(result.missing))


def _describe_missing(missing: tuple[str, ...]) -> list[str]:
    if not missing:
        return []
    shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
    return [f"  DAMAGED on the server itself, and so in no backup: {len(missing)} attachments ({shown})"]
