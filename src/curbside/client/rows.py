"""The rows of the vault: every SQL statement of the client, one small function each. None of them commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import apsw

from curbside.errors import IntegrityError, NotFound, StorageFull, StoreUnavailable, VaultLocked
from curbside.ids import ConversationId, DeviceId, UserId


@dataclass(frozen=True)
class ConversationRow:
    """One conversation. mls: the group's saved state. cursor: last sequence number processed. alarm: "" or JSON."""

    id: ConversationId
    mls: bytes
    kind: str
    title: str
    cursor: int
    created_at: int
    draft: str
    read_upto: int
    alarm: str


@dataclass(frozen=True)
class MessageRow:
    """One message. at: Unix milliseconds. sequence: 0 while it waits. delivery: "" for other people's."""

    row: int
    id: str
    mimi_id: bytes
    conversation: ConversationId
    sequence: int
    sender: UserId
    sender_device: DeviceId
    at: int
    delivery: str
    content: bytes
    problem: str


@dataclass(frozen=True)
class OutboxRow:
    """Something that waits to be stored by the server. epoch -1 and an empty envelope: not encrypted yet."""

    row: int
    id: str
    conversation: ConversationId
    content: bytes
    epoch: int
    envelope: bytes
    report: bool
    tries: int


@dataclass(frozen=True)
class UploadRow:
    """An attachment on its way up. offset: bytes the server is known to hold."""

    id: str
    conversation: ConversationId
    blob_id: str
    ciphertext: bytes
    offset: int


def _outbox_row(r: tuple[Any, ...]) -> OutboxRow:
    return OutboxRow(r[0], r[1], r[2], r[3], r[4], r[5], bool(r[6]), r[7])


_CONVERSATION = "id, mls, kind, title, cursor, created_at, draft, read_upto, alarm"
_MESSAGE = "row, id, mimi_id, conversation, sequence, sender, sender_device, at, delivery, content, problem"
_OUTBOX = "row, id, conversation, content, epoch, envelope, report, tries"


@contextmanager
def storage_errors() -> Iterator[None]:
    """What SQLite says, as errors of ours. Raises: StorageFull, StoreUnavailable, IntegrityError, VaultLocked."""
    try:
        yield
    except apsw.Error as error:
        raise _map_error(error) from error


def _map_error(error: apsw.Error) -> Exception:
    match error:
        case apsw.FullError():
            return StorageFull("this device has no room left")
        case apsw.NotADBError() | apsw.CorruptError():
            return IntegrityError("the vault file is damaged, or does not fit its key")
        case apsw.ConnectionClosedError():
            return VaultLocked()
        case apsw.BusyError() | apsw.LockedError() | apsw.IOError() | apsw.CantOpenError() | apsw.ReadOnlyError():
            return StoreUnavailable("the vault cannot be written right now")
        case _:
            return error


