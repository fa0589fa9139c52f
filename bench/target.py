"""What a load is put on: Curbside with real people and groups, or the bare relay with the same frames."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.organization import Organization, free_port
from bench.people import Person
from bench.process import ServedProcess
from bench.wire import Credentials, RawStream
from curbside.crypto.random import random_bytes
from curbside.crypto.sign import generate_signature_key
from curbside.ids import UserId, decode_id, encode_id
from curbside.mls.group import Group


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


class Target:
    """A running server with people in conversations."""

    def __init__(self, url: str, server: ServedProcess, people: Sequence[Credentials]) -> None:
        self.url = url
        self.server = server
        self.conversations: list[Conversation] = []
        self._people = people

    async def connect(self, place: int) -> RawStream:
        """The stream of somebody's device."""
        return await RawStream.open(self.url, self._people[place])


@asynccontextmanager
async def open_curbside(folder: Path, count: int, groups: Sequence[Sequence[int]]) -> AsyncIterator[Target]:
    """Curbside with `count` people; groups: who is in each conversation, the founder first. Of two: a direct one."""
    organization = Organization(folder / "curbside")
    people = [Person(organization, each) for each in await organization.enrol(count)]
    target = Target(organization.url, organization.server, [each.credentials for each in people])
    organization.server.start()
    try:
        for members in groups:
            founder, others = people[members[0]], [people[each].user_id for each in members[1:]]
            group = await _begin(founder, others)
            target.conversations.append(Conversation(encode_id(group.group_id), members, 1, group.epoch))
        for person in people:
            await person.close()
        yield target
    finally:
        organization.server.stop()


async def _begin(founder: Person, others: Sequence[UserId]) -> Group:
    return await (founder.begin_pair(others[0]) if len(others) == 1 else founder.begin_group(others))


@asynccontextmanager
async def open_relay(folder: Path, count: int, groups: Sequence[Sequence[int]]) -> AsyncIterator[Target]:
    """The relay; the same arguments."""
    place, port = folder / "relay", free_port()
    place.mkdir()
    command = [sys.executable, "-m", "bench.relay", str(port), str(place)]
    server = ServedProcess(command, port, "/v1/health/ready", dict(os.environ))
    target = Target(f"http://127.0.0.1:{port}", server, [Credentials("", generate_signature_key("ed25519"))] * count)
    for members in groups:
        target.conversations.append(Conversation(encode_id(random_bytes(16)), members, 0, 1))
    server.start()
    try:
        yield target
    finally:
        server.stop()
