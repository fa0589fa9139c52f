"""Generated files are up to date, the checks that say so can fail, and frames keep their bytes."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from curbside.wire import frames

ROOT = Path(__file__).resolve().parents[3]
FRAMES: dict[str, Any] = json.loads((ROOT / "vectors" / "wire" / "frames.json").read_text())
TOOLS = ("schema.py", "wire_vectors.py")
_CLIENT = msgspec.msgpack.Decoder(frames.ClientFrame)
_SERVER = msgspec.msgpack.Decoder(frames.ServerFrame)


def test_the_constructors_make_the_bytes_of_the_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("wire_vectors")
    for name in ("valid.json", "invalid.json", "reports.json", "cbor.json"):
        written = json.loads((ROOT / "vectors" / "content" / name).read_text())
        assert json.loads(json.dumps(tool.FILES[f"vectors/content/{name}"]())) == written


def _run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_generated_files_are_up_to_date(tool: str) -> None:
    done = _run(tool, "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_the_check_fails_on_a_missing_file_and_on_a_changed_one(tool: str, tmp_path: Path) -> None:
    assert _run(tool, "--check", "--root", str(tmp_path)).returncode == 1
    assert not list(tmp_path.rglob("*.*")), "a check writes nothing"
    assert _run(tool, "--root", str(tmp_path)).returncode == 0
    assert _run(tool, "--check", "--root", str(tmp_path)).returncode == 0
    first, *_ = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    first.write_text(first.read_text() + " ")
    changed = _run(tool, "--check", "--root", str(tmp_path))
    assert changed.returncode == 1
    assert first.name in changed.stderr


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in FRAMES["valid"]])
def test_a_frame_keeps_its_bytes(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    frame = (_CLIENT if vector["from"] == "client" else _SERVER).decode(data)
    assert msgspec.msgpack.encode(frame) == data


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in FRAMES["invalid"]])
def test_what_is_no_frame_is_refused(vector: dict[str, Any]) -> None:
    for decoder in (_CLIENT, _SERVER):
        with pytest.raises(msgspec.DecodeError):
            decoder.decode(bytes.fromhex(vector["hex"]))


def test_fields_of_a_later_version_at_the_end_are_passed_over() -> None:
    longer, same = (bytes.fromhex(FRAMES["longer"][name]) for name in ("hex", "same_as"))
    assert msgspec.msgpack.encode(_CLIENT.decode(longer)) == same


def test_every_frame_has_a_vector() -> None:
    tags = {vector["frame"][0] for vector in FRAMES["valid"]}
    known = (*frames.ClientFrame.__args__, *frames.ServerFrame.__args__)
    assert tags == {struct.__struct_config__.tag for struct in known}
