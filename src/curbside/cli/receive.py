"""curbside receive: show messages, and follow new ones."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import click

from curbside.cli.output import emit
from curbside.cli.vault_options import choose_conversation, vault_option, with_device
from curbside.client.device import Device, Event, Message
from curbside.errors import CurbsideError

EXAMPLES = """\b
Examples:
  curbside receive
  curbside receive 'Ward 4' --last 20 --json
  curbside receive --follow --save-photos ./incoming
"""


@click.command("receive", epilog=EXAMPLES)
@click.argument("conversation", default="")
@click.option("--last", default=20, show_default=True, help="How many messages of each conversation to show.")
@click.option("--follow", is_flag=True, help="Go on until interrupted.")
@click.option("--unread", is_flag=True, help="Only what was not marked read.")
@click.option("--mark-read/--leave-unread", default=True, help="Tell the senders that it was read.", show_default=True)
@click.option(
    "--save-photos",
    type=click.Path(file_okay=False, path_type=Path),
    help="Save pictures here, DECRYPTED. They leave the vault: know why.",
)
@vault_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one message a line.")
def receive(  # noqa: PLR0913  one parameter per option
    conversation: str,
    last: int,
    follow: bool,
    unread: bool,
    mark_read: bool,
    save_photos: Path | None,
    vault: Path,
    passphrase_file: Path | None,
    ca: Path | None,
    as_json: bool,
) -> None:
    """Catch up and show the newest messages of CONVERSATION, or of all."""

    if save_photos is not None:
        save_photos.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def show(device: Device, message: Message) -> None:
        saved = await _save(device, message, save_photos) if save_photos else []
        emit(_as_json(message) | {"saved": saved}, _as_text(message, saved), as_json=as_json)

    async def work(device: Device) -> None:
        events = device.events()
        await device.connection.wait_caught_up()
        chosen = [choose_conversation(device, conversation)] if conversation else [c.id for c in device.conversations()]
        for one in chosen:
            fresh = {row.id for row in device.vault.rows.unread(one, device.user_id)}
            for message in device.messages(one, limit=last):
                if not unread or message.id in fresh:
                    await show(device, message)
            if mark_read:
                await device.mark_read(one)
        if follow:
            await _follow(device, events, chosen if conversation else [], show, mark_read=mark_read)

    with_device(vault, passphrase_file, ca, work)


async def _follow(
    device: Device,
    events: AsyncIterator[Event],
    only: Sequence[str],
    show: Callable[[Device, Message], Awaitable[None]],
    *,
    mark_read: bool,
) -> None:
    async for event in events:
        if event.kind == "message" and event.message and (not only or event.conversation in only):
            await show(device, event.message)
            if mark_read:
                await device.mark_read(event.message.conversation)
        elif event.kind == "notice" and event.error:
            click.echo(f"! {event.error.title} {event.error.detail}", err=True)


async def _save(device: Device, message: Message, folder: Path) -> list[str]:
    saved = []
    for number, _ in enumerate(message.attachments):
        try:
            picture = await device.open_attachment(message.id, number)
            saved.append(_write_private(folder / f"{message.id}-{number}.jpg", picture))
        except CurbsideError as error:
            click.echo(f"! {error.title} {error.detail}", err=True)
    return saved


def _write_private(target: Path, picture: bytes) -> str:
    target.touch(mode=0o600)
    target.write_bytes(picture)
    return str(target)


def _as_json(message: Message) -> dict[str, Any]:
    return {
        "message": message.id,
        "conversation": message.conversation,
        "sequence": message.sequence,
        "at": message.at,
        "sender": message.sender,
        "sender_name": message.sender_name,
        "mine": message.is_mine,
        "kind": message.kind,
        "text": message.text,
        "attachments": [{"type": a.part.content_type, "size": a.part.size} for a in message.attachments],
        "delivery": message.delivery,
    }


def _as_text(message: Message, saved: list[str]) -> str:
    when = time.strftime("%H:%M", time.localtime(message.at / 1000))
    what = message.text or ("(picture)" if message.attachments else f"({message.kind})")
    extra = f" [{message.delivery}]" if message.is_mine else ""
    return f"{when}  {message.sender_name or 'unknown'}: {what}{extra}" + "".join(f"\n       saved {s}" for s in saved)
