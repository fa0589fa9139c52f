"""curbside send: send a text or a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from curbside.cli.output import emit, progress_line
from curbside.cli.vault_options import choose_conversation, vault_option, with_device
from curbside.client.device import Device, Message
from curbside.errors import Malformed

EXAMPLES = """\b
Examples:
  curbside send 'Ward 4' 'Bed 12 is stable.'
  curbside send 'Ward 4' --photo wound.jpg 'Left forearm'
  uptime | curbside send 'Operations' -
"""


@click.command("send", epilog=EXAMPLES)
@click.argument("conversation")
@click.argument("text", default="")
@click.option("--photo", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Send this picture.")
@click.option("--seconds", default=30.0, show_default=True, help="How long to wait until the server has it.")
@vault_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def send(  # noqa: PLR0913  one parameter per option
    conversation: str,
    text: str,
    photo: Path | None,
    seconds: float,
    vault: Path,
    passphrase_file: Path | None,
    ca: Path | None,
    as_json: bool,
) -> None:
    """Send TEXT (or a picture with TEXT as its caption) to CONVERSATION, a title or an id.

    TEXT "-" reads standard input.

    When the server cannot be reached, the message stays in the vault and goes out with the next command.
    """
    words = sys.stdin.read() if text == "-" else text
    if not words and photo is None:
        raise Malformed("there is nothing to send: give a text or --photo")

    picture = photo.read_bytes() if photo is not None else b""

    async def work(device: Device) -> Message:
        chosen = choose_conversation(device, conversation)
        progress_line("Sending", quiet=as_json)
        if picture:
            message_id = await device.send_picture(chosen, picture, caption=words)
        else:
            message_id = await device.send_text(chosen, words)
        return await device.wait_until_sent(message_id, seconds)

    message = with_device(vault, passphrase_file, ca, work)
    result = {"message": message.id, "conversation": message.conversation, "sequence": message.sequence}
    emit(result, f"Sent (number {message.sequence}).", as_json=as_json)
