"""curbside invite: make invites with the authority key, and deposit them on the server."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import msgspec
import segno

from curbside.cli.folder_options import config_options, passphrase_option, read_config, read_passphrase_if_wrapped
from curbside.cli.output import emit, progress_line
from curbside.client.network import Internet
from curbside.client.transport import Transport
from curbside.clock import SystemClock
from curbside.crypto.random import random_bytes
from curbside.crypto.sign import generate_signature_key
from curbside.crypto.x509 import Issuer, make_enrolment
from curbside.errors import Malformed, UsageError
from curbside.ids import InviteId, UserId, encode_base64url, encode_id
from curbside.policy.chain import ROLES
from curbside.server.organization import find_organization, open_authority
from curbside.wire import bodies
from curbside.wire.invite_link import InviteLink, encode_invite_link

EXAMPLES = """\b
Examples:
  curbside invite --role nurse
  curbside invite --role physician --count 10 --expires 7d --json > invites.jsonl
  curbside invite --role patient --offline deposits.jsonl      # on the machine with the authority key
  curbside invite --upload deposits.jsonl                      # on any machine
"""
UNITS: Final = {"m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class MadeInvite:
    """link: the secret that works once. deposit: what the server gets; it holds no secret. expires_at: Unix seconds."""

    link: str
    deposit: bodies.NewInvite
    user_id: UserId
    role: str
    expires_at: int


def create_invite(authority: Issuer, origin: str, role: str, seconds: int, now: int) -> MadeInvite:
    """A new invite for a new account, good for `seconds`. Works offline; nothing knows it until it is deposited.

    Raises: UsageError when role or origin has no form in an invite.
    """
    if role not in ROLES:
        raise UsageError(f"{role} is no role")
    user_id, invite_id = UserId(encode_id(random_bytes(16))), InviteId(encode_id(random_bytes(16)))
    enrolment = make_enrolment(authority, user_id, role, now + seconds, now)
    link = encode_invite_link(InviteLink(origin, invite_id, enrolment.key, authority.certificate.public_key))
    deposit = bodies.NewInvite(invite_id, encode_base64url(enrolment.certificate.raw))
    return MadeInvite(link, deposit, user_id, role, now + seconds)


async def upload_invites(origin: str, deposits: Sequence[bodies.NewInvite], trusted: str = "") -> None:
    """Deposit invites on the server; repeating is harmless.

    Raises: PeerUnavailable; what the server refuses with.
    """
    transport = Transport(origin, generate_signature_key("ed25519"), SystemClock(), Internet(trusted))
    try:
        for deposit in deposits:
            await transport.call("POST", "/v1/invites", bodies.Invite, deposit, proof=False)
    finally:
        await transport.close()


def parse_duration(text: str) -> int:
    """Seconds of "30m", "12h" or "7d".

    Raises: Malformed.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text)
    if found is None:
        raise Malformed(f"{text!r} is no duration such as 30m, 12h or 7d")
    return int(found[1]) * UNITS[found[2]]


def draw_code(link: str) -> str:
    """The link as a QR code of text, for a terminal."""
    out = io.StringIO()
    segno.make(link, error="l", micro=False).terminal(out, compact=True)
    return out.getvalue().rstrip("\n")


@click.command("invite", epilog=EXAMPLES)
@click.option("--role", type=click.Choice(ROLES), help="Role of the account.")
@click.option("--expires", default="3d", show_default=True, help="How long the link works: 30m, 12h, 7d.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 1000), help="How many invites.")
@click.option("--url", help="The server's origin; without it, that of the configuration.")
@click.option("--authority", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Authority key file.")
@click.option("--offline", type=click.Path(dir_okay=False, path_type=Path), help="Write deposits here; upload later.")
@click.option(
    "--upload", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Deposit what --offline wrote."
)
@click.option("--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Trust this TLS certificate.")
@click.option("--no-qr", is_flag=True, help="Print the link without a QR code.")
@config_options
@passphrase_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an invite.")
def invite(  # noqa: PLR0913  one parameter per option
    role: str | None,
    expires: str,
    count: int,
    url: str | None,
    authority: Path | None,
    offline: Path | None,
    upload: Path | None,
    ca: Path | None,
    no_qr: bool,
    folder: Path,
    config_file: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make invites. Each link works once, for one new account, until it expires. Whoever has the link can use it."""
    origin = url.rstrip("/") if url else read_config(folder, config_file).public_urls[0]
    trusted = str(ca) if ca else ""
    if upload is not None:
        deposits = _read_deposits(upload)
        asyncio.run(upload_invites(origin, deposits, trusted))
        emit({"uploaded": len(deposits)}, f"{len(deposits)} invites are on the server.", as_json=as_json)
        return
    if role is None:
        raise click.UsageError("--role is needed")
    key_file = authority or find_organization(folder).authority_key_file
    issuer = open_authority(key_file, read_passphrase_if_wrapped(key_file, passphrase_file))
    seconds, now = parse_duration(expires), SystemClock().now()
    made = [create_invite(issuer, origin, role, seconds, now) for _ in range(count)]
    if offline is not None:
        _write_deposits(offline, made)
    else:
        progress_line(f"Depositing at {origin}", quiet=as_json)
        asyncio.run(upload_invites(origin, [each.deposit for each in made], trusted))
    for each in made:
        emit(_as_json(each), _as_text(each, expires, with_code=not no_qr), as_json=as_json)


def _as_json(made: MadeInvite) -> dict[str, str | int]:
    return {
        "link": made.link,
        "invite_id": made.deposit.invite_id,
        "user_id": made.user_id,
        "role": made.role,
        "expires_at": made.expires_at,
    }


def _as_text(made: MadeInvite, expires: str, *, with_code: bool) -> str:
    lines = [f"Invite for one {made.role.replace('_', ' ')}; works once, within {expires}:", "", f"  {made.link}", ""]
    if with_code:
        lines += [draw_code(made.link), ""]
    return "\n".join(lines)


def _write_deposits(path: Path, made: Sequence[MadeInvite]) -> None:
    lines = [msgspec.json.encode(each.deposit) + b"\n" for each in made]
    with path.open("xb") as file:
        file.writelines(lines)


def _read_deposits(path: Path) -> list[bodies.NewInvite]:
    try:
        return [msgspec.json.decode(line, type=bodies.NewInvite) for line in path.read_bytes().splitlines() if line]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed(f"{path} is no file that --offline wrote") from error
