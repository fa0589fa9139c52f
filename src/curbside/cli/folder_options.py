"""What the administrator's commands share: where the organisation's folder is, and the authority's passphrase."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from curbside.errors import WrongPassphrase
from curbside.server.config import Config, load_config
from curbside.server.organization import find_organization, is_wrapped

AnyCommand = TypeVar("AnyCommand", bound=Callable[..., Any])
DEFAULT_FOLDER: Final = Path("curbside-organization")
AUTHORITY_PASSPHRASE: Final = "CURBSIDE_AUTHORITY_PASSPHRASE"  # noqa: S105  the name of a variable, not its value
BACKUP_PASSPHRASE: Final = "CURBSIDE_BACKUP_PASSPHRASE"  # noqa: S105  the name of a variable, not its value
TARGET_DATABASE: Final = "CURBSIDE_TARGET_DATABASE_URL"
_NOT_SETTINGS: Final = frozenset(
    {AUTHORITY_PASSPHRASE, BACKUP_PASSPHRASE, TARGET_DATABASE, "CURBSIDE_PASSPHRASE", "CURBSIDE_VAULT"}
)
"""Variables of other commands, which are no settings of the server."""


def folder_option(command: AnyCommand) -> AnyCommand:
    """`--folder`: the one that `curbside init` made."""
    return click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_FOLDER,
        show_default=True,
        help="The organisation's folder.",
    )(command)


def config_options(command: AnyCommand) -> AnyCommand:
    """`--folder` and `--config`."""
    command = click.option(
        "--config",
        "config_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="CURBSIDE_CONFIG",
        show_envvar=True,
        help="A configuration file; without it, that of the folder.",
    )(command)
    return folder_option(command)


def passphrase_option(command: AnyCommand) -> AnyCommand:
    """`--passphrase-file`: of the authority key."""
    return click.option(
        "--passphrase-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=f"Read the authority's passphrase from a file instead of asking; or set {AUTHORITY_PASSPHRASE}.",
    )(command)


def read_config(folder: Path, config_file: Path | None) -> Config:
    """The server's configuration.

    Raises: ConfigError.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_SETTINGS}
    return load_config(config_file or find_organization(folder).config_file, environment)


def read_authority_passphrase(passphrase_file: Path | None, *, new: bool = False) -> str:
    """The passphrase from the file, the environment or the terminal.

    Raises: WrongPassphrase when there is no terminal to ask on.
    """
    if passphrase_file is not None:
        return passphrase_file.read_text("utf-8").rstrip("\r\n")
    if (given := os.environ.get(AUTHORITY_PASSPHRASE)) is not None:
        return given
    if not sys.stdin.isatty():
        raise WrongPassphrase(f"no passphrase: give --passphrase-file or set {AUTHORITY_PASSPHRASE}")
    return str(click.prompt("Passphrase of the authority key", hide_input=True, confirmation_prompt=new, err=True))


def read_passphrase_if_wrapped(key_file: Path, passphrase_file: Path | None) -> str | None:
    """The passphrase, if the authority key file needs one.

    Raises: ConfigError; WrongPassphrase.
    """
    return read_authority_passphrase(passphrase_file) if is_wrapped(key_file) else None
