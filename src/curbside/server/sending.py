"""Sends on their way into the store: waiting in turns, and the one write that a batch of them is.

Functions here run inside the store's transaction and have no effect outside it.

[Note: fairness] When more waits than fits a batch, the conversations take turns, so that a flood in one of them does
not hold up the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from curbside.audit.batch import SEND_RULE, DeliveredRow, SentRow
from curbside.audit.events import size_bucket
from curbside.errors import ConflictError, CurbsideError, DuplicateRequest, EpochConflict, StaleEpoch
from curbside.ids import ConversationId, DeviceId, MessageId, UserId
from curbside.policy.access import Relation, Role, Subject, decide_access
from curbside.server.fanout import Listener
from curbside.server.groups import SendView, is_sound
from curbside.server.store.ports import Change
from curbside.server.store.records import EntryBatch, NewEntry
from curbside.wire.frames import KIND_APPLICATION, Send, StoredItem

_SENDERS: Final = frozenset(
    role for role in Role if decide_access(SEND_RULE, Subject(UserId(""), DeviceId(""), role), Relation.MEMBER).allow
)
"""Roles whose member devices may send, by the access rules."""


class SendSink(Listener, Protocol):
    """The connection that a send came on: it hears of it as Stored or Refused instead of as an entry."""

    def stored(self, item: StoredItem, conversation_id: ConversationId) -> None: ...

    def refused(self, request: int, error: CurbsideError) -> None: ...


@dataclass(slots=True)
class Sending:
    """A send on its way. error: why it may not be stored, unless it was stored before (a retry)."""

    subject: Subject
    frame: Send
    sink: SendSink
    error: CurbsideError | None = None


class Placed(NamedTuple):
    """Where a send is stored, by this batch (is_new) or before."""

    sequence: int
    received_at: int
    is_new: bool


Outcome = Placed | CurbsideError
Live = Mapping[ConversationId, frozenset[Listener]]


class SendQueue:
    """Sends that wait, in the order they came; of more than a batch, each conversation gets its share."""

    def __init__(self) -> None:
        self._sends: dict[str, list[Sending]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, sending: Sending) -> None:
        """One more."""
        name = sending.frame.conversation
        if name in self._sends:
            self._sends[name].append(sending)
        else:
            self._sends[name] = [sending]
        self._count += 1

    def take(self, most: int) -> list[Sending]:
        """At most this many. A conversation whose turn it was stands behind the others next time."""
        if self._count <= most:
            batch = [sending for sends in self._sends.values() for sending in sends]
            self._sends = {}
        else:
            batch = []
            while len(batch) < most:
                share = max(1, (most - len(batch)) // len(self._sends))
                for name in list(self._sends)[: most - len(batch)]:
                    sends = self._sends.pop(name)
                    batch += sends[:share]
                    if len(sends) > share:
                        self._sends[name] = sends[share:]
        self._count -= len(batch)
        return batch


def may_send(sending: Sending, view: SendView) -> bool:
    """Whether the checks of a send certainly find nothing: it needs none of them."""
    subject = sending.subject
    return subject.device_id in view.leaves and subject.role in _SENDERS and is_sound(sending.frame, view)


def find_former(tx: Change, batch: Sequence[Sending], outcomes: list[Outcome | None], asks_first: bool) -> list[int]:
    """Settle the retries; places in the batch of what may be appended. Also of what the epoch forbids now, a retry
    may have been stored in time. asks_first: also of what may be stored."""
    asked = [
        (index, sending)
        for index, sending in enumerate(batch)
        if (asks_first and sending.error is None) or isinstance(sending.error, ConflictError | StaleEpoch)
    ]
    fresh = [] if asks_first else [index for index, sending in enumerate(batch) if sending.error is None]
    if not asked:
        return fresh
    frames = [sending.frame for _, sending in asked]
    places = tx.delivery.find_places(
        [(ConversationId(frame.conversation), MessageId(frame.message_id), frame.envelope) for frame in frames]
    )
    for (index, sending), place in zip(asked, places, strict=True):
        if place is not None:
            outcomes[index] = Placed(place.sequence, place.received_at, False) if place.is_same else DuplicateRequest()
        elif sending.error is None:
            fresh.append(index)
    return fresh


def append_fresh(
    tx: Change, batch: Sequence[Sending], fresh: Sequence[int], outcomes: list[Outcome | None], now: int
) -> dict[ConversationId, list[int]]:
    """Append them; places in the batch of what was stored, by conversation."""
    groups: dict[ConversationId, dict[bytes, int]] = {}
    epochs: dict[str, int] = {}
    twins: list[tuple[int, int]] = []
    for index in fresh:
        frame = batch[index].frame
        epochs[frame.conversation] = max(epochs.get(frame.conversation, 0), frame.epoch)
    for index in fresh:
        frame = batch[index].frame
        if frame.epoch < epochs[frame.conversation]:  # the conversation moved on while the batch was looked at
            outcomes[index] = StaleEpoch(current_epoch=epochs[frame.conversation])
            continue
        group = groups.setdefault(ConversationId(frame.conversation), {})
        first = group.setdefault(frame.message_id, index)
        if first != index:
            twins.append((index, first))
    batches = [_build_batch(name, group, batch, now) for name, group in groups.items()]
    stored: dict[ConversationId, list[int]] = {}
    for (name, group), place in zip(
        groups.items(), tx.delivery.append_batches(batches) if batches else [], strict=True
    ):
        if isinstance(place, CurbsideError):
            outcomes_all = _explain(place)
            for index in group.values():
                outcomes[index] = outcomes_all
            continue
        stored[name] = list(group.values())
        for sequence, index in enumerate(stored[name], place):
            outcomes[index] = Placed(sequence, now, True)
    for index, first in twins:
        outcomes[index] = _answer_twin(batch[index].frame, batch[first].frame, outcomes[first])
    return stored


def _build_batch(name: ConversationId, group: Mapping[bytes, int], batch: Sequence[Sending], now: int) -> EntryBatch:
    frames = [batch[index].frame for index in group.values()]
    entries = [NewEntry(KIND_APPLICATION, MessageId(frame.message_id), now, frame.envelope) for frame in frames]
    return EntryBatch(name, frames[0].epoch, entries)


def _explain(error: CurbsideError) -> CurbsideError:
    """What kept a conversation's sends out, as a sender hears it."""
    if isinstance(error, EpochConflict):
        return StaleEpoch(current_epoch=error.members["current_epoch"])
    return error


