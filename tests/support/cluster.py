"""Several nodes of one organisation as real processes: PostgreSQL, NATS, `curbside serve` N times, a proxy in front.

    with Cluster(folder, nodes=2) as cluster:
        alice = await Person.join(cluster.nodes[0], "Alice Ang")
        await move(alice, cluster.nodes[1])
        cluster.nodes[0].kill()

Each node has what `running.Person` asks of a server. The processes belong to the test that made them: none outlives it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from lines import Line
from nats_server import NatsServer, lasting_port
from postgres import database_of
from running import Person
from serving import wait_until

from curbside.audit.events import AuditEvent, parse_event
from curbside.clock import Clock, SystemClock
from curbside.crypto.secret import SecretBytes
from curbside.ids import ConversationId, decode_base64url
from curbside.policy.validator import OrganizationValidator
from curbside.server.database_key import create_key_file
from curbside.server.organization import InitRequest, init_organization, open_authority
from curbside.server.store.ports import View
from curbside.server.store.postgres import open_postgres_store
from curbside.server.store.postgres_open import PostgresSettings

SERVE = ("-m", "curbside", "serve")
START_SECONDS = 90.0
STOP_SECONDS = 60.0
UNBOUND = {
    f"CURBSIDE_LIMITS_{what}_{which}": "1000000"
    for what in ("SENDS", "REQUESTS", "ATTEMPTS", "CONNECTS")
    for which in ("PER_SECOND", "BURST")
}


class Node:
    """One server of a cluster. url: its own address; clients may also come by the cluster's proxy."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster = cluster
        self.clock: Clock = cluster.clock
        self.authority = cluster.authority
        self.port = lasting_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = cluster.folder / f"node-{number}"
        (self.folder / "data").mkdir(parents=True)
        shutil.copy(cluster.made.authority_certificate_file, self.folder / "data" / "authority.der")
        self.log = self.folder / "server.log"
        self.serve: tuple[str, ...] = SERVE
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **more: str) -> Node:
        """Serve; returns when the node is ready. more: variables of its environment, without CURBSIDE_."""
        self.begin(**more)
        return self.await_ready()

    def begin(self, **more: str) -> None:
        """Start the process; see `await_ready`."""
        settings = self.cluster.settings(self) | more
        environment = {**os.environ, **UNBOUND} | {f"CURBSIDE_{key}": value for key, value in settings.items()}
        command = [sys.executable, *self.serve, "--config", str(self.cluster.config_file)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def await_ready(self) -> Node:
        """Returns when the node is ready."""
        wait_until(self._has_started, f"the node is ready; {self.log} says why not", START_SECONDS)
        return self

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> None:
        """SIGTERM; see `wait`."""
        assert self._process is not None
        self._process.terminate()

    def wait(self) -> int:
        """Until it has ended; the exit code."""
        assert self._process is not None
        code = self._process.wait(STOP_SECONDS)
        self._process = None
        return code

    def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        self.terminate()
        return self.wait()

    def ready(self) -> dict[str, Any] | None:
        """What readiness says; None when the node is not ready."""
        try:
            answer = httpx.get(self.url + "/v1/health/ready")
        except httpx.TransportError:
            return None
        return dict(answer.json()) if answer.is_success else None

    def bus(self) -> str:
        """How the bus is, as readiness tells it: ok, degraded, or "" for none."""
        found = self.ready() or {}
        return str(found.get("checks", {}).get("bus", ""))

    def metric(self, name: str) -> float:
        """One of the node's counts."""
        for line in httpx.get(self.url + "/metrics").text.splitlines():
            key, _, value = line.rpartition(" ")
            if key == name:
                return float(value)
        raise AssertionError(f"{name} is not counted")

    def validator(self) -> OrganizationValidator:
        """What clients of this organisation check with."""
        return self.cluster.validator()

    def _has_started(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text("utf-8", "replace")[-3000:]
        return self.ready() is not None


class SpreadLine(Line):
    """A proxy that gives each connection to the next node that takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[int] = []
        self._turn = itertools.count()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(self._turn)
        for offset in range(len(self.ports)):
            port = self.ports[(first + offset) % len(self.ports)]
            try:
                _, probe = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            probe.transport.abort()
            self._upstream = port
            await super()._carry(reader, writer)
            return


class Cluster:
    """An organisation on one PostgreSQL schema. nats: False for nodes that have the database alone.

    settings: variables of every node's environment, without CURBSIDE_. Use as a context manager.
    """

    def __init__(self, folder: Path, nodes: int = 2, nats: bool = True, **settings: str) -> None:
        self.folder = folder
        self.clock: Clock = SystemClock()
        self.line = SpreadLine()
        self.made = init_organization(
            InitRequest(folder / "org", "Sankt Elsewhere", self.line.origin, None), self.clock
        )
        self.authority = open_authority(self.made.authority_key_file, None)
        self.key_file = folder / "database.key"
        create_key_file(self.key_file)
        self.blobs = folder / "blobs"
        self.blobs.mkdir()
        self.config_file = folder / "node.toml"
        self.config_file.write_text("")
        self.nats = NatsServer(folder / "nats", lasting_port()) if nats else None
        self._more = settings
        self.nodes = [Node(self, number) for number in range(nodes)]
        self.line.ports = [node.port for node in self.nodes]
        self._validator: OrganizationValidator | None = None

    def __enter__(self) -> Cluster:
        if self.nats is not None:
            self.nats.start()
        self.line.start(0)
        try:
            for node in self.nodes:
                node.begin()  # all at once, also the very first time: none of them is special
            for node in self.nodes:
                node.await_ready()
            self.settle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()
        for node in self.nodes:
            node.kill()
        if self.nats is not None:
            self.nats.kill()

    def settle(self) -> None:
        """Wait until every running node hears all others."""
        running = [node for node in self.nodes if node.is_running]
        if self.nats is not None:
            for node in running:
                self.wait(lambda node=node: node.bus() == "ok", "the bus is up")  # type: ignore[misc]
                self.wait(
                    lambda node=node: node.metric("curbside_nodes_heard") == len(running) - 1,  # type: ignore[misc]
                    "the node hears the others",
                )

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Returns when the condition holds. Raises: AssertionError naming what did not come true."""
        wait_until(condition, what, START_SECONDS)

    def settings(self, node: Node) -> dict[str, str]:
        """A node's environment."""
        found = {
            "DATA_FOLDER": str(node.folder / "data"),
            "PUBLIC_URLS": " ".join([self.line.origin, *(each.url for each in self.nodes)]),
            "PORT": str(node.port),
            "DATABASE_KEY_FILE": str(self.key_file),
            "DATABASE_URL": database_of(self.folder).reveal().decode(),
            "BLOBS_FOLDER": str(self.blobs),
            "BUS_SHARED": "true",
            "METRICS": "true",
            "LOG_LEVEL": "warning",
        }
        if self.nats is not None:
            found["BUS_NATS"] = self.nats.address
        return found | self._more

    def validator(self) -> OrganizationValidator:
        """What clients of this organisation check with."""
        if self._validator is None:
            node = next(node for node in self.nodes if node.is_running)
            told = httpx.get(node.url + "/v1/organization").json()
            sender = decode_base64url(told["external_sender"])
            self._validator = OrganizationValidator(self.authority.certificate.raw, sender)
        return self._validator

    async def ask(self, question: Callable[[View], Any]) -> Any:
        """What the database holds."""
        key = SecretBytes(bytes.fromhex(self.key_file.read_text().strip()))
        store = open_postgres_store(PostgresSettings(database_of(self.folder)), key, 1)
        try:
            return await store.read(question)
        finally:
            await store.close()

    async def events(self) -> list[AuditEvent]:
        """The audit log so far."""
        records = await self.ask(lambda view: view.audit.read_events(0, 1_000_000))
        return [parse_event(record.event) for record in records]

    async def read_log(self, conversation: str, first: int = 1) -> list[tuple[int, bytes]]:
        """(sequence, message id) of the log."""
        name = ConversationId(conversation)
        rows = await self.ask(lambda view: view.delivery.read_entries(name, first - 1, 1_000_000, 1_000_000, 1 << 40))
        return [(row.sequence, row.message_id) for row in rows]


async def move(person: Person, node: Node) -> None:
    """From now on this person comes by another node."""
    await person.http.aclose()
    person.running = node  # type: ignore[assignment] - has what is asked of it
    person.http = httpx.AsyncClient(base_url=node.url, timeout=60)


def describe(node: Node) -> str:
    """For the message of a failed assertion."""
    return json.dumps(node.ready()) + node.log.read_text("utf-8", "replace")[-2000:]


async def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition, in a test's own loop. Raises: AssertionError naming what did not come true."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"never came true: {what}"
        await asyncio.sleep(0.05)
