"""Moving to PostgreSQL: while a server writes, cut short and begun again, and never into what is not empty."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg
import pytest
from backups import Ward, ignore, sum_tables
from postgres import database_of

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, IntegrityError, StoreUnavailable
from curbside.server.config import Config
from curbside.server.database import open_store
from curbside.server.database_key import load_database_key, lock_data_folder
from curbside.server.migration import MoveRequest, MoveResult, migrate_to_postgres
from curbside.server.store.sqlite_open import open_connection


def nothing() -> None:
    """Nobody has to be told."""


async def move(ward: Ward, url: SecretBytes, on_ready: Callable[[], None] = nothing, wait: float = 30.0) -> MoveResult:
    """Move a ward."""
    return await migrate_to_postgres(ward.config, MoveRequest(url, wait_seconds=wait), ward.clock, ignore, on_ready)


def moved(config: Config, url: SecretBytes) -> Config:
    """The configuration after a move."""
    return msgspec.structs.replace(config, database_url=url)


async def begin(folder: Path, entries: int = 200) -> tuple[Ward, SecretBytes]:
    """A ward with a fresh backup, and an empty database."""
    ward = await Ward(folder).prepare()
    await ward.fill(entries=entries)
    await ward.back_up()
    return ward, database_of(folder / "target")


async def test_every_table_arrives_and_the_old_database_stays(tmp_path: Path) -> None:
    ward, url = await begin(tmp_path)
    await ward.attach(ward.conversations[0], 1000)
    before = sum_tables(ward.config)
    result = await move(ward, url)
    assert sum_tables(moved(ward.config, url)) == before == sum_tables(ward.config)
    assert result.tables == {name: count for name, (count, _) in before.items()}
    assert (result.is_resumed, result.late_rows) == (False, 0)
    assert result.tables["entries"] == 600
    store = open_store(moved(ward.config, url))
    position = await store.write(lambda tx: tx.delivery.append_entries(ward.conversations[0], 1, []))
    assert position == 201
    await store.close()


async def test_what_a_running_server_writes_meanwhile_arrives_too(tmp_path: Path) -> None:
    ward, url = await begin(tmp_path)
    is_over = threading.Event()
    holds = threading.Event()

    async def serve() -> None:
        """As a server does: it holds the folder, writes, and gives it up when it is stopped."""
        with lock_data_folder(ward.config.data_folder):
            holds.set()
            while not is_over.is_set():
                await ward.write(ward.conversations[0], 7)
            await ward.write(ward.conversations[1], 50)
            await ward.fill(conversations=1, entries=20, people=1)

    server = threading.Thread(target=lambda: asyncio.run(serve()))
    server.start()
    holds.wait(30)
    result = await move(ward, url, is_over.set)
    server.join()
    assert result.late_rows >= 70
    assert sum_tables(moved(ward.config, url)) == sum_tables(ward.config)
    assert result.tables["entries"] == sum(ward.ends.values())


async def test_changed_and_removed_rows_follow(tmp_path: Path) -> None:
    ward, url = await begin(tmp_path)

    def change() -> None:
        async def work() -> None:
            store = open_store(ward.config, is_server=False)
            await store.write(lambda tx: tx.identity.revoke_device(ward.devices[0], 5))
            await store.write(lambda tx: tx.identity.claim_key_package(ward.devices[1]))
            await store.write(lambda tx: tx.delivery.advance_epoch(ward.conversations[0], 2, b"new state"))
            await store.write(lambda tx: tx.identity.put_setting("organization.name", "Sankt Älsewhere".encode()))
            await store.close()

        asyncio.run(work())

    thread = threading.Thread(target=change)

    def on_ready() -> None:
        thread.start()
        thread.join()

    result = await move(ward, url, on_ready)
    assert result.late_rows > 3
    assert sum_tables(moved(ward.config, url)) == sum_tables(ward.config)


class _CutError(Exception):
    """The move ends here, as if it were killed."""


async def test_a_move_that_was_cut_short_goes_on_and_no_server_opens_it_before(tmp_path: Path) -> None:
    ward, url = await begin(tmp_path)

    def cut() -> None:
        raise _CutError

    with pytest.raises(_CutError):
        await move(ward, url, cut)
    with pytest.raises(ConfigError, match="newer"):
        open_store(moved(ward.config, url))
    await ward.write(ward.conversations[0], 30)
    result = await move(ward, url)
    assert result.is_resumed
    assert sum_tables(moved(ward.config, url)) == sum_tables(ward.config)
    await open_store(moved(ward.config, url)).close()
    with pytest.raises(ConfigError, match="not empty"):
        await move(ward, url)


async def test_a_server_that_is_not_stopped_ends_the_move_not_the_data(tmp_path: Path) -> None:
    ward, url = await begin(tmp_path)
    with lock_data_folder(ward.config.data_folder), pytest.raises(StoreUnavailable, match="not stopped"):
        await move(ward, url, wait=0.0)
    assert (await move(ward, url)).is_resumed


async def test_another_organisation_does_not_go_on_with_it(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    ward, url = await begin(tmp_path / "one")
    other, _ = await begin(tmp_path / "two")
    with lock_data_folder(ward.config.data_folder), pytest.raises(StoreUnavailable):
        await move(ward, url, wait=0.0)
    with pytest.raises(ConfigError, match="another organisation"):
        await move(other, url)


async def test_nothing_moves_without_a_fresh_backup(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    url = database_of(tmp_path / "target")
    with pytest.raises(ConfigError, match="no backup yet"):
        await move(ward, url)
    await ward.back_up()
    ward.clock.advance(24 * 3600 + 1)
    with pytest.raises(ConfigError, match="too old"):
        await move(ward, url)
    request = MoveRequest(url, most_backup_age=None)
    assert (await migrate_to_postgres(ward.config, request, ward.clock, ignore, nothing)).rows > 0
    with pytest.raises(ConfigError, match="nothing to move"):
        await migrate_to_postgres(moved(ward.config, url), request, ward.clock, ignore, nothing)


@pytest.mark.parametrize("damage", ["UPDATE entries SET envelope = 'x' WHERE sequence = 7", "DELETE FROM entries"])
async def test_what_arrives_damaged_is_found_before_any_server_opens_it(tmp_path: Path, damage: str) -> None:
    ward, url = await begin(tmp_path)

    def spoil() -> None:
        with psycopg.connect(url.reveal().decode(), autocommit=True) as connection:
            connection.execute(damage.encode())
        raise _CutError

    with pytest.raises(_CutError):
        await move(ward, url, spoil)
    with pytest.raises(IntegrityError, match="entries"):
        await move(ward, url)
    with pytest.raises(ConfigError):
        open_store(moved(ward.config, url))


async def test_a_log_that_was_shortened_meanwhile_is_copied_anew(tmp_path: Path) -> None:
    ward, url = await begin(tmp_path)

    def cut() -> None:
        raise _CutError

    with pytest.raises(_CutError):
        await move(ward, url, cut)
    connection = open_connection(str(ward.config.database_path), load_database_key(ward.config.database_key))
    connection.execute("DELETE FROM entries WHERE sequence < 50")
    connection.close()
    await move(ward, url)
    assert sum_tables(moved(ward.config, url)) == sum_tables(ward.config)
