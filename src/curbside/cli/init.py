"""curbside init: make an organisation."""

from __future__ import annotations

from pathlib import Path

import click

from curbside.cli.folder_options import folder_option, passphrase_option, read_authority_passphrase
from curbside.cli.output import emit, progress_line
from curbside.clock import SystemClock
from curbside.server.organization import InitRequest, InitResult, init_organization

EXAMPLES = """\b
Examples:
  curbside init --name 'Sankt Elsewhere' --url https://chat.example.org
  curbside init --folder ./ward --name Ward --url http://localhost:8443 --passphrase-file authority.pass --json
"""


@click.command("init", epilog=EXAMPLES)
@click.option("--name", required=True, prompt="Organisation's name", help="The organisation's name, as people see it.")
@click.option(
    "--url",
    default="http://localhost:8443",
    show_default=True,
    help="Origin under which clients reach the server; https unless it is this machine.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8443, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--static-folder", type=click.Path(file_okay=False, path_type=Path), help="The built web client.")
@folder_option
@passphrase_option
@click.option("--no-passphrase", is_flag=True, help="Leave the authority key open. For tests and demos only.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def init(  # noqa: PLR0913  one parameter per option
    name: str,
    url: str,
    host: str,
    port: int,
    static_folder: Path | None,
    folder: Path,
    passphrase_file: Path | None,
    no_passphrase: bool,
    as_json: bool,
) -> None:
    """Make an organisation: its authority key, the database key and the configuration.

    Nothing that exists is overwritten. The authority key signs invites; whoever has it and its passphrase can invite
    anybody in any role. The server never needs it: move it to an offline medium, and keep a second copy.
    """
    passphrase = None if no_passphrase else read_authority_passphrase(passphrase_file, new=True)
    progress_line("Making keys", quiet=as_json)
    made = init_organization(
        InitRequest(folder, name, url.rstrip("/"), passphrase, host, port, static_folder), SystemClock()
    )
    emit(_as_json(made), _as_text(made, is_open=no_passphrase), as_json=as_json)


def _as_json(made: InitResult) -> dict[str, str]:
    return {
        "folder": str(made.folder),
        "config_file": str(made.config_file),
        "data_folder": str(made.data_folder),
        "authority_key_file": str(made.authority_key_file),
        "authority_certificate_file": str(made.authority_certificate_file),
        "database_key_file": str(made.database_key_file),
        "checkpoint_file": str(made.checkpoint_file),
    }


def _as_text(made: InitResult, *, is_open: bool) -> str:
    lines = [
        f"The organisation is in {made.folder}.",
        f"  Authority key    {made.authority_key_file}  (move it offline, keep a second copy)",
        f"  Database key     {made.database_key_file}  (back it up apart from the data)",
        f"  Configuration    {made.config_file}",
        f"  Checkpoints      {made.checkpoint_file}  (best on a share of another machine)",
        "Next:",
        f"  curbside serve --folder {made.folder}",
        f"  curbside invite --folder {made.folder} --role administrator",
    ]
    if is_open:
        lines.insert(2, "                   NOT PROTECTED by a passphrase: for tests and demos only")
    return "\n".join(lines)
