"""The operator's week at the command line: keys, backups, verification, a drill, a restore, a move, a look around."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from postgres import database_of
from running import free_port

from curbside.cli.backup import parse_duration
from curbside.cli.main import COMMANDS, run
from curbside.cli.progress import describe_bytes, describe_progress, describe_seconds
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError
from curbside.server.backup.settings import build_config, describe_settings
from curbside.server.config import Config, KeyGiven, Limits, Proxy, load_config

SECONDS = 120
PASSPHRASE = "kettle orbit walnut seven"


def curbside(*arguments: str, more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """One command."""
    return subprocess.run(
        [sys.executable, "-m", "curbside", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, **(more or {})},
    )


def expect(*arguments: str, code: int = 0, more: Mapping[str, str] | None = None) -> str:
    """A command that ends with this code; what it printed."""
    done = curbside(*arguments, more=more)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout


class Serving:
    """`curbside serve` as a process."""

    def __init__(self, folder: Path, more: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "curbside", "serve", "--folder", str(folder), "--json"]
        env = {**os.environ, **(more or {})}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        assert self.process.stdout is not None
        self.where: dict[str, Any] = json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        """As the operator does."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SECONDS) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made, port = tmp_path / "ward", str(free_port())
    url = f"http://localhost:{port}"
    expect("init", "--folder", str(made), "--name", "Ward", "--url", url, "--port", port, "--no-passphrase", "--json")
    return made


@pytest.mark.slow
def test_the_operators_week(folder: Path, tmp_path: Path) -> None:
    at = ("--folder", str(folder))
    key, public, place, receipts = (tmp_path / name for name in ("b.key", "b.pub", "place", "receipts"))
    secret = {"CURBSIDE_BACKUP_PASSPHRASE": PASSPHRASE}
    opened = ("--key", str(key))
    server = Serving(folder)
    try:
        expect("invite", *at, "--role", "nurse", "--count", "3", "--json")
        expect("backup", "keygen", *at, "--private", str(key), "--public", str(public), more=secret)
        config = folder / "curbside.toml"
        names = {"place": place, "recipient_file": public, "receipts_file": receipts}
        with config.open("a", encoding="utf-8") as file:
            file.write("\n[backup]\n" + "".join(f'{name} = "{path}"\n' for name, path in names.items()))
        made = json.loads(expect("backup", "create", *at, "--json"))
        assert (made["number"], made["is_increment"]) == (1, False)
        assert "an increment" in expect("backup", "create", *at)
        listed = [json.loads(line) for line in expect("backup", "list", "--from", str(place), "--json").splitlines()]
        assert [each["number"] for each in listed] == [1, 2]
        assert "vouches for itself only" in expect("backup", "verify", "--from", str(place))
        verified = json.loads(expect("backup", "verify", *at, *opened, "--max-age", "1h", "--json", more=secret))
        assert verified["is_opened"]
        assert verified["is_pinned"]
        drilled = expect("backup", "drill", *at, *opened, "--record", more=secret)
        assert "RTO" in drilled
        assert "RPO" in drilled
        findings = json.loads(expect("doctor", *at, "--json"))["findings"]
        verdicts = {each["check"]: each["verdict"] for each in findings}
        assert verdicts["backup.drill"] == verdicts["backup.place"] == verdicts["url.stream"] == "ok"
        assert "fail" not in verdicts.values()
    finally:
        server.stop()
    done = curbside("backup", "verify", *at, "--key", str(key))
    assert (done.returncode, "passphrase" in done.stderr) == (1, True)
    new = tmp_path / "new"
    restoring = ("backup", "restore", "--from", str(place), *opened, "--into", str(new), "--receipts", str(receipts))
    restored = json.loads(expect(*restoring, "--json", more=secret))
    assert restored["number"] == 2
    assert expect(*restoring, code=1, more=secret) == ""
    server = Serving(new)
    server.stop()
    shown = [
        json.loads(line)["event"]["name"]
        for line in expect("audit", "show", "--folder", str(new), "--json").splitlines()
    ]
    assert shown.count("invite.created") == 3
    assert "backup.restored" in shown
    (place / "manifests" / "00000002").unlink()
    assert "rolled back" in curbside("backup", "verify", *at, "--json").stderr
    expect("backup", "verify", *at, code=3)
    expect("backup", "create", *at, code=3)
    assert "backup.failed" in expect("audit", "show", *at)


