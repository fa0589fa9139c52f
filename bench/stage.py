"""People and conversations for a load generator, so that it needs neither MLS nor OPAQUE of its own.

    python -m bench.stage init FOLDER PORT     makes an organisation; prints what runs its server, as JSON
    python -m bench.stage people FOLDER        while that server runs: reads requests from standard input, one JSON
                                               array a line, and answers each with one line

    ["person", "a"]          →  {"user_id": …, "device_id": …, "token": …, "api_key": …}
    ["direct", "a", "b"]     →  {"conversation": …, "epoch": 1, "sequence": 1}
    ["group", "a", "b", …]   →  the same; the first one founds it

`api_key` is the seed of the device's Ed25519 key for proofs, base64url; a token lasts twelve hours, or fifteen minutes
without a sign of life. Every person is somebody who signed up over HTTP, every conversation an MLS group that was made
by real commits; all of it is for measuring and for nothing else. The protocol is in docs/protocol.md.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from enrolment import DAY, Newcomer

from bench.organization import UNBOUND
from bench.people import Person
from curbside.client.network import Internet
from curbside.client.transport import Transport
from curbside.clock import SystemClock
from curbside.crypto import opaque
from curbside.crypto.random import random_bytes
from curbside.crypto.x509 import make_enrolment
from curbside.ids import InviteId, UserId, decode_base64url, encode_base64url, encode_id
from curbside.policy.validator import OrganizationValidator
from curbside.server.config import load_config
from curbside.server.organization import InitRequest, find_organization, init_organization, open_authority
from curbside.wire import bodies


def make_organization(folder: Path, port: int) -> dict[str, Any]:
    """A new organisation; the command and the environment of its server."""
    url = f"http://127.0.0.1:{port}"
    init_organization(InitRequest(folder, "Sankt Elsewhere", url, None, port=port), SystemClock())
    command = [sys.executable, "-m", "curbside", "serve", "--folder", str(folder)]
    return {"url": url, "command": command, "environment": {**UNBOUND, "CURBSIDE_LOG_LEVEL": "error"}}


class Stage:
    """Enrols people over HTTP and puts them into conversations. Implements what `Person` asks of an organisation."""

    def __init__(self, folder: Path) -> None:
        made = find_organization(folder)
        self.clock = SystemClock()
        self.network = Internet()
        self.url = load_config(made.config_file, {}).public_urls[0]
        self.authority = open_authority(made.authority_key_file, None)
        self.validator: OrganizationValidator
        self._people: dict[str, Person] = {}
        self._record = b""

    async def answer(self, request: list[str]) -> dict[str, Any]:
        """The answer to one line. Raises: CurbsideError; KeyError for somebody who is not there."""
        what, *names = request
        if what == "person":
            return await self._enrol(names[0])
        members = [self._people[name] for name in names]
        founder, others = members[0], [each.user_id for each in members[1:]]
        group = await (founder.begin_pair(others[0]) if what == "direct" else founder.begin_group(others))
        return {"conversation": encode_id(group.group_id), "epoch": group.epoch, "sequence": 1}

    async def _enrol(self, name: str) -> dict[str, Any]:
        now, user_id = self.clock.now(), UserId(encode_id(random_bytes(16)))
        enrolment = make_enrolment(self.authority, user_id, "nurse", now + DAY, now)
        newcomer = Newcomer(InviteId(encode_id(random_bytes(16))), user_id, "nurse", enrolment, "Nurse")
        person = Person(self, newcomer)
        transport = person.transport
        certificate = encode_base64url(enrolment.certificate.raw)
        deposit = bodies.NewInvite(newcomer.invite_id, certificate)
        await transport.call("POST", "/v1/invites", bodies.Invite, deposit, proof=False)
        if not self._record:
            await self._prepare(transport, newcomer)
        body = newcomer.signup_body(now, self._record, packages=1)
        newcomer.session = await transport.call("POST", "/v1/signup/finish", bodies.Session, body)
        transport.session = newcomer.session
        self._people[name] = person
        await person.close()
        key = encode_base64url(newcomer.api_key.reveal())
        session = newcomer.session
        return {"user_id": user_id, "device_id": session.device_id, "token": session.token, "api_key": key}

    async def _prepare(self, transport: Transport, newcomer: Newcomer) -> None:
        """What is the same for all: the pinned keys, and one OPAQUE record, because nobody here signs in again."""
        organization = await transport.call("GET", "/v1/organization", bodies.Organization, proof=False)
        sender = decode_base64url(organization.external_sender)
        self.validator = OrganizationValidator(self.authority.certificate.raw, sender)
        started = opaque.start_registration(newcomer.passphrase)
        start = bodies.SignupStart(newcomer.invite_id, encode_base64url(started.message))
        answer = await transport.call("POST", "/v1/signup/start", bodies.SignupStarted, start, proof=False)
        response = decode_base64url(answer.opaque_response)
        self._record = opaque.finish_registration(newcomer.passphrase, started.state, response).record


async def _serve(folder: Path) -> None:
    stage = Stage(folder)
    for line in sys.stdin:
        print(json.dumps(await stage.answer(json.loads(line))), flush=True)


def main(arguments: list[str]) -> int:
    """See above."""
    match arguments:
        case ["init", folder, port] if port.isdigit():
            print(json.dumps(make_organization(Path(folder), int(port))))
        case ["people", folder]:
            asyncio.run(_serve(Path(folder)))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
