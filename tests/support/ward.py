"""WARD: the real server and real devices in one process, without sockets, in front of it whatever a test puts there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asgi import AsgiNetwork, Weather

from curbside.cli.invite import create_invite
from curbside.client.device import Device, Event, Message
from curbside.client.transport import Transport
from curbside.clock import ManualClock
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.x509 import Issuer, make_authority
from curbside.ids import ConversationId
from curbside.server.app import CurbsideApp, create_app
from curbside.server.config import Config, KeyGiven, Limits
from curbside.wire import bodies

ORIGIN = "http://127.0.0.1:8998"
START = 1_790_000_000
PASSPHRASE = "violet kettle marching 47 otters"
WAIT = 30.0
UNBOUND = Limits(
    **{
        f"{what}_{which}": 1_000_000
        for what in ("sends", "requests", "attempts", "connects", "claims")
        for which in ("per_second", "burst")
    }
)
Middleman = Callable[[Any, str], Any]
"""(application, person) -> application: what stands between this person and the server."""


def _nobody(app: Any, _: str) -> Any:
    return app


async def eventually(condition: Callable[[], Any], seconds: float = WAIT) -> Any:
    """The condition's value as soon as it is true; other tasks go on meanwhile.

    Raises: AssertionError when it does not become true.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < deadline, "this did not come true"
        await asyncio.sleep(0.01)
    return value


class Ward:
    """A server with its people. Use as an async context manager; devices that were opened are closed with it."""

    def __init__(self, folder: Path, authority: Issuer, key: SecretBytes, middleman: Middleman = _nobody) -> None:
        self.folder = folder
        self.authority = authority
        self.clock = ManualClock(START)
        self.weather: dict[str, Weather] = {}
        self.devices: dict[str, Device] = {}
        self.events: dict[str, list[Event]] = {}
        self._listening: dict[str, asyncio.Task[None]] = {}
        self._key = key
        self._middleman = middleman
        self.app: CurbsideApp

    @classmethod
    def new(cls, folder: Path, middleman: Middleman = _nobody) -> Ward:
        """An organisation without people; `folder` is empty."""
        (folder / "data").mkdir(parents=True)
        authority = make_authority("Sankt Elsewhere", START)
        (folder / "data" / "authority.der").write_bytes(authority.certificate.raw)
        return cls(folder, authority, SecretBytes(random_bytes(32)), middleman)

    async def __aenter__(self) -> Ward:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self.devices):
            await self.close(name)
        await self.stop()

    # --- the server --------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve what is on disk."""
        data = self.folder / "data"
        config = Config(
            data_folder=data,
            public_urls=(ORIGIN,),
            database_key=KeyGiven(self._key),
            port=8998,
            limits=UNBOUND,
            log_level="error",
        )
        self.app = create_app(config, self.clock)
        await self.app.start()

    async def stop(self) -> None:
        """Stop as on SIGTERM."""
        await self.app.stop()

    def network(self, name: str) -> AsgiNetwork:
        """How this person reaches the server."""

        async def door(scope: Any, receive: Any, send: Any) -> None:
            await self._middleman(self.app, name)(scope, receive, send)

        return AsgiNetwork(door, self.weather.setdefault(name, Weather()))

    # --- people ------------------------------------------------------------------------------

    async def invite(self, role: str = "physician", seconds: int = 3600) -> str:
        """A link, deposited."""
        made = create_invite(self.authority, ORIGIN, role, seconds, self.clock.now())
        transport = Transport(ORIGIN, SecretBytes(random_bytes(32)), self.clock, AsgiNetwork(self.app))
        try:
            await transport.call("POST", "/v1/invites", bodies.Invite, made.deposit, proof=False)
        finally:
            await transport.close()
        return made.link

    def vault_path(self, name: str) -> Path:
        """Where somebody's vault is."""
        return self.folder / f"{name}.vault"

    async def sign_up(self, name: str, role: str = "physician", link: str = "") -> None:
        """Somebody joins; their device is closed afterwards."""
        wanted = link or await self.invite(role)
        label = f"{name}'s phone"
        device = await Device.join(
            self.vault_path(name),
            wanted,
            name,
            PASSPHRASE,
            label=label,
            clock=self.clock,
            network=self.network(name),
        )
        await device.close()

    async def open(self, name: str) -> Device:
        """Somebody's device, connected and caught up."""
        device = await Device.open(self.vault_path(name), PASSPHRASE, clock=self.clock, network=self.network(name))
        self.devices[name] = device
        happened: list[Event] = []
        self.events[name] = happened
        events = device.events()

        async def listen() -> None:
            nonlocal happened
            async for event in events:
                happened += [event]

        self._listening[name] = asyncio.get_running_loop().create_task(listen())
        await device.__aenter__()
        await device.connection.wait_caught_up()
        return device

    async def open_all(self, names: Sequence[str]) -> list[Device]:
        """Several at once."""
        return [await self.open(name) for name in names]

    async def close(self, name: str) -> None:
        """Somebody's process ends, its vault is locked."""
        await self.devices.pop(name).close()
        task = self._listening.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def settle(self, conversation: str) -> None:
        """Returns when every open device of the conversation has its whole log, and nothing more to say."""
        name = ConversationId(conversation)
        services = self.app.services
        assert services is not None
        deadline = asyncio.get_running_loop().time() + WAIT
        while True:
            record = await services.store.read(lambda view: view.delivery.find_conversation(name))
            assert record is not None
            rows = [device.vault.rows for device in self.devices.values()]
            members = [each for each in rows if each.find_conversation(conversation) is not None]
            behind = [each for each in members if each.get_conversation(conversation).cursor != record.last_sequence]
            if not behind and not any(each.outbox(conversation) for each in members):
                return
            assert asyncio.get_running_loop().time() < deadline, "the conversation does not come to rest"
            await asyncio.sleep(0.01)

    def notices(self, name: str) -> list[Event]:
        """What somebody's device gave notice of."""
        return [event for event in self.events[name] if event.kind == "notice"]


def texts(device: Device, conversation: str) -> list[str]:
    """The texts that somebody sees, in order."""
    return [m.text for m in device.messages(conversation, limit=100_000) if m.kind == "text"]


def find_text(device: Device, conversation: str, text: str) -> Message | None:
    """A message by its text."""
    return next((m for m in device.messages(conversation, limit=100_000) if m.text == text), None)


async def sees(device: Device, conversation: str, text: str, seconds: float = WAIT) -> Message:
    """The message with this text once the device has it."""

    def look() -> Message | None:
        known = device.vault.rows.find_conversation(conversation) is not None
        return find_text(device, conversation, text) if known else None

    found = await eventually(look, seconds)
    assert isinstance(found, Message)
    return found
