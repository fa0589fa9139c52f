"""WORLD: people with devices, a ward, the real server, and a network and machines that fail by a seeded plan.

Devices run the real engine on real vaults; the server is the real application on its real store. Time is a clock that
the world moves. Each step is drawn from the seed; `World.settle` then ends all trouble and lets everybody catch up, and
`World.check` states what must hold. A failure prints the seed, which repeats the plan.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from asgi import AsgiNetwork, AsgiSocket, Weather

from curbside.cli.invite import create_invite
from curbside.client import account
from curbside.client.device import Device
from curbside.client.effects import AcknowledgeSoon, Effect, Notice, PostCommit, Retry, SendFrame
from curbside.client.engine import Engine
from curbside.client.groups import Groups
from curbside.client.transport import Stream, Transport
from curbside.client.vault import Vault
from curbside.clock import ManualClock
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.x509 import make_authority
from curbside.errors import CurbsideError, PeerUnavailable
from curbside.ids import ConversationId, DeviceId, UserId, decode_base64url, encode_base64url
from curbside.mls.group import CommitRequest
from curbside.server.app import CurbsideApp, create_app
from curbside.server.config import Config, KeyGiven, Limits
from curbside.wire import bodies, content, frames
from curbside.wire.group_policy import make_group_policy

ORIGIN = "http://127.0.0.1:8999"
START = 1_790_000_000
SETTLE_SECONDS = 60.0
PASSPHRASE = "violet kettle marching 47 otters"
UNBOUND = Limits(
    **{
        f"{what}_{which}": 1_000_000
        for what in ("sends", "requests", "attempts", "connects", "claims")
        for which in ("per_second", "burst")
    }
)


class Crash(Exception):
    """A device's process ended between saving and sending."""


@dataclass
class Said:
    """What a person wrote, in the order they wrote it."""

    conversation: ConversationId
    author: str
    text: str


