"""`curbside serve` in a process of its own, which a test may kill, stop, starve of disk or lock out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from lines import Line, free_port

from curbside.cli.invite import create_invite
from curbside.clock import Clock, SystemClock
from curbside.ids import ConversationId
from curbside.server.config import load_config
from curbside.server.database_key import load_database_key
from curbside.server.organization import InitRequest, init_organization, open_authority
from curbside.server.store.sqlite import open_sqlite_store
from curbside.server.store.sqlite_open import open_connection

SERVE = ("-m", "curbside", "serve")
START_SECONDS = 90.0
UNBOUND = {
    f"CURBSIDE_LIMITS_{what}_{which}": "1000000"
    for what in ("SENDS", "REQUESTS", "ATTEMPTS", "CONNECTS")
    for which in ("PER_SECOND", "BURST")
}


class ServingProcess:
    """An organisation on disk, and its server while it runs. Has what `running.Person` asks of a server.

    line: what people reach it by; None: directly.
    """

    def __init__(self, folder: Path, serve: tuple[str, ...] = SERVE, line: Line | None = None) -> None:
        self.clock: Clock = SystemClock()
        port = free_port()
        self.url = line.origin if line else f"http://127.0.0.1:{port}"
        if line:
            line.start(port)
        self.made = init_organization(InitRequest(folder, "Sankt Elsewhere", self.url, None, port=port), self.clock)
        self.authority = open_authority(self.made.authority_key_file, None)
        self.folder = folder
        self.kills = 0
        self._serve = serve
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve; returns when the server answers."""
        command = [sys.executable, *self._serve, "--folder", str(self.folder)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **UNBOUND})
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text("utf-8", "replace")[-2000:]
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url + "/v1/health/ready").is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        self.kills += 1

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(30)
        self._process = None
        return code

    def close(self) -> None:
        """End it whatever state it is in."""
        if self._process is not None:
            self.kill()

    def command(self, *arguments: str) -> str:
        """What a command of `curbside` prints. Raises: AssertionError with its complaint."""
        command = [sys.executable, "-m", "curbside", *arguments, "--folder", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def verify_audit(self) -> str:
        """Export the audit log and verify the export: what the verifier prints."""
        export, key = self.folder / "export.jsonl", self.folder / "audit.key"
        self.command("audit", "export", "--output", str(export))
        key.write_text(self.command("audit", "key"), "utf-8")
        return self.command("audit", "verify", str(export), "--key-file", str(key))

    def link(self, role: str = "nurse") -> str:
        """An invite link, deposited."""
        made = create_invite(self.authority, self.url, role, 3600, self.clock.now())
        body = {"invite_id": made.deposit.invite_id, "enrolment_certificate": made.deposit.enrolment_certificate}
        httpx.post(self.url + "/v1/invites", json=body).raise_for_status()
        return made.link

    async def read_log(self, conversation: str, first: int) -> list[tuple[int, bytes]]:
        """(sequence, message id) as they are on disk, while no server runs."""
        assert self._process is None
        config = load_config(self.made.config_file, {})
        store = open_sqlite_store(str(config.database_path), load_database_key(config.database_key))
        name = ConversationId(conversation)
        rows = await store.read(lambda view: view.delivery.read_entries(name, first - 1, 1_000_000, 1 << 40))
        await store.close()
        return [(row.sequence, row.message_id) for row in rows]

    @contextmanager
    def locked_database(self) -> Iterator[None]:
        """Another process holds the database's write lock."""
        config = load_config(self.made.config_file, {})
        other = open_connection(str(config.database_path), load_database_key(config.database_key))
        other.execute("begin immediate")
        try:
            yield
        finally:
            other.execute("rollback")
            other.close()