class VaultRows:
    """Reads and writes rows on the vault's one connection; writes belong inside `Vault.transaction()`."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def execute_script(self, sql: str) -> None:
        """Run the statements of a schema file."""
        for _ in self._db.execute(sql):
            pass

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _one(self, sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        try:
            return next(iter(self._db.execute(sql, values)), None)
        except apsw.Error as error:
            raise _map_error(error) from error

    def _all(self, sql: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            return iter(list(self._db.execute(sql, values)))
        except apsw.Error as error:
            raise _map_error(error) from error

    def _run(self, sql: str, values: tuple[Any, ...]) -> int:
        try:
            self._db.execute(sql, values)
            return int(self._db.changes())
        except apsw.Error as error:
            raise _map_error(error) from error

    # --- settings, secrets, certificates ---------------------------------------------------

    def put_setting(self, name: str, value: str) -> None:
        """Set a setting."""
        self._run("insert or replace into setting values (?, ?)", (name, value.encode()))

    def find_setting(self, name: str) -> str | None:
        """A setting's value."""
        row = self._one("select value from setting where name = ?", (name,))
        return None if row is None else bytes(row[0]).decode()

    def get_setting(self, name: str) -> str:
        """A setting's value. Raises: NotFound."""
        value = self.find_setting(name)
        if value is None:
            raise NotFound(f"setting {name} is not in the vault")
        return value

    def put_secret(self, name: str, value: bytes) -> None:
        """Set a secret."""
        self._run("insert or replace into secret values (?, ?)", (name, value))

    def get_secret(self, name: str) -> bytes:
        """A secret's value. Raises: NotFound."""
        row = self._one("select value from secret where name = ?", (name,))
        if row is None:
            raise NotFound(f"secret {name} is not in the vault")
        return bytes(row[0])

    def put_certificate(self, name: str, der: bytes) -> None:
        """Set a certificate."""
        self._run("insert or replace into certificate values (?, ?)", (name, der))

    def get_certificate(self, name: str) -> bytes:
        """A certificate, DER. Raises: NotFound."""
        row = self._one("select der from certificate where name = ?", (name,))
        if row is None:
            raise NotFound(f"certificate {name} is not in the vault")
        return bytes(row[0])

    # --- key packages ----------------------------------------------------------------------

    def add_key_package(self, reference: bytes, secrets: bytes, last_resort: bool, now_ms: int) -> None:
        """Keep the private half of a key package until a Welcome uses it."""
        self._run("insert into key_package values (?, ?, ?, ?)", (reference, secrets, int(last_resort), now_ms))

    def key_packages(self) -> list[tuple[bytes, bytes]]:
        """All saved key packages: (reference, secrets)."""
        return [(bytes(r[0]), bytes(r[1])) for r in self._all("select reference, secrets from key_package")]

    def delete_key_package(self, reference: bytes) -> None:
        """Forget a used key package; a last-resort one stays (RFC 9420 section 16.8)."""
        self._run("delete from key_package where reference = ? and last_resort = 0", (reference,))

    def newest_last_resort(self) -> int:
        """When the newest key package of last resort was made, Unix milliseconds; 0 without one."""
        row = self._one("select max(created_at) from key_package where last_resort = 1")
        return 0 if row is None or row[0] is None else int(row[0])

    def delete_key_packages_before(self, now_ms: int) -> None:
        """Forget those that were made before."""
        self._run("delete from key_package where created_at < ?", (now_ms,))

    # --- conversations ---------------------------------------------------------------------

    def add_conversation(self, row: ConversationRow) -> None:
        """A new conversation; a rejoined one keeps its messages and gets new state."""
        self._run(
            f"insert into conversation ({_CONVERSATION}) values (?,?,?,?,?,?,?,?,?) on conflict (id) do update"  # noqa: S608  column names are constants
            " set mls = excluded.mls, kind = excluded.kind, cursor = excluded.cursor, alarm = ''",
            (row.id, row.mls, row.kind, row.title, row.cursor, row.created_at, row.draft, row.read_upto, row.alarm),
        )

    def find_conversation(self, conversation: str) -> ConversationRow | None:
        """A conversation by its id."""
        row = self._one(f"select {_CONVERSATION} from conversation where id = ?", (conversation,))  # noqa: S608
        return None if row is None else ConversationRow(*row)

    def get_conversation(self, conversation: str) -> ConversationRow:
        """A conversation by its id. Raises: NotFound."""
        row = self.find_conversation(conversation)
        if row is None:
            raise NotFound("this device is not in that conversation")
        return row

    def conversations(self) -> list[ConversationRow]:
        """All conversations, oldest first."""
        rows = self._all(f"select {_CONVERSATION} from conversation order by created_at, id")  # noqa: S608
        return [ConversationRow(*row) for row in rows]

    def cursors(self) -> dict[str, int]:
        """Cursor by conversation, for Sync."""
        return {r[0]: r[1] for r in self._all("select id, cursor from conversation where alarm = ''")}

    def find_cursor(self, conversation: str) -> int | None:
        """One conversation's cursor; None when there is no such conversation, or it has stopped."""
        row = self._one("select cursor from conversation where id = ? and alarm = ''", (conversation,))
        return None if row is None else int(row[0])

    def conversations_waiting(self) -> set[ConversationId]:
        """Conversations that have something to send: messages or a commit."""
        sql = "select conversation from outbox union select conversation from pending_commit"
        return {r[0] for r in self._all(sql)}

    def save_group(self, conversation: str, mls: bytes) -> None:
        """Store a group's state."""
        self._run("update conversation set mls = ? where id = ?", (mls, conversation))

    def save_cursor(self, conversation: str, cursor: int) -> bool:
        """Move a cursor forward; whether it was not there yet."""
        sql = "update conversation set cursor = ? where id = ? and cursor < ?"
        return self._run(sql, (cursor, conversation, cursor)) > 0

    def save_title(self, conversation: str, title: str) -> None:
        """Set the title people see."""
        self._run("update conversation set title = ? where id = ?", (title, conversation))

    def save_alarm(self, conversation: str, alarm: str) -> None:
        """Stop a conversation, with the problem as JSON; "" lets it go on."""
        self._run("update conversation set alarm = ? where id = ?", (alarm, conversation))

    def save_read_upto(self, conversation: str, sequence: int) -> None:
        """Remember how far the person has read."""
        self._run(
            "update conversation set read_upto = ? where id = ? and read_upto < ?", (sequence, conversation, sequence)
        )

    def save_draft(self, conversation: str, draft: str) -> None:
        """Keep unfinished text."""
        self._run("update conversation set draft = ? where id = ?", (draft, conversation))

    # --- people ----------------------------------------------------------------------------

    def save_person(self, user_id: str, name: str, role: str, certificate: bytes) -> None:
        """Remember a person whose chain was verified."""
        if self.find_person(user_id) != (name, role, certificate):
            self._run("insert or replace into person values (?, ?, ?, ?)", (user_id, name, role, certificate))

    def find_person(self, user_id: str) -> tuple[str, str, bytes] | None:
        """(name, role, user certificate)."""
        row = self._one("select name, role, certificate from person where user_id = ?", (user_id,))
        return None if row is None else (row[0], row[1], bytes(row[2]))

    # --- messages --------------------------------------------------------------------------

    def add_message(self, row: MessageRow) -> None:
        """A new message; `row.row` is chosen by the vault."""
        self._run(
            "insert into message (id, mimi_id, conversation, sequence, sender, sender_device, at, delivery, content,"
            " problem) values (?,?,?,?,?,?,?,?,?,?)",
            (
                row.id,
                row.mimi_id,
                row.conversation,
                row.sequence,
                row.sender,
                row.sender_device,
                row.at,
                row.delivery,
                row.content,
                row.problem,
            ),
        )

    def find_message(self, message: str) -> MessageRow | None:
        """A message by its id."""
        row = self._one(f"select {_MESSAGE} from message where id = ?", (message,))  # noqa: S608
        return None if row is None else MessageRow(*row)

    def has_message(self, message: str) -> bool:
        """Whether there is a message with this id."""
        return self._one("select 1 from message where id = ?", (message,)) is not None

    def find_message_place(self, message: str) -> str | None:
        """The conversation of the message with this id."""
        row = self._one("select conversation from message where id = ?", (message,))
        return None if row is None else str(row[0])

    def find_own_at(self, conversation: str, sequence: int, me: str) -> str | None:
        """The id of the own message that the server stored under a sequence number."""
        sql = "select id from message where conversation = ? and sequence = ? and sender = ?"
        row = self._one(sql, (conversation, sequence, me))
        return None if row is None else str(row[0])

    def find_message_by_mimi(self, conversation: str, mimi_id: bytes) -> MessageRow | None:
        """A message by the id that its content has."""
        row = self._one(
            f"select {_MESSAGE} from message where mimi_id = ? and conversation = ?",  # noqa: S608
            (mimi_id, conversation),
        )
        return None if row is None else MessageRow(*row)

    def messages(self, conversation: str, *, before: int = 0, limit: int = 50) -> list[MessageRow]:
        """The last `limit` messages in order of the log, waiting ones last; `before`: older than that sequence."""
        place = "case sequence when 0 then 9223372036854775807 else sequence end"
        bound = before or 9223372036854775807
        rows = self._all(
            f"select {_MESSAGE} from message where conversation = ? and ({place} < ? or ? = 0)"  # noqa: S608
            f" order by {place} desc, row desc limit ?",
            (conversation, bound, before, limit),
        )
        return [MessageRow(*row) for row in rows][::-1]

    def unread(self, conversation: str, me: str) -> list[MessageRow]:
        """Other people's messages beyond what the person has read."""
        rows = self._all(
            f"select {_MESSAGE} from message where conversation = ? and sender <> ? and sequence >"  # noqa: S608
            " (select read_upto from conversation where id = ?) order by sequence",
            (conversation, me, conversation),
        )
        return [MessageRow(*row) for row in rows]

    def save_stored(self, message: str, sequence: int, at: int) -> bool:
        """Mark an own message as stored by the server; whether there was such a message."""
        sql = "update message set sequence = ?, at = ?, delivery = 'sent', problem = '' where id = ? and sequence = 0"
        return self._run(sql, (sequence, at, message)) > 0

    def save_delivery(self, message: str, delivery: str, problem: str = "") -> None:
        """Set the delivery state of an own message."""
        self._run("update message set delivery = ?, problem = ? where id = ?", (delivery, problem, message))

    def save_content(self, message: str, mimi_id: bytes, content: bytes) -> None:
        """Replace a waiting message's content, when its attachment is up."""
        self._run("update message set mimi_id = ?, content = ? where id = ?", (mimi_id, content, message))

    # --- receipts --------------------------------------------------------------------------

    def add_receipt(self, mimi_id: bytes, user_id: str, status: str, now_ms: int) -> None:
        """A device reported "delivered" or "read"; read never falls back to delivered."""
        self._run(
            "insert into receipt values (?, ?, ?, ?) on conflict (mimi_id, user_id) do update"
            " set status = excluded.status, at = excluded.at where receipt.status = 'delivered'",
            (mimi_id, user_id, status, now_ms),
        )

    def receipts(self, mimi_id: bytes) -> dict[str, str]:
        """Status by user id."""
        return dict(self._all("select user_id, status from receipt where mimi_id = ?", (mimi_id,)))

    # --- outbox ----------------------------------------------------------------------------

    def add_outbox(self, message: str, conversation: str, content: bytes, report: bool) -> None:
        """Something to send."""
        self._run(
            "insert into outbox (id, conversation, content, epoch, envelope, report) values (?,?,?,-1,x'',?)",
            (message, conversation, content, int(report)),
        )

    def outbox(self, conversation: str | None = None, *, after: int = 0) -> list[OutboxRow]:
        """What waits, in the order it was written. after: only what has a higher `row`."""
        where, values = ("and conversation = ?", (conversation,)) if conversation else ("", ())
        sql = f"select {_OUTBOX} from outbox where row > ? {where} order by row"  # noqa: S608
        return [_outbox_row(r) for r in self._all(sql, (after, *values))]

    def find_outbox(self, message: str) -> OutboxRow | None:
        """One waiting message."""
        r = self._one(f"select {_OUTBOX} from outbox where id = ?", (message,))  # noqa: S608
        return None if r is None else _outbox_row(r)

    def find_outbox_place(self, message: str) -> str | None:
        """The conversation of one waiting message."""
        row = self._one("select conversation from outbox where id = ?", (message,))
        return None if row is None else str(row[0])

    def save_envelope(self, message: str, epoch: int, envelope: bytes) -> None:
        """Keep what was encrypted, so that a retry repeats the same bytes."""
        self._run(
            "update outbox set epoch = ?, envelope = ?, tries = tries + 1 where id = ?", (epoch, envelope, message)
        )

    def delete_outbox(self, message: str) -> None:
        """It is stored, or given up."""
        self._run("delete from outbox where id = ?", (message,))

    # --- commits of our own ----------------------------------------------------------------

    def save_pending_commit(self, conversation: str, message_id: bytes, request: bytes) -> None:
        """Keep the request of a staged commit, so that a retry repeats it."""
        self._run("insert or replace into pending_commit values (?, ?, ?)", (conversation, message_id, request))

    def find_pending_commit(self, conversation: str) -> tuple[bytes, bytes] | None:
        """(message id, request) of the staged commit."""
        row = self._one("select id, request from pending_commit where conversation = ?", (conversation,))
        return None if row is None else (bytes(row[0]), bytes(row[1]))

    def delete_pending_commit(self, conversation: str) -> None:
        """It was decided."""
        self._run("delete from pending_commit where conversation = ?", (conversation,))

    # --- attachments -----------------------------------------------------------------------

    def add_upload(self, message: str, conversation: str, ciphertext: bytes) -> None:
        """An attachment to upload before its message can go."""
        self._run("insert into upload values (?, ?, '', ?, 0)", (message, conversation, ciphertext))

    def uploads(self) -> list[UploadRow]:
        """What is still to be uploaded."""
        return [UploadRow(*r) for r in self._all("select id, conversation, blob_id, ciphertext, offset from upload")]

    def uploading(self, conversation: str) -> set[str]:
        """Messages of a conversation whose attachment is not up yet."""
        return {r[0] for r in self._all("select id from upload where conversation = ?", (conversation,))}

    def save_upload(self, message: str, blob_id: str, offset: int) -> None:
        """Remember how far an upload is."""
        self._run("update upload set blob_id = ?, offset = ? where id = ?", (blob_id, offset, message))

    def delete_upload(self, message: str) -> None:
        """It is up, or given up."""
        self._run("delete from upload where id = ?", (message,))

    def save_attachment(self, blob_id: str, ciphertext: bytes, now_ms: int) -> None:
        """Keep a downloaded ciphertext."""
        self._run("insert or replace into attachment values (?, ?, ?)", (blob_id, ciphertext, now_ms))

    def find_attachment(self, blob_id: str) -> bytes | None:
        """A downloaded ciphertext."""
        row = self._one("select ciphertext from attachment where blob_id = ?", (blob_id,))
        return None if row is None else bytes(row[0])

    # --- queue -----------------------------------------------------------------------------

    def queue_position(self) -> int:
        """Last position of the device's queue that was processed."""
        row = self._one("select position from queue_position")
        return 0 if row is None else int(row[0])

    def save_queue_position(self, position: int) -> None:
        """Move the queue position forward."""
        self._run("update queue_position set position = ? where position < ?", (position, position))
