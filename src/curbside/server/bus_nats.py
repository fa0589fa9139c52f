"""The bus on NATS: core NATS, no JetStream; a node subscribes to a conversation only while somebody here listens.

Subjects, all under a prefix that is the database's own (server.bus_sealing), all pseudonyms:

    <prefix>.c.<conversation>   entries and signals; a subscription for each conversation with listeners
    <prefix>.d.<device>         queue, newest connection, end; rare, so every node hears all of them
    <prefix>.n                  the nodes' hellos

[Note: our own reconnecting] The client library is used for one connection at a time. When it is lost, or does not
answer a ping in time, another one is made, and everything is subscribed anew. What waits to go out is bounded and
dropped while there is no connection: the store has it all (server.watch).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from structlog.typing import FilteringBoundLogger

from curbside.crypto.random import random_bytes
from curbside.errors import DecryptionFailed
from curbside.ids import ConversationId
from curbside.server.bus import (
    BusEars,
    BusMessage,
    DeviceEnded,
    EntriesAdded,
    Hello,
    QueueFilled,
    Signalled,
    StreamOpened,
    decode_message,
    encode_message,
)
from curbside.server.bus_sealing import BusSealer
from curbside.server.bus_settings import NatsSettings
from curbside.server.logs import LogEvent, find_place
from curbside.server.metrics import Metrics

CONNECT_SECONDS: Final = 5.0
PROBE_SECONDS: Final = 1.0
"""Between two pings; a connection that does not answer within twice that is given up."""
WAITS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
CLOSE_SECONDS: Final = 2.0
OUTGOING_MESSAGES: Final = 10_000
UNSENT_BYTES: Final = 8 * 1024 * 1024
"""Above this the connection is too slow, and what comes is dropped."""
LARGE_ENTRY: Final = 64 * 1024
"""An entry above this is not carried: its sequence is."""
MERGED_BYTES: Final = 256 * 1024
HEARD_MESSAGES: Final = 8_192
HEARD_BYTES: Final = 16 * 1024 * 1024
"""Of one subscription, between arrival and the loop's next turn."""
_FAILURES: Final = (OSError, nats.errors.Error, TimeoutError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class NatsParts:
    """What the engine is wired to."""

    settings: NatsSettings
    sealer: BusSealer
    metrics: Metrics
    log: FilteringBoundLogger


class _StrictClient(Client):
    """The library's client, which would go on in the clear when a server under tls:// says that it has no TLS, and
    would wait for a server that does not read any more."""

    def __init__(self, is_tls: bool) -> None:
        super().__init__()
        self._is_tls = is_tls

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if self._is_tls and initial_connection and not info.get("tls_required"):
            raise nats.errors.Error("the server offers no TLS")
        await super()._process_info(info, initial_connection)

    def abort(self) -> None:
        """Hang up without a word."""
        writer = getattr(self._transport, "_bare_io_writer", None)
        if writer is not None:
            writer.transport.abort()


class NatsBus:
    """Implements Bus."""

    is_alone: Final = False

    def __init__(self, parts: NatsParts) -> None:
        self._parts = parts
        self._prefix = parts.sealer.prefix
        self._ears: BusEars
        self._wanted: dict[ConversationId, str] = {}
        self._subscribed: dict[ConversationId, Subscription] = {}
        self._outgoing: list[BusMessage] = []
        self._changed = asyncio.Event()
        self._filled = asyncio.Event()
        self._client: Client | None = None
        self._is_up = False
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        return self._is_up

    def start(self, ears: BusEars) -> None:
        self._ears = ears
        self._task = asyncio.create_task(self._run(), name="bus")

    async def close(self) -> None:
        self._is_closing = True
        self._filled.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def follow(self, conversation_id: ConversationId) -> None:
        self._wanted[conversation_id] = self._find_subject(conversation_id)
        self._changed.set()

    def unfollow(self, conversation_id: ConversationId) -> None:
        self._wanted.pop(conversation_id, None)
        self._changed.set()

    def publish(self, message: BusMessage) -> None:
        if not self._is_up or len(self._outgoing) >= OUTGOING_MESSAGES:
            self._parts.metrics.bus_dropped.inc()
            return
        self._outgoing.append(message)
        self._filled.set()

    # --- connections --------------------------------------------------------------------------

    async def _run(self) -> None:
        """One connection after another, until `close`."""
        tries = 0
        while not self._is_closing:
            client = _StrictClient(self._parts.settings.is_tls)
            try:
                await asyncio.wait_for(self._connect(client), CONNECT_SECONDS)
                tries = 0
                await self._serve(client)
            except _FAILURES as error:
                self._parts.log.warning(LogEvent.BUS_LOST, place=find_place(error))
            finally:
                self._forget_connection()
                client.abort()
                with contextlib.suppress(*_FAILURES):
                    await asyncio.wait_for(client.close(), CLOSE_SECONDS)
            if not self._is_closing:
                await asyncio.sleep(WAITS[min(tries, len(WAITS) - 1)] * (0.5 + random_bytes(1)[0] / 256))
                tries += 1

    def _forget_connection(self) -> None:
        self._client = None
        self._is_up = False
        self._parts.metrics.bus_up.set(0)
        self._subscribed.clear()
        self._outgoing.clear()

    async def _connect(self, client: Client) -> None:
        settings = self._parts.settings
        await client.connect(
            servers=settings.list_servers(),
            name="curbside",
            error_cb=self._note_error,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            no_echo=True,
            tls=settings.make_tls(),
            flush_timeout=CLOSE_SECONDS,
            **settings.make_credentials(),
        )

    async def _serve(self, client: _StrictClient) -> None:
        """Carry messages until the connection ends or is closed."""
        self._client = client
        await client.subscribe(f"{self._prefix}.d.*", cb=self._receive, **_LIMITS)
        await client.subscribe(f"{self._prefix}.n", cb=self._receive, **_LIMITS)
        self._changed.set()
        keeping = asyncio.create_task(self._keep(client), name="bus-keep")
        sending = asyncio.create_task(self._send(client), name="bus-send")
        try:
            done, _ = await asyncio.wait({keeping, sending}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._forget_connection()
            if not self._is_closing:
                client.abort()
            keeping.cancel()
            sending.cancel()  # the library may swallow this; then it notices that the connection is gone
            await asyncio.gather(keeping, sending, return_exceptions=True)

    async def _keep(self, client: Client) -> None:
        """Follow what is wanted, and see that the connection answers. Raises when it does not."""
        while client.is_connected:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), PROBE_SECONDS)
            self._changed.clear()
            fresh = await self._follow_wanted(client)
            await client.flush(timeout=int(2 * PROBE_SECONDS))
            if not self._is_up:
                self._is_up = True
                self._parts.metrics.bus_up.set(1)
                self._parts.log.info(LogEvent.BUS_CONNECTED)
            if fresh:
                self._ears.followed(fresh)
        raise nats.errors.ConnectionClosedError

    async def _follow_wanted(self, client: Client) -> list[ConversationId]:
        """Subscribe and unsubscribe; what is new."""
        for conversation_id in [each for each in self._subscribed if each not in self._wanted]:
            await self._subscribed.pop(conversation_id).unsubscribe()
        fresh = [each for each in self._wanted if each not in self._subscribed]
        for conversation_id in fresh:
            subject = self._wanted.get(conversation_id)
            if subject is not None:  # somebody left while we waited
                subscription = await client.subscribe(subject, cb=self._receive, **_LIMITS)
                self._subscribed[conversation_id] = subscription
        return fresh

    # --- out ----------------------------------------------------------------------------------

    async def _send(self, client: Client) -> None:
        """Publish what waits. Raises when the connection ends."""
        metrics = self._parts.metrics
        while True:
            await self._filled.wait()
            self._filled.clear()
            waiting, self._outgoing = self._outgoing, []
            for message in merge_entries(waiting):
                if self._client is not client:
                    raise nats.errors.ConnectionClosedError
                if client.pending_data_size > UNSENT_BYTES:
                    metrics.bus_dropped.inc()
                    continue
                subject = self._find_topic(message)
                sealed = self._parts.sealer.seal(subject, encode_message(message))
                await client.publish(subject, sealed)
                metrics.bus_sent.inc()
            if self._is_closing and not self._outgoing:
                await client.flush(timeout=1)
                return

    def _find_topic(self, message: BusMessage) -> str:
        match message:
            case EntriesAdded(conversation=about) | Signalled(conversation=about):
                return self._wanted.get(about) or self._find_subject(about)
            case QueueFilled(device=device) | StreamOpened(device=device) | DeviceEnded(device=device):
                return f"{self._prefix}.d.{self._parts.sealer.hide(device)}"
            case Hello():
                return f"{self._prefix}.n"

    def _find_subject(self, conversation_id: ConversationId) -> str:
        return f"{self._prefix}.c.{self._parts.sealer.hide(conversation_id)}"

    # --- in -----------------------------------------------------------------------------------

    async def _receive(self, received: Msg) -> None:
        try:
            message = decode_message(self._parts.sealer.open(received.subject, received.data))
        except (DecryptionFailed, msgspec.MsgspecError):  # somebody else's, or another version's
            self._parts.metrics.bus_refused.inc()
            return
        self._parts.metrics.bus_heard.inc()
        self._ears.heard(message)

    async def _note_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):  # messages of a subscription were thrown away
            self._parts.metrics.bus_dropped.inc()
            self._ears.missed()


