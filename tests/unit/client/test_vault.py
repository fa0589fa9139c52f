"""The vault: what opens it, what does not, and that a refusal leaves what was in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curbside.client.vault import Vault
from curbside.crypto.passphrase import unwrap
from curbside.errors import (
    IntegrityError,
    Malformed,
    NotFound,
    StorageFull,
    StoreUnavailable,
    VaultBusy,
    VaultLocked,
    WrongPassphrase,
)
from curbside.ids import decode_base64url

PASSPHRASE = "violet kettle marching 47 otters"
VECTORS = Path(__file__).resolve().parents[3] / "vectors" / "trust" / "passphrases.json"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a vault `a.vault` that holds something."""
    folder = tmp_path_factory.mktemp("vault")
    vault = Vault.create(folder / "a.vault", PASSPHRASE)
    with vault.transaction() as rows:
        rows.put_setting("name", "Dana")
        rows.put_secret("device_key", b"k" * 32)
    vault.close()
    return folder


@pytest.fixture
def path(closed: Path, tmp_path: Path) -> Path:
    shutil.copytree(closed, tmp_path / "v")
    return tmp_path / "v" / "a.vault"


def test_what_was_written_is_there_after_opening_again(path: Path) -> None:
    vault = Vault.open(path, PASSPHRASE)
    assert vault.rows.get_setting("name") == "Dana"
    assert vault.rows.get_secret("device_key") == b"k" * 32
    vault.close()
    assert not vault.is_open


def test_nothing_in_the_files_is_readable(path: Path) -> None:
    for file in path.parent.iterdir():
        held = file.read_bytes()
        assert b"SQLite format 3" not in held
        assert b"k" * 32 not in held
        assert b"Dana" not in held
        assert file.stat().st_mode & 0o077 == 0


def test_a_wrong_passphrase_opens_nothing_and_gives_the_lock_back(path: Path) -> None:
    with pytest.raises(WrongPassphrase):
        Vault.open(path, PASSPHRASE + "!")
    Vault.open(path, PASSPHRASE).close()


def test_a_passphrase_is_the_same_however_it_is_typed(tmp_path: Path) -> None:
    Vault.create(tmp_path / "b.vault", "caf\u00e9 kettle marching otters").close()
    Vault.open(tmp_path / "b.vault", "cafe\u0301 kettle marching otters").close()


def test_a_vault_that_is_open_elsewhere_is_busy(path: Path) -> None:
    vault = Vault.open(path, PASSPHRASE)
    with pytest.raises(VaultBusy):
        Vault.open(path, PASSPHRASE)
    vault.close()
    Vault.open(path, PASSPHRASE).close()


def test_a_vault_that_another_process_has_open_is_busy_until_that_ends(path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom curbside.client.vault import Vault\n"
        f"vault = Vault.open(Path({str(path)!r}), {PASSPHRASE!r})\nprint('open', flush=True)\nsys.stdin.read()\n"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(VaultBusy):
            Vault.open(path, PASSPHRASE)
        other.kill()
    Vault.open(path, PASSPHRASE).close()


def test_no_vault_is_made_over_another(path: Path) -> None:
    with pytest.raises(IntegrityError):
        Vault.create(path, PASSPHRASE)
    Vault.open(path, PASSPHRASE).close()


@pytest.mark.parametrize("gone", ["a.vault", "a.vault.wraps"])
def test_half_a_vault_is_none(path: Path, gone: str) -> None:
    (path.parent / gone).unlink()
    with pytest.raises(NotFound):
        Vault.open(path, PASSPHRASE)


@pytest.mark.parametrize("place", [0, 40, 4096])
def test_a_damaged_file_is_named_as_such(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    for offset in range(64):
        raw[place + offset] ^= 0x55
    path.write_bytes(bytes(raw))
    with pytest.raises(IntegrityError):
        read_all(path)


def test_a_cut_file_is_named_as_such(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 4096 * 2])
    with pytest.raises(IntegrityError):
        read_all(path)


def read_all(path: Path) -> None:
    """Open, and read what the test's vault holds."""
    vault = Vault.open(path, PASSPHRASE)
    try:
        with vault.transaction() as rows:
            rows.get_secret("device_key")
            rows.put_setting("name", "Eve")
            rows.conversations()
            rows.outbox()
            rows.uploads()
    finally:
        vault.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body | {"version": 2},
        lambda body: body | {"wraps": []},
        lambda body: {k: v for k, v in body.items() if k != "vault_id"},
        lambda body: [],
    ],
)
def test_a_key_file_of_another_form_is_refused(path: Path, change: Any) -> None:
    wraps = path.with_name("a.vault.wraps")
    wraps.write_text(json.dumps(change(json.loads(wraps.read_text("utf-8")))), "utf-8")
    with pytest.raises(IntegrityError):
        Vault.open(path, PASSPHRASE)


