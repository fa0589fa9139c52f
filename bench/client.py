"""The Python SDK: one real device against a real server; the others in its conversations are load generator."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from bench.figures import Figure
from bench.organization import Organization
from bench.people import Person
from bench.plan import Plan
from curbside.cli.invite import create_invite
from curbside.client.device import Device
from curbside.client.transport import Transport
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.ids import ConversationId, UserId, encode_id
from curbside.mls.group import Group
from curbside.wire import bodies, content, frames

PASSPHRASE = "violet kettle marching 47 otters"
TEXT = "Bed 4: potassium 5.9, repeated 6.1, ECG done. " * 2
WAIT = 120.0


@dataclass(frozen=True)
class Sizes:
    """How much is done. members: of the conversations measured. missed: messages of a catch-up."""

    runs: int
    sends: int
    missed: int
    members: tuple[int, ...]
    conversations: int


FULL = Sizes(runs=5, sends=100, missed=1_000, members=(3, 50), conversations=200)
QUICK = Sizes(runs=1, sends=5, missed=20, members=(3,), conversations=2)


async def measure(plan: Plan) -> list[Figure]:
    """All figures of the SDK."""
    sizes = QUICK if plan.is_quick else FULL
    with tempfile.TemporaryDirectory(prefix="curbside-bench-") as folder:
        organization = Organization(Path(folder) / "organization")
        newcomers = await organization.enrol(max(sizes.members))
        people = [Person(organization, each) for each in newcomers]
        organization.server.start()
        try:
            return await _measure(organization, people, Path(folder) / "alice.vault", sizes)
        finally:
            for person in people:
                await person.close()
            organization.server.stop()


async def _measure(organization: Organization, people: list[Person], vault: Path, sizes: Sizes) -> list[Figure]:
    alice = await _join(organization, vault, "Alice Ang")
    found: list[Figure] = []
    groups: dict[int, Group] = {}
    for size in sizes.members:
        others = [person.user_id for person in people[1 : size - 1]]
        groups[size] = await people[0].begin_group([alice, *others])
    for size in sizes.members:
        async with _opened(organization, vault) as device:
            found += await _measure_sends(device, ConversationId(encode_id(groups[size].group_id)), size, sizes)
    for size in sizes.members:
        found += await _measure_catch_up(organization, people[0], groups[size], vault, sizes)
    found += await _measure_opening(organization, vault, sizes)
    found += await _measure_talk(organization, vault, sizes, "")
    for _ in range(sizes.conversations):
        await people[0].begin_group([alice])
    found += await _measure_talk(organization, vault, sizes, f", {sizes.conversations} other conversations")
    return found


async def _join(organization: Organization, vault: Path, name: str) -> UserId:
    made = create_invite(organization.authority, organization.url, "physician", 3600, organization.clock.now())
    transport = Transport(organization.url, SecretBytes(random_bytes(32)), organization.clock, organization.network)
    await transport.call("POST", "/v1/invites", bodies.Invite, made.deposit, proof=False)
    await transport.close()
    device = await Device.join(vault, made.link, name, PASSPHRASE, network=organization.network)
    await device.close()
    return device.user_id


@asynccontextmanager
async def _opened(organization: Organization, vault: Path) -> AsyncIterator[Device]:
    device = await Device.open(vault, PASSPHRASE, network=organization.network)
    async with device:
        await device.connection.wait_caught_up()
        yield device


# --- sending ----------------------------------------------------------------------------------


async def _measure_sends(device: Device, conversation: ConversationId, size: int, sizes: Sizes) -> list[Figure]:
    """write → stored one after the other; the same in a burst; what the device itself does for each."""
    latency, processor, burst, saved, bare = [], [], [], [], []
    for _ in range(sizes.runs):
        spans, began = [], time.process_time()
        for _ in range(sizes.sends):
            start = time.perf_counter()
            await device.wait_until_sent(await device.send_text(conversation, TEXT))
            spans.append((time.perf_counter() - start) * 1000)
        processor.append((time.process_time() - began) * 1000 / sizes.sends)
        latency.append(statistics.median_low(spans))
        start = time.perf_counter()
        ids = [await device.send_text(conversation, TEXT) for _ in range(sizes.sends)]
        for message in ids:
            await device.wait_until_sent(message)
        burst.append(sizes.sends / (time.perf_counter() - start))
        saved.append(await _time_writes(device, conversation, sizes.sends))
        bare.append(_time_bare_commits(device.vault.path.with_name("bare.db"), sizes.sends))
    who = f"{size} members"
    return [
        Figure("client", f"write → stored, {who}", "ms", latency),
        Figure("client", f"processor time of a send, {who}", "ms", processor),
        Figure("client", f"burst of {sizes.sends} sends, {who}", "msg/s", burst),
        Figure("client", f"write, encrypt, save, {who} (reference: one durable row)", "ms", saved, bare),
    ]


async def _time_writes(device: Device, conversation: ConversationId, count: int) -> float:
    """Median milliseconds of the transaction that makes a message and its envelope."""
    spans = []
    for _ in range(count):
        start = time.perf_counter()
        message, effects = device.engine.write(conversation, content.text(TEXT), device.clock.now_ms())
        spans.append((time.perf_counter() - start) * 1000)
        await device.connection.carry_out(effects)
        await device.wait_until_sent(message)
    return statistics.median_low(spans)


def _time_bare_commits(path: Path, count: int) -> float:
    """Median milliseconds of one row of 1 KiB in a transaction as durable as the vault's."""
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", 2)
    db.execute("create table if not exists line (body blob)")
    spans = []
    for _ in range(count):
        start = time.perf_counter()
        db.execute("insert into line values (?)", (bytes(1024),))
        spans.append((time.perf_counter() - start) * 1000)
    db.close()
    return statistics.median_low(spans)


