"""What is stored: the database and its version, the audit log against its checkpoints, how old backups are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from curbside.audit.checkpoint import VerifierKey, split_checkpoints, verify_checkpoint
from curbside.audit.events import parse_event
from curbside.audit.export import Report
from curbside.clock import Clock
from curbside.errors import BackupRefused, ConfigError, CurbsideError, InvalidMessage, StoreUnavailable
from curbside.server.backup.chain import find_chain
from curbside.server.backup.create import LAST_BACKUP
from curbside.server.backup.drill import LAST_DRILL
from curbside.server.backup.place import open_place
from curbside.server.backup.recipient import read_recipient
from curbside.server.config import Config
from curbside.server.database import has_database, open_snapshot, open_store
from curbside.server.database_key import lock_data_folder
from curbside.server.doctor.findings import Finding, fail, ok, warn
from curbside.server.keys import find_audit_key
from curbside.server.log_check import verify_log
from curbside.server.store.ports import View
from curbside.server.store.postgres_open import list_postgres_migrations
from curbside.server.store.records import CheckpointRecord
from curbside.server.store.sqlite_open import list_migrations
from curbside.server.store.sqlite_tables import SqliteSnapshot
from curbside.server.store.tables import TableReader

DRILL_SECONDS = 365 * 86400
"""REQUIREMENTS SR-18: a drill a year."""
_DAY = 86400
_SLACK_MS = 60_000


@dataclass(frozen=True, slots=True)
class Stored:
    """What one look at the store found."""

    key: VerifierKey | None
    events: int
    newest_ms: int
    checkpoint: CheckpointRecord | None
    backup: bytes | None
    drill: bytes | None
    report: Report | None


async def check_stored(config: Config, clock: Clock, *, is_quick: bool) -> list[Finding]:
    """All looks at the store. is_quick: without reading all of it."""
    if not has_database(config):
        return [warn("database.open", "There is no database yet: the server has not run.", "curbside serve")]
    try:
        with contextlib.closing(open_snapshot(config)) as reader:
            found = [*check_database(reader, is_quick=is_quick)]
    except CurbsideError as error:
        return [fail("database.open", f"The database does not open: {error.detail}.", error.next_step)]
    if any(finding.next_step for finding in found):
        return found  # opening it as a server does could change it
    try:
        stored = await _look(config, is_quick=is_quick)
    except CurbsideError as error:
        return [*found, fail("database.open", f"The database cannot be read: {error.detail}.", error.next_step)]
    found += [*check_log(config, stored, clock), *check_backups(config, stored, clock)]
    return [*found, check_running(config)]


def check_database(reader: TableReader, *, is_quick: bool) -> Iterator[Finding]:
    """Schema version, and whether the engine finds its file whole."""
    schema = reader.schema
    known = len(list_migrations() if schema.engine == "sqlite" else list_postgres_migrations())
    text = f"The database opens ({schema.engine}, schema {schema.version} of {known})."
    if schema.version > known:
        yield fail("database.open", text, "It was made by a newer curbside: install that one.")
    elif schema.version < known:
        yield warn("database.open", text, "The next start of the server brings it up to date: make a backup first.")
    else:
        yield ok("database.open", text)
    if isinstance(reader, SqliteSnapshot) and not is_quick:
        damage = reader.find_damage()
        if damage:
            step = "Stop the server, keep the file, restore the newest backup."
            yield fail("database.whole", f"The database is damaged: {damage}.", step)
        else:
            yield ok("database.whole", "The engine's own check finds the database whole.")


def check_log(config: Config, stored: Stored, clock: Clock) -> Iterator[Finding]:
    """The audit log against the checkpoints in the store and those in the file."""
    stop = (
        "Stop the server, keep everything, compare with the checkpoints kept elsewhere: entries were changed or lost."
    )
    if stored.newest_ms > clock.now_ms() + _SLACK_MS:
        late = (stored.newest_ms - clock.now_ms()) // 1000
        yield fail(
            "clock", f"The log has an entry of {late} seconds from now.", "Put this machine's clock right (NTP)."
        )
    if stored.report is not None and not stored.report.ok and stored.report.reason != "no_checkpoint":
        yield fail("audit.log", f"The audit log does not verify: {stored.report.reason.replace('_', ' ')}.", stop)
        return
    if stored.checkpoint is None:
        yield warn("audit.log", "The audit log has no checkpoint yet.", "curbside audit checkpoint")
        return
    if stored.events < stored.checkpoint.size:
        yield fail("audit.log", f"{stored.checkpoint.size} entries were signed, {stored.events} are there.", stop)
        return
    age, newer = clock.now() - stored.checkpoint.created_at, stored.events - stored.checkpoint.size
    if newer and age > 2 * config.audit.checkpoint_seconds + 60:
        text = f"The newest checkpoint is {age} seconds old, and {newer} entries are newer."
        yield warn("audit.log", text, "curbside audit checkpoint; then see whether the server runs.")
        return
    whole = "all entries verify" if stored.report is not None else "not read as a whole"
    yield ok("audit.log", f"The audit log has {stored.events} entries, {stored.checkpoint.size} signed; {whole}.")


def check_backups(config: Config, stored: Stored, clock: Clock) -> Iterator[Finding]:
    """How old the newest backup and the last drill are, and whether what the configuration names is there."""
    how = "curbside backup create, from a timer, every 24 hours or more often."
    if stored.backup is None:
        yield fail("backup.age", "There is no backup.", how)
    else:
        age = clock.now() - int.from_bytes(stored.backup[:8], "big")
        text = f"The newest backup is number {int.from_bytes(stored.backup[8:], 'big')}, {age // 3600} hours old."
        yield ok("backup.age", text) if age <= config.backup.most_age_seconds else fail("backup.age", text, how)
    yield from _check_place(config, stored)
    drill = "curbside backup drill --record, with the private key of backups."
    if stored.drill is None:
        yield warn("backup.drill", "No restore was ever practised.", drill)
    elif clock.now() - int.from_bytes(stored.drill, "big") > DRILL_SECONDS:
        yield warn("backup.drill", "The last restore drill is more than a year old.", drill)
    else:
        yield ok(
            "backup.drill",
            f"The last drill was {(clock.now() - int.from_bytes(stored.drill, 'big')) // _DAY} days ago.",
        )


def _check_place(config: Config, stored: Stored) -> Iterator[Finding]:
    if config.backup.recipient_file is not None:
        try:
            read_recipient(config.backup.recipient_file)
        except ConfigError as error:
            yield fail("backup.place", f"{error.detail}.", "Make a key pair with `curbside backup keygen`.")
            return
    if config.backup.place is None:
        step = "Set [backup] place, recipient_file and receipts_file, so that a timer needs nothing else."
        yield warn("backup.place", "The configuration does not say where backups go.", step)
        return
    try:
        chain = find_chain(open_place(config.backup.place), stored.key)
    except BackupRefused as error:
        yield fail("backup.place", f"The backups cannot be trusted: {error.detail}.", "Begin anew in another place.")
        return
    except CurbsideError as error:
        yield fail("backup.place", f"The backups' place cannot be read: {error.detail}.", "Make it reachable.")
        return
    expected = int.from_bytes(stored.backup[8:], "big") if stored.backup else 0
    there = chain.newest.head.number if chain else 0
    if there < expected:
        text = f"Backup {expected} was made, but the newest in the place is {there}."
        yield fail("backup.place", text, "Find out who removed backups, or whether another place was used last.")
    else:
        yield ok("backup.place", f"The backups are where the configuration says; the newest is number {there}.")


def check_running(config: Config) -> Finding:
    """Whether a server holds the data folder."""
    try:
        with lock_data_folder(config.data_folder):
            return warn("server.runs", "No server runs on this data folder.", "curbside serve")
    except StoreUnavailable:
        return ok("server.runs", "A server runs on this data folder.")
    except ConfigError as error:
        return fail(
            "server.runs", f"The data folder cannot be used: {error.detail}.", "Make it, or correct data_folder."
        )


async def _look(config: Config, *, is_quick: bool) -> Stored:
    store = open_store(config, is_server=False)
    try:
        kept = _read_kept(config)

        def question(view: View) -> Stored:
            key = find_audit_key(view.identity)
            events = view.audit.count_events()
            last = view.audit.read_events(max(0, events - 1), 1)
            return Stored(
                key=key,
                events=events,
                newest_ms=_time_of(last[0].event) if last else 0,
                checkpoint=view.audit.find_latest_checkpoint(),
                backup=view.identity.find_setting(LAST_BACKUP),
                drill=view.identity.find_setting(LAST_DRILL),
                report=None if is_quick or key is None else verify_log(view.audit, key, _own(kept, key)),
            )

        return await store.read(question)
    finally:
        await store.close()


def _time_of(event: bytes) -> int:
    try:
        return parse_event(event).at
    except InvalidMessage:
        return 0


def _read_kept(config: Config) -> list[bytes]:
    """The checkpoints of the file; none when there is no such file yet. Raises: ConfigError."""
    path = config.audit.checkpoint_file
    if path is None or not path.exists():
        return []
    try:
        return split_checkpoints(path.read_bytes())
    except (OSError, InvalidMessage) as error:
        raise ConfigError(f"the checkpoints in {path} cannot be read") from error


def _own(kept: list[bytes], key: VerifierKey) -> list[bytes]:
    """Checkpoints that this key signed: the file may hold other organisations' too."""
    own = []
    for body in kept:
        with contextlib.suppress(InvalidMessage):
            verify_checkpoint(body, key)
            own.append(body)
    return own
