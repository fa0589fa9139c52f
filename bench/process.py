"""A server in processes of its own: started, timed until it answers, weighed, ended, killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

START_SECONDS = 60.0
POLL_SECONDS = 0.002
SERVER_CORE, LOAD_CORE = 0, 1
_TICKS = os.sysconf("SC_CLK_TCK")


class Part(Protocol):
    """One program of a backend: a node of the server, its database, its bus."""

    def start(self) -> object:
        """Start, and wait until it answers. Raises: RuntimeError when it does not."""
        ...

    def stop(self) -> None:
        """As on SIGTERM; harmless when it does not run."""
        ...

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        ...

    def list_pids(self) -> list[int]:
        """Its processes, [] when it does not run."""
        ...


class ServedProcess:
    """One program. command: what to run; path: what it answers with 200 over HTTP when it is ready."""

    def __init__(self, command: Sequence[str], port: int, path: str, environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self.environment = dict(environment)
        self._request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode()
        self._address = ("127.0.0.1", port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, log: IO[bytes] | int = subprocess.DEVNULL) -> float:
        """Start; the seconds until the first answer. Raises: RuntimeError when there is none."""
        began = time.perf_counter()
        with on_core(SERVER_CORE):
            self._process = subprocess.Popen(
                self._command, env=self.environment, stdout=log, preexec_fn=_end_with_parent
            )
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

    def kill(self) -> None:
        """SIGKILL to it and its children."""
        kill_all(self.list_pids())
        if self._process is not None:
            self._process.wait()
            self._process = None

    def list_pids(self) -> list[int]:
        """It and its children."""
        return list_tree(self._process.pid) if self._process is not None else []


# --- cores --------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started here runs on this core, if the load generator was pinned; a child inherits its parent's cores."""
    before = os.sched_getaffinity(0)
    if before == {LOAD_CORE}:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def load_pinned(is_wanted: bool) -> Iterator[bool]:
    """The load generator on its own core, and with it the servers on theirs; whether it could be."""
    before = os.sched_getaffinity(0)
    is_pinned = is_wanted and {SERVER_CORE, LOAD_CORE} <= before
    if is_pinned:
        os.sched_setaffinity(0, {LOAD_CORE})
    try:
        yield is_pinned
    finally:
        os.sched_setaffinity(0, before)


def core_busy_seconds(core: int) -> float:
    """Processor time spent on a core by anybody, since the machine started."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _, _, *rest = (int(field) for field in line.split()[1:9])
            return (user + nice + system + sum(rest)) / _TICKS
    raise RuntimeError(f"there is no core {core}")


def _end_with_parent() -> None:
    """A measurement that is killed leaves no server behind (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


# --- processes ----------------------------------------------------------------------------------


def list_tree(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they still run."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return [each for each in found if Path(f"/proc/{each}").exists()]


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL, at once."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that these processes have used so far, all threads, and their children that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def memory_kib(pids: Iterable[int]) -> int:
    """Proportional set size: memory of their own, and their share of what others use too."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total


def written_bytes(pids: Iterable[int]) -> int:
    """Bytes that these processes handed to storage so far, needs root for others' processes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/io").read_text().splitlines():
                if line.startswith("write_bytes:"):
                    total += int(line.split()[1])
    return total
