"""The administrator's whole morning as processes: init, serve, invite, audit, stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import free_port

SECONDS = 60


def curbside(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command."""
    return subprocess.run(
        [sys.executable, "-m", "curbside", *arguments], capture_output=True, text=True, timeout=SECONDS, check=False
    )


def expect(*arguments: str, code: int = 0) -> str:
    """A command that ends with this code; what it printed."""
    done = curbside(*arguments)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    port = str(free_port())
    made = tmp_path / "ward"
    url = f"http://localhost:{port}"
    expect("init", "--folder", str(made), "--name", "Ward", "--url", url, "--port", port, "--no-passphrase", "--json")
    return made


@pytest.mark.slow
def test_from_init_to_a_verified_export(folder: Path) -> None:
    at = ("--folder", str(folder))
    server = subprocess.Popen(
        [sys.executable, "-m", "curbside", "serve", *at, "--json"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        where = json.loads(server.stdout.readline())
        assert where["url"] == f"http://localhost:{where['port']}"
        assert curbside("serve", *at).returncode == 1  # one server for one data folder
        invites = [
            json.loads(line) for line in expect("invite", *at, "--role", "nurse", "--count", "2", "--json").splitlines()
        ]
        assert len({each["link"] for each in invites}) == 2
        text = expect("invite", *at, "--role", "patient")
        assert where["url"] + "/#/join/" in text
        assert "█" in text
        deposits = folder / "deposits.jsonl"
        offline = expect("invite", *at, "--role", "clerk", "--offline", str(deposits), "--json")
        assert json.loads(offline)["link"].partition("/join/")[2] not in deposits.read_text("ascii")
        assert json.loads(expect("invite", *at, "--upload", str(deposits), "--json")) == {"uploaded": 1}
        key, export = folder / "audit.key", folder / "export.jsonl"
        key.write_text(expect("audit", "key", *at), "ascii")
        assert json.loads(expect("audit", "export", *at, "-o", str(export), "--json"))["entries"] == 7
        expect("audit", "verify", str(export), "--key-file", str(key), "--record", *at)
        assert curbside("audit", "export", *at, "-o", str(export)).returncode == 1
        expect("audit", "prove", "2", *at, "-o", str(folder / "proof.json"))
        assert "invite.created" in expect("audit", "verify", str(folder / "proof.json"), "--key-file", str(key))
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0
        assert server.stdout is not None
        server.stdout.close()
    shown = [json.loads(line)["event"]["name"] for line in expect("audit", "show", *at, "--json").splitlines()]
    assert shown == [
        "app.started",
        "config.network",
        *["invite.created"] * 4,
        "audit.exported",
        "audit.verified",
        "audit.viewed",
        "app.stopped",
    ]
    kept = folder / "checkpoints" / "audit.checkpoints"
    later = folder / "later.jsonl"
    expect("audit", "export", *at, "-o", str(later))
    expect("audit", "verify", str(later), "--key-file", str(key), "--checkpoints", str(kept))
    export.write_bytes(export.read_bytes().replace(b'"invite.created"', b'"invite.used"', 1))
    assert "entry 2" in expect("audit", "verify", str(export), "--key-file", str(key), code=3)


def test_checking_a_configuration_leaves_no_server_behind(folder: Path) -> None:
    assert json.loads(expect("serve", "--folder", str(folder), "--check", "--json")) == {"ok": True}
    (folder / "keys" / "database.key").chmod(0o644)
    done = curbside("serve", "--folder", str(folder), "--check")
    assert done.returncode == 1
    assert "chmod 600" in done.stderr
    assert "Traceback" not in done.stderr
