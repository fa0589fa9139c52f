"""What a load is put on: Curbside on one of its engines with real people and groups, or the bare relay."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.database import Database
from bench.organization import Organization, free_port
from bench.people import Person
from bench.process import Part, ServedProcess, cpu_seconds, kill_all, memory_kib, written_bytes
from bench.wire import Credentials, RawStream
from curbside.crypto.random import random_bytes
from curbside.crypto.sign import generate_signature_key
from curbside.ids import UserId, decode_id, encode_id
from curbside.mls.group import Group

RELAY, EMBEDDED, POSTGRES, CLUSTER = "relay", "embedded", "postgres", "cluster"
BACKENDS = (RELAY, EMBEDDED, POSTGRES, CLUSTER)
"""The relay is no backend of ours but the reference that the others are compared with."""
DURABILITY = {
    RELAY: "one file, fdatasync before the acknowledgement; for all that waits at once; nothing else is kept",
    EMBEDDED: "encrypted SQLite, WAL, synchronous=FULL: entry and audit events in one fsync before the acknowledgement",
    POSTGRES: "PostgreSQL, synchronous_commit=on, fsync=on: entry and audit events in one commit before it",
    CLUSTER: "two nodes on one PostgreSQL, as above; NATS carries news between the nodes and is not asked to keep any",
}


@dataclass(frozen=True)
class Conversation:
    """One conversation as the load generator sees it. members: places among the target's people, the founder first.

    begun: entries that its log had when it was made. epoch: of all envelopes.
    """

    id: str
    members: Sequence[int]
    begun: int
    epoch: int

    @property
    def group_id(self) -> bytes:
        """Its MLS group."""
        return decode_id(self.id)


class Bus(ServedProcess):
    """A NATS server that keeps nothing."""

    def __init__(self, port: int, watch_port: int) -> None:
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        command = [str(program), "--addr", "127.0.0.1", "--port", str(port), "--http_port", str(watch_port)]
        command += ["--log", os.devnull]
        super().__init__(command, watch_port, "/healthz", dict(os.environ))
        self.address = f"127.0.0.1:{port}"
        self._watch = f"http://127.0.0.1:{watch_port}/varz"

    def count_messages(self) -> tuple[int, int]:
        """Messages and bytes that came in so far."""
        with urllib.request.urlopen(self._watch, timeout=5) as answer:
            found = json.load(answer)
        return int(found["in_msgs"]), int(found["in_bytes"])


@dataclass
class Target:
    """A backend with people in conversations. parts: its programs, in the order of their start.

    urls: of its nodes; people are spread over them.
    """

    name: str
    urls: Sequence[str]
    parts: Sequence[Part]
    people: Sequence[Credentials]
    folder: Path
    conversations: list[Conversation] = field(default_factory=list)
    database: Database | None = None
    bus: Bus | None = None

    async def connect(self, place: int) -> RawStream:
        """The stream of somebody's device."""
        return await RawStream.open(self.urls[place % len(self.urls)], self.people[place])

    # --- its programs ---------------------------------------------------------------------------

    def start(self) -> float:
        """Start all parts; the seconds until the last one answers."""
        began = time.perf_counter()
        for part in self.parts:
            part.start()
        return time.perf_counter() - began

    def stop(self) -> None:
        """In order, the last one first; harmless when nothing runs."""
        for part in reversed(self.parts):
            part.stop()

    def kill(self) -> None:
        """SIGKILL to all processes of all parts, at once."""
        kill_all(self._pids)
        for part in reversed(self.parts):
            part.kill()

    @property
    def _pids(self) -> list[int]:
        return [pid for part in self.parts for pid in part.list_pids()]

    def cpu_seconds(self) -> float:
        """Processor time of all parts so far."""
        return cpu_seconds(self._pids)

    def memory_kib(self) -> int:
        """Memory of all parts."""
        return memory_kib(self._pids)

    def list_node_pids(self) -> list[int]:
        """Processes of the server itself."""
        engines = (self.database, self.bus)
        return [pid for part in self.parts if part not in engines for pid in part.list_pids()]

    def stored_bytes(self) -> int:
        """Size of the files in its folder."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def written_bytes(self) -> int:
        """Bytes that all parts handed to storage so far."""
        return written_bytes(self._pids)


@asynccontextmanager
async def open_targets(
    names: Sequence[str], folder: Path, count: int, groups: Sequence[Sequence[int]]
) -> AsyncIterator[list[Target]]:
    """Every named backend with `count` people; groups: who is in each conversation, the founder first.

    Of two people: a direct conversation.
    """
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_target(name, folder / name, count, groups)) for name in names]


@asynccontextmanager
async def open_target(name: str, folder: Path, count: int, groups: Sequence[Sequence[int]]) -> AsyncIterator[Target]:
    """One backend, running."""
    opened = _open_relay(folder, count, groups) if name == RELAY else _open_curbside(name, folder, count, groups)
    async with opened as target:
        yield target


@asynccontextmanager
async def _open_curbside(name: str, folder: Path, count: int, groups: Sequence[Sequence[int]]) -> AsyncIterator[Target]:
    database = None if name == EMBEDDED else Database()
    bus = _make_bus() if name == CLUSTER else None
    engines: list[Part] = [each for each in (database, bus) if each is not None]
    settings = {} if database is None else {"CURBSIDE_DATABASE_URL": database.url}
    if bus is not None:
        settings["CURBSIDE_BUS_NATS"] = f"nats://{bus.address}"
    parts = engines
    try:
        organization = Organization(folder, settings, nodes=2 if name == CLUSTER else 1)
        parts = [*engines, *organization.nodes]
        for engine in engines:
            engine.start()
        people = [Person(organization, each) for each in await organization.enrol(count)]
        target = Target(name, organization.urls, parts, [each.credentials for each in people], folder)
        target.database, target.bus = database, bus
        for node in organization.nodes:
            node.start()
        await _begin_all(target, people, groups)
        yield target
    finally:
        for part in reversed(parts):
            part.stop()
        if database is not None:
            database.remove()


def _make_bus() -> Bus:
    return Bus(free_port(), free_port())


async def _begin_all(target: Target, people: Sequence[Person], groups: Sequence[Sequence[int]]) -> None:
    for members in groups:
        founder, others = people[members[0]], [people[each].user_id for each in members[1:]]
        group = await _begin(founder, others)
        target.conversations.append(Conversation(encode_id(group.group_id), members, 1, group.epoch))
    for person in people:
        await person.close()


async def _begin(founder: Person, others: Sequence[UserId]) -> Group:
    return await (founder.begin_pair(others[0]) if len(others) == 1 else founder.begin_group(others))


@asynccontextmanager
async def _open_relay(folder: Path, count: int, groups: Sequence[Sequence[int]]) -> AsyncIterator[Target]:
    port = free_port()
    folder.mkdir()  # noqa: ASYNC240  nothing else runs yet
    command = [sys.executable, "-m", "bench.relay", str(port), str(folder)]
    server = ServedProcess(command, port, "/v1/health/ready", dict(os.environ))
    people = [Credentials("", generate_signature_key("ed25519"))] * count
    target = Target(RELAY, [f"http://127.0.0.1:{port}"], [server], people, folder)
    for members in groups:
        target.conversations.append(Conversation(encode_id(random_bytes(16)), members, 0, 1))
    server.start()
    try:
        yield target
    finally:
        server.stop()
