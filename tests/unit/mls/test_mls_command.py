"""`python -m curbside.mls`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mls_people import NOW, TRUST, external_sender, new_group, own_leaf, package_of, team

from curbside.mls.__main__ import main
from curbside.mls.group import CommitRequest, Group
from curbside.mls.public import PublicGroup
from curbside.mls.vectors import VectorFailed, run_case, run_file

VECTORS = Path(__file__).parents[3] / "vectors" / "mls"


def test_demo_tells_a_story(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "potassium" in out
    assert "agree on the epoch: True" in out


def test_vectors_are_counted_under_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = VECTORS / "tree-math.json.xz"
    assert main(["vectors", str(packed)]) == 0
    assert capsys.readouterr().out == "10/10 tree-math.json.xz\n"
    bad, empty = tmp_path / "bad.json", tmp_path / "empty.json"
    bad.write_text(json.dumps([{"vlbytes_header": "00", "length": 1}, {"vlbytes_header": "zz", "length": 1}]))
    empty.write_text("[]")
    assert main(["vectors", str(bad)]) == 1
    assert "0/2 bad.json" in capsys.readouterr().out
    assert main(["vectors", str(empty)]) == 1
    assert len(run_file(str(bad)).failures) == 2
    with pytest.raises(VectorFailed):
        run_case({"unknown": 1})


def test_inspect_explains_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sender = external_sender()
    groups = team("alice", "bob", "fiona", extensions=(sender.extension,))
    server = PublicGroup.from_group_info(groups[0].group_info(), TRUST, NOW)
    proposal = groups[1].propose_remove(2, NOW)
    groups[0].receive(proposal, NOW)
    staged = groups[0].stage_commit(CommitRequest(adds=(package_of("erin").public,)), NOW)
    external = Group.join_external(groups[2].group_info(), own_leaf("ext"), TRUST, NOW)[1]
    update = groups[2].propose_update(NOW)
    others = [
        groups[2].propose_extensions((), NOW),
        server.propose_remove(1, sender.key),
        new_group().encrypt(b"hidden text"),
    ]
    wanted = {
        proposal: "remove leaf 2",
        staged.commit: "path:",
        staged.welcome or b"": "Welcome: suite 1, for 1 newcomers",
        staged.group_info: "GroupInfo",
        package_of("zoe").public: "KeyPackage",
        external: "newcomer (commit)",
        update: "update to basic",
        others[0]: "group context extensions",
        others[1]: "external sender 0",
        others[2]: "PrivateMessage: application",
    }
    for message, text in wanted.items():
        assert main(["inspect", message.hex()]) == 0
        out = capsys.readouterr().out
        assert text in out
        assert "hidden" not in out
    file = tmp_path / "message.bin"
    file.write_bytes(proposal)
    assert main(["inspect", str(file)]) == 0
    assert main(["inspect", "0001"]) == 1
    assert main(["inspect", str(tmp_path / "none")]) == 2
    assert "malformed" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "examples:" in capsys.readouterr().out