# --- a conversation ---------------------------------------------------------------------------


async def _measure_talk(organization: Organization, vault: Path, sizes: Sizes, where: str) -> list[Figure]:
    """Three real devices in this process; each message is reported as delivered by two of them."""
    names = ("Bob Bee", "Carol Cox")
    vaults = [vault, *(vault.with_name(f"{name}{len(where)}.vault") for name in names)]
    others = [await _join(organization, path, name) for path, name in zip(vaults[1:], names, strict=True)]
    spans, processor = [], []
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(_opened(organization, path)) for path in vaults]
        conversation = await devices[0].start_conversation([*others])
        for _ in range(sizes.runs):
            start, began = time.perf_counter(), time.process_time()
            for number in range(sizes.sends):
                message = await devices[0].send_text(conversation, f"{number} {TEXT}")
                await _until_delivered(devices[0], message)
            spans.append((time.perf_counter() - start) * 1000 / sizes.sends)
            processor.append((time.process_time() - began) * 1000 / sizes.sends)
    return [
        Figure("client", f"write → delivered on two others{where}", "ms", spans),
        Figure("client", f"processor time of three devices{where}", "ms", processor),
    ]


async def _until_delivered(device: Device, message: str) -> None:
    events = device.events()
    while device.message(message).delivery not in ("delivered", "read"):
        await asyncio.wait_for(anext(events), WAIT)
    await events.aclose()


# --- receiving --------------------------------------------------------------------------------


async def _measure_catch_up(
    organization: Organization, sender: Person, group: Group, vault: Path, sizes: Sizes
) -> list[Figure]:
    """A device comes back after `missed` messages. The time begins when its vault is open."""
    seconds, processor = [], []
    for _ in range(max(1, sizes.runs // 2)):
        await _fill(sender, group, sizes.missed)
        device = await Device.open(vault, PASSPHRASE, network=organization.network)
        start, began = time.perf_counter(), time.process_time()
        async with device:
            await device.connection.wait_caught_up(WAIT)
            seconds.append(time.perf_counter() - start)
            processor.append((time.process_time() - began) * 1000 / sizes.missed)
            last = device.messages(encode_id(group.group_id), limit=1)[-1]
            assert last.text == f"{sizes.missed - 1} {TEXT}".strip(), "not all of it arrived"
    who = f"{len(group.members)} members"
    return [
        Figure("client", f"catch-up of {sizes.missed:,} messages with sign-in, {who}", "s", seconds),
        Figure("client", f"processor time of a message caught up, {who}", "ms", processor),
    ]


async def _fill(sender: Person, group: Group, count: int) -> None:
    conversation = encode_id(group.group_id)
    stream = await sender.connect()
    waiting = count
    done = asyncio.get_running_loop().create_future()

    def heard(frame: frames.ServerFrame) -> None:
        nonlocal waiting
        if isinstance(frame, frames.Stored):
            waiting -= len(frame.items)
            if not waiting:
                done.set_result(None)
        elif isinstance(frame, frames.Refused):
            done.set_exception(RuntimeError(f"refused: {frame.code}"))

    stream.on_frame = heard
    for number in range(count):
        message_id = random_bytes(16)
        envelope = group.encrypt(content.encode(content.text(f"{number} {TEXT}".strip())), message_id)
        stream.send(frames.Send(number + 1, conversation, message_id, group.epoch, envelope))
    await asyncio.wait_for(done, WAIT)
    await stream.close()


# --- opening ----------------------------------------------------------------------------------


async def _measure_opening(organization: Organization, vault: Path, sizes: Sizes) -> list[Figure]:
    unlock, ready = [], []
    for _ in range(sizes.runs):
        start = time.perf_counter()
        device = await Device.open(vault, PASSPHRASE, network=organization.network)
        unlock.append(time.perf_counter() - start)
        device.conversations()
        async with device:
            await device.connection.wait_caught_up()
            ready.append(time.perf_counter() - start)
    return [
        Figure("client", "unlock (Argon2id, open the vault)", "s", unlock),
        Figure("client", "unlock, sign in (OPAQUE), caught up", "s", ready),
    ]
