"""What all commands of a device share: where its vault is, and how its passphrase is given."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

from curbside.cli.folder_options import AnyCommand
from curbside.client.device import Device
from curbside.client.network import Internet
from curbside.errors import NotFound, WrongPassphrase

T = TypeVar("T")
PASSPHRASE_VARIABLE = "CURBSIDE_PASSPHRASE"  # noqa: S105  the name of a variable, not its value
VAULT_VARIABLE = "CURBSIDE_VAULT"


def vault_option(command: AnyCommand) -> AnyCommand:
    """`--vault`, `--passphrase-file` and `--ca`."""
    command = click.option(
        "--ca",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Trust this certificate for the server's TLS, besides the system's.",
    )(command)
    command = click.option(
        "--passphrase-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=f"Read the passphrase from a file instead of asking; or set {PASSPHRASE_VARIABLE}.",
    )(command)
    return click.option(
        "--vault",
        type=click.Path(dir_okay=False, path_type=Path),
        default=Path("curbside.vault"),
        envvar=VAULT_VARIABLE,
        show_default=True,
        show_envvar=True,
        help="The device's encrypted file.",
    )(command)


def read_passphrase(passphrase_file: Path | None, *, new: bool = False) -> str:
    """The passphrase from the file, the environment or the terminal.

    Raises: WrongPassphrase when there is no terminal to ask on.
    """
    if passphrase_file is not None:
        return passphrase_file.read_text("utf-8").rstrip("\r\n")
    if (given := os.environ.get(PASSPHRASE_VARIABLE)) is not None:
        return given
    if not sys.stdin.isatty():
        raise WrongPassphrase(f"no passphrase: give --passphrase-file or set {PASSPHRASE_VARIABLE}")
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=new))


def with_device(
    vault: Path, passphrase_file: Path | None, ca: Path | None, work: Callable[[Device], Awaitable[T]]
) -> T:
    """Open the vault, connect, do the work, lock the vault; the work's result."""
    passphrase = read_passphrase(passphrase_file)

    async def run() -> T:
        async with await Device.open(vault, passphrase, network=Internet(str(ca) if ca else "")) as device:
            return await work(device)

    return asyncio.run(run())


def choose_conversation(device: Device, wanted: str) -> str:
    """A conversation's id from its id, its title, or the beginning of either.

    Raises: NotFound, also when the beginning fits more than one.
    """
    everything = device.conversations()
    exact = [c.id for c in everything if wanted in (c.id, c.title)]
    if len(exact) == 1:
        return exact[0]
    found = [c.id for c in everything if c.id.startswith(wanted) or c.title.lower().startswith(wanted.lower())]
    if len(found) != 1:
        raise NotFound(f"{len(found)} conversations fit; `curbside conversations` lists them")
    return found[0]