_LIMITS: Final[dict[str, Any]] = {"pending_msgs_limit": HEARD_MESSAGES, "pending_bytes_limit": HEARD_BYTES}


def merge_entries(messages: Sequence[BusMessage]) -> list[BusMessage]:
    """The same messages, with entries that follow one another in one; an entry that is too large without its bytes."""
    merged: list[BusMessage] = []
    places: dict[ConversationId, int] = {}
    for message in messages:
        if not isinstance(message, EntriesAdded):
            merged.append(message)
            continue
        place = places.get(message.conversation)
        former = merged[place] if place is not None else None
        if place is not None and isinstance(former, EntriesAdded) and _fits(former, message):
            merged[place] = _join(former, message)
        else:
            places[message.conversation] = len(merged)
            merged.append(_strip(message))
    return merged


def _strip(message: EntriesAdded) -> EntriesAdded:
    is_large = any(len(each) > LARGE_ENTRY for each in message.encoded)
    return msgspec.structs.replace(message, encoded=[]) if is_large else message


def _fits(former: EntriesAdded, message: EntriesAdded) -> bool:
    return (
        message.first == former.last + 1
        and not former.is_handshake
        and not message.is_handshake
        and len(former.encoded) == former.last - former.first + 1
        and sum(map(len, former.encoded)) + sum(map(len, message.encoded)) <= MERGED_BYTES
    )


def _join(former: EntriesAdded, message: EntriesAdded) -> EntriesAdded:
    encoded = former.encoded + _strip(message).encoded
    return EntriesAdded(message.conversation, former.first, message.last, encoded, is_handshake=False)
