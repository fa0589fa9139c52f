"""Messages in the audit log of a running server: shown one by one, exported, proven one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Person, Running
from test_delivery import meet

from curbside.audit.export import verify_export
from curbside.audit.proof import verify_proof
from curbside.cli.audit import open_audit
from curbside.cli.main import run
from curbside.errors import NotFound
from curbside.server.audit_service import ListedEvent, Operator, parse_records
from curbside.server.store.sqlite_open import open_connection


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    server = Running(tmp_path).start()
    yield server
    server.stop()


async def talk(running: Running, count: int = 6) -> list[ListedEvent]:
    """Sends that reach somebody; the log afterwards."""
    alice, bob = await Person.join(running), await Person.join(running, "Bob Bell")
    group, _, alice_wire, _bob_wire = await meet(alice, bob)
    for number in range(count):
        await alice_wire.say(group, b"%d" % number)
    await alice.close()
    await bob.close()
    assert running.app.services is not None
    service = running.app.services.audit
    return parse_records(running.call(lambda: service.read_events(0, 1000)))


async def test_sends_and_deliveries_share_entries_and_are_lines_of_their_own(running: Running) -> None:
    listed = await talk(running)
    rows = [each for each in listed if each.row is not None]
    assert {each.event.name.value for each in rows} == {"message.sent", "message.delivered"}
    sent = [each.event for each in listed if each.event.name.value == "message.sent"]
    assert [event.extra["sequence"] for event in sent] == list(range(2, 8))
    assert {(event.rule, event.object_type.value, event.extra["epoch"]) for event in sent} == {
        ("R-message-send", "conversation", 1)
    }
    officer = await Person.join(running, "Olga Orr", "privacy_officer")
    shown = (await officer.get("/v1/audit/events?limit=1000")).json()["events"]
    lines = [(each["index"], each.get("row")) for each in shown]
    assert [(each.index, each.row) for each in listed] == lines[: len(listed)]
    export = (await officer.get("/v1/audit/export")).content.splitlines(keepends=True)
    assert running.app.services is not None
    report = verify_export(export, running.app.services.audit.key)
    assert (report.ok, report.rows) == (True, len(rows))
    await officer.close()


async def test_each_send_is_proven_without_the_others(running: Running) -> None:
    listed = await talk(running)
    assert running.app.services is not None
    service = running.app.services.audit
    chosen = [each for each in listed if each.event.name.value in ("message.sent", "user.created")]
    assert any(each.row is not None for each in chosen)
    for each in chosen:
        proof = running.call(lambda each=each: service.prove(Operator(), each.index, each.row))
        proven = verify_proof(proof, service.key)
        assert (proven.event, proven.index, proven.row) == (each.event, each.index, each.row)
    with pytest.raises(NotFound):
        running.call(lambda: service.prove(Operator(), 10**6, None))
    with pytest.raises(NotFound):
        running.call(lambda: service.prove(Operator(), chosen[0].index, 0))
    last = parse_records(running.call(lambda: service.read_events(0, 1000)))[-1].event
    assert (last.name.value, last.actor_role) == ("audit.viewed", "operator")


async def test_the_command_line_verifies_the_proof_of_one_message(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = await talk(running)
    each = next(each for each in listed if each.row is not None)
    key, file = tmp_path / "audit.key", tmp_path / "proof.json"
    async with open_audit(running.config) as service:
        key.write_text(service.key.encode(), "ascii")
        proof = await service.prove(Operator(), each.index, each.row)
    file.write_bytes(proof)

    def verify(*more: str) -> tuple[int, str]:
        code = run(["audit", "verify", str(file), *more])
        return code, capsys.readouterr().out

    code, shown = verify("--key-file", str(key), "--json")
    value = json.loads(shown)
    assert (code, value["ok"], value["index"], value["row"], value["is_pinned"]) == (
        0,
        True,
        each.index,
        each.row,
        True,
    )
    code, shown = verify()
    assert code == 0
    assert f"{each.index}.{each.row}" in shown
    assert "No key was pinned" in shown
    assert verify("--checkpoints", str(key))[0] == 2
    file.write_bytes(proof.replace(each.event.actor_device.encode(), each.event.actor_device[::-1].encode()))
    code, shown = verify("--key-file", str(key))
    assert code == 3
    assert "NOT VERIFIED" in shown


async def test_a_row_that_was_changed_in_the_database_is_found(running: Running) -> None:
    listed = await talk(running)
    each = next(each for each in listed if each.row is not None)
    assert running.app.services is not None
    pinned = running.app.services.audit.key
    running.stop()
    database = open_connection(str(running.config.database_path), running.key)
    rows = database.execute("SELECT rows FROM audit_events WHERE sequence = ?", (each.index,)).get
    role = each.event.actor_role.encode()
    assert role in rows
    forged = bytes(rows).replace(role, role[::-1])
    database.execute("UPDATE audit_events SET rows = ? WHERE sequence = ?", (forged, each.index))
    database.close()
    async with open_audit(running.config) as service:
        export = b"".join([chunk async for chunk in service.export(Operator())]).splitlines(keepends=True)
    report = verify_export(export, pinned)
    assert (report.ok, report.reason, report.bad_index) == (False, "rows_changed", each.index)
