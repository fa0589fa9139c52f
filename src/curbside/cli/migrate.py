"""curbside migrate: move to PostgreSQL while the server runs."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

import click

from curbside.cli.backup import parse_duration
from curbside.cli.folder_options import TARGET_DATABASE, config_options, read_config
from curbside.cli.output import ExitCode, emit
from curbside.cli.progress import ProgressLine, describe_seconds
from curbside.clock import SystemClock
from curbside.crypto.secret import SecretBytes
from curbside.server.migration import MoveRequest, MoveResult, migrate_to_postgres

EXAMPLES = f"""\b
Examples:
  curbside backup create --folder ./ward
  curbside migrate postgres://curbside@db.example.org/curbside --folder ./ward
  {TARGET_DATABASE}=postgres://… curbside migrate --folder ./ward --json
"""


@click.command("migrate", epilog=EXAMPLES)
@click.argument("url", envvar=TARGET_DATABASE)
@click.option("--wait", default="1h", show_default=True, help="How long to wait for the server to be stopped.")
@click.option("--without-backup", is_flag=True, help="Move even if the last backup is older than a day.")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def migrate(url: str, wait: str, without_backup: bool, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Move everything from the embedded database to the empty PostgreSQL database at URL.

    The server goes on running while its data is copied. At the end this command asks for the server to be stopped,
    copies what is new since then, compares every table and says how long the server stood. What was cut short goes on
    when it is begun again. The old database is left as it was. Attachments stay where they are.

    A password in URL is seen by other users of this machine; the environment variable is not.
    """
    config = read_config(folder, config_file)
    request = MoveRequest(
        url=SecretBytes(url.encode()),
        wait_seconds=parse_duration(wait),
        most_backup_age=None if without_backup else 24 * 3600,
    )
    progress = ProgressLine(quiet=as_json)

    def on_ready() -> None:
        progress.close()
        click.echo(
            "Everything is copied. Stop the server now; the rest takes moments, and it must not start.", err=True
        )

    try:
        result = asyncio.run(migrate_to_postgres(config, request, SystemClock(), progress, on_ready))
    finally:
        progress.close()
    emit(asdict(result), _describe(result), as_json=as_json)
    return ExitCode.OK


def _describe(result: MoveResult) -> str:
    lines = [
        f"Moved: {result.rows:,} rows in {len(result.tables)} tables"
        + (", going on where it was cut short" if result.is_resumed else "")
        + f", in {describe_seconds(result.seconds)}. Counts and sums of all tables agree.",
        f"  Downtime  {describe_seconds(result.downtime)}, for the last {result.late_rows:,} rows",
        "Next:",
        "  Set database_url in the configuration (or CURBSIDE_DATABASE_URL), and start the server.",
        "  Keep the old file curbside.db until the first backup of the new database is verified; then remove it.",
        "  A server that starts without database_url would go on with the old data: do not let that happen.",
    ]
    return "\n".join(lines)
