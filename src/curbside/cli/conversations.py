"""curbside conversations: list them, start one, show the people one can write to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from curbside.cli.output import emit, emit_rows
from curbside.cli.vault_options import choose_conversation, vault_option, with_device
from curbside.client.device import Conversation, Device

EXAMPLES = """\b
Examples:
  curbside conversations
  curbside conversations --people dana
  curbside conversations --start USER_ID --start USER_ID --title 'Ward 4'
  curbside conversations --show 'Ward 4' --json
"""


@click.command("conversations", epilog=EXAMPLES)
@click.option("--start", multiple=True, metavar="USER_ID", help="Start a conversation with these people.")
@click.option("--title", default="", help="Title of the conversation that is started.")
@click.option("--add", metavar="USER_ID", help="Add a person to the conversation named by --show.")
@click.option("--show", metavar="CONVERSATION", help="Show one conversation's people and safety number.")
@click.option("--people", metavar="BEGINNING", help="List people whose name begins so; '' lists all.")
@vault_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def conversations(  # noqa: PLR0913  one parameter per option
    start: tuple[str, ...],
    title: str,
    add: str | None,
    show: str | None,
    people: str | None,
    vault: Path,
    passphrase_file: Path | None,
    ca: Path | None,
    as_json: bool,
) -> None:
    """List conversations, start one, or look at one."""

    async def work(device: Device) -> None:
        await device.connection.wait_caught_up()
        if people is not None:
            found = await device.people(people)
            rows = [{"user_id": p.user_id, "name": p.name, "role": p.role} for p in found]
            emit_rows(rows, "Nobody found.", as_json=as_json)
        elif start:
            conversation = await device.start_conversation(list(start), title=title)
            emit({"conversation": conversation}, f"Started {conversation}.", as_json=as_json)
        elif show is not None:
            chosen = choose_conversation(device, show)
            if add is not None:
                await device.add_people(chosen, [add])
            _show(device, chosen, as_json)
        else:
            rows = [_row(c) for c in device.conversations()]
            emit_rows(rows, "No conversations yet. Start one with --start USER_ID.", as_json=as_json)

    with_device(vault, passphrase_file, ca, work)


def _row(conversation: Conversation) -> dict[str, Any]:
    return {
        "conversation": conversation.id,
        "title": conversation.title,
        "kind": conversation.kind,
        "people": len(conversation.people),
        "unread": conversation.unread,
        "stopped": bool(conversation.alarm),
    }


def _show(device: Device, conversation: str, as_json: bool) -> None:
    found = device.conversation(conversation)
    people = [{"user_id": p.user_id, "name": p.name, "role": p.role, "device": p.device_label} for p in found.people]
    number = device.safety_number(conversation)
    lines = [found.title, *(f"  {p['name']} ({p['role']}), {p['device']}" for p in people), f"Safety number: {number}"]
    emit(_row(found) | {"members": people, "safety_number": number}, "\n".join(lines), as_json=as_json)
