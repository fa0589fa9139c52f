"""Sync: applies the log of each conversation, in order and once, whatever is lost, repeated or out of order.

Every entry is applied together with the cursor that passes it. An application message that cannot be opened is
noted and passed; a handshake that is refused stops the conversation with an alarm, because going on would mean to
follow a group that nobody vouches for.
"""

from __future__ import annotations

import json
import re

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
    NotFound,
    RuleBroken,
    TooLarge,
    Unavailable,
    VaultError,
)
from curbside.ids import ConversationId, DeviceId, UserId, encode_id
from curbside.mls.group import Application, CommitReceived, ProposalReceived
from curbside.wire import content, frames

TITLE_CHARS = 128
_HIDDEN = re.compile("[ \u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
"""Space, control, invisible and direction-changing characters, as in the names of certificates."""
REPORTING_PEOPLE = 16
"""In larger conversations devices do not report delivery, only reading."""


class Sync:
    """The receiving half of the engine."""

    def __init__(self, vault: Vault, groups: Groups, outbox: Outbox, me: UserId) -> None:
        self._vault = vault
        self._groups = groups
        self._outbox = outbox
        self._me = me
        self._ahead: dict[str, set[int]] = {}

    def frame(self, conversation: str | None = None) -> frames.Sync:
        """Where this device stands, in one conversation or in all."""
        cursors = self._vault.rows.cursors()
        chosen = cursors if conversation is None else {conversation: cursors.get(conversation, 0)}
        return frames.Sync(chosen, self._vault.rows.queue_position())

    def connected(self) -> None:
        """A new connection starts from the saved cursors."""
        self._ahead.clear()

    def acknowledgement(self) -> frames.Acknowledge:
        """What is durably processed."""
        return frames.Acknowledge(self._vault.rows.cursors(), self._vault.rows.queue_position())

    # --- own sends ---------------------------------------------------------------------------

    def passed(self, conversation: ConversationId, sequence: int) -> None:
        """An own message is in the log at `sequence`; it needs no entry of its own."""
        cursor = self._vault.rows.get_conversation(conversation).cursor
        if sequence > cursor:
            self._ahead.setdefault(conversation, set()).add(sequence)
            self._advance(conversation, cursor)

    def _advance(self, conversation: str, cursor: int) -> int:
        ahead = self._ahead.get(conversation, set())
        while cursor + 1 in ahead:
            cursor += 1
            ahead.discard(cursor)
        self._vault.rows.save_cursor(conversation, cursor)
        return cursor

    # --- entries -----------------------------------------------------------------------------

    def entries(self, items: list[frames.Entry], now_ms: int) -> list[Effect]:
        """Apply entries; the effects, in which a gap asks for a Sync once per conversation."""
        effects: list[Effect] = []
        delivered: dict[ConversationId, list[bytes]] = {}
        stopped: set[str] = set()
        for entry in items:
            conversation = ConversationId(entry.conversation)
            row = self._vault.rows.find_conversation(conversation)
            if row is None or row.alarm or conversation in stopped:
                continue
            cursor = self._advance(conversation, row.cursor)
            if entry.sequence <= cursor:
                effects += self._compare(conversation, entry)
                continue
            if entry.sequence > cursor + 1:
                stopped.add(conversation)
                effects.append(SendFrame(self.frame(conversation)))
                continue
            try:
                effects += self._apply(conversation, entry, now_ms, delivered)
            except CurbsideError as error:
                self._groups.forget()  # what was refused may have moved a group in memory; the vault has it unmoved
                effects += self._refuse(conversation, entry, error)
                if entry.kind != frames.KIND_APPLICATION:
                    stopped.add(conversation)
                    continue
            self._advance_past(conversation, entry.sequence)
        for conversation, ids in delivered.items():
            if len(self._groups.people(conversation)) <= REPORTING_PEOPLE:
                self._outbox.write_report(conversation, [(i, content.Status.DELIVERED) for i in ids])
        return effects

    def _compare(self, conversation: ConversationId, entry: frames.Entry) -> list[Effect]:
        """A number that was passed comes again: harmless, unless the server gave it to an own message first."""
        own = self._vault.rows.find_own_at(conversation, entry.sequence, self._me)
        if own is None or own == self._row_id(conversation, entry.message_id):
            return []
        error = RuleBroken("client.log.changed", "the server gave the same number to two messages")
        self._vault.rows.save_alarm(conversation, problem_json(error))
        return [Notice(conversation, error), Changed(conversation)]

    def _row_id(self, conversation: ConversationId, message_id: bytes) -> str:
        """Under which id the vault keeps an entry's message.

        Message ids are chosen by senders: one that is taken by another conversation must not hide this message. No
        sender can choose an id with a dot in it.
        """
        identifier = encode_id(message_id)
        taken = self._vault.rows.find_message(identifier)
        return identifier if taken is None or taken.conversation == conversation else f"{conversation}.{identifier}"

    def _advance_past(self, conversation: str, sequence: int) -> None:
        self._vault.rows.save_cursor(conversation, sequence)
        self._advance(conversation, sequence)

    def _apply(
        self,
        conversation: ConversationId,
        entry: frames.Entry,
        now_ms: int,
        delivered: dict[ConversationId, list[bytes]],
    ) -> list[Effect]:
        own = encode_id(entry.message_id)
        waiting = self._vault.rows.find_outbox(own)
        if entry.kind == frames.KIND_APPLICATION and waiting is not None and waiting.conversation == conversation:
            self._outbox.settle(own, entry.sequence, entry.received_at)
            return [Changed(conversation, own)]
        if entry.kind == frames.KIND_COMMIT:
            return self._commit(conversation, entry, now_ms)
        known = self._vault.rows.find_message(self._row_id(conversation, entry.message_id))
        if entry.kind == frames.KIND_APPLICATION and known is not None:
            return []
        result = self._groups.get(conversation).receive(entry.envelope, _taken_at(entry, now_ms))
        if entry.kind == frames.KIND_PROPOSAL:
            if not isinstance(result, ProposalReceived):
                raise RuleBroken("client.entry.kind", "an entry that should be a proposal is not one")
            self._groups.save(conversation)
            return [Changed(conversation)]
        if not isinstance(result, Application):
            raise RuleBroken("client.entry.kind", "a handshake came as an application message")
        self._groups.save(conversation)  # the key is used up even if what was inside is refused below
        if result.aad != entry.message_id:
            raise RuleBroken("client.entry.message_id", "the message's id is not the one that was signed")
        return self._message(conversation, entry, result, now_ms, delivered)

    def _commit(self, conversation: ConversationId, entry: frames.Entry, now_ms: int) -> list[Effect]:
        pending = self._vault.rows.find_pending_commit(conversation)
        if pending is not None and self._groups.is_own_commit(conversation, entry.message_id, entry.envelope):
            self._groups.accept(conversation)
            return [CommitSettled(conversation, accepted=True), Changed(conversation)]
        settled: list[Effect] = []
        result = self._groups.get(conversation).receive(entry.envelope, _taken_at(entry, now_ms))
        if not isinstance(result, CommitReceived):
            raise RuleBroken("client.entry.kind", "an entry that should be a commit is not one")
        if pending is not None:
            self._groups.give_up(conversation)
            settled.append(CommitSettled(conversation, accepted=False))
        self._groups.save(conversation)
        if result.removed_me:
            self._vault.rows.save_alarm(
                conversation, problem_json(Gone("this device was removed from the conversation"))
            )
        return [*settled, Changed(conversation)]

    def _message(
        self,
        conversation: ConversationId,
        entry: frames.Entry,
        result: Application,
        now_ms: int,
        delivered: dict[ConversationId, list[bytes]],
    ) -> list[Effect]:
        member = self._groups.identify(result.sender)
        message = content.decode(result.data)
        mimi_id = content.message_id(
            result.data, content.user_uri(member.user_id), content.conversation_uri(conversation)
        )
        kind = content.kind(message)
        if kind == content.Kind.STATUS:
            return self._report(conversation, UserId(member.user_id), message, now_ms)
        if kind == content.Kind.TITLE and not self.take_title(conversation, title_of(message)):
            return []
        self._vault.rows.save_person(member.user_id, member.name, member.role, member.user_certificate)
        identifier = self._row_id(conversation, entry.message_id)
        sender, device = UserId(member.user_id), DeviceId(member.device_id)
        self._vault.rows.add_message(
            MessageRow(
                0,
                identifier,
                mimi_id,
                conversation,
                entry.sequence,
                sender,
                device,
                entry.received_at,
                "",
                result.data,
                "",
            )
        )
        if member.user_id != self._me:
            delivered.setdefault(conversation, []).append(mimi_id)
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
        for mimi_id, status in content.report(message):
            row = self._vault.rows.find_message_by_mimi(conversation, mimi_id)
            name = names.get(content.Status(status)) if status in set(content.Status) else None
            if row is None or name is None or row.sender != self._me or user == self._me:
                continue
            self._vault.rows.add_receipt(mimi_id, user, name, now_ms)
            others = set(self._groups.people(conversation)) - {self._me}
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
        if self._vault.rows.find_message(identifier) is None:
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
        return effects

    def _may_join(self, conversation: ConversationId) -> bool:
        """A conversation that we are in is not entered a second time; one that we were removed from may be."""
        row = self._vault.rows.find_conversation(conversation)
        return row is None or (row.alarm != "" and json.loads(row.alarm)["code"] == Gone.code)


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