@dataclass
class Actor:
    """One person's device: a vault on disk, an engine while its process lives, a stream while it is connected."""

    name: str
    world: World
    path: Path
    weather: Weather = field(default_factory=Weather)
    engine: Engine | None = None
    stream: Stream | None = None
    socket: AsgiSocket | None = None
    transport: Transport | None = None
    commits: list[PostCommit] = field(default_factory=list)
    notices: list[CurbsideError] = field(default_factory=list)
    crash_next: bool = False
    user_id: UserId = UserId("")

    # --- its process -------------------------------------------------------------------------

    def boot(self) -> None:
        """Start the process: open the vault as it is on disk."""
        vault = Vault.open(self.path, PASSPHRASE)
        identity = account.load_identity(vault)
        self.user_id = UserId(vault.rows.get_setting("user_id"))
        groups = Groups(vault, identity.leaf, identity.validator)
        self.engine = Engine(vault, groups, self.user_id, DeviceId(vault.rows.get_setting("device_id")))
        network = AsgiNetwork(self.world.app, self.weather)
        self.transport = Transport(ORIGIN, identity.api_key, self.world.clock, network)

    async def crash(self) -> None:
        """End the process at once: what is on disk stays, what was in memory and on its way is gone."""
        await self.disconnect(tell_engine=False)
        self.commits.clear()
        if self.engine is not None:
            self.engine.vault.close()
            self.engine = None

    @property
    def alive(self) -> Engine:
        """The engine; the process is started if it had ended."""
        if self.engine is None:
            self.boot()
        assert self.engine is not None
        return self.engine

    # --- its connection ----------------------------------------------------------------------

    async def connect(self) -> None:
        """Sign in if needed, open the stream, say where it stands."""
        engine = self.alive
        assert self.transport is not None
        try:
            if self.transport.session is None:
                await account.sign_in(engine.vault, self.transport, SecretBytes(PASSPHRASE.encode()))
            self.stream = await self.transport.open_stream()
        except PeerUnavailable:
            return
        await self.carry_out(engine.connected())

    async def disconnect(self, *, tell_engine: bool = True) -> None:
        """The connection breaks; frames on their way are lost."""
        stream, self.stream = self.stream, None
        if stream is not None:
            await stream.close()
        if tell_engine and self.engine is not None:
            self.engine.disconnected()

    async def carry_out(self, effects: list[Effect]) -> None:
        """Do what the engine asks, or crash just before."""
        if self.crash_next and any(isinstance(e, SendFrame | PostCommit) for e in effects):
            self.crash_next = False
            raise Crash
        for effect in effects:
            match effect:
                case SendFrame(frame) if self.stream is not None:
                    try:
                        await self.stream.send(frame)
                    except PeerUnavailable:
                        await self.disconnect()
                case PostCommit():
                    if effect not in self.commits:
                        self.commits.append(effect)
                case Retry(conversation, _):
                    await self.carry_out(self.alive.release(conversation, self.world.now_ms()))
                case AcknowledgeSoon():
                    await self.carry_out(self.alive.acknowledge())
                case Notice(_, error):
                    self.notices.append(error)
                case _:
                    pass

    async def read_frame(self, seconds: float) -> bool:
        """Take one frame off the stream; whether there was one."""
        if self.stream is None:
            return False
        try:
            frame = await asyncio.wait_for(self.stream.receive(), seconds)
        except TimeoutError:
            return False
        except PeerUnavailable:
            await self.disconnect()
            return False
        if isinstance(frame, frames.Closing):
            await self.disconnect()
            return True
        await self.carry_out(self.alive.received(frame, self.world.now_ms()))
        return True

    async def post_commit(self) -> bool:
        """Post one of the commits that wait, in any order; whether there was one."""
        if not self.commits or self.transport is None:
            return False
        wanted = self.commits.pop(self.world.dice.randrange(len(self.commits)))
        error: CurbsideError | None = None
        try:
            path = f"/v1/conversations/{wanted.conversation}/commits"
            await self.transport.call("POST", path, bodies.Appended, wanted.request)
        except CurbsideError as refused:
            error = refused
        await self.carry_out(self.alive.commit_answered(wanted.conversation, error, self.world.now_ms()))
        return True

    # --- what it has -------------------------------------------------------------------------

    def transcript(self, conversation: ConversationId) -> list[tuple[int, str, str]]:
        """(sequence, author's user id, text) of all texts, in the order a person sees them."""
        rows = self.alive.vault.rows.messages(conversation, limit=100_000)
        decoded = [(row, content.decode(row.content)) for row in rows if row.content]
        texts = [(row, message) for row, message in decoded if content.kind(message) == content.Kind.TEXT]
        return [(row.sequence, row.sender, content.body_text(message)) for row, message in texts]


