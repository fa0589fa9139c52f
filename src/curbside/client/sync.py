"""Sync: applies the log of each conversation, in order and once, whatever is lost, repeated or out of order.

Every entry is applied together with the cursor that passes it. An application message that cannot be opened is
noted and passed; a handshake that is refused stops the conversation with an alarm, because going on would mean to
follow a group that nobody vouches for.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from curbside.client.effects import (
    Arrived,
    Changed,
    CommitSettled,
    Effect,
    Joined,
    Notice,
    SendFrame,
)
from curbside.client.groups import Groups
from curbside.client.outbox import Outbox, problem_json
from curbside.client.rows import MessageRow
from curbside.client.transport import SLOW_SECONDS
from curbside.client.vault import Vault
from curbside.errors import (
    CurbsideError,
    Gone,
    InvalidMessage,
    LogRolledBack,
    NotFound,
    RuleBroken,
    TooLarge,
    Unavailable,
    UsageError,
    VaultError,
)
from curbside.ids import ConversationId, DeviceId, UserId, encode_id
from curbside.mls.group import Application, CommitReceived, ProposalReceived
from curbside.mls.messages import COMMIT, PROPOSAL, PublicMessage, parse_message
from curbside.wire import content, frames

TITLE_CHARS = 128
_HIDDEN = re.compile("[ \u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
"""Space, control, invisible and direction-changing characters, as in the names of certificates."""
REPORTING_PEOPLE = 16
"""In larger conversations devices do not report delivery, only reading."""
_PUBLIC_MESSAGE = b"\x00\x01\x00\x01"
"""ProtocolVersion mls10, WireFormat mls_public_message (RFC 9420 section 6)."""


@dataclass
class _Walk:
    """One frame's way through the logs.

    cursors: how far each conversation is by now; written once, at the frame's end. stopped: conversations of which this
    frame tells no more. delivered: messages to report, by conversation.
    """

    now_ms: int
    cursors: dict[ConversationId, int] = field(default_factory=dict)
    stopped: set[ConversationId] = field(default_factory=set)
    delivered: dict[ConversationId, list[bytes]] = field(default_factory=dict)


class Sync:
    """The receiving half of the engine."""

    def __init__(self, vault: Vault, groups: Groups, outbox: Outbox, me: UserId) -> None:
        self._vault = vault
        self._groups = groups
        self._outbox = outbox
        self._me = me
        self._ahead: dict[str, set[int]] = {}
        self._moved: set[str] = set()
        self._queue_moved = False

    def frame(self, conversation: str | None = None) -> frames.Sync:
        """Where this device stands, in one conversation or in all."""
        rows = self._vault.rows
        chosen = rows.cursors() if conversation is None else {conversation: rows.find_cursor(conversation) or 0}
        return frames.Sync(chosen, rows.queue_position())

    def connected(self) -> None:
        """A new connection starts from the saved cursors."""
        self._ahead.clear()

    @property
    def has_news(self) -> bool:
        """Whether more was processed since the last acknowledgement."""
        return bool(self._moved) or self._queue_moved

    def acknowledgement(self) -> frames.Acknowledge:
        """What is durably processed, where that has changed since the last one. Read from the vault: a step that failed
        is in no acknowledgement."""
        rows = self._vault.rows
        found = {conversation: rows.find_cursor(conversation) for conversation in sorted(self._moved)}
        self._moved.clear()
        self._queue_moved = False
        return frames.Acknowledge({name: at for name, at in found.items() if at is not None}, rows.queue_position())

    # --- own sends ---------------------------------------------------------------------------

    def passed(self, conversation: ConversationId, sequence: int) -> None:
        """An own message is in the log at `sequence`; it needs no entry of its own."""
        cursor = self._vault.rows.find_cursor(conversation)
        if cursor is not None and sequence > cursor:
            self._ahead.setdefault(conversation, set()).add(sequence)
            self._save_cursor(conversation, self._skip_own(conversation, cursor))

    def _skip_own(self, conversation: str, cursor: int) -> int:
        """The cursor after own messages that come right behind it."""
        ahead = self._ahead.get(conversation, set())
        while cursor + 1 in ahead:
            cursor += 1
            ahead.discard(cursor)
        return cursor

    def _save_cursor(self, conversation: str, cursor: int) -> None:
        if self._vault.rows.save_cursor(conversation, cursor):
            self._moved.add(conversation)

    # --- entries -----------------------------------------------------------------------------

    def entries(self, items: list[frames.Entry], now_ms: int) -> list[Effect]:
        """Apply entries; the effects, in which a gap asks for a Sync once per conversation."""
        effects: list[Effect] = []
        walk = _Walk(now_ms)
        for entry in items:
            if self._follows(ConversationId(entry.conversation), walk):
                effects += self._take(ConversationId(entry.conversation), entry, walk)
        for conversation, cursor in walk.cursors.items():
            self._save_cursor(conversation, cursor)
        for conversation, ids in walk.delivered.items():
            if len(self._groups.people(conversation)) <= REPORTING_PEOPLE:
                self._outbox.write_report(conversation, [(i, content.Status.DELIVERED) for i in ids], now_ms)
        return effects

    def _follows(self, conversation: ConversationId, walk: _Walk) -> bool:
        """Whether the next entry of a conversation is to be looked at; its cursor is then in the walk."""
        if conversation in walk.stopped:
            return False
        if conversation not in walk.cursors:
            row = self._vault.rows.find_conversation(conversation)
            if row is None or row.alarm:
                walk.stopped.add(conversation)
                return False
            walk.cursors[conversation] = self._skip_own(conversation, row.cursor)
        return True

    def _take(self, conversation: ConversationId, entry: frames.Entry, walk: _Walk) -> list[Effect]:
        cursor = walk.cursors[conversation]
        if entry.sequence <= cursor:
            return self._compare(conversation, entry, walk)
        if entry.sequence > cursor + 1:
            walk.stopped.add(conversation)
            self._save_cursor(conversation, cursor)
            return [SendFrame(self.frame(conversation))]
        try:
            effects = self._apply(conversation, entry, walk)
        except CurbsideError as error:
            self._groups.drop(conversation)
            effects = self._refuse(conversation, entry, error)
            if entry.kind != frames.KIND_APPLICATION:
                walk.stopped.add(conversation)
                return effects
        walk.cursors[conversation] = self._skip_own(conversation, entry.sequence)
        return effects

    def _compare(self, conversation: ConversationId, entry: frames.Entry, walk: _Walk) -> list[Effect]:
        """A number that was passed comes again: harmless, unless the server gave it to an own message first."""
        own = self._vault.rows.find_own_at(conversation, entry.sequence, self._me)
        if own is None or own == self._row_id(conversation, entry.message_id):
            return []
        error = RuleBroken("client.log.changed", "the server gave the same number to two messages")
        self._vault.rows.save_alarm(conversation, problem_json(error))
        walk.stopped.add(conversation)
        return [Notice(conversation, error), Changed(conversation)]

    def _row_id(self, conversation: ConversationId, message_id: bytes) -> str:
        """Under which id the vault keeps an entry's message.

        Message ids are chosen by senders: one that is taken by another conversation must not hide this message. No
        sender can choose an id with a dot in it.
        """
        identifier = encode_id(message_id)
        taken = self._vault.rows.find_message_place(identifier)
        return identifier if taken in (None, conversation) else f"{conversation}.{identifier}"

    def _apply(self, conversation: ConversationId, entry: frames.Entry, walk: _Walk) -> list[Effect]:
        own = encode_id(entry.message_id)
        waiting = self._vault.rows.find_outbox_place(own)
        if entry.kind == frames.KIND_APPLICATION and waiting == conversation:
            self._outbox.settle(conversation, own, entry.sequence, entry.received_at)
            return [Changed(conversation, own)]
        if entry.kind == frames.KIND_COMMIT:
            return self._commit(conversation, entry, walk)
        identifier = self._row_id(conversation, entry.message_id)
        if entry.kind == frames.KIND_APPLICATION and self._vault.rows.has_message(identifier):
            return []
        _check_kind(entry)
        result = self._groups.get(conversation).receive(entry.envelope, _taken_at(entry, walk.now_ms))
        self._groups.save(conversation)  # a message's key is used up even if what was inside is refused below
        if isinstance(result, ProposalReceived):
            return [Changed(conversation)]
        if not isinstance(result, Application):
            raise UsageError("an entry's kind was checked")
        if result.aad != entry.message_id:
            raise RuleBroken("client.entry.message_id", "the message's id is not the one that was signed")
        return self._message(conversation, entry, result, walk)

    def _commit(self, conversation: ConversationId, entry: frames.Entry, walk: _Walk) -> list[Effect]:
        pending = self._vault.rows.find_pending_commit(conversation)
        if pending is not None and self._groups.is_own_commit(conversation, entry.message_id, entry.envelope):
            self._groups.accept(conversation)
            return [CommitSettled(conversation, accepted=True), Changed(conversation)]
        settled: list[Effect] = []
        _check_kind(entry)
        result = self._groups.get(conversation).receive(entry.envelope, _taken_at(entry, walk.now_ms))
        self._groups.save(conversation)
        if not isinstance(result, CommitReceived):
            raise UsageError("an entry's kind was checked")
        if pending is not None:
            self._groups.give_up(conversation)
            settled.append(CommitSettled(conversation, accepted=False))
        if result.removed_me:
            self._vault.rows.save_alarm(
                conversation, problem_json(Gone("this device was removed from the conversation"))
            )
            walk.stopped.add(conversation)
        return [*settled, Changed(conversation)]

    def _message(
        self, conversation: ConversationId, entry: frames.Entry, result: Application, walk: _Walk
    ) -> list[Effect]:
        member = self._groups.identify(result.sender)
        message = content.decode(result.data)
        kind = content.kind(message)
        if kind == content.Kind.STATUS:
            return self._report(conversation, UserId(member.user_id), message, walk.now_ms)
        sender_uri, room_uri = content.user_uri(member.user_id), content.conversation_uri(conversation)
        mimi_id = content.message_id(result.data, sender_uri, room_uri, message)
        if kind == content.Kind.TITLE and not self.take_title(conversation, title_of(message)):
            return []
        self._vault.rows.save_person(member.user_id, member.name, member.role, member.user_certificate)
        identifier = self._row_id(conversation, entry.message_id)
        self._vault.rows.add_message(
            MessageRow(
                0,
                identifier,
                mimi_id,
                conversation,
                entry.sequence,
                UserId(member.user_id),
                DeviceId(member.device_id),
                entry.received_at,
                "",
                result.data,
                "",
            )
        )
        if member.user_id != self._me:
            walk.delivered.setdefault(conversation, []).append(mimi_id)
        return [Arrived(conversation, identifier)]

    def take_title(self, conversation: ConversationId, title: str) -> bool:
        """Whether a title is news. A direct conversation has none: it is called by the other person's name, or a title
        could pass it off as somebody else's."""
        row = self._vault.rows.get_conversation(conversation)
        if row.kind == "direct" or title == row.title:
            return False
        self._vault.rows.save_title(conversation, title)
        return True

    def _report(
        self, conversation: ConversationId, user: UserId, message: content.Message, now_ms: int
    ) -> list[Effect]:
        names = {content.Status.DELIVERED: "delivered", content.Status.READ: "read"}
        effects: list[Effect] = []
        others = set(self._groups.people(conversation)) - {self._me}
        for mimi_id, status in content.report(message):
            row = self._vault.rows.find_message_by_mimi(conversation, mimi_id)
            name = names.get(content.Status(status)) if status in set(content.Status) else None
            if row is None or name is None or row.sender != self._me or user == self._me:
                continue
            self._vault.rows.add_receipt(mimi_id, user, name, now_ms)
            receipts = self._vault.rows.receipts(mimi_id)
            if others and others <= set(receipts):
                everyone = all(receipts[other] == "read" for other in others)
                self._vault.rows.save_delivery(row.id, "read" if everyone else "delivered")
                effects.append(Changed(conversation, row.id))
        return effects

    def _refuse(self, conversation: ConversationId, entry: frames.Entry, error: CurbsideError) -> list[Effect]:
        if isinstance(error, Unavailable | VaultError):
            raise error  # our own trouble: the entry comes again
        if entry.kind != frames.KIND_APPLICATION:
            self._vault.rows.save_alarm(conversation, problem_json(error))
            return [Notice(conversation, error), Changed(conversation)]
        if not isinstance(error, InvalidMessage | NotFound | TooLarge):
            raise error
        identifier = self._row_id(conversation, entry.message_id)
        if not self._vault.rows.has_message(identifier):
            self._vault.rows.add_message(
                MessageRow(
                    0,
                    identifier,
                    b"",
                    conversation,
                    entry.sequence,
                    UserId(""),
                    DeviceId(""),
                    entry.received_at,
                    "",
                    b"",
                    problem_json(error),
                )
            )
        return [Notice(conversation, error), Arrived(conversation, identifier)]

    # --- a server restored from a backup -----------------------------------------------------

    def rolled_back(self, frame: frames.Refused, error: LogRolledBack) -> list[Effect]:
        """The server says that its log ended before what this device has: the conversation stops, and says why.

        Going on would be silent loss: what others write now gets numbers that were passed here already.
        """
        conversation, last = str(frame.members.get("conversation")), frame.members.get("last_sequence")
        cursor = self._vault.rows.find_cursor(conversation)
        if cursor is None or not isinstance(last, int) or cursor <= last:
            return [Notice(None, error)]
        self._vault.rows.save_alarm(conversation, problem_json(error))
        return [Notice(ConversationId(conversation), error), Changed(ConversationId(conversation))]

    # --- queue -------------------------------------------------------------------------------

    def queue_items(self, items: list[frames.QueueItem], now_ms: int) -> list[Effect]:
        """Welcomes: join, or refuse and say why; either way the queue goes on."""
        effects: list[Effect] = []
        for item in items:
            if item.position <= self._vault.rows.queue_position():
                continue
            conversation = ConversationId(item.conversation)
            if item.kind == frames.QUEUE_WELCOME and self._may_join(conversation):
                try:
                    self._groups.join(conversation, item.payload, item.sequence, now_ms // 1000)
                    for person in self._groups.people(conversation).values():
                        self._vault.rows.save_person(person.user_id, person.name, person.role, person.user_certificate)
                    effects += [Joined(conversation), SendFrame(self.frame(conversation))]
                except (InvalidMessage, NotFound, TooLarge) as error:
                    effects.append(Notice(conversation, error))
            self._vault.rows.save_queue_position(item.position)
            self._queue_moved = True
        return effects

    def _may_join(self, conversation: ConversationId) -> bool:
        """A conversation that we are in is not entered a second time; one that we were removed from may be."""
        row = self._vault.rows.find_conversation(conversation)
        return row is None or (row.alarm != "" and json.loads(row.alarm)["code"] == Gone.code)


def _check_kind(entry: frames.Entry) -> None:
    """An entry is what the server calls it; looked at before the group, which would already have moved.

    Raises: RuleBroken; InvalidMessage errors of what is no message at all.
    """
    if entry.kind == frames.KIND_APPLICATION:
        if entry.envelope[:4] == _PUBLIC_MESSAGE:
            raise RuleBroken("client.entry.kind", "a handshake came as an application message")
        return
    message = parse_message(entry.envelope)
    wanted = COMMIT if entry.kind == frames.KIND_COMMIT else PROPOSAL
    if not isinstance(message, PublicMessage) or message.authenticated.content.content_type != wanted:
        raise RuleBroken("client.entry.kind", "an entry is not the handshake that it should be")


def _taken_at(entry: frames.Entry, now_ms: int) -> int:
    """When the server took an entry, in seconds: a device that catches up late judges lifetimes as of then, and one
    whose clock is slow does not refuse what is younger than its clock says."""
    return min(entry.received_at, now_ms + SLOW_SECONDS * 1000) // 1000


def title_of(message: content.Message) -> str:
    """The title that a title message sets, in one line without signs that cannot be seen; "" when it has none."""
    found = content.find_extension(message, content.Title)
    if found is None:
        return ""
    return _HIDDEN.sub(" ", found.title[:TITLE_CHARS]).strip()
