"""The outbox: what a person wrote waits here, in the vault, until the server has it in the log.

[Note: save, then send] An envelope is saved together with the group state that made it before it leaves. A retry in
the same epoch repeats the same bytes; in a newer epoch the content is encrypted again under the same message id. That
is done only after a Sync, so that an envelope which the server did store is found in the log instead of sent twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from curbside.client.effects import Changed, Effect, PostCommit, Retry, SendFrame
from curbside.client.groups import Groups
from curbside.client.rows import MessageRow, OutboxRow
from curbside.client.vault import Vault
from curbside.crypto.random import random_bytes
from curbside.errors import CurbsideError
from curbside.ids import ConversationId, DeviceId, UserId, decode_id, encode_id
from curbside.mls.group import CommitRequest, Group
from curbside.mls.proposals import Remove
from curbside.wire import content, frames

HEALED_BY_SYNC = {"stale_epoch", "future_epoch", "pending_proposals", "epoch_conflict", "duplicate_request"}
TRIED_LATER = {"too_many", "store_unavailable", "storage_full", "not_authenticated", "internal", "peer_unavailable"}
RETRY_SECONDS = 5.0
_HOUR_MS = 3_600_000


def make_message_id(now_ms: int) -> str:
    """An id that nobody has: the hour (4 bytes, big-endian), so that a server's index of ids grows at its end, then 12
    random bytes. It says no more than that the message was written in that hour."""
    return encode_id((now_ms // _HOUR_MS & 0xFFFFFFFF).to_bytes(4, "big") + random_bytes(12))


class Outbox:
    """Writes, encrypts and settles what this device sends."""

    def __init__(self, vault: Vault, groups: Groups, me: UserId, device_id: DeviceId) -> None:
        self._vault = vault
        self._groups = groups
        self._me = me
        self._device_id = device_id
        self._requests: dict[int, tuple[ConversationId, str]] = {}
        self._in_flight: dict[str, dict[str, int]] = {}
        """By conversation: the epoch of each message that waits for its answer."""
        self._sent_upto: dict[str, int] = {}
        """By conversation: all rows up to here are in flight or settled."""
        self._next_request = 1

    def connected(self) -> None:
        """A new connection: nothing is in flight on it."""
        self._requests.clear()
        self._in_flight.clear()
        self._sent_upto.clear()

    # --- writing ---------------------------------------------------------------------------

    def write(self, conversation: ConversationId, message: content.Message, now_ms: int) -> str:
        """Put a message that a person wrote into the vault; its id.

        Raises: TooLarge, NotFound (no such conversation).
        """
        self._vault.rows.get_conversation(conversation)
        encoded = content.encode(message)
        message_id = make_message_id(now_ms)
        mimi_id = self._mimi_id(conversation, encoded, message)
        self._vault.rows.add_message(
            MessageRow(
                0, message_id, mimi_id, conversation, 0, self._me, self._device_id, now_ms, "sending", encoded, ""
            )
        )
        self._vault.rows.add_outbox(message_id, conversation, encoded, report=False)
        return message_id

    def write_report(self, conversation: ConversationId, statuses: Sequence[tuple[bytes, int]], now_ms: int) -> None:
        """Put a delivery or read report into the outbox."""
        self.write_quietly(conversation, content.status_report(statuses), now_ms)

    def write_quietly(self, conversation: ConversationId, message: content.Message, now_ms: int) -> None:
        """Put something into the outbox that nobody wrote: it has no row of its own among the messages."""
        self._vault.rows.add_outbox(make_message_id(now_ms), conversation, content.encode(message), report=True)

    def rewrite(self, message_id: str, conversation: ConversationId, message: content.Message) -> None:
        """Replace the content of a message that has not been encrypted yet (its attachment has a place now)."""
        encoded = content.encode(message)
        self._vault.rows.save_content(message_id, self._mimi_id(conversation, encoded, message), encoded)
        self._vault.rows.delete_outbox(message_id)
        self._vault.rows.add_outbox(message_id, conversation, encoded, report=False)

    def retry(self, message_id: str) -> None:
        """Put a failed message back."""
        row = self._vault.rows.find_message(message_id)
        if row is not None and row.delivery == "failed":
            self._vault.rows.add_outbox(message_id, row.conversation, row.content, report=False)
            self._vault.rows.save_delivery(message_id, "sending")

    def _mimi_id(self, conversation: ConversationId, encoded: bytes, message: content.Message) -> bytes:
        room = content.conversation_uri(conversation)
        return content.message_id(encoded, content.user_uri(self._me), room, message)

    # --- releasing -------------------------------------------------------------------------

    def release(self, conversation: ConversationId, now_ms: int) -> list[Effect]:
        """Encrypt and send what waits, if nothing stands before it: an alarm, a commit of ours, a proposal."""
        row = self._vault.rows.find_conversation(conversation)
        if row is None or row.alarm:
            return []
        pending = self._groups.pending(conversation)
        if pending is not None:
            return [PostCommit(conversation, pending)]
        waiting = self._vault.rows.outbox(conversation, after=self._sent_upto.get(conversation, 0))
        if not waiting:
            return []
        group = self._groups.get(conversation)
        if any(isinstance(p.proposal, Remove) and p.proposal.removed == group.own_leaf for p in group.pending):
            return []
        if group.pending:
            return [PostCommit(conversation, self._groups.stage(conversation, CommitRequest(), now_ms // 1000))]
        in_flight = self._in_flight.setdefault(conversation, {})
        if any(epoch != group.epoch for epoch in in_flight.values()):
            return []  # it may be refused and sent again: what was written later must not pass it
        return self._send(conversation, group, [item for item in waiting if item.id not in in_flight])

    def _send(self, conversation: ConversationId, group: Group, waiting: list[OutboxRow]) -> list[Effect]:
        uploading = self._vault.rows.uploading(conversation)
        effects: list[Effect] = []
        for item in waiting:
            if item.id in uploading:
                continue
            envelope = item.envelope
            if item.epoch != group.epoch:
                envelope = group.encrypt(item.content, decode_id(item.id))
                self._groups.save(conversation)
                self._vault.rows.save_envelope(item.id, group.epoch, envelope)
            effects.append(SendFrame(self._send_frame(conversation, item.id, group.epoch, envelope)))
        if not uploading and waiting:
            self._sent_upto[conversation] = waiting[-1].row
        return effects

    def _send_frame(self, conversation: ConversationId, message_id: str, epoch: int, envelope: bytes) -> frames.Send:
        request = self._next_request
        self._next_request += 1
        self._requests[request] = (conversation, message_id)
        self._in_flight[conversation][message_id] = epoch
        return frames.Send(request, conversation, decode_id(message_id), epoch, envelope)

    # --- settling --------------------------------------------------------------------------

    def stored(self, item: frames.StoredItem) -> ConversationId | None:
        """The server has it; the conversation, or None when the answer is of an earlier connection."""
        found = self._requests.pop(item.request, None)
        if found is None:
            return None
        conversation, message_id = found
        self.settle(conversation, message_id, item.sequence, item.received_at)
        return conversation

    def settle(self, conversation: ConversationId, message_id: str, sequence: int, at: int) -> None:
        """This message is in the log at `sequence`."""
        self._in_flight.get(conversation, {}).pop(message_id, None)
        self._vault.rows.save_stored(message_id, sequence, at)
        self._vault.rows.delete_outbox(message_id)

    def refused(self, frame: frames.Refused, error: CurbsideError) -> list[Effect]:
        """The server refused a send: heal by catching up, try later, or tell the person."""
        found = self._requests.pop(frame.request, None)
        if found is None:
            return []
        conversation, message_id = found
        self._in_flight.get(conversation, {}).pop(message_id, None)
        self._sent_upto.pop(conversation, None)
        if frame.code in HEALED_BY_SYNC:
            cursor = self._vault.rows.find_cursor(conversation) or 0
            return [SendFrame(frames.Sync({conversation: cursor}, self._vault.rows.queue_position()))]
        if frame.code in TRIED_LATER:
            return [Retry(conversation, float(error.members.get("retry_after", RETRY_SECONDS)))]
        self.fail(message_id, error)
        return [Changed(conversation, message_id)]

    def fail(self, message_id: str, error: CurbsideError) -> None:
        """Give up on a message until the person tries again."""
        self._vault.rows.delete_outbox(message_id)
        self._vault.rows.save_delivery(message_id, "failed", problem_json(error))


def problem_json(error: CurbsideError) -> str:
    """An error as the JSON that the vault keeps: code, title, detail, next step."""
    return json.dumps(
        {"code": error.code, "title": error.title, "detail": error.detail, "next_step": error.next_step}
        | {"members": {k: v for k, v in error.members.items() if isinstance(v, str | int)}}
    )
