"""Configuration: unknown keys, safe defaults, where the database key may be, and its rotation."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, StoreUnavailable
from curbside.server.config import Config, KeyCommand, KeyFile, KeyGiven, Limits, load_config
from curbside.server.database_key import create_key_file, load_database_key, lock_data_folder, rotate_database_key
from curbside.server.store.sqlite_open import open_connection

KEY = "ab" * 32
LOCAL = "http://localhost:8443"


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A whole configuration in variables."""
    return {
        "CURBSIDE_DATA_FOLDER": str(folder / "data"),
        "CURBSIDE_PUBLIC_URLS": LOCAL,
        "CURBSIDE_DATABASE_KEY_FILE": str(folder / "keys" / "database.key"),
        "PATH": "/usr/bin",
        **more,
    }


def build(folder: Path, **changes: Any) -> Config:
    given: dict[str, Any] = {
        "data_folder": folder / "data",
        "public_urls": (LOCAL,),
        "database_key": KeyGiven(SecretBytes(bytes(32))),
    }
    return Config(**(given | changes))


def test_defaults_are_safe(tmp_path: Path) -> None:
    config = build(tmp_path)
    assert (config.host, config.suites, config.metrics, config.tls) == ("127.0.0.1", (1,), False, None)
    assert config.blobs_path == tmp_path / "data" / "blobs"
    assert KEY not in repr(build(tmp_path, database_key=KeyGiven(SecretBytes(bytes.fromhex(KEY)))))


def test_file_and_environment_make_one_configuration(tmp_path: Path) -> None:
    path = tmp_path / "curbside.toml"
    path.write_text(
        f"""
        data_folder = "{tmp_path}/data"
        public_urls = ["https://curbside.example.org"]
        database_key_file = "{tmp_path}/keys/database.key"
        port = 1000
        [limits]
        streams = 5
        [audit]
        checkpoint_file = "{tmp_path}/checkpoints"
        """
    )
    config = load_config(path, {"CURBSIDE_PORT": "2000", "CURBSIDE_LIMITS_SENDS_BURST": "7", "HOME": "/"})
    assert (config.port, config.limits.streams, config.limits.sends_burst) == (2000, 5, 7)
    assert config.limits.requests_burst == Limits().requests_burst
    assert config.audit.checkpoint_file == tmp_path / "checkpoints"
    assert config.database_key == KeyFile(tmp_path / "keys" / "database.key")


def test_the_database_url_is_a_secret(tmp_path: Path) -> None:
    url = "postgres://curbside:CANARY@database.example/curbside"
    config = load_config(None, environment(tmp_path, CURBSIDE_DATABASE_URL=url))
    assert config.database_url is not None
    assert config.database_url.reveal() == url.encode()
    assert "CANARY" not in repr(config)
    for wrong in ("mysql://curbside:CANARY@database.example/curbside", "CANARY", ""):
        with pytest.raises(ConfigError, match="postgres://") as refused:
            load_config(None, environment(tmp_path, CURBSIDE_DATABASE_URL=wrong))
        assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "prot = 1",
        "[limits]\nstream = 1",
        "[audit]\nfile = 'x'",
        "database_key = 'abc'",
        "port = 'x'",
        "port = [",
        "port = 70000",
    ],
)
def test_a_setting_that_is_unknown_or_wrong_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curbside.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(path, environment(tmp_path))


@pytest.mark.parametrize("name", ["CURBSIDE_PROT", "CURBSIDE_LIMITS_STREAM", "CURBSIDE_SECRET"])
def test_an_unknown_variable_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        load_config(None, environment(tmp_path, **{name: "1"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"public_urls": ()},
        {"public_urls": ("http://curbside.example.org",)},
        {"public_urls": ("https://curbside.example.org/",)},
        {"public_urls": ("curbside.example.org",)},
        {"suites": ()},
        {"suites": (1, 3)},
        {"log_level": "chatty"},
        {"port": -1},
    ],
)
def test_settings_that_would_weaken_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(tmp_path, **changes)


def test_the_key_is_never_beside_the_data(tmp_path: Path) -> None:
    for path in (tmp_path / "data" / "key", tmp_path / "data" / "deep" / "key", tmp_path / "x" / ".." / "data" / "key"):
        with pytest.raises(ConfigError, match="data folder"):
            build(tmp_path, database_key=KeyFile(path))
    with pytest.raises(ConfigError, match="data folder"):
        build(tmp_path, blobs_folder=tmp_path / "blobs", database_key=KeyFile(tmp_path / "blobs" / "key"))
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.raises(ConfigError, match="data folder"):
        build(tmp_path, database_key=KeyFile(tmp_path / "link" / "key"))


