"""Organisations worth a backup: made by `init`, filled through the store's own port, on either engine."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from postgres import database_of

from curbside.audit.events import AuditEvent, EventName
from curbside.clock import ManualClock
from curbside.crypto.random import random_bytes
from curbside.ids import BlobId, ConversationId, DeviceId, InviteId, MessageId, UserId, encode_id
from curbside.server.audit_service import AuditService, AuditSettings
from curbside.server.backup.create import BackupRequest, BackupResult, create_backup
from curbside.server.backup.place import FolderPlace
from curbside.server.backup.recipient import BackupKey, make_backup_key, open_backup_key, read_recipient
from curbside.server.backup.restore import RestoreRequest, RestoreResult, restore_backup
from curbside.server.backup.verify import VerifyRequest, VerifyResult, verify_backups
from curbside.server.blob_opening import open_blob_store
from curbside.server.config import Config, load_config
from curbside.server.database import open_snapshot, open_store
from curbside.server.keys import prepare_keys
from curbside.server.organization import InitRequest, init_organization
from curbside.server.store.ports import Change
from curbside.server.store.records import (
    BlobRecord,
    ConversationRecord,
    DeviceRecord,
    InviteRecord,
    KeyPackageRecord,
    MemberRecord,
    NewEntry,
    NewQueueItem,
    SessionRecord,
    UserRecord,
)
from curbside.server.store.tables import sum_rows

START = 1_790_000_000
CANARY = "CANARY-Wilhelmina-Quux"


def make_id() -> str:
    """An id that nobody has."""
    return encode_id(random_bytes(16))


def ignore(what: str, done: int, whole: int) -> None:
    """A progress that nobody looks at."""


@dataclass
class Ward:
    """An organisation with people, conversations and attachments, and where its backups go."""

    root: Path
    engine: str = "sqlite"
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    devices: list[DeviceId] = field(default_factory=list)
    conversations: list[ConversationId] = field(default_factory=list)
    ends: dict[ConversationId, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.root / "ward"
        made = init_organization(InitRequest(self.folder, "Sankt Elsewhere", "http://localhost:8443", None), self.clock)
        self.authority = made.authority_certificate_file
        if self.engine == "postgres":
            url = database_of(self.root).reveal().decode()
            text = made.config_file.read_text("utf-8")
            made.config_file.write_text(f'database_url = "{url}"\n{text}', "utf-8")
        self.config: Config = load_config(made.config_file, {})
        self.place = FolderPlace(self.root / "backups")
        self.receipts = self.root / "receipts.jsonl"
        self.key_file, self.public_file = self.root / "backup.key", self.root / "backup.pub"

    async def prepare(self) -> Ward:
        """What `init`, a first start and `backup keygen` do."""
        store = open_store(self.config, is_server=False)
        keys = await prepare_keys(store, self.authority.read_bytes())
        await store.close()
        make_backup_key(self.key_file, self.public_file, None, keys.audit_key)
        return self

    @property
    def key(self) -> BackupKey:
        """The private half."""
        return open_backup_key(self.key_file, None)

    async def fill(self, conversations: int = 3, entries: int = 40, people: int = 3) -> None:
        """People and devices, and conversations of all of them."""

        def change(tx: Change) -> None:
            for number in range(people):
                user, device = UserId(make_id()), DeviceId(make_id())
                tx.identity.add_user(UserRecord(user, f"{CANARY} {number}", "nurse", b"u", b"e", START), b"opaque" * 9)
                tx.identity.add_device(DeviceRecord(device, user, "phone", b"d", b"k" * 32, START, START))
                tx.identity.add_key_packages(
                    [KeyPackageRecord(device, b"k", False), KeyPackageRecord(device, b"l", True)]
                )
                tx.identity.add_session(SessionRecord(random_bytes(32), user, device, START, START + 3600))
                self.devices.append(device)
            tx.identity.add_invite(
                InviteRecord(InviteId(make_id()), UserId(make_id()), "clerk", b"e", START, START + 9)
            )
            for _ in range(conversations):
                self._begin_conversation(tx)

        store = open_store(self.config, is_server=False)
        await store.write(change)
        await store.close()
        for conversation in self.conversations[-conversations:]:
            await self.write(conversation, entries)

    def _begin_conversation(self, tx: Change) -> None:
        conversation = ConversationId(make_id())
        tx.delivery.create_conversation(ConversationRecord(conversation, 1, 0, START), random_bytes(50))
        members = [MemberRecord(device, UserId(make_id()), at, 1) for at, device in enumerate(self.devices)]
        tx.delivery.add_members(conversation, members)
        item = NewQueueItem(self.devices[0], 0, conversation, 1, b"welcome")
        tx.delivery.add_queue_items([item])
        self.conversations.append(conversation)
        self.ends[conversation] = 0

    async def write(self, conversation: ConversationId, count: int, length: int = 300) -> None:
        """Entries, with their audit events."""
        self.clock.advance(1)
        now_ms = self.clock.now_ms()

        def change(tx: Change) -> None:
            entries = [NewEntry(0, MessageId(random_bytes(16)), now_ms, random_bytes(length)) for _ in range(count)]
            tx.delivery.append_entries(conversation, 1, entries)
            for number in range(count):
                tx.append_audit(AuditEvent(name=EventName.MESSAGE_SENT, at=now_ms, extra={"sequence": number}))

        store = open_store(self.config, is_server=False)
        await store.write(change)
        await store.close()
        self.ends[conversation] += count

    async def attach(self, conversation: ConversationId, size: int, complete: bool = True) -> BlobId:
        """An attachment, or the beginning of one."""
        blob_id, content = BlobId(make_id()), random_bytes(size)
        record = BlobRecord(
            blob_id, conversation, self.devices[0], size, 0, hashlib.sha256(content).digest(), START, START + 9999
        )

        def change(tx: Change) -> None:
            tx.blobs.add_blob(record)
            if complete:
                tx.blobs.complete_blob(blob_id, START)

        if complete:
            await open_blob_store(self.config).put(blob_id, content)
        store = open_store(self.config, is_server=False)
        await store.write(change)
        await store.close()
        return blob_id

    async def sign_log(self) -> bytes:
        """A checkpoint of the log as it stands."""
        store = open_store(self.config, is_server=False)
        keys = await prepare_keys(store, None)
        await AuditService(store, self.clock, keys, AuditSettings()).make_checkpoint()
        found = await store.read(lambda view: view.audit.find_latest_checkpoint())
        await store.close()
        assert found is not None
        return found.body

    async def back_up(self) -> BackupResult:
        """One more backup."""
        self.clock.advance(60)
        request = BackupRequest(self.place, read_recipient(self.public_file), self.receipts)
        return await create_backup(self.config, request, self.clock, ignore)

    def verify(self, opened: bool = True, **more: object) -> VerifyResult:
        """All backups."""
        given: dict[str, object] = {"place": self.place, "key": self.key if opened else None, "receipts": self.receipts}
        return verify_backups(VerifyRequest(**(given | more)), self.clock, ignore)  # type: ignore[arg-type]

    async def restore(self, name: str, engine: str = "", **more: object) -> tuple[RestoreResult, Config]:
        """Into a folder of this name, on the same engine unless another one is named."""
        source = VerifyRequest(**({"place": self.place, "key": self.key, "receipts": self.receipts} | more))  # type: ignore[arg-type]
        url = database_of(self.root / name) if (engine or self.engine) == "postgres" else None
        request = RestoreRequest(source, self.root / name, url)
        result = await restore_backup(request, self.clock, ignore)
        return result, load_config(self.root / name / "curbside.toml", {})


def sum_tables(config: Config, without: Sequence[str] = ()) -> dict[str, tuple[int, bytes]]:
    """Count and sum of every table of an organisation."""
    with contextlib.closing(open_snapshot(config)) as reader:
        sums = {table.name: sum_rows(reader.read_rows(table)) for table in reader.tables if table.name not in without}
    return {name: (total.count, total.encode()) for name, total in sums.items()}
