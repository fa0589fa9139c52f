"""curbside: the entry point. Knows the commands by name and loads only the one that runs."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Sequence
from typing import Final

import click

from curbside.cli.output import ExitCode, report_error
from curbside.errors import CurbsideError

COMMANDS: Final = {
    "init": "Make an organisation: authority key, database key, configuration.",
    "serve": "Run the server.",
    "demo": "Run a server with demo accounts.",
    "invite": "Invite people: links and QR codes.",
    "join": "Sign this device up by an invite link.",
    "conversations": "List, start and show conversations.",
    "send": "Send a text or a picture.",
    "receive": "Show messages, and follow new ones.",
    "audit": "Export, verify and show the audit log.",
    "backup": "Make, verify and restore backups.",
    "migrate": "Move to PostgreSQL while the server runs.",
    "doctor": "Check the whole installation, and say what to do.",
    "completion": "Print the completion script for a shell.",
}
EPILOG: Final = """\b
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 verification failed, 4 server unreachable.
\b
Examples:
  curbside demo
  curbside init --folder ./ward --name 'Sankt Elsewhere' --url https://chat.example.org
  curbside serve --folder ./ward
  curbside invite --folder ./ward --role nurse
  curbside audit verify export.jsonl --key-file audit.key
"""


class LazyCommands(click.Group):
    """A group whose commands are modules of curbside.cli, imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        gc.disable()  # a tenth of the start: modules that load leave nothing to collect
        try:
            module = importlib.import_module(f"curbside.cli.{cmd_name}")
        finally:
            gc.enable()
        command = getattr(module, cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"curbside.cli.{cmd_name} has no command {cmd_name}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group("curbside", cls=LazyCommands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="curbside")
def cli() -> None:
    """End-to-end encrypted messages for clinicians and patients, on your own server."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code. Errors of ours never show a traceback."""
    as_json = "--json" in arguments
    try:
        done = cli.main(args=list(arguments), prog_name="curbside", standalone_mode=False)
    except CurbsideError as error:
        return report_error(error, as_json=as_json)
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE if isinstance(error, click.UsageError) else ExitCode.REFUSED
    except BrokenPipeError:
        return ExitCode.REFUSED
    return done if isinstance(done, int) else ExitCode.OK


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