def _answer_twin(frame: Send, first: Send, outcome: Outcome | None) -> Outcome | None:
    """The same message id twice in one batch: the second is a retry of the first, or a misuse."""
    if not isinstance(outcome, Placed):
        return outcome
    return (
        Placed(outcome.sequence, outcome.received_at, False) if frame.envelope == first.envelope else DuplicateRequest()
    )


def list_sent(
    batch: Sequence[Sending], outcomes: Sequence[Outcome], stored: Mapping[ConversationId, Sequence[int]]
) -> Iterator[SentRow]:
    """What the audit log says of the sends that were stored. A retry is no second access."""
    for name, indexes in stored.items():
        for index in indexes:
            subject, frame, outcome = batch[index].subject, batch[index].frame, outcomes[index]
            assert isinstance(outcome, Placed)
            who = subject.user_id, subject.device_id, subject.role
            bucket = size_bucket(len(frame.envelope))
            yield SentRow(outcome.received_at, *who, name, outcome.sequence, frame.epoch, bucket)


def list_delivered(
    batch: Sequence[Sending],
    outcomes: Sequence[Outcome],
    stored: Mapping[ConversationId, Sequence[int]],
    live: Live,
) -> Iterator[DeliveredRow]:
    """One row for each connected device that gets these entries, in the transaction that stores them. A sender gets
    the others' entries only."""
    for name, indexes in stored.items():
        placed = [(batch[index].sink, outcome) for index in indexes if isinstance(outcome := outcomes[index], Placed)]
        senders = {sink for sink, _ in placed}
        now, first, last = placed[0][1].received_at, placed[0][1].sequence, placed[-1][1].sequence
        for listener in live.get(name, ()):
            begin, end = first, last
            if listener in senders:
                got = [outcome.sequence for sink, outcome in placed if sink is not listener]
                if not got:
                    continue
                begin, end = got[0], got[-1]
            yield build_delivered(now, listener.subject, name, begin, end)


def build_delivered(now: int, subject: Subject, conversation_id: ConversationId, first: int, last: int) -> DeliveredRow:
    return DeliveredRow(now, subject.user_id, subject.device_id, subject.role, conversation_id, first, last)
