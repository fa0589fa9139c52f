"""Backups against real engines: what is in one comes back, and what was tampered with does not."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from backups import CANARY, START, Ward, ignore, sum_tables
from s3 import ACCESS_KEY, SECRET_KEY, bucket_of, s3_server

from curbside.audit.events import EventName, parse_event
from curbside.errors import BackupRefused, ConfigError, RuleBroken
from curbside.ids import ConversationId, DeviceId
from curbside.server.backup.chain import get_chain, prune, read_receipts
from curbside.server.backup.drill import LAST_DRILL, drill, remember_check
from curbside.server.backup.place import FolderPlace, ObjectPlace, name_manifest, name_object, open_place
from curbside.server.backup.recipient import make_backup_key, open_backup_key, read_recipient
from curbside.server.backup.sealing import open_object, parse_manifest, seal_object, verify_manifest
from curbside.server.backup.verify import VerifyRequest
from curbside.server.blob_opening import open_blob_store
from curbside.server.config import Config
from curbside.server.database import open_store
from curbside.server.keys import prepare_keys
from curbside.server.restored import RestoredLogs
from curbside.server.store.ports import View
from curbside.server.store.records import NewQueueItem

CHANGED_ON_PURPOSE = ("audit_events", "sessions", "settings", "blobs", "blob_pieces")
ENGINES = ("sqlite", "postgres")


async def look(config: Config, question: Callable[[View], object]) -> object:
    """Ask the store of an organisation."""
    store = open_store(config, is_server=False)
    try:
        return await store.read(question)
    finally:
        await store.close()


async def event_names(config: Config) -> list[str]:
    """The audit log."""
    records = await look(config, lambda view: view.audit.read_events(0, 100_000))
    return [parse_event(each.event).name for each in records]  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", ENGINES)
@pytest.mark.parametrize("engine", ENGINES)
async def test_everything_comes_back_on_either_engine(tmp_path: Path, engine: str, target: str) -> None:
    ward = await Ward(tmp_path, engine).prepare()
    await ward.fill()
    blob = await ward.attach(ward.conversations[0], 5_000_000)
    await ward.attach(ward.conversations[1], 10, complete=False)
    made = await ward.back_up()
    before = sum_tables(ward.config, CHANGED_ON_PURPOSE)
    log = await event_names(ward.config)
    ward.clock.advance(600)
    result, config = await ward.restore("new", target)
    assert sum_tables(config, CHANGED_ON_PURPOSE) == before
    assert result.rows == made.rows
    assert result.tables["entries"] == sum(ward.ends.values()) == 120
    assert (result.rpo, result.newest_age) == (600, 660)
    assert result.is_pinned
    assert result.log_covered == result.log_entries
    assert await event_names(config) == [*log[: result.log_entries], EventName.BACKUP_RESTORED]
    copied = await open_blob_store(config).read(blob, 0, 5_000_000)
    assert copied == await open_blob_store(ward.config).read(blob, 0, 5_000_000)
    assert copied is not None


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_restored_server_has_another_key_and_goes_on(tmp_path: Path, engine: str) -> None:
    ward = await Ward(tmp_path, engine).prepare()
    await ward.fill()
    await ward.back_up()
    _, config = await ward.restore("new")
    old, new = ((folder / "keys" / "database.key").read_bytes() for folder in (ward.folder, tmp_path / "new"))
    assert old != new
    store = open_store(config, is_server=False)
    for path in (tmp_path / "new").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path  # whatever the umask is
    keys = await prepare_keys(store, config.authority_path.read_bytes())
    assert await store.write(lambda tx: tx.identity.take_expired_sessions(START * 2, 10)) == []
    position = await store.write(lambda tx: tx.delivery.add_queue_items([_welcome(ward)]))
    assert position[0] > 1 << 32  # far above what any device has seen
    await store.close()
    again = await ward.back_up()
    assert again.number == 2
    assert keys.audit_key == ward.key.audit_key


def _welcome(ward: Ward) -> NewQueueItem:
    return NewQueueItem(ward.devices[0], 0, ward.conversations[0], 1, b"welcome")


# --- increments -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_is_there_already_is_not_copied_again(tmp_path: Path, engine: str) -> None:
    ward = await Ward(tmp_path, engine).prepare()
    await ward.fill(conversations=1, entries=4000)
    await ward.attach(ward.conversations[0], 3_000_000)
    first = await ward.back_up()
    await ward.write(ward.conversations[0], 3)
    second = await ward.back_up()
    assert (first.is_increment, second.is_increment) == (False, True)
    assert second.rows > first.rows
    assert second.new_bytes < first.new_bytes / 4
    assert second.objects - second.new_objects >= first.objects / 2
    assert ward.verify().backups == 2
    for number in (1, 2):
        result, _ = await ward.restore(f"new{number}", number=number)
        assert result.tables["entries"] == (4000, 4003)[number - 1]


async def test_a_backup_that_was_cut_short_is_no_backup(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill()
    await ward.back_up()

    class Full(FolderPlace):
        def write_new(self, name: str, data: bytes) -> bool:
            if name.startswith("manifests"):
                raise ConfigError("full")
            return super().write_new(name, data)

    ward.place = Full(ward.place.folder)
    await ward.write(ward.conversations[0], 5)
    with pytest.raises(ConfigError):
        await ward.back_up()
    ward.place = FolderPlace(ward.place.folder)
    assert ward.verify().newest == 1
    assert EventName.BACKUP_FAILED in await event_names(ward.config)
    assert (await ward.back_up()).number == 2
    assert ward.verify().newest == 2


async def test_it_is_made_while_others_write(tmp_path: Path) -> None:
    """The counts of one backup are of one moment: each conversation's last sequence is that of its log."""
    ward = await Ward(tmp_path).prepare()
    await ward.fill(conversations=2, entries=500)
    is_over = threading.Event()
    writing = threading.Thread(target=lambda: asyncio.run(_write_until(ward, is_over)))
    writing.start()
    results, lengths = [], []
    for _ in range(3):
        results.append(await ward.back_up())
        lengths.append(ward.ends[ward.conversations[0]])
    is_over.set()
    writing.join()
    assert lengths[0] < lengths[1] < lengths[2]  # it was written in between
    assert [each.number for each in results] == [1, 2, 3]
    for result in results:
        _, config = await ward.restore(f"new{result.number}", number=result.number)
        for conversation in ward.conversations:
            record = await look(config, lambda view, name=conversation: view.delivery.find_conversation(name))
            entries = await look(
                config, lambda view, name=conversation: view.delivery.read_entries(name, 0, 1 << 40, 10**6)
            )
            assert record.last_sequence == len(entries)  # type: ignore[attr-defined, arg-type]