def test_a_key_file_that_asks_for_less_work_is_refused(path: Path) -> None:
    wraps = path.with_name("a.vault.wraps")
    body = json.loads(wraps.read_text("utf-8"))
    body["wraps"][0]["memory_kib"] = 8
    wraps.write_text(json.dumps(body), "utf-8")
    with pytest.raises(Malformed):
        Vault.open(path, PASSPHRASE)


def test_the_key_file_has_the_form_that_the_browser_shares(path: Path) -> None:
    """The members are those of the vectors that Python and the browser both pass, and the vectors open."""
    body = json.loads(path.with_name("a.vault.wraps").read_text("utf-8"))
    case = json.loads(VECTORS.read_text("utf-8"))["wraps"][0]
    key = decode_base64url(case["vault_key"])
    assert set(body) == {"version", "vault_id", "wraps"}
    assert set(body["wraps"][0]) == set(case["record"])
    assert len(unwrap(body["wraps"][0], PASSPHRASE, body["vault_id"])) == 32
    assert unwrap(case["record"], case["passphrase"], case["vault_id"]).reveal() == key


# --- transactions ---------------------------------------------------------------------------


def test_a_transaction_that_fails_leaves_nothing(path: Path) -> None:
    vault = Vault.open(path, PASSPHRASE)

    def fail() -> None:
        with vault.transaction() as rows:
            rows.put_setting("name", "Eve")
            with vault.transaction():
                rows.put_setting("role", "nurse")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert vault.rows.get_setting("name") == "Dana"
    assert vault.rows.find_setting("role") is None
    vault.close()


def test_a_full_disk_is_named_and_loses_nothing(path: Path) -> None:
    vault = Vault.open(path, PASSPHRASE)
    pages = vault.rows._db.pragma("page_count")
    vault.rows._db.pragma("max_page_count", pages)

    def fill() -> None:
        with vault.transaction() as rows:
            rows.put_setting("name", "Eve")
            for number in range(200):
                rows.put_secret(f"big {number}", bytes(4000))

    with pytest.raises(StorageFull):
        fill()
    assert vault.rows.get_setting("name") == "Dana"
    vault.rows._db.pragma("max_page_count", 1_000_000)
    with vault.transaction() as rows:
        rows.put_secret("big", bytes(400_000))
    vault.close()
    again = Vault.open(path, PASSPHRASE)
    assert len(again.rows.get_secret("big")) == 400_000
    again.close()


def test_a_vault_that_something_else_locks_is_unavailable_for_now(path: Path) -> None:
    vault = Vault.open(path, PASSPHRASE)
    vault.rows._db.set_busy_timeout(50)
    held = json.loads(path.with_name("a.vault.wraps").read_text("utf-8"))
    other = Vault(path, unwrap(held["wraps"][0], PASSPHRASE, held["vault_id"]), -1)
    other.rows._db.execute("begin immediate")
    with pytest.raises(StoreUnavailable), vault.transaction():
        pytest.fail("the transaction began")
    other.rows._db.execute("rollback")
    with vault.transaction() as rows:
        rows.put_setting("name", "Eve")
    other.rows._db.close()
    vault.close()


def test_a_locked_vault_says_so(path: Path) -> None:
    vault = Vault.open(path, PASSPHRASE)
    vault.close()
    vault.close()
    with pytest.raises(VaultLocked), vault.transaction():
        pytest.fail("the transaction began")
