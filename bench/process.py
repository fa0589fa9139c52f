"""A server in a process of its own: started, timed until it answers, weighed, ended."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

START_SECONDS = 60.0
POLL_SECONDS = 0.002
_TICKS = os.sysconf("SC_CLK_TCK")


class ServedProcess:
    """One server. command: what to run; path: what it answers with 200 when it is ready."""

    def __init__(self, command: Sequence[str], port: int, path: str, environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode()
        self._address = ("127.0.0.1", port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start; the seconds until the first answer. Raises: RuntimeError when there is none."""
        began = time.perf_counter()
        self._process = subprocess.Popen(self._command, env=self._environment, stdout=subprocess.DEVNULL)
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                raise RuntimeError(f"did not start: {' '.join(self._command)}")
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - began

    def _answers(self) -> bool:
        try:
            with socket.create_connection(self._address, timeout=5) as connection:
                connection.sendall(self._request)
                return connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def stop(self) -> None:
        """As on SIGTERM; harmless when it does not run."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    # --- weighing -------------------------------------------------------------------------------

    @property
    def _proc(self) -> Path:
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}")

    def cpu_seconds(self) -> float:
        """Processor time that it has used so far, all threads."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_kib(self) -> int:
        """Proportional set size: memory of its own, and its share of what others use too."""
        for line in (self._proc / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        raise RuntimeError("the kernel does not tell a process's memory")
