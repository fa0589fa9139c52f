"""The whole path as a person goes it, each command a process: init, serve, invite, join, send, receive, audit."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from running import free_port

PASSPHRASE = "violet kettle marching 47 otters"
START_SECONDS = 90.0


def curbside(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """A command in a process of its own; what it printed as JSON."""
    environment = {"PATH": "", "CURBSIDE_PASSPHRASE": PASSPHRASE, "HOME": str(folder)}
    command = [sys.executable, "-m", "curbside", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def serve(folder: Path, url: str) -> subprocess.Popen[bytes]:
    """The server in a process of its own, once it answers."""
    command = [sys.executable, "-m", "curbside", "serve", "--folder", "ward"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(url + "/v1/health/ready").is_success:
                return process
        except httpx.TransportError:
            assert process.poll() is None, "the server ended"
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.05)


def test_from_init_to_a_verified_audit_log(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    port = url.rpartition(":")[2]
    where = ("--folder", "ward")
    curbside(tmp_path, "init", "--name", "Ward", "--url", url, "--port", port, "--no-passphrase", *where, "--json")
    server = serve(tmp_path, url)
    try:
        invites = curbside(tmp_path, "invite", "--role", "nurse", "--count", "2", *where, "--json")
        dana, berg = (
            curbside(tmp_path, "join", invite["link"], "--name", name, "--vault", f"{name}.vault", "--json")[0]
            for name, invite in zip(("dana", "berg"), invites, strict=True)
        )
        of_dana, of_berg = ("--vault", "dana.vault", "--json"), ("--vault", "berg.vault", "--json")
        curbside(tmp_path, "conversations", "--start", berg["user_id"], *of_dana)
        curbside(tmp_path, "send", "berg", "Bed 12 is stable.", *of_dana)
        Image.new("RGB", (80, 60), (200, 30, 30)).save(tmp_path / "wound.jpg", "JPEG")
        curbside(tmp_path, "send", "berg", "Left forearm", "--photo", "wound.jpg", *of_dana)
        shown = curbside(tmp_path, "receive", "--save-photos", "incoming", *of_berg)
    finally:
        server.terminate()
        assert server.wait(30) == 0
    assert [row["text"] for row in shown] == ["Bed 12 is stable.", "Left forearm"]
    assert {row["sender"] for row in shown} == {dana["user_id"]}
    assert Image.open(io.BytesIO((tmp_path / shown[1]["saved"][0]).read_bytes())).size == (80, 60)
    (exported,) = curbside(tmp_path, "audit", "export", "--output", "export.jsonl", *where, "--json")
    assert exported
    raw = (tmp_path / "export.jsonl").read_text("utf-8")
    assert "message.sent" in raw
    for secret in ("Bed 12", "Left forearm", "wound.jpg"):
        assert secret not in raw
    (report,) = curbside(tmp_path, "audit", "verify", "export.jsonl", *where, "--json")
    assert report
