"""The engine of a device: frames and wishes in, effects out. No network, no clock, no tasks.

Every method is one vault transaction; the effects it returns may be carried out only because it has ended
([Note: save, then send] in outbox.py). When it fails, nothing has changed and loaded groups are read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from curbside.client.effects import (
    AcknowledgeSoon,
    CaughtUp,
    Changed,
    CommitSettled,
    Effect,
    Notice,
    PostCommit,
    Retry,
    SendFrame,
    Signalled,
)
from curbside.client.groups import Groups
from curbside.client.outbox import HEALED_BY_SYNC, Outbox
from curbside.client.sync import Sync, title_of
from curbside.client.transport import error_of_problem
from curbside.client.vault import Vault
from curbside.errors import (
    AccessError,
    CurbsideError,
    EpochConflict,
    IntegrityError,
    InvalidMessage,
    LogRolledBack,
    Malformed,
    Unavailable,
)
from curbside.ids import ConversationId, DeviceId, UserId
from curbside.mls.group import CommitRequest
from curbside.wire import bodies, content, frames
from curbside.wire.group_policy import GroupPolicy

DAY = 86_400
LONGEST_SIGNAL_MS = 60_000
LAST_RESORT_RENEWED_SECONDS = 30 * DAY
KEY_PACKAGES_FORGOTTEN_SECONDS = 120 * DAY
"""Beyond their life (groups.py) and the time that a Welcome may be on its way."""


class Engine:
    """Keeps one device's conversations in step with the server's logs."""

    def __init__(self, vault: Vault, groups: Groups, me: UserId, device_id: DeviceId) -> None:
        self.vault = vault
        self.groups = groups
        self.me = me
        self.outbox = Outbox(vault, groups, me, device_id)
        self.sync = Sync(vault, groups, self.outbox, me)
        self._is_caught_up = False

    @contextmanager
    def _step(self) -> Iterator[None]:
        try:
            with self.vault.transaction():
                yield
                self.groups.write_changed()
        except BaseException:
            # What was made in memory is gone with the step: groups, and frames that will now not be sent.
            self.groups.forget()
            self.outbox.connected()
            self.sync.connected()
            raise

    # --- the connection ----------------------------------------------------------------------

    def connected(self) -> list[Effect]:
        """The stream is ready: say where this device stands."""
        self._is_caught_up = False
        self.outbox.connected()
        self.sync.connected()
        return [SendFrame(self.sync.frame())]

    def disconnected(self) -> None:
        """The stream is gone; what is written waits."""
        self._is_caught_up = False

    def received(self, frame: frames.ServerFrame, now_ms: int) -> list[Effect]:
        """Apply one frame of the server.

        Raises: Malformed (a frame that has no place here), StorageFull, StoreUnavailable; nothing has changed then.
        """
        with self._step():
            effects = self._apply(frame, now_ms)
        return [*effects, AcknowledgeSoon()] if self._is_caught_up and self.sync.has_news else effects

    def _apply(self, frame: frames.ServerFrame, now_ms: int) -> list[Effect]:
        match frame:
            case frames.Entries():
                effects = self.sync.entries(frame.items, now_ms)
                touched = {ConversationId(entry.conversation) for entry in frame.items}
                return effects + self._release(touched, now_ms)
            case frames.QueueItems():
                return self.sync.queue_items(frame.items, now_ms)
            case frames.Stored():
                return self._stored(frame, now_ms)
            case frames.Refused():
                return self._refused(frame)
            case frames.Signals():
                return self._signals(frame)
            case frames.CaughtUp():
                self._is_caught_up = True
                return [CaughtUp(), *self._release(self.vault.rows.conversations_waiting(), now_ms)]
            case _:
                raise Malformed("the server sent a frame that has no place here")

    def acknowledge(self) -> list[Effect]:
        """Tell the server what was processed since the last time; [] when nothing was, or no stream is in step.

        A statement of progress that may be late or lost: the device itself goes by its vault. Coalesced, because each
        one costs the server a durable write.
        """
        if not (self._is_caught_up and self.sync.has_news):
            return []
        return [SendFrame(self.sync.acknowledgement())]

    def _signals(self, frame: frames.Signals) -> list[Effect]:
        """Those of members; the server could say anything."""
        effects: list[Effect] = []
        for item in frame.items:
            conversation = ConversationId(item.conversation)
            row = self.vault.rows.find_conversation(conversation)
            if row is None or row.alarm or item.user_id == self.me:
                continue
            if item.user_id in self.groups.people(conversation):
                lasts = min(max(0, item.lasts), LONGEST_SIGNAL_MS)
                effects.append(Signalled(conversation, UserId(item.user_id), item.kind, lasts))
        return effects

    def _stored(self, frame: frames.Stored, now_ms: int) -> list[Effect]:
        touched: dict[ConversationId, None] = {}
        for item in frame.items:
            conversation = self.outbox.stored(item)
            if conversation is not None:
                self.sync.passed(conversation, item.sequence)
                touched[conversation] = None
        return [*(Changed(conversation) for conversation in touched), *self._release(set(touched), now_ms)]

    def _refused(self, frame: frames.Refused) -> list[Effect]:
        error = error_of_problem(frame.code, frame.detail, dict(frame.members))
        if frame.request:
            return self.outbox.refused(frame, error)
        if isinstance(error, LogRolledBack):
            return self.sync.rolled_back(frame, error)
        return [Notice(None, error)]

    def _release(self, conversations: set[ConversationId], now_ms: int) -> list[Effect]:
        if not self._is_caught_up:
            return []
        return [e for conversation in sorted(conversations) for e in self._release_one(conversation, now_ms)]

    def _release_one(self, conversation: ConversationId, now_ms: int) -> list[Effect]:
        """A group that cannot be read or committed to stops that conversation, not the others."""
        try:
            return self.outbox.release(conversation, now_ms)
        except (InvalidMessage, IntegrityError, AccessError) as error:
            self.groups.drop(conversation)
            return [Notice(conversation, error)]

    def release(self, conversation: ConversationId, now_ms: int) -> list[Effect]:
        """Send what waits in a conversation, when the time for another try has come."""
        with self._step():
            return self._release({conversation}, now_ms)

    def make_key_packages(self, count: int, now: int) -> list[bytes]:
        """More key packages, their private halves saved before they are handed out."""
        with self._step():
            return self.groups.make_key_packages(count, now)

    def renew_last_resort(self, now: int) -> bytes | None:
        """A fresh key package of last resort when the present one gets old; those that ran out are forgotten."""
        with self._step():
            self.vault.rows.delete_key_packages_before((now - KEY_PACKAGES_FORGOTTEN_SECONDS) * 1000)
            if self.vault.rows.newest_last_resort() > (now - LAST_RESORT_RENEWED_SECONDS) * 1000:
                return None
            return self.groups.make_key_packages(1, now, last_resort=True)[0]

    # --- wishes ------------------------------------------------------------------------------

    def write(self, conversation: ConversationId, message: content.Message, now_ms: int) -> tuple[str, list[Effect]]:
        """Send a message: its id, and what to do now. It goes out later if it cannot go now.

        Raises: NotFound (no such conversation), TooLarge.
        """
        with self._step():
            message_id = self.outbox.write(conversation, message, now_ms)
            if content.kind(message) == content.Kind.TITLE:
                self.sync.take_title(conversation, title_of(message))
            return message_id, [Changed(conversation, message_id), *self._release({conversation}, now_ms)]

    def write_with_upload(
        self, conversation: ConversationId, message: content.Message, ciphertext: bytes, now_ms: int
    ) -> str:
        """Keep a message whose attachment must be uploaded before it can go; its id."""
        with self._step():
            message_id = self.outbox.write(conversation, message, now_ms)
            self.vault.rows.add_upload(message_id, conversation, ciphertext)
            return message_id

    def upload_began(
        self, conversation: ConversationId, message_id: str, message: content.Message, blob_id: str
    ) -> None:
        """The server gave the attachment a place; the message now says where."""
        with self._step():
            self.vault.rows.save_upload(message_id, blob_id, 0)
            self.outbox.rewrite(message_id, conversation, message)

    def upload_done(self, conversation: ConversationId, message_id: str, now_ms: int) -> list[Effect]:
        """The attachment is up; its message may go."""
        with self._step():
            self.vault.rows.delete_upload(message_id)
            return self._release({conversation}, now_ms)

    def fail(self, conversation: ConversationId, message_id: str, error: CurbsideError) -> list[Effect]:
        """Give up on a message until the person tries again."""
        with self._step():
            self.vault.rows.delete_upload(message_id)
            self.outbox.fail(message_id, error)
            return [Changed(conversation, message_id)]

    def retry(self, message_id: str, now_ms: int) -> list[Effect]:
        """Try a failed message again."""
        with self._step():
            self.outbox.retry(message_id)
            row = self.vault.rows.find_message(message_id)
            return self._release({row.conversation}, now_ms) if row else []

    def mark_read(self, conversation: ConversationId, now_ms: int) -> list[Effect]:
        """The person has seen everything that is there; others are told."""
        with self._step():
            unread = self.vault.rows.unread(conversation, self.me)
            if not unread:
                return []
            self.vault.rows.save_read_upto(conversation, unread[-1].sequence)
            statuses = [(row.mimi_id, content.Status.READ) for row in unread if row.mimi_id]
            if statuses:
                self.outbox.write_report(conversation, statuses[-500:], now_ms)
            return [Changed(conversation), *self._release({conversation}, now_ms)]

    def create(self, policy: GroupPolicy, title: str, now_ms: int) -> bodies.NewConversation:
        """A new conversation with only this device in it; the request that tells the server."""
        with self._step():
            return self.groups.create(policy, title, now_ms // 1000)

    def repeat_title(self, conversation: ConversationId, now_ms: int) -> list[Effect]:
        """Tell those who came later what the conversation is called; a title is content, so no server can."""
        with self._step():
            title = self.vault.rows.get_conversation(conversation).title
            if not title:
                return []
            self.outbox.write_quietly(conversation, content.conversation_title(title), now_ms)
            return self._release({conversation}, now_ms)

    def commit(self, conversation: ConversationId, request: CommitRequest, now_ms: int) -> list[Effect]:
        """Stage a commit and post it; nothing of it counts until its entry is in the log.

        Raises: EpochConflict while another one is on its way: were it forgotten, this device could not follow it.
        """
        with self._step():
            if self.groups.pending(conversation) is not None:
                raise EpochConflict("another change is on its way")
            return [PostCommit(conversation, self.groups.stage(conversation, request, now_ms // 1000))]

    def commit_answered(self, conversation: ConversationId, error: CurbsideError | None, now_ms: int) -> list[Effect]:
        """What the server said to a commit: its entry comes through the log; a refusal is healed or told."""
        del now_ms
        with self._step():
            if error is None or error.code in HEALED_BY_SYNC:
                return [SendFrame(self.sync.frame(conversation))]
            if isinstance(error, Unavailable) or error.retry == "later":
                return [Retry(conversation, 2.0)]
            self.groups.give_up(conversation)
            return [CommitSettled(conversation, accepted=False), Notice(conversation, error)]
