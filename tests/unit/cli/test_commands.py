"""The administrator's commands as a person runs them: what they make, print and answer with."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from curbside.audit.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from curbside.audit.events import AuditEvent, EventName
from curbside.audit.export import build_header, build_line
from curbside.audit.merkle import compute_root, hash_leaf
from curbside.cli.audit import parse_since
from curbside.cli.main import COMMANDS, run
from curbside.clock import ManualClock
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.errors import ConfigError, Malformed, WrongPassphrase
from curbside.server.config import load_config
from curbside.server.organization import InitRequest, InitResult, init_organization, open_authority

PASSPHRASE = "kettle orbit walnut seven"
CLOCK = ManualClock(1_790_000_000)


def make(folder: Path, passphrase: str | None = None) -> InitResult:
    return init_organization(InitRequest(folder, "Sankt Elsewhere", "http://localhost:8443", passphrase), CLOCK)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    code = run(arguments)
    out, err = capsys.readouterr()
    return code, out, err


# --- init -------------------------------------------------------------------------------------


def test_init_makes_keys_that_only_their_owner_reads_and_a_usable_configuration(tmp_path: Path) -> None:
    made = make(tmp_path / "ward")
    for path in (made.authority_key_file, made.database_key_file, made.config_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in (made.authority_key_file.parent, made.database_key_file.parent, made.data_folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    config = load_config(made.config_file, {})
    assert config.public_urls == ("http://localhost:8443",)
    assert config.authority_path.read_bytes() == open_authority(made.authority_key_file, None).certificate.raw
    assert config.audit.checkpoint_file == made.checkpoint_file


def test_the_authoritys_key_is_not_in_the_servers_data(tmp_path: Path) -> None:
    made = make(tmp_path / "ward")
    assert not made.authority_key_file.is_relative_to(made.data_folder)
    assert not made.database_key_file.is_relative_to(made.data_folder)
    seed = open_authority(made.authority_key_file, None).key.reveal()
    for path in made.folder.rglob("*"):
        assert not path.is_file() or seed not in path.read_bytes()
    assert "authority.key" not in made.config_file.read_text("utf-8")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    made = make(tmp_path / "ward")
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError):
        make(tmp_path / "ward")
    assert before == {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    made.config_file.unlink()
    with pytest.raises(ConfigError):
        make(tmp_path / "ward")


def test_a_wrapped_authority_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    made = make(tmp_path / "ward", PASSPHRASE)
    assert open_authority(made.authority_key_file, PASSPHRASE).certificate.subject.organization == "Sankt Elsewhere"
    for wrong in ("kettle orbit walnut eight", None):
        with pytest.raises(WrongPassphrase):
            open_authority(made.authority_key_file, wrong)


def test_a_name_with_quotes_and_backslashes_survives_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / 'a "ward"\\ü'
    made = make(folder)
    settings = tomllib.loads(made.config_file.read_text("utf-8"))
    assert settings["data_folder"] == str(made.data_folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: {**file, "format": "curbside-authority/2"},
        lambda file: {**file, "seed": file["seed"][:-4] + "AAAA"},
        lambda file: {**file, "seed": None},
        lambda file: {**file, "wrap": {}},
        lambda file: {**file, "certificate": "AAAA"},
        lambda file: {**file, "more": 1},
        lambda file: [],
    ],
)
def test_a_damaged_authority_file_is_refused(tmp_path: Path, change: Any) -> None:
    made = make(tmp_path / "ward")
    file = json.loads(made.authority_key_file.read_text("utf-8"))
    made.authority_key_file.write_text(json.dumps(change(file)), "utf-8")
    with pytest.raises((ConfigError, Malformed)):
        open_authority(made.authority_key_file, "x")


def test_init_prints_where_things_are_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "ward"
    code, out, _ = answer(capsys, "init", "--folder", str(folder), "--name", "Ward", "--no-passphrase")
    assert code == 0
    assert "NOT PROTECTED" in out
    assert f"curbside serve --folder {folder}" in out
    code, out, err = answer(capsys, "init", "--folder", str(folder), "--name", "Ward", "--no-passphrase", "--json")
    assert (code, out) == (1, "")
    assert json.loads(err)["code"] == "config"


def test_init_takes_the_passphrase_from_a_file_and_refuses_a_weak_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak, strong = tmp_path / "weak", tmp_path / "strong"
    weak.write_text("password\n", "utf-8")
    strong.write_text(PASSPHRASE + "\n", "utf-8")
    base = ("init", "--folder", str(tmp_path / "ward"), "--name", "Ward", "--passphrase-file")
    code, _, err = answer(capsys, *base, str(weak))
    assert code == 1
    assert "more characters" in err
    code, out, _ = answer(capsys, *base, str(strong), "--json")
    assert code == 0
    open_authority(Path(json.loads(out)["authority_key_file"]), PASSPHRASE)


# --- errors and help --------------------------------------------------------------------------


def test_errors_say_what_where_and_what_next_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = answer(capsys, "serve", "--folder", str(tmp_path / "none"))
    assert (code, out) == (1, "")
    assert "The configuration is not usable." in err
    assert "curbside init" in err
    assert "Next: " in err
    assert "Traceback" not in err


def test_an_unreachable_server_ends_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(tmp_path / "ward")
    code, _, err = answer(
        capsys, "invite", "--folder", str(made.folder), "--role", "nurse", "--url", "http://localhost:9"
    )
    assert code == 4
    assert "cannot be reached" in err


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("invite", "--role", "wizard"), ("audit", "show", "--event", "x"), ("init", "--port", "x")],
)
def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, _, err = answer(capsys, *arguments)
    assert code == 2
    assert "Usage" in err


@pytest.mark.parametrize("command", ["init", "serve", "invite", "audit", "completion"])
def test_every_command_has_help_with_examples(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = answer(capsys, command, "--help")
    assert code == 0
    assert "Examples:" in out
    assert f"curbside {command}" in out


def test_help_lists_all_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "--help")
    assert code == 0
    assert all(f"  {name} " in out for name in COMMANDS)
    assert "Exit codes:" in out


def test_help_imports_no_command() -> None:
    script = (
        "import sys\nfrom curbside.cli.main import run\nrun(['--help'])\n"
        "heavy = {'litestar', 'apsw', 'httpx', 'uvicorn', 'curbside.server'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "curbside", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, "curbside" in done.stdout) == (0, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_the_command_itself(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    code, out, _ = answer(capsys, "completion", shell)
    assert code == 0
    assert f"_CURBSIDE_COMPLETE={shell}_complete" in out


def test_completion_knows_the_commands() -> None:
    environment = {**os.environ, "_CURBSIDE_COMPLETE": "bash_complete", "COMP_WORDS": "curbside a", "COMP_CWORD": "1"}
    script = "from curbside.cli.main import cli; cli(prog_name='curbside')"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,audit"]


# --- audit verify -----------------------------------------------------------------------------

SIGNER = Signer("ed25519", SecretBytes(bytes(range(32))))
KEY = VerifierKey("curbside.audit/0011", SIGNER.public)
EVENTS = [AuditEvent(name=EventName.LOGOUT, at=number).encode() for number in range(5)]
LEAVES = [hash_leaf(event) for event in EVENTS]


@pytest.fixture
def export(tmp_path: Path) -> Path:
    head = sign_checkpoint(Checkpoint(KEY.origin, 5, compute_root(LEAVES), 0), SIGNER)
    path = tmp_path / "export.jsonl"
    lines = [build_line(index, event, LEAVES[index]) for index, event in enumerate(EVENTS)]
    path.write_bytes(build_header(KEY, [head]) + b"".join(lines))
    (tmp_path / "audit.key").write_text(KEY.encode() + "\n", "ascii")
    (tmp_path / "kept").write_bytes(head)
    return path


def test_verify_says_how_much_is_covered(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "audit", "verify", str(export), "--key-file", str(export.parent / "audit.key"))
    assert (code, out) == (0, "Verified: 5 entries, 5 of them under signed checkpoints.\n")
    code, out, _ = answer(capsys, "audit", "verify", str(export))
    assert "vouches for itself only" in out


def test_verify_names_the_first_wrong_entry_and_ends_with_3(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export.write_bytes(export.read_bytes().replace(b'"at":3', b'"at":4'))
    code, out, _ = answer(capsys, "audit", "verify", str(export))
    assert code == 3
    assert "NOT VERIFIED: entry changed.\nThe first wrong entry: entry 3." in out
    code, out, _ = answer(capsys, "audit", "verify", str(export), "--json")
    assert code == 3
    report = json.loads(out)
    assert (report["ok"], report["reason"], report["bad_index"]) == (False, "entry_changed", 3)


def test_verify_holds_an_export_against_kept_checkpoints(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = export.read_bytes().splitlines(keepends=True)
    head = sign_checkpoint(Checkpoint(KEY.origin, 4, compute_root(LEAVES[:4]), 0), SIGNER)
    export.write_bytes(build_header(KEY, [head]) + b"".join(lines[1:5]))
    assert answer(capsys, "audit", "verify", str(export))[0] == 0
    code, out, _ = answer(capsys, "audit", "verify", str(export), "--checkpoints", str(export.parent / "kept"))
    assert code == 3
    assert "truncated" in out


def test_a_wrong_key_file_is_refused(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (export.parent / "audit.key").write_text("not a key", "ascii")
    code, _, err = answer(capsys, "audit", "verify", str(export), "--key-file", str(export.parent / "audit.key"))
    assert code == 1
    assert "not a verifier key" in err


def test_there_is_no_log_before_the_server_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(tmp_path / "ward")
    code, _, err = answer(capsys, "audit", "show", "--folder", str(made.folder))
    assert code == 1
    assert "the server has not run" in err
    assert not any(made.data_folder.iterdir())


@pytest.mark.parametrize(
    ("text", "at"), [("1970-01-02", 86_400_000), ("1970-01-01T01:00", 3_600_000), ("1970-01-01T00:00:05", 5000)]
)
def test_since_is_utc(text: str, at: int) -> None:
    assert parse_since(text) == at


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-1-1", "2026-01-01 08:00"])
def test_other_times_are_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_since(text)
