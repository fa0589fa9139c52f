"""An organisation on this disk: people enrolled in bulk by the server's own services, then the server as a process."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog
from enrolment import DAY, Newcomer

from bench.process import ServedProcess
from curbside.client.network import Internet
from curbside.clock import SystemClock
from curbside.crypto import opaque
from curbside.crypto.random import random_bytes
from curbside.crypto.x509 import make_enrolment
from curbside.ids import InviteId, UserId, decode_base64url, encode_base64url, encode_id
from curbside.policy.validator import OrganizationValidator
from curbside.server.app import Services, build_services
from curbside.server.config import Limits, load_config
from curbside.server.database import open_store
from curbside.server.keys import prepare_keys
from curbside.server.metrics import Metrics
from curbside.server.organization import InitRequest, init_organization, open_authority
from curbside.wire import bodies

UNBOUND = {
    f"CURBSIDE_LIMITS_{name.upper()}": "1000000"
    for name in Limits.__struct_fields__
    if name.endswith(("_per_second", "_burst"))
}
"""The rates that protect a server from one client are not what is measured."""
AT_ONCE = 64


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Organization:
    """Made in an empty folder, or what is there. Enrol people first, then start the nodes.

    settings: more of the server's CURBSIDE_ variables. nodes: how many processes serve it, each with an origin of its
    own; more than one need a database that they share.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None, nodes: int = 1) -> None:
        self.clock = SystemClock()
        self.folder = folder
        ports = [free_port() for _ in range(nodes)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.url = self.urls[0]
        request = InitRequest(folder, "Sankt Elsewhere", self.url, None, port=ports[0])
        self._made = init_organization(request, self.clock)
        self._settings = {**UNBOUND, **(settings or {}), "CURBSIDE_PUBLIC_URLS": " ".join(self.urls)}
        if nodes > 1:
            self._settings["CURBSIDE_BLOBS_FOLDER"] = str(folder / "blobs")
        self.authority = open_authority(self._made.authority_key_file, None)
        self.network = Internet()
        self.validator: OrganizationValidator
        self.nodes = [self._make_node(number, port) for number, port in enumerate(ports)]
        self.server = self.nodes[0]

    def _make_node(self, number: int, port: int) -> ServedProcess:
        own = {"CURBSIDE_PORT": str(port), "CURBSIDE_LOG_LEVEL": "error"}
        if number:
            own["CURBSIDE_AUTHORITY_CERTIFICATE"] = str(self._made.authority_certificate_file)
            own["CURBSIDE_DATA_FOLDER"] = str(self.folder / f"node-{number}")
        command = [sys.executable, "-m", "curbside", "serve", "--folder", str(self.folder)]
        return ServedProcess(command, port, "/v1/health/ready", {**os.environ, **self._settings, **own})

    # --- people -------------------------------------------------------------------------------

    async def enrol(self, count: int, packages: int = 1) -> list[Newcomer]:
        """New people with one device and an open session each. packages: key packages besides the last-resort one."""
        config = load_config(self._made.config_file, self._settings)
        store = open_store(config)
        try:
            keys = await prepare_keys(store, config.authority_path.read_bytes())
            self.validator = OrganizationValidator(keys.authority.raw, keys.external_sender.encode())
            services = build_services(config, store, keys, self.clock, Metrics(), structlog.get_logger())
            newcomers = [self._invite(number) for number in range(count)]
            record = await self._register(services, newcomers[0])
            for at in range(0, count, AT_ONCE):
                part = newcomers[at : at + AT_ONCE]
                await asyncio.gather(*(self._sign_up(services, each, record, packages) for each in part))
        finally:
            await store.close()
        return newcomers

    def _invite(self, number: int) -> Newcomer:
        now, user_id = self.clock.now(), UserId(encode_id(random_bytes(16)))
        enrolment = make_enrolment(self.authority, user_id, "nurse", now + DAY, now)
        return Newcomer(InviteId(encode_id(random_bytes(16))), user_id, "nurse", enrolment, f"Nurse {number}")

    async def _register(self, services: Services, newcomer: Newcomer) -> bytes:
        """An OPAQUE record; all share it, because nobody signs in again and each one costs a second of Argon2."""
        await self._deposit(services, newcomer)
        started = opaque.start_registration(newcomer.passphrase)
        start = bodies.SignupStart(newcomer.invite_id, encode_base64url(started.message))
        answer = await services.identity.start_signup(start)
        response = decode_base64url(answer.opaque_response)
        return opaque.finish_registration(newcomer.passphrase, started.state, response).record

    async def _deposit(self, services: Services, newcomer: Newcomer) -> None:
        certificate = encode_base64url(newcomer.enrolment.certificate.raw)
        await services.invites.create_invite(bodies.NewInvite(newcomer.invite_id, certificate))

    async def _sign_up(self, services: Services, newcomer: Newcomer, record: bytes, packages: int) -> None:
        await self._deposit(services, newcomer)
        now = self.clock.now()
        body = newcomer.signup_body(now, record, packages)
        newcomer.session = await services.identity.finish_signup(body, newcomer.call("/v1/signup/finish", now))
