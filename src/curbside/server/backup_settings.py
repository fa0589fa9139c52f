"""Settings of the [backup] table: where backups go when a command does not say."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Backup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The private key of backups is named nowhere here: it is kept offline."""

    place: str | None = None
    """A folder, best on another machine's share, or the URL of an object store such as s3://bucket/prefix."""
    recipient_file: Path | None = None
    """The public key that opens backups, as `curbside backup keygen` wrote it."""
    receipts_file: Path | None = None
    """One line for each backup is appended here; best not where the backups are."""
    most_age_seconds: int = 48 * 3600
    """`curbside doctor` and `curbside backup verify` complain when the newest backup is older."""