class World:
    """Use as an async context manager; `folder` is empty."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.clock = ManualClock(START)
        self.folder = folder
        self.actors: dict[str, Actor] = {}
        self.said: list[Said] = []
        self.conversations: list[ConversationId] = []
        self.late: set[tuple[str, ConversationId]] = set()
        self._authority = make_authority("Sankt Elsewhere", self.clock.now())
        self._key = SecretBytes(random_bytes(32))
        self.app: CurbsideApp

    def now_ms(self) -> int:
        """The world's time, which moves a little whenever it is asked."""
        self.clock.advance(0.005)
        return self.clock.now_ms()

    async def __aenter__(self) -> World:
        (self.folder / "data").mkdir()
        (self.folder / "data" / "authority.der").write_bytes(self._authority.certificate.raw)
        await self.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        for actor in self.actors.values():
            await actor.crash()
        await self.app.stop()

    async def start_server(self) -> None:
        """Start the server on what is on its disk."""
        config = Config(
            data_folder=self.folder / "data",
            public_urls=(ORIGIN,),
            database_key=KeyGiven(self._key),
            port=8999,
            limits=UNBOUND,
            log_level="error",
        )
        self.app = create_app(config, self.clock)
        await self.app.start()

    async def restart_server(self) -> None:
        """Stop and start the server; all streams end."""
        for actor in self.actors.values():
            await actor.disconnect()
        await self.app.stop()
        await self.start_server()
        for actor in self.actors.values():
            if actor.engine is not None:
                await actor.crash()

    # --- people ------------------------------------------------------------------------------

    async def invite(self, name: str, role: str = "physician") -> Actor:
        """A new person signs up and is connected."""
        made = create_invite(self._authority, ORIGIN, role, 3600, self.clock.now())
        network = AsgiNetwork(self.app)
        transport = Transport(ORIGIN, SecretBytes(random_bytes(32)), self.clock, network)
        await transport.call("POST", "/v1/invites", bodies.Invite, made.deposit, proof=False)
        await transport.close()
        path = self.folder / f"{name}.vault"
        device = await Device.join(path, made.link, name, PASSPHRASE, clock=self.clock, network=network)
        await device.close()
        actor = Actor(name, self, path)
        self.actors[name] = actor
        await actor.connect()
        await self.settle()
        return actor

    async def gather(self, founder: Actor, others: list[Actor]) -> ConversationId:
        """A conversation of all of them."""
        engine = founder.alive
        assert founder.transport is not None
        request = engine.create(make_group_policy(founder.user_id), "", self.now_ms())
        await founder.transport.call("POST", "/v1/conversations", bodies.ConversationState, request)
        conversation = ConversationId(request.conversation_id)
        self.conversations.append(conversation)
        await founder.carry_out([SendFrame(engine.sync.frame(conversation))])
        await self.add(founder, conversation, others)
        await self.settle()
        return conversation

    async def add(self, by: Actor, conversation: ConversationId, others: list[Actor]) -> None:
        """Stage a commit that adds people; the plan decides when it is posted."""
        assert by.transport is not None
        packages = []
        for other in others:
            path = f"/v1/people/{other.user_id}/key-packages/claim"
            claimed = await by.transport.call("POST", path, bodies.ClaimedKeyPackages)
            packages += [decode_base64url(device.key_package) for device in claimed.devices]
        effects = by.alive.commit(conversation, CommitRequest(adds=tuple(packages)), self.now_ms())
        await by.carry_out(effects)

    async def add_late(self, by: Actor, conversation: ConversationId, other: Actor) -> None:
        """Somebody is added in the middle of everything; `check` then wants of them only what came after."""
        self.late.add((other.name, conversation))
        by.crash_next = by.weather.cut = by.weather.lose_answers = False
        if by.stream is None:
            await by.connect()
        if by.alive.groups.pending(conversation) is None:
            await self.add(by, conversation, [other])

    def is_in(self, actor: Actor, conversation: ConversationId) -> bool:
        """Whether somebody's device knows the conversation."""
        return actor.alive.vault.rows.find_conversation(conversation) is not None

    # --- what happens ------------------------------------------------------------------------

    async def say(self, actor: Actor, conversation: ConversationId) -> None:
        """Somebody writes a line, connected or not."""
        text = f"{actor.name} {len(self.said)} {encode_base64url(self.dice.randbytes(6))}"
        _, effects = actor.alive.write(conversation, content.text(text), self.now_ms())
        self.said.append(Said(conversation, actor.user_id, text))
        await actor.carry_out(effects)

    async def refresh(self, actor: Actor, conversation: ConversationId) -> None:
        """Somebody renews their keys; may lose against another commit."""
        if actor.alive.groups.pending(conversation) is None:
            await actor.carry_out(actor.alive.commit(conversation, CommitRequest(), self.now_ms()))

    async def step(self) -> None:
        """One thing happens, drawn from the seed."""
        await self.step_of(self.dice.choice(list(self.actors.values())), self.dice.choice(self.conversations))

    async def step_of(self, actor: Actor, conversation: ConversationId) -> None:
        """One thing happens to somebody, in one of their conversations."""
        happenings: list[tuple[float, Callable[[], Awaitable[object]]]] = [
            (30, lambda: self.say(actor, conversation)),
            (35, lambda: actor.read_frame(0.02)),
            (8, actor.post_commit),
            (4, lambda: self.refresh(actor, conversation)),
            (6, actor.disconnect),
            (10, lambda: self._reconnect(actor)),
            (3, lambda: self._turn_weather(actor)),
            (3, lambda: self._crash_soon(actor)),
            (2, actor.crash),
            (1, lambda: self._read_all(actor, conversation)),
            (0.3, self.restart_server),
        ]
        weights = [weight for weight, _ in happenings]
        happen = self.dice.choices([what for _, what in happenings], weights)[0]
        try:
            await happen()
        except Crash:
            await actor.crash()
        self.clock.advance(self.dice.random())

    async def _reconnect(self, actor: Actor) -> None:
        if actor.stream is None:
            await actor.connect()

    async def _turn_weather(self, actor: Actor) -> None:
        actor.weather.cut = self.dice.random() < 0.3
        actor.weather.lose_answers = self.dice.random() < 0.3
        if actor.weather.cut:
            await actor.disconnect()

    async def _crash_soon(self, actor: Actor) -> None:
        actor.crash_next = True

    async def _read_all(self, actor: Actor, conversation: ConversationId) -> None:
        await actor.carry_out(actor.alive.mark_read(conversation, self.now_ms()))

    # --- the end -----------------------------------------------------------------------------

    async def settle(self) -> None:
        """End all trouble and go on until nobody has anything to do."""
        for actor in self.actors.values():
            actor.crash_next = False
            actor.weather.cut = actor.weather.lose_answers = False
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            for actor in self.actors.values():
                if actor.stream is None:
                    await actor.connect()
                while await actor.read_frame(0.01):
                    pass
                while await actor.post_commit():
                    pass
            if await self._is_settled():
                return
        raise AssertionError(f"the world does not come to rest (seed {self.seed})")

    async def _is_settled(self) -> bool:
        """Whether every member has all of every log, and nobody has anything left to send."""
        services = self.app.services
        assert services is not None
        for conversation in self.conversations:
            record, members = await services.store.read(
                lambda view, name=conversation: (
                    view.delivery.find_conversation(name),
                    view.delivery.list_members(name),
                )
            )
            for actor in self.actors.values():
                row = actor.alive.vault.rows.find_conversation(conversation)
                is_member = any(member.user_id == actor.user_id for member in members)
                if is_member and (row is None or row.cursor < record.last_sequence):
                    return False
        rows = [actor.alive.vault.rows for actor in self.actors.values()]
        waiting = any(r.outbox() or any(r.find_pending_commit(c) for c in self.conversations) for r in rows)
        return not waiting and all(actor.stream is not None for actor in self.actors.values())

    def check(self) -> None:
        """Nothing lost, nothing doubled, one order for all, one epoch for all, and no alarm."""
        where = f"seed {self.seed}"
        for conversation in self.conversations:
            wanted = sorted(said.text for said in self.said if said.conversation == conversation)
            transcripts = {a.name: a.transcript(conversation) for a in self.actors.values()}
            late = {name for name in transcripts if (name, conversation) in self.late}
            first = next(transcript for name, transcript in transcripts.items() if name not in late)
            for name in late:
                rest = transcripts.pop(name)
                assert rest == first[len(first) - len(rest) :], f"{name}, who came later, sees another end ({where})"
                assert len(rest) < len(first), f"{name}, who came later, sees what came before ({where})"
            for name, transcript in transcripts.items():
                assert sorted(text for _, _, text in transcript) == wanted, f"{name} lost or doubled a line ({where})"
                assert transcript == first, f"{name} sees another order ({where})"
                assert all(sequence for sequence, _, _ in transcript), f"{name} has a line that waits ({where})"
            for author in {said.author for said in self.said}:
                written = [s.text for s in self.said if s.conversation == conversation and s.author == author]
                arrived = [text for _, sender, text in first if sender == author]
                assert arrived == written, f"an author's lines changed their order ({where})"
            epochs = {a.alive.groups.get(conversation).epoch_authenticator() for a in self.actors.values()}
            assert len(epochs) == 1, f"the group is divided ({where})"
            alarms = [a.alive.vault.rows.get_conversation(conversation).alarm for a in self.actors.values()]
            assert not any(alarms), f"an alarm without an attack: {alarms} ({where})"
