"""A PostgreSQL of its own for each measured backend, with the settings of a small dedicated server."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
from postgres import PASSWORD, USER, PostgresServer

from bench.process import SERVER_CORE, kill_all, list_tree, on_core

SETTINGS = ("shared_buffers=256MB", "jit=off", "max_connections=100", "max_wal_size=2GB")
"""fsync, full_page_writes and synchronous_commit stay on, as they are without a setting."""


class _SmallServer(PostgresServer):
    """With the settings of a small dedicated server."""

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k ''" + "".join(f" -c {setting}" for setting in SETTINGS)
        self._control("start", "--options", options, "--log", str(self.folder / "log"))


class Database:
    """A `Part`: PostgreSQL in a folder that is removed with it."""

    def __init__(self) -> None:
        with on_core(SERVER_CORE):
            self._server = _SmallServer()
        self._server.stop()
        self._pid: int | None = None

    @property
    def url(self) -> str:
        """Its address, as the server's configuration wants it."""
        return f"postgres://{USER}:{PASSWORD}@127.0.0.1:{self._server.port}/postgres"

    def start(self) -> None:
        """Start, and wait until it answers."""
        with on_core(SERVER_CORE):
            self._server.start()
        self._pid = int((self._server.folder / "data" / "postmaster.pid").read_text().split()[0])

    def stop(self) -> None:
        """In order; harmless when it does not run."""
        if self._pid is not None:
            self._server.stop()
            self._pid = None

    def kill(self) -> None:
        """SIGKILL to all of its processes; they are gone when this returns."""
        pids = self.list_pids()
        kill_all(pids)
        while any(Path(f"/proc/{pid}").exists() and _state(pid) != "Z" for pid in pids):
            os.sched_yield()
        if pids:  # in a container the dead may stay listed, and then PostgreSQL would believe its own lock file
            (self._server.folder / "data" / "postmaster.pid").unlink()
        self._pid = None

    def remove(self) -> None:
        """Stop, and leave nothing behind."""
        self._server.remove()

    def list_pids(self) -> list[int]:
        """The postmaster and its children."""
        return list_tree(self._pid) if self._pid is not None else []

    # --- weighing -------------------------------------------------------------------------------

    def wal_bytes(self) -> int:
        """Write-ahead log written so far."""
        return self._ask("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")

    def table_bytes(self) -> int:
        """Size of the database's tables and indexes."""
        return self._ask("SELECT pg_database_size(current_database())")

    def _ask(self, query: str) -> int:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