async def _write_until(ward: Ward, is_over: threading.Event) -> None:
    while not is_over.is_set():
        await ward.write(ward.conversations[0], 3)


async def test_a_damaged_attachment_is_named_and_stops_nothing(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill()
    good = await ward.attach(ward.conversations[0], 1000)
    bad = await ward.attach(ward.conversations[0], 1000)
    gone = await ward.attach(ward.conversations[0], 1000)
    (ward.config.blobs_path / bad).write_bytes(bytes(1000))
    (ward.config.blobs_path / gone).unlink()
    result = await ward.back_up()
    assert set(result.missing) == {bad, gone}
    assert set(ward.verify().missing) == {bad, gone}
    restored, config = await ward.restore("new")
    assert restored.blobs == 1
    assert await open_blob_store(config).find(good) is not None


async def test_an_object_store_holds_backups_too(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill()
    folder = tmp_path / "bucket"
    folder.mkdir()
    ward.place = ObjectPlace(folder.as_uri())  # type: ignore[assignment]
    assert [(await ward.back_up()).number for _ in range(2)] == [1, 2]
    assert ward.verify().backups == 2
    assert (await ward.restore("new"))[0].tables["entries"] == 120
    with pytest.raises(BackupRefused):
        ward.place.read("objects/00/none")


async def test_attachments_and_backups_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real S3-compatible storage holds both; a restore puts attachments into the new folder."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ward = await Ward(tmp_path).prepare()
    settings = s3_server().settings(bucket_of(tmp_path / "a"))
    ward.config = msgspec.structs.replace(ward.config, blobs=settings)
    await ward.fill()
    blob = await ward.attach(ward.conversations[0], 5_000_000)
    for name, value in {
        "AWS_ENDPOINT": s3_server().endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": settings.region,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3_server().settings(bucket_of(tmp_path / "b"))  # makes the bucket
    ward.place = open_place(f"s3://{bucket_of(tmp_path / 'b')}/ward")  # type: ignore[assignment]
    assert isinstance(ward.place, ObjectPlace)
    assert [(await ward.back_up()).number for _ in range(2)] == [1, 2]
    assert ward.verify().blobs == 1
    assert not ward.place.write_new(name_manifest(2), b"another")
    result, config = await ward.restore("new")
    assert (result.blobs, result.missing) == (1, ())
    whole = await open_blob_store(config).read(blob, 0, 5_000_000)
    assert whole == await open_blob_store(ward.config).read(blob, 0, 5_000_000)
    assert prune(ward.place, get_chain(ward.place, None), 1 << 40).backups == 1
    assert ward.verify().backups == 1


async def test_a_share_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    place = FolderPlace(tmp_path)
    assert place.write_new("objects/ab/x", b"1")
    assert not place.write_new("objects/ab/x", b"2")
    assert place.read("objects/ab/x") == b"1"
    assert place.list_names("objects") == {"objects/ab/x": 1}


# --- keys apart -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_stolen_backup_says_nothing(tmp_path: Path, engine: str) -> None:
    ward = await Ward(tmp_path, engine).prepare()
    await ward.fill()
    await ward.back_up()
    key = (ward.folder / "keys" / "database.key").read_text("ascii").strip()
    secrets = [CANARY.encode(), key.encode(), bytes.fromhex(key), ward.key.private.reveal(), b"opaque" * 9, b"settings"]
    files = [path for path in ward.place.folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret in content]


async def test_another_key_opens_nothing_and_the_server_cannot_open_its_own_backups(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill()
    await ward.back_up()
    other, public = tmp_path / "other.key", tmp_path / "other.pub"
    make_backup_key(other, public, "kettle orbit walnut seven", ward.key.audit_key)
    with pytest.raises(BackupRefused, match="does not open with this key"):
        ward.verify(key=open_backup_key(other, "kettle orbit walnut seven"))
    private = ward.key.private.reveal()
    for path in ward.folder.rglob("*"):
        assert not path.is_file() or private not in path.read_bytes()


async def test_a_backup_does_not_lie_in_the_data_it_is_of(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    ward.place = FolderPlace(ward.config.data_folder / "backups")
    with pytest.raises(ConfigError, match="data folder"):
        await ward.back_up()


# --- tampering --------------------------------------------------------------------------------


def _objects(folder: Path) -> list[Path]:
    return sorted((path for path in folder.rglob("*") if path.is_file() and "objects" in path.parts), key=_size)


def _size(path: Path) -> int:
    return -path.stat().st_size


def _change(folder: Path) -> None:
    path = _objects(folder)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(folder: Path) -> None:
    path = _objects(folder)[0]
    path.write_bytes(path.read_bytes()[:-1])


def _swap(folder: Path) -> None:
    first, second = _objects(folder)[:2]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


def _remove(folder: Path) -> None:
    _objects(folder)[0].unlink()


def _flip_manifest(folder: Path) -> None:
    path = folder / name_manifest(3)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _remove_middle(folder: Path) -> None:
    (folder / name_manifest(2)).unlink()


def _reorder(folder: Path) -> None:
    second, third = folder / name_manifest(2), folder / name_manifest(3)
    one, two = second.read_bytes(), third.read_bytes()
    second.write_bytes(two)
    third.write_bytes(one)


def _roll_back(folder: Path) -> None:
    (folder / name_manifest(3)).unlink()


def _remove_all(folder: Path) -> None:
    shutil.rmtree(folder / "manifests")


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


TAMPERINGS = [_change, _cut, _swap, _remove, _flip_manifest, _remove_middle, _reorder, _roll_back, _remove_all]


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda each: each.__name__.strip("_"))
async def test_what_was_tampered_with_is_refused_and_nothing_appears(
    tmp_path: Path, tamper: Callable[[Path], None]
) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill(entries=200)
    for _ in range(3):
        await ward.write(ward.conversations[0], 5)
        await ward.back_up()
    ward.verify()
    tamper(ward.place.folder)
    for opened in (True, False):
        with pytest.raises(BackupRefused):
            ward.verify(opened)
    target = tmp_path / "new"
    target.mkdir()
    there = _names(tmp_path)
    with pytest.raises(BackupRefused):
        await ward.restore("new")
    assert not any(target.iterdir())
    assert _names(tmp_path) == there


async def test_a_place_of_another_organisation_is_refused(tmp_path: Path) -> None:
    made = []
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        ward = await Ward(tmp_path / name).prepare()
        await ward.fill()
        await ward.back_up()
        made.append(ward)
    ours, theirs = made
    ours.place = theirs.place
    for attempt in (lambda: ours.verify(receipts=None), lambda: ours.verify(False, audit_key=ours.key.audit_key)):
        with pytest.raises(BackupRefused, match="another organisation"):
            attempt()
    with pytest.raises(BackupRefused):
        await ours.back_up()


async def test_a_backup_of_another_place_of_the_same_organisation_is_refused(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill()
    here, there = FolderPlace(tmp_path / "here"), FolderPlace(tmp_path / "there")
    for place in (here, there, there):
        ward.place, ward.receipts = place, tmp_path / f"{place.folder.name}.jsonl"
        await ward.back_up()
    here.write_new(name_manifest(2), there.read(name_manifest(2)))
    ward.place, ward.receipts = here, tmp_path / "here.jsonl"
    with pytest.raises(BackupRefused, match="another place"):
        ward.verify()


async def test_no_change_of_a_manifest_gets_through(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill()
    await ward.back_up()
    whole = ward.place.read(name_manifest(1))
    verify_manifest(parse_manifest(whole), ward.key.audit_key)
    chosen = random.Random(7)
    for _ in range(400):
        data = bytearray(whole)
        match chosen.randrange(3):
            case 0:
                data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
            case 1:
                del data[chosen.randrange(len(data)) :]
            case _:
                at = chosen.randrange(len(data))
                data[at:at] = chosen.randbytes(chosen.randrange(1, 9))
        with pytest.raises(BackupRefused):
            verify_manifest(parse_manifest(bytes(data)), ward.key.audit_key)


async def test_objects_that_the_recipients_key_would_open_are_refused_unless_they_are_listed(tmp_path: Path) -> None:
    """Anybody can encrypt to a public key: what counts is the signed list of hashes."""
    ward = await Ward(tmp_path).prepare()
    await ward.fill()
    await ward.back_up()
    manifest = get_chain(ward.place, None).newest
    digest = manifest.head.objects[0]
    forged = seal_object(ward.key.public, manifest.head.place_id, b"\xdd\x00\x00\x00\x00")
    with pytest.raises(BackupRefused, match="changed, cut"):
        open_object(ward.key, manifest.head.place_id, digest, forged)
    (ward.place.folder / name_object(digest)).write_bytes(forged)
    with pytest.raises(BackupRefused):
        ward.verify()


async def test_a_newest_backup_that_is_too_old_is_told(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.back_up()
    ward.clock.advance(3600)
    assert ward.verify(most_age=3600).age == 3600
    ward.clock.advance(1)
    with pytest.raises(BackupRefused, match="3601 seconds old"):
        ward.verify(most_age=3600)


# --- targets ----------------------------------------------------------------------------------


async def test_a_place_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill()
    await ward.back_up()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        await ward.restore("full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["precious"]
    result, config = await ward.restore("taken", "postgres")
    before = sum_tables(config)
    shutil.rmtree(tmp_path / "taken")
    with pytest.raises(ConfigError, match="not empty"):
        await ward.restore("taken", "postgres")
    assert not (tmp_path / "taken").exists()
    assert result.engine == "postgres"
    assert before


async def test_a_drill_leaves_nothing_but_its_date(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill()
    await ward.back_up()
    within = tmp_path / "room"
    within.mkdir()
    source = VerifyRequest(place=ward.place, key=ward.key)
    result = await drill(source, within, ward.clock, ignore)
    assert result.tables["entries"] == 120
    assert not any(within.iterdir())
    await remember_check(ward.config, ward.clock, "ok", result.number, is_drill=True)
    found = await look(ward.config, lambda view: view.identity.find_setting(LAST_DRILL))
    assert found == ward.clock.now().to_bytes(8, "big")
    await remember_check(ward.config, ward.clock, "backup_refused", 0, is_drill=True)
    assert (await event_names(ward.config))[-2:] == [EventName.BACKUP_VERIFIED, EventName.BACKUP_FAILED]


async def test_pruning_keeps_what_the_kept_backups_need(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill(entries=300)
    for _ in range(3):
        await ward.write(ward.conversations[0], 5)
        await ward.back_up()
    manifests = get_chain(ward.place, None).manifests
    done = prune(ward.place, get_chain(ward.place, None), manifests[2].head.created_at)
    assert (done.backups, done.kept) == (2, 1)
    assert done.objects > 0
    assert ward.verify().newest == 3
    assert len(read_receipts(ward.receipts)) == 3
    assert prune(ward.place, get_chain(ward.place, None), 1 << 40).backups == 0
    assert (await ward.back_up()).is_increment
    assert (await ward.restore("new"))[0].number == 4


# --- devices that know more than a restored server --------------------------------------------


async def test_a_device_that_is_ahead_is_told_until_somebody_decides(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill(conversations=2, entries=10)
    await ward.back_up()
    _, config = await ward.restore("new")
    one, other = ward.conversations
    store = open_store(config, is_server=False)
    logs = RestoredLogs(store)
    ahead, behind = ward.devices[:2]
    for _ in range(2):
        assert await logs.find_ahead(ahead, {one: 13, other: 10}) == {one: 10}
    # Others wrote meanwhile: the log has grown past what the device knows, and its note still holds.
    assert await logs.find_ahead(ahead, {one: 13}) == {one: 10}
    assert await logs.find_ahead(behind, {one: 9}) == {}
    assert await logs.find_ahead(behind, {one: 13}) == {}  # it read on, from this server
    assert await logs.find_ahead(behind, {other: 11}) == {other: 10}  # not named before
    assert await logs.find_ahead(DeviceId("A" * 22), {one: 99, ConversationId("B" * 22): 5}) == {}
    await store.close()
    fresh = open_store(ward.config, is_server=False)
    assert await RestoredLogs(fresh).find_ahead(ahead, {one: 99}) == {}  # never restored
    await fresh.close()


async def test_notes_of_an_earlier_restore_stay_until_they_are_answered(tmp_path: Path) -> None:
    ward = await Ward(tmp_path).prepare()
    await ward.fill(conversations=1, entries=10)
    await ward.back_up()
    _, config = await ward.restore("once")
    ward.folder, ward.config = tmp_path / "once", config
    await ward.write(ward.conversations[0], 7)
    await ward.back_up()
    _, config = await ward.restore("twice")
    store = open_store(config, is_server=False)
    assert await RestoredLogs(store).find_ahead(ward.devices[0], {ward.conversations[0]: 12}) == {
        ward.conversations[0]: 10
    }
    await store.close()


# --- size -------------------------------------------------------------------------------------


async def test_many_rows_and_attachments_come_back_with_equal_hashes(tmp_path: Path) -> None:
    """The small size of bench/restore.py."""
    ward = await Ward(tmp_path).prepare()
    await ward.fill(conversations=4, entries=2500)
    for conversation in ward.conversations:
        await ward.attach(conversation, 2_000_000)
    await ward.back_up()
    before = sum_tables(ward.config, CHANGED_ON_PURPOSE)
    began = time.monotonic()
    result, config = await ward.restore("new")
    assert result.rto <= time.monotonic() - began
    assert sum_tables(config, CHANGED_ON_PURPOSE) == before
    assert result.blobs == 4


def test_files_that_are_no_keys_are_refused(tmp_path: Path) -> None:
    private, public = tmp_path / "b.key", tmp_path / "b.pub"
    make_backup_key(private, public, None, None)
    with pytest.raises(ConfigError):
        make_backup_key(private, tmp_path / "c.pub", None, None)
    with pytest.raises(RuleBroken):
        make_backup_key(tmp_path / "d.key", tmp_path / "d.pub", "weak", None)
    for text in ("", "x", "curbside-backup-recipient/1 AAAA", "curbside-backup-recipient/2 " + "A" * 43):
        public.write_text(text)
        with pytest.raises(ConfigError):
            read_recipient(public)
    for text in ("", "{}", private.read_text().replace("backup-key/1", "backup-key/2"), private.read_text()[:-20]):
        private.write_text(text)
        with pytest.raises(ConfigError):
            open_backup_key(private, None)
    with pytest.raises(BackupRefused):
        parse_manifest(b"\x95")