def begin_move(folder: Path, more: Mapping[str, str]) -> subprocess.Popen[str]:
    """A move that has come to the point where it waits for the server to be stopped."""
    command = [sys.executable, "-m", "curbside", "migrate", "--folder", str(folder), "--without-backup", "--json"]
    moving = subprocess.Popen(
        command, env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert moving.stderr is not None
    assert "Stop the server now" in moving.stderr.readline()
    return moving


@pytest.mark.slow
def test_a_move_while_the_server_runs(folder: Path, tmp_path: Path) -> None:
    at = ("--folder", str(folder))
    url = database_of(tmp_path).reveal().decode()
    server = Serving(folder)
    try:
        expect("invite", *at, "--role", "nurse", "--count", "2", "--json")
        target = {"CURBSIDE_TARGET_DATABASE_URL": url}
        assert "no backup yet" in curbside("migrate", *at, "--json", more=target).stderr
        moving = begin_move(folder, target)
        moving.kill()
        moving.communicate(timeout=SECONDS)
        assert curbside("serve", *at, "--check", more={"CURBSIDE_DATABASE_URL": url}).returncode == 1
        expect("invite", *at, "--role", "clerk", "--json")
        moving = begin_move(folder, target)
    finally:
        server.stop()
    out, err = moving.communicate(timeout=SECONDS)
    assert moving.returncode == 0, err
    result = json.loads(out)
    assert (result["tables"]["invites"], result["is_resumed"]) == (3, True)
    assert url not in out + err
    server = Serving(folder, {"CURBSIDE_DATABASE_URL": url})
    server.stop()
    shown = expect("audit", "show", *at, more={"CURBSIDE_DATABASE_URL": url})
    assert shown.count("invite.created") == 3
    assert shown.count("app.started") == 2


def test_every_command_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("backup", "migrate", "doctor"):
        assert command in COMMANDS
        assert run([command, "--help"]) == 0
        assert f"curbside {command}" in capsys.readouterr().out
    for command in ("keygen", "create", "verify", "restore", "drill", "list", "prune"):
        assert run(["backup", command, "--help"]) == 0
        assert "--json" in capsys.readouterr().out


def test_a_restored_configuration_keeps_what_is_not_of_one_machine(tmp_path: Path) -> None:
    config = Config(
        data_folder=tmp_path / "old",
        public_urls=("https://chat.example.org", "http://localhost:1"),
        database_key=KeyGiven(SecretBytes(random_bytes(32))),
        database_url=SecretBytes(b"postgres://CANARY:CANARY@db.example.org/x"),
        port=1234,
        limits=Limits(streams=7, sends_per_second=1.5),
        proxy=Proxy(trusted=("10.0.0.1", "10.1.0.0/16")),
    )
    told = describe_settings(config)
    assert "CANARY" not in told
    assert str(tmp_path) not in told
    path = tmp_path / "new.toml"
    path.write_text(build_config(told, tmp_path / "new", None), "utf-8")
    new = load_config(path, {})
    assert (new.public_urls, new.port, new.limits, new.proxy) == (
        config.public_urls,
        1234,
        config.limits,
        config.proxy,
    )
    assert new.data_folder == tmp_path / "new" / "data"
    url = SecretBytes(b"postgres://a:b%25@db.example.org/x")
    assert tomllib.loads(build_config(told, tmp_path, url))["database_url"] == url.reveal().decode()


def test_lengths_are_told_for_people() -> None:
    assert [parse_duration(text) for text in ("90s", "30m", "26h", "2d")] == [90, 1800, 93_600, 172_800]
    for text in ("", "1", "h", "1w", "-1h", "1.5h"):
        with pytest.raises(ConfigError):
            parse_duration(text)
    assert [describe_seconds(each) for each in (0.25, 42, 600, 9000, 200_000)] == [
        "0.2 s",
        "42 s",
        "10 min",
        "2 h",
        "2 d",
    ]
    assert [describe_bytes(each) for each in (5, 2048, 3 << 20)] == ["5 B", "2.0 KiB", "3.0 MiB"]
    assert describe_progress("rows", 25, 100, 10.0) == "… rows: 25 of 100 (25%), 30 s left"
    assert describe_progress("rows", 0, 0, 10.0) == "… rows: 0 of 0 (100%)"
