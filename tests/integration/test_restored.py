"""A server restored from a backup, and the devices that remember more than it does."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from backups import ignore
from postgres import database_of
from running import Running
from ward import eventually, sees, texts

from curbside.cli.invite import create_invite, upload_invites
from curbside.client.device import Device
from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, IntegrityError
from curbside.server.backup.create import BackupRequest, create_backup
from curbside.server.backup.place import FolderPlace
from curbside.server.backup.recipient import make_backup_key, open_backup_key, read_recipient
from curbside.server.backup.restore import RestoreRequest, restore_backup
from curbside.server.backup.verify import VerifyRequest
from curbside.server.config import load_config
from curbside.server.store.postgres_open import PostgresSettings, list_postgres_migrations
from curbside.server.store.postgres_tables import create_postgres_target, open_postgres_snapshot
from curbside.server.store.sqlite_open import list_migrations
from curbside.server.store.sqlite_tables import create_sqlite_target, open_sqlite_snapshot
from curbside.server.store.tables import Table, match_tables, sort_tables, split_rows, sum_rows

PASSPHRASE = "violet kettle marching 47 otters"


async def back_up(running: Running) -> None:
    """A backup of a server that runs."""
    private, public = running.folder / "backup.key", running.folder / "backup.pub"
    make_backup_key(private, public, None, None)
    request = BackupRequest(FolderPlace(running.folder / "backups"), read_recipient(public))
    await create_backup(running.config, request, running.clock, ignore)


async def restore(running: Running) -> None:
    """Stop the server, restore it, and start it again under the same address."""
    running.stop()
    source = VerifyRequest(
        FolderPlace(running.folder / "backups"), open_backup_key(running.folder / "backup.key", None)
    )
    await restore_backup(RestoreRequest(source, running.folder / "restored"), running.clock, ignore)
    config = load_config(running.folder / "restored" / "curbside.toml", {})
    running.config = msgspec.structs.replace(config, log_level="error")
    running.start()


async def enrol(running: Running, name: str, folder: Path) -> Device:
    """Somebody with a real client."""
    invite = create_invite(running.authority, running.url, "nurse", 3600, running.clock.now())
    await upload_invites(running.url, [invite.deposit])
    return await Device.join(folder / f"{name}.vault", invite.link, name, PASSPHRASE)


async def say(speaker: Device, hearer: Device, conversation: str, text: str) -> None:
    """A text that arrives."""
    await speaker.wait_until_sent(await speaker.send_text(conversation, text))
    await sees(hearer, conversation, text)


@pytest.mark.slow
async def test_who_knows_more_is_told_and_who_does_not_goes_on(tmp_path: Path) -> None:
    running = Running(tmp_path).start()
    try:
        async with await enrol(running, "Ada", tmp_path) as ada, await enrol(running, "Ben", tmp_path) as ben:
            both = await ada.start_conversation([ben.user_id])
            quiet = await ada.start_conversation([ben.user_id], title="quiet")
            await say(ada, ben, both, "before the backup")
            await say(ada, ben, quiet, "nothing follows")
            await back_up(running)
            await say(ada, ben, both, "after the backup")
        await restore(running)
        async with (
            await Device.open(tmp_path / "Ada.vault", PASSPHRASE) as ada,
            await Device.open(tmp_path / "Ben.vault", PASSPHRASE) as ben,
        ):
            for device in (ada, ben):
                await device.connection.wait_caught_up()
                await eventually(lambda rows=device.vault.rows: rows.get_conversation(both).alarm)
                assert "log_rolled_back" in device.vault.rows.get_conversation(both).alarm
                assert texts(device, both) == ["before the backup", "after the backup"]  # what it has stays
                assert not device.vault.rows.get_conversation(quiet).alarm
            await say(ada, ben, quiet, "and it goes on")
            fresh = await ada.start_conversation([ben.user_id], title="once more")
            await say(ben, ada, fresh, "a Welcome arrived, whatever the queue's numbers were")
    finally:
        running.stop()


# --- older schemas ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_rows_of_an_older_schema_are_brought_up_to_date(tmp_path: Path, engine: str) -> None:
    """As a restore does it: filled as the backup was made, upgraded, and only then asked anything."""
    key = SecretBytes(b"k" * 32)
    settings = PostgresSettings(database_of(tmp_path))
    newest = len(list_migrations() if engine == "sqlite" else list_postgres_migrations())
    old = newest - 2
    path = tmp_path / "new.db"
    writer = create_sqlite_target(path, key, old) if engine == "sqlite" else create_postgres_target(settings, key, old)
    table = next(each for each in writer.tables if each.name == "settings")
    names = {each.name for each in writer.tables}
    writer.write_rows(table, [("greeting", b"hello")])
    writer.upgrade()
    assert names < {each.name for each in writer.tables}
    assert list(writer.read_rows(table)) == [("greeting", b"hello")]
    assert writer.change.identity.find_setting("greeting") == b"hello"
    writer.finish()
    reader = open_sqlite_snapshot(path, key) if engine == "sqlite" else open_postgres_snapshot(settings, key)
    assert reader.schema.version == newest
    assert sum_rows(reader.read_rows(table)).count == 1
    reader.close()
    create = {
        "sqlite": lambda: create_sqlite_target(tmp_path / "more.db", key, newest + 1),
        "postgres": lambda: create_postgres_target(PostgresSettings(database_of(tmp_path / "more")), key, newest + 1),
    }
    with pytest.raises(ConfigError, match="newer"):
        create[engine]()


def test_tables_that_have_no_place_or_no_order_are_refused() -> None:
    parent, child = Table("a", ("x",), ("text",), ("x",)), Table("b", ("x",), ("text",), ("x",), parents=("a",))
    assert [each.name for each in sort_tables([child, parent])] == ["a", "b"]
    with pytest.raises(ConfigError, match="circle"):
        sort_tables([child, Table("a", ("x",), ("text",), ("x",), parents=("b",))])
    with pytest.raises(ConfigError, match="another form"):
        match_tables([parent], [child])
    with pytest.raises(ConfigError, match="another form"):
        match_tables([parent], [Table("a", ("y",), ("text",), ("y",))])
    for data in (b"", b"\xc1", b"\xdd\x00\x00\x00\x01", b"\x01"):
        with pytest.raises(IntegrityError):
            split_rows(data)