@pytest.mark.parametrize("count", [0, 2])
def test_the_key_has_one_source(tmp_path: Path, count: int) -> None:
    given = environment(tmp_path)
    if count == 0:
        del given["CURBSIDE_DATABASE_KEY_FILE"]
    else:
        given["CURBSIDE_DATABASE_KEY_COMMAND"] = "cat key"
    with pytest.raises(ConfigError, match="exactly one"):
        load_config(None, given)


# --- sources of the key ---------------------------------------------------------------------------


def test_a_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "database.key"
    create_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(load_database_key(KeyFile(path))) == 32
    with pytest.raises(ConfigError):
        create_key_file(path)
    for mode in (0o640, 0o604, 0o660, 0o700 | 0o044):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="owner alone"):
            load_database_key(KeyFile(path))
    path.chmod(0o600)
    for text in ("", "ab" * 31, "ab" * 33, "zz" * 32, KEY[:-1] + " " + KEY[-1]):
        path.write_text(text)
        with pytest.raises(ConfigError) as refused:
            load_database_key(KeyFile(path))
        assert "ab" * 10 not in str(refused.value)
    with pytest.raises(ConfigError):
        load_database_key(KeyFile(tmp_path / "absent"))


def test_a_key_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "database.key"
    create_key_file(path)
    if os.geteuid() != 0:
        assert path.stat().st_uid == os.geteuid()  # nobody but root can give a file away
        return
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="owner alone"):
        load_database_key(KeyFile(path))


def test_the_key_may_come_from_a_variable_or_a_command(tmp_path: Path) -> None:
    given = environment(tmp_path, CURBSIDE_DATABASE_KEY_VARIABLE="HOSPITAL_KEY", HOSPITAL_KEY=KEY)
    del given["CURBSIDE_DATABASE_KEY_FILE"]
    config = load_config(None, given)
    assert load_database_key(config.database_key).reveal().hex() == KEY
    command = KeyCommand((sys.executable, "-c", f"print('{KEY}')"))
    assert load_database_key(command).reveal().hex() == KEY
    for words in ((sys.executable, "-c", "raise SystemExit(1)"), ("/no/such/program",), (sys.executable, "-c", "")):
        with pytest.raises(ConfigError):
            load_database_key(KeyCommand(words))
    given["HOSPITAL_KEY"] = ""
    with pytest.raises(ConfigError, match="HOSPITAL_KEY"):
        load_config(None, given)


# --- rotation -------------------------------------------------------------------------------------


def database(folder: Path) -> tuple[Config, Path]:
    """A database with a row, under a key file."""
    (folder / "data").mkdir()
    (folder / "keys").mkdir()
    path = folder / "keys" / "database.key"
    create_key_file(path)
    config = build(folder, database_key=KeyFile(path))
    connection = open_connection(str(config.database_path), load_database_key(config.database_key))
    connection.execute("CREATE TABLE t (x); INSERT INTO t VALUES (42)")
    connection.close()
    return config, path


def read(config: Config) -> int:
    connection = open_connection(str(config.database_path), load_database_key(config.database_key))
    try:
        return int(connection.execute("SELECT x FROM t").get)
    finally:
        connection.close()


def test_rotation_replaces_key_and_file_together(tmp_path: Path) -> None:
    config, path = database(tmp_path)
    before = path.read_text()
    rotate_database_key(config)
    assert path.read_text() != before
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["database.key"]
    assert read(config) == 42
    path.write_text(before)
    with pytest.raises(ConfigError):
        read(config)


def test_a_rotation_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    config, path = database(tmp_path)
    fresh = path.with_name("database.key.new")
    create_key_file(fresh)  # it stopped before the database changed
    wanted = fresh.read_text()
    rotate_database_key(config)
    assert (path.read_text(), fresh.exists(), read(config)) == (wanted, False, 42)
    old = path.read_text()
    rotate_database_key(config)
    path.rename(fresh)
    path.write_text(old)  # it stopped after the database changed, before the key file did
    path.chmod(0o600)
    rotate_database_key(config)
    assert (fresh.exists(), read(config)) == (False, 42)


def test_rotation_waits_for_a_server_to_stop(tmp_path: Path) -> None:
    config, path = database(tmp_path)
    before = path.read_text()
    with lock_data_folder(config.data_folder), pytest.raises(StoreUnavailable):
        rotate_database_key(config)
    assert path.read_text() == before
    assert read(config) == 42


def test_another_source_needs_the_new_key(tmp_path: Path) -> None:
    config, _ = database(tmp_path)
    given = build(tmp_path, database_key=KeyGiven(load_database_key(config.database_key)))
    with pytest.raises(ConfigError):
        rotate_database_key(given)
    new = SecretBytes(b"n" * 32)
    rotate_database_key(given, new)
    assert read(build(tmp_path, database_key=KeyGiven(new))) == 42
