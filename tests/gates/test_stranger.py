"""docs/protocol.md is enough: a client that shares no code with Curbside talks to a server over the stream."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))
from bench.organization import free_port
from bench.process import ServedProcess

WAIT = 120


def run_module(root: Path, *arguments: str, given: str = "") -> str:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=root, input=given, capture_output=True, text=True, check=False, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def stage(root: Path, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL of its running server."""
    folder, port = tmp_path / "ward", free_port()
    made = json.loads(run_module(root, "bench.stage", "init", str(folder), str(port)))
    server = ServedProcess(made["command"], port, "/v1/health/ready", {**os.environ, **made["environment"]})
    server.start()
    yield folder, made["url"]
    server.stop()


def ask(root: Path, folder: Path, *requests: list[str]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(each) + "\n" for each in requests)
    return [
        json.loads(line) for line in run_module(root, "bench.stage", "people", str(folder), given=lines).splitlines()
    ]


def test_a_stranger_sends_receives_and_resumes(root: Path, stage: tuple[Path, str]) -> None:
    folder, url = stage
    sender, receiver, conversation = ask(root, folder, ["person", "a"], ["person", "b"], ["direct", "a", "b"])
    scene = {"url": url, "sender": sender, "receiver": receiver, "conversation": conversation}
    seen = json.loads(run_module(root, "bench.stranger", given=json.dumps(scene)))
    assert seen.pop("in_log_after_the_cut") >= 5
    assert seen == {
        "received": 20,
        "in_order": True,
        "each_once": True,
        "same_number_again": True,
        "refused": ["duplicate_request", "future_epoch"],
    }


def test_a_stranger_is_a_stranger(root: Path) -> None:
    source = (root / "bench" / "stranger.py").read_text("utf-8")
    assert len(source.splitlines()) <= 200
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names == {"msgspec", "cryptography", "websockets"}
