"""Presence: who is typing and who is there, for the other members of a conversation at this moment.

Nothing of it is stored, logged or written into the audit log; nobody who was away learns of it later. It says what the
server sees anyway (whose device is connected), never anything out of a message. Members only, at a low rate, and the
organisation may switch either kind off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from curbside.clock import Clock
from curbside.errors import CurbsideError, Malformed, TooMany
from curbside.ids import ConversationId
from curbside.server.bus import BusMessage, Signalled
from curbside.server.fanout import Fanout, Listener
from curbside.server.groups import GroupCache, SendView
from curbside.server.limits import RateLimit
from curbside.wire.frames import (
    SIGNAL_AWAY,
    SIGNAL_HERE,
    SIGNAL_STOPPED,
    SIGNAL_TYPING,
    Signal,
    SignalItem,
)

LASTS_MS: Final = {SIGNAL_TYPING: 6_000, SIGNAL_STOPPED: 0, SIGNAL_HERE: 30_000, SIGNAL_AWAY: 0}
SKEW_MS: Final = 5_000
"""Between the clocks of two nodes, at most, for a signal to be passed on."""
LOOKING_AT_ONCE: Final = 256
"""Signals that wait for their conversation to be looked up; more are dropped."""
_encoder: Final = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class PresenceSettings:
    """typing, presence: whether each is passed on. per_second, burst: signals of one device."""

    typing: bool = True
    presence: bool = True
    per_second: float = 2.0
    burst: int = 20

    def allows(self, kind: int) -> bool:
        """Whether this kind of signal is switched on."""
        return self.typing if kind in (SIGNAL_TYPING, SIGNAL_STOPPED) else self.presence


class PresenceService:
    """Called by the stream, and by the bus. tell: where other nodes hear of it."""

    def __init__(self, fanout: Fanout, cache: GroupCache, clock: Clock, settings: PresenceSettings) -> None:
        self._fanout = fanout
        self._cache = cache
        self._clock = clock
        self._settings = settings
        self._rate = RateLimit(settings.per_second, settings.burst, clock)
        self._looking: set[asyncio.Task[None]] = set()
        self.tell: Callable[[BusMessage], None] = lambda _: None

    def take(self, sender: Listener, frame: Signal) -> None:
        """A device says something. What may not be passed on is dropped in silence.

        Raises: Malformed for a kind that this protocol does not have.
        """
        if frame.kind not in LASTS_MS:
            raise Malformed("not a signal of this protocol")
        name = ConversationId(frame.conversation)
        if not self._settings.allows(frame.kind) or sender.find_sent(name) is None:
            return
        try:
            self._rate.take(sender.subject.device_id)
        except TooMany:
            return
        subject = sender.subject
        signal = Signalled(name, subject.user_id, subject.device_id, frame.kind, self._clock.now_ms())
        self._pass_on(signal, is_ours=True)

    def heard(self, signal: Signalled) -> None:
        """Another node's device said something."""
        age = self._clock.now_ms() - signal.at
        if signal.kind in LASTS_MS and -SKEW_MS <= age <= LASTS_MS[signal.kind] + SKEW_MS:
            self._pass_on(signal, is_ours=False)

    def _pass_on(self, signal: Signalled, is_ours: bool) -> None:
        if not self._settings.allows(signal.kind):
            return
        view = self._cache.find_view(signal.conversation)
        if view is not None:
            self._pass_on_with(view, signal, is_ours)
        elif len(self._looking) < LOOKING_AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._look_up(signal, is_ours))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    async def _look_up(self, signal: Signalled, is_ours: bool) -> None:
        with contextlib.suppress(CurbsideError):
            self._pass_on_with(await self._cache.get_view(signal.conversation), signal, is_ours)

    def _pass_on_with(self, view: SendView, signal: Signalled, is_ours: bool) -> None:
        """Offer it to the other members here, if its sender is one; and tell other nodes of ours."""
        if signal.device not in view.leaves:
            return
        item = SignalItem(signal.conversation, signal.user, signal.device, signal.kind, LASTS_MS[signal.kind])
        encoded = _encoder.encode(item)
        for listener in self._fanout.list_audience(signal.conversation):
            device_id = listener.subject.device_id
            if device_id != signal.device and device_id in view.leaves:
                listener.offer_signal(encoded)
        if is_ours:
            self.tell(signal)
