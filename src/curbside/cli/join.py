"""curbside join: sign this device up by an invite link."""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path

import click

from curbside.cli.output import emit, progress_line
from curbside.cli.vault_options import read_passphrase, vault_option
from curbside.client.device import Device
from curbside.client.network import Internet

EXAMPLES = """\b
Examples:
  curbside join 'https://chat.example.org/#/join/AbC…' --name 'Dana Field'
  curbside join "$LINK" --name 'Ward bot' --vault bot.vault --passphrase-file bot.pass --json
"""


@click.command("join", epilog=EXAMPLES)
@click.argument("link")
@click.option("--name", required=True, prompt="Your name", help="The name others see.")
@click.option("--label", default=platform.node() or "Python device", help="What this device is called.")
@vault_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def join(
    link: str, name: str, label: str, vault: Path, passphrase_file: Path | None, ca: Path | None, as_json: bool
) -> None:
    """Sign up with an invite LINK and make this device's vault.

    Quote the link: the part after # is the secret that makes it work. The passphrase has at least 15 characters; nobody
    can recover it.
    """
    passphrase = read_passphrase(passphrase_file, new=True)

    async def run() -> dict[str, str]:
        device = await Device.join(
            vault,
            link,
            name,
            passphrase,
            label=label,
            network=Internet(str(ca) if ca else ""),
            progress=lambda text: progress_line(text, quiet=as_json),
        )
        result = {
            "user_id": device.user_id,
            "device_id": device.device_id,
            "organization": device.organization,
            "vault": str(vault),
        }
        await device.close()
        return result

    result = asyncio.run(run())
    emit(result, f"Joined {result['organization']} as {name}. The vault is {vault}.", as_json=as_json)
