"""The server as people run it: `curbside init`, then `curbside serve` in a process that a test may kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
from lines import free_port

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "web" / "dist"
WEB_SOURCES = ("web/src", "web/public", "web/index.html", "web/patches", "web/vite.config.ts", "web/tsconfig.json")
START_SECONDS = 90.0
ORGANIZATION = "Sankt Elsewhere"
SERVE = ("-m", "curbside", "serve")


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Returns when the condition holds. Raises: AssertionError naming what did not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.05)


def find_build_fault(dist: Path = DIST, root: Path = ROOT) -> str:
    """Why the built web client cannot be tested; "" when it can."""
    index = dist / "index.html"
    if not index.is_file():
        return "the web client is not built: run `make web` (or `make test`, which does)"
    built = index.stat().st_mtime
    named = [root / name for name in WEB_SOURCES]
    files = [each for top in named for each in (top.rglob("*") if top.is_dir() else [top])]
    newer = [each for each in files if ".test." not in each.name and each.is_file() and each.stat().st_mtime > built]
    if newer:
        return f"the built web client is older than {newer[0].relative_to(root)}: run `make web`"
    return ""


def copy_build(target: Path) -> Path:
    """The built web client in a folder of its own, which a build during the tests does not touch."""
    fault = find_build_fault()
    assert not fault, fault
    shutil.copytree(DIST, target)
    return target


class ServerProcess:
    """One organisation and its server. Everything that the process writes goes into `folder` and `logs`.

    origins: what clients call it by, when something stands in between; the first is its own address otherwise.
    """

    def __init__(self, folder: Path, static: Path, origins: Sequence[str] = (), serve: Sequence[str] = SERVE) -> None:
        self.port = free_port()
        self.folder = folder
        self.logs = folder.parent / f"{folder.name}-logs"
        self.logs.mkdir(parents=True)
        self.temp = folder.parent / f"{folder.name}-tmp"
        self.temp.mkdir()
        self.direct = f"http://localhost:{self.port}"
        self.origins = [*origins, self.direct]
        self._serve = serve
        self._process: subprocess.Popen[bytes] | None = None
        where = ["--url", self.origins[0], "--port", str(self.port), "--static-folder", str(static)]
        self.curbside("init", "--folder", str(folder), "--name", ORGANIZATION, *where, "--no-passphrase")

    @property
    def _environment(self) -> dict[str, str]:
        settings = {"PUBLIC_URLS": " ".join(self.origins), "LOG_LEVEL": "debug", "METRICS": "true"}
        return {**os.environ, "TMPDIR": str(self.temp)} | {f"CURBSIDE_{key}": value for key, value in settings.items()}

    def curbside(self, *arguments: str, given: str = "", more: Mapping[str, str] | None = None) -> str:
        """What a command prints. given: its standard input. more: variables of its environment.

        Raises: AssertionError with its complaint.
        """
        command = [sys.executable, "-m", "curbside", *arguments]
        environment = {**os.environ, "TMPDIR": str(self.temp), **(more or {})}
        done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        """Serve what is in the folder; returns when the server answers."""
        command = [sys.executable, *self._serve, "--folder", str(self.folder)]
        with (self.logs / "stdout").open("ab") as out, (self.logs / "stderr").open("ab") as err:
            self._process = subprocess.Popen(command, stdout=out, stderr=err, env=self._environment)
        wait_until(self._is_ready, f"the server answers; {self.logs} says why not", START_SECONDS)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """As on SIGTERM, so that logs and database are written out."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def invite(self, role: str, *options: str, origin: str = "") -> str:
        """An invite link; for another of the server's origins when one is named."""
        printed = self.curbside(
            "invite", "--folder", str(self.folder), "--url", self.direct, "--role", role, "--json", "--no-qr", *options
        )
        secret = str(json.loads(printed)["link"]).partition("/#")[2]
        return f"{origin or self.origins[0]}/#{secret}"

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.logs / "stderr").read_text("utf-8", "replace")[-2000:]
        try:
            return httpx.get(f"{self.direct}/v1/health/ready").is_success
        except httpx.TransportError:
            return False
