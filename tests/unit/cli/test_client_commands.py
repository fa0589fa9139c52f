"""The commands of a device as a person runs them, on a real server: join, conversations, send, receive."""

from __future__ import annotations

import io
import json
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from running import Running, free_port

from curbside.cli.invite import create_invite
from curbside.cli.main import run
from curbside.cli.output import ExitCode

PASSPHRASE = "violet kettle marching 47 otters"


def photo(path: Path) -> Path:
    """A picture with a place in it."""
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    Image.new("RGB", (80, 60), (200, 30, 30)).save(path, "JPEG", exif=exif)
    return path


@dataclass
class Desk:
    """Somebody's command line: their vault, and a server to use it with."""

    running: Running
    folder: Path
    capsys: pytest.CaptureFixture[str]

    def link(self) -> str:
        """A new invite link, deposited."""
        made = create_invite(self.running.authority, self.running.url, "nurse", 3600, self.running.clock.now())
        body = {"invite_id": made.deposit.invite_id, "enrolment_certificate": made.deposit.enrolment_certificate}
        httpx.post(self.running.url + "/v1/invites", json=body).raise_for_status()
        return made.link

    def call(self, *arguments: str, who: str = "") -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        vault = ("--vault", str(self.folder / f"{who}.vault")) if who else ()
        code = run([*arguments, *vault])
        out, err = self.capsys.readouterr()
        return code, out, err

    def rows(self, *arguments: str, who: str) -> list[dict[str, Any]]:
        """What a command that succeeds prints as JSON, one object a line."""
        code, out, err = self.call(*arguments, "--json", who=who)
        assert code == ExitCode.OK, err
        return [json.loads(line) for line in out.splitlines()]

    def problem(self, *arguments: str, who: str = "") -> tuple[int, dict[str, Any]]:
        """How a command is refused: exit code, and the problem on standard error as JSON."""
        code, out, err = self.call(*arguments, "--json", who=who)
        assert out == ""
        found = json.loads(err)
        assert isinstance(found, dict)
        return code, found

    def join(self, who: str) -> dict[str, Any]:
        """Somebody signs up."""
        (row,) = self.rows("join", self.link(), "--name", who, who=who)
        return row


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server = Running(tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()


@pytest.fixture
def desk(running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("CURBSIDE_PASSPHRASE", PASSPHRASE)
    return Desk(running, tmp_path, capsys)


@pytest.mark.parametrize("command", ["join", "conversations", "send", "receive"])
def test_help_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "Examples:" in out
    assert f"  curbside {command}" in out
    assert "--json" in out


def test_wrong_usage_has_a_code_of_its_own(desk: Desk) -> None:
    assert desk.call("send")[0] == ExitCode.USAGE
    assert desk.call("receive", "--nonsense")[0] == ExitCode.USAGE


# --- join -----------------------------------------------------------------------------------


def test_join_makes_a_vault_and_an_invite_works_once(desk: Desk) -> None:
    link = desk.link()
    (row,) = desk.rows("join", link, "--name", "Dana Field", who="dana")
    assert row["organization"] == "Sankt Elsewhere"
    assert Path(row["vault"]).exists()
    code, problem = desk.problem("join", link, "--name", "Eve", who="eve")
    assert (code, problem["code"]) == (ExitCode.REFUSED, "invite_used")
    assert problem["next_step"]
    assert not (desk.folder / "eve.vault").exists()
    code, problem = desk.problem("join", desk.link(), "--name", "Dana", who="dana")
    assert (code, problem["code"]) == (ExitCode.NOT_VERIFIED, "integrity")


def test_join_says_what_is_wrong_with_a_link(desk: Desk) -> None:
    for link in ("https://chat.example.org/", desk.link()[:-3], "x"):
        code, problem = desk.problem("join", link, "--name", "Eve", who="eve")
        assert code == ExitCode.REFUSED
        assert problem["code"] in ("malformed", "not_found", "untrusted_device")


def test_a_server_that_is_not_there_has_a_code_of_its_own(desk: Desk) -> None:
    link = desk.link().replace(desk.running.url, f"http://127.0.0.1:{free_port()}")
    code, problem = desk.problem("join", link, "--name", "Eve", who="eve")
    assert (code, problem["code"]) == (ExitCode.UNREACHABLE, "peer_unavailable")


def test_the_passphrase_comes_from_a_file_or_the_environment_or_nowhere(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.join("dana")
    monkeypatch.delenv("CURBSIDE_PASSPHRASE")
    code, problem = desk.problem("conversations", who="dana")
    assert (code, problem["code"]) == (ExitCode.REFUSED, "wrong_passphrase")
    assert "--passphrase-file" in problem["detail"]
    given = desk.folder / "pass"
    given.write_text(PASSPHRASE + "\n", "utf-8")
    assert desk.rows("conversations", "--passphrase-file", str(given), who="dana") == []
    given.write_text("something else\n", "utf-8")
    code, problem = desk.problem("conversations", "--passphrase-file", str(given), who="dana")
    assert (code, problem["code"]) == (ExitCode.REFUSED, "wrong_passphrase")


def test_without_a_vault_there_is_nothing_to_open(desk: Desk) -> None:
    code, problem = desk.problem("conversations", who="nobody")
    assert (code, problem["code"]) == (ExitCode.REFUSED, "not_found")


# --- conversations, send, receive ------------------------------------------------------------


def test_a_conversation_from_start_to_pictures(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.join("dana")
    berg = desk.join("berg")
    assert "No conversations yet" in desk.call("conversations", who="dana")[1]
    found = desk.rows("conversations", "--people", "ber", who="dana")
    assert berg["user_id"] in [row["user_id"] for row in found]
    (started,) = desk.rows("conversations", "--start", berg["user_id"], "--title", "Ward 4", who="dana")
    conversation = started["conversation"]
    (sent,) = desk.rows("send", "Ward 4", "Bed 12 is stable.", who="dana")
    assert sent["conversation"] == conversation
    assert sent["sequence"] > 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe"))
    desk.rows("send", conversation[:8], "-", who="dana")
    desk.rows("send", "ward", "--photo", str(photo(desk.folder / "wound.jpg")), "Left forearm", who="dana")

    incoming = desk.folder / "incoming"
    shown = desk.rows("receive", "--save-photos", str(incoming), "--leave-unread", who="berg")
    lines = [row for row in shown if row["kind"] != "title"]
    assert [row["text"] for row in lines] == ["Bed 12 is stable.", "from a pipe", "Left forearm"]
    assert all(row["sender_name"] == "dana" and not row["mine"] for row in lines)
    (saved,) = lines[-1]["saved"]
    picture = Image.open(io.BytesIO(Path(saved).read_bytes()))
    assert picture.size == (80, 60)
    assert not picture.getexif()
    assert stat.S_IMODE(Path(saved).stat().st_mode) == 0o600
    assert stat.S_IMODE(incoming.stat().st_mode) == 0o700

    assert [row["unread"] > 0 for row in desk.rows("conversations", who="berg")] == [True]
    assert len(desk.rows("receive", "--unread", who="berg")) >= 3
    assert desk.rows("receive", "--unread", who="berg") == []
    shown = desk.rows("receive", "Ward 4", "--last", "1", who="berg")
    assert [row["text"] for row in shown] == ["Left forearm"]

    (dana_sees,) = desk.rows("conversations", "--show", "Ward 4", who="dana")
    (berg_sees,) = desk.rows("conversations", "--show", "Ward 4", who="berg")
    assert dana_sees["safety_number"] == berg_sees["safety_number"]
    assert {p["name"] for p in dana_sees["members"]} == {"dana", "berg"}
    text = desk.call("conversations", "--show", "Ward 4", who="dana")[1]
    assert "Safety number: " in text
    assert "berg (nurse)" in text
    assert "dana: from a pipe" in desk.call("receive", who="berg")[1]


def test_what_cannot_be_sent_is_refused_by_name(desk: Desk) -> None:
    desk.join("dana")
    berg = desk.join("berg")
    desk.rows("conversations", "--start", berg["user_id"], who="dana")
    no_picture = desk.folder / "page.jpg"
    no_picture.write_text("<html>", "utf-8")
    cases = [
        (("send", "berg", ""), "malformed"),
        (("send", "berg", "--photo", str(no_picture)), "malformed"),
        (("send", "Ward 9", "hello"), "not_found"),
        (("send", "berg", "x" * 100_000), "too_large"),
        (("conversations", "--start", "AAAAAAAAAAAAAAAAAAAAAA"), "not_found"),
    ]
    for arguments, wanted in cases:
        code, problem = desk.problem(*arguments, who="dana")
        assert (code, problem["code"]) == (ExitCode.REFUSED, wanted), arguments
        assert problem["title"]
    code, out, err = desk.call("send", "Ward 9", "hello", who="dana")
    assert (code, out) == (ExitCode.REFUSED, "")
    assert "Next: " in err


def test_what_is_sent_without_a_server_waits_in_the_vault(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Running(tmp_path / "other").start()
    here = Desk(other, desk.folder, desk.capsys)
    here.join("dana")
    berg = here.join("berg")
    here.rows("conversations", "--start", berg["user_id"], who="dana")
    here.rows("receive", who="berg")
    other.stop()
    code, problem = here.problem("send", "berg", "from the cellar", "--seconds", "1", who="dana")
    assert (code, problem["code"]) == (ExitCode.UNREACHABLE, "peer_unavailable")
    other.start()
    here.rows("send", "berg", "upstairs again", who="dana")
    other.stop()
    other.start()
    assert [row["text"] for row in here.rows("receive", who="berg")] == ["from the cellar", "upstairs again"]
    other.stop()
