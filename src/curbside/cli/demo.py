"""curbside demo: an organisation for trying, a server, invites for two people, and a Python device that answers."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click
import msgspec
from msgspec import structs

from curbside.cli.invite import MadeInvite, create_invite, draw_code, upload_invites
from curbside.cli.output import emit, progress_line
from curbside.client.device import Device, Event
from curbside.clock import SystemClock
from curbside.crypto.random import random_bytes
from curbside.errors import ConfigError, CurbsideError, NotFound, StoreUnavailable
from curbside.ids import ConversationId, UserId, encode_base64url
from curbside.server.app import build_server, create_app
from curbside.server.config import Config, load_config
from curbside.server.organization import InitRequest, InitResult, find_organization, init_organization, open_authority

EXAMPLES = """\b
Examples:
  curbside demo
  curbside demo --port 9000 --people 3
  curbside demo --fresh
"""
ORGANIZATION: Final = "Curbside Demo Hospital"
ROBOT_NAME: Final = "Robin (robot)"
ROBOT_ROLE: Final = "nurse"
"""A device in the role of a bot may not begin conversations; see docs/roles.md."""
TITLE: Final = "Ward 4, night shift"
INVITE_SECONDS: Final = 7 * 24 * 3600
POLL_SECONDS: Final = 1.0
HOSTS: Final = ("localhost", "127.0.0.1")
"""Two names of this machine are two origins: two windows of one browser then keep two separate vaults."""


@dataclass(frozen=True)
class Seat:
    """One person of the demo, who may have taken the seat already."""

    number: int
    user_id: UserId
    link: str


@click.command("demo", epilog=EXAMPLES)
@click.option("--port", default=8440, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--people", default=2, show_default=True, type=click.IntRange(1, 8), help="How many invites to make.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".curbside/demo"),
    show_default=True,
    help="Where the demo keeps its data between runs.",
)
@click.option("--fresh", is_flag=True, help="Begin anew: forget everything of earlier demos.")
@click.option("--robot/--no-robot", default=True, show_default=True, help="A Python device that answers.")
@click.option(
    "--static-folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("web/dist"),
    show_default=True,
    help="The built web client.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the links as JSON, one line.")
def demo(port: int, people: int, folder: Path, fresh: bool, robot: bool, static_folder: Path, as_json: bool) -> None:
    """Run everything on this machine: a server, invites for people, and a Python device in their conversation.

    Open each link in a window of its own. The robot starts a conversation as soon as the first person has signed up,
    adds the others as they come, and answers texts and photos. It is a device like any other: what it can read it can
    read because it is a member. Ctrl+C stops; the next run goes on where this one ended.
    """
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    progress_line("Starting the demo", quiet=as_json)
    asyncio.run(_run(_prepare(folder, port, static_folder), people, robot=robot, as_json=as_json))


def _prepare(folder: Path, port: int, static_folder: Path) -> tuple[InitResult, Config]:
    """Make the demo's organisation, or find the one of an earlier run; its configuration with this run's port."""
    _check_port(port)
    try:
        made = find_organization(folder)
    except ConfigError:
        request = InitRequest(folder, ORGANIZATION, _origin(0, port), None, HOSTS[1], port, static_folder.resolve())
        made = init_organization(request, SystemClock())
    config = structs.replace(
        load_config(made.config_file, {}),
        port=port,
        host=HOSTS[1],
        log_level="warning",
        public_urls=tuple(_origin(number, port) for number in range(len(HOSTS))),
        static_folder=static_folder.resolve() if (static_folder / "index.html").exists() else None,
    )
    return made, config


def _origin(number: int, port: int) -> str:
    return f"http://{HOSTS[number % len(HOSTS)]}:{port}"


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOSTS[1], port))
        except OSError as error:
            raise StoreUnavailable(f"port {port} is in use: choose another with --port") from error


async def _run(prepared: tuple[InitResult, Config], people: int, *, robot: bool, as_json: bool) -> None:
    made, config = prepared
    server = build_server(config, create_app(config))
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.wait({serving}, timeout=0.05)
    if serving.done():
        raise StoreUnavailable("the server could not start; the lines above say why")
    seats = await _find_seats(made, config, people)
    _announce(seats, config, as_json=as_json)
    playing = asyncio.create_task(_play(made, config, seats, as_json=as_json)) if robot else None
    try:
        await serving
    finally:
        if playing is not None:
            playing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await playing


async def _find_seats(made: InitResult, config: Config, people: int) -> list[Seat]:
    """The invites of this demo, those of earlier runs first; new ones where they are missing."""
    path = made.folder / "seats.json"
    seats = msgspec.json.decode(path.read_bytes(), type=list[Seat]) if path.exists() else []
    for number in range(len(seats), people):
        invite = await _invite(made, config, "physician", number)
        seats.append(Seat(number, invite.user_id, invite.link))
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(seats))
    port = config.port
    return [replace(seat, link=_origin(seat.number, port) + "/#" + seat.link.partition("/#")[2]) for seat in seats]


async def _invite(made: InitResult, config: Config, role: str, number: int) -> MadeInvite:
    authority = open_authority(made.authority_key_file, None)
    invite = create_invite(authority, _origin(number, config.port), role, INVITE_SECONDS, SystemClock().now())
    await upload_invites(_origin(1, config.port), [invite.deposit])
    return invite


def _announce(seats: Sequence[Seat], config: Config, *, as_json: bool) -> None:
    lines = ["", f"{ORGANIZATION} is open on this machine only. Nothing here is for real patients.", ""]
    for seat in seats:
        lines += [
            f"Person {seat.number + 1}: open in a window of its own",
            f"  {seat.link}",
            "",
            draw_code(seat.link),
            "",
        ]
    if config.static_folder is None:
        lines.append("The web client is not built: run `make web` first, then open the links.")
    lines.append("Both work in one browser: the two addresses are two separate devices. Ctrl+C stops.")
    emit({"links": [seat.link for seat in seats], "port": config.port}, "\n".join(lines), as_json=as_json)


# --- the robot -----------------------------------------------------------------------------------


async def _play(made: InitResult, config: Config, seats: Sequence[Seat], *, as_json: bool) -> None:
    try:
        device = await _robot(made, config)
        async with device:
            await device.connection.wait_caught_up()
            answering = asyncio.create_task(_answer(device, as_json=as_json))
            try:
                await _gather_people(device, seats, as_json=as_json)
                await answering
            finally:
                answering.cancel()
    except CurbsideError as error:
        click.echo(f"The robot stopped: {error.title} {error.detail}", err=True)


async def _robot(made: InitResult, config: Config) -> Device:
    vault, secret = made.folder / "robot.vault", made.folder / "robot.passphrase"
    if vault.exists() and secret.exists():
        return await Device.open(vault, secret.read_text("utf-8"))
    secret.touch(mode=0o600)
    secret.write_text(encode_base64url(random_bytes(24)), "utf-8")
    invite = await _invite(made, config, ROBOT_ROLE, 1)
    return await Device.join(vault, invite.link, ROBOT_NAME, secret.read_text("utf-8"), label="Python")


async def _gather_people(device: Device, seats: Sequence[Seat], *, as_json: bool) -> None:
    """Start the conversation with the first person who signs up, and add the others as they come."""
    conversation = next((c.id for c in device.conversations() if c.title == TITLE), None)
    waiting = {seat.user_id for seat in seats}
    if conversation is not None:
        waiting -= {person.user_id for person in device.conversation(conversation).people}
    while waiting:
        for user_id in sorted(waiting):
            try:
                conversation = await _add(device, conversation, user_id)
            except NotFound:
                continue
            waiting.discard(user_id)
            if not as_json:
                click.echo(f"{len(seats) - len(waiting)} of {len(seats)} people are in “{TITLE}”.")
        await asyncio.sleep(POLL_SECONDS)


async def _add(device: Device, conversation: ConversationId | None, user_id: UserId) -> ConversationId:
    if conversation is not None:
        await device.add_people(conversation, [user_id])
        return conversation
    started = await device.start_conversation([user_id], title=TITLE)
    await device.send_text(
        started,
        "Hello. I am a Python device in this conversation. Send a text or a photo and I will say what arrived.",
    )
    return started


async def _answer(device: Device, *, as_json: bool) -> None:
    async for event in device.events():
        if event.kind == "notice" and event.error is not None and not as_json:
            click.echo(f"The robot refused something: {event.error.title} {event.error.detail}", err=True)
        with contextlib.suppress(NotFound):
            await _answer_one(device, event)


async def _answer_one(device: Device, event: Event) -> None:
    message = event.message
    if event.kind != "message" or message is None or message.is_mine:
        return
    await device.mark_read(message.conversation)
    if message.attachments:
        size = len(await device.open_attachment(message.id))
        first = message.attachments[0]
        words = f"Photo received: {first.width} × {first.height} pixels, {size / 1024:.0f} KB, sealed all the way."
        await device.send_text(message.conversation, words, in_reply_to=message.id)
    elif message.kind == "text":
        count = len(message.text.split())
        words = f"Received: {count} word{'s' if count != 1 else ''}."
        await device.send_text(message.conversation, words, in_reply_to=message.id)
