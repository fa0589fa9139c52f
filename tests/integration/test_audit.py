"""The audit log of a running server: every access leaves its event, exports verify, tampering is named."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from running import Person, Running

from curbside.audit.checkpoint import VerifierKey, split_checkpoints, verify_checkpoint
from curbside.audit.export import verify_export
from curbside.audit.merkle import build_consistency_proof, hash_leaf, verify_consistency
from curbside.cli.audit import open_audit
from curbside.errors import IntegrityError
from curbside.server.app import create_app
from curbside.server.audit_service import AuditService, Operator, parse_records
from curbside.server.config import Audit
from curbside.server.store.sqlite_open import open_connection


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    audit = Audit(checkpoint_file=tmp_path / "kept.checkpoints")
    server = Running(tmp_path, audit=audit).start()
    yield server
    server.stop()


def audit_of(running: Running) -> AuditService:
    assert running.app.services is not None
    return running.app.services.audit


def key_of(running: Running) -> VerifierKey:
    return audit_of(running).key


async def export_of(person: Person) -> list[bytes]:
    """The export as an officer downloads it."""
    response = await person.get("/v1/audit/export")
    assert response.headers["content-type"].startswith("application/x-ndjson")
    return response.content.splitlines(keepends=True)


async def test_a_sign_up_and_a_search_are_in_the_log_with_who_and_why(running: Running) -> None:
    officer = await Person.join(running, "Olga Orr", "privacy_officer")
    await officer.get("/v1/people?query=olga")
    names = [event.name.value for event in running.events()]
    assert names == [
        "app.started",
        "config.network",
        "invite.created",
        "invite.used",
        "user.created",
        "device.enrolled",
        "auth.login.ok",
        "directory.search",
    ]
    search = running.events()[-1]
    assert (search.actor_user, search.actor_device) == (officer.newcomer.user_id, officer.device_id)
    assert (search.actor_role, search.rule, search.extra["count"]) == ("privacy_officer", "R-people-list", 1)
    raw = b"".join(event.encode() for event in running.events())
    assert b"olga" not in raw.lower()
    assert b"ward phone" not in raw
    await officer.close()


async def test_an_officers_export_verifies_without_the_server(running: Running) -> None:
    officer = await Person.join(running, "Olga Orr", "privacy_officer")
    lines = await export_of(officer)
    pinned = key_of(running)
    report = verify_export(lines, pinned)
    assert (report.ok, report.checked, report.covered) == (True, len(lines) - 1, len(lines) - 1)
    assert json.loads(lines[-1])["event"]["name"] == "audit.exported"
    await officer.close()


async def test_tampering_with_an_export_is_named(running: Running) -> None:
    officer = await Person.join(running, "Olga Orr", "privacy_officer")
    lines = await export_of(officer)
    pinned = key_of(running)
    edited = [*lines[:5], lines[5].replace(b'"user.created"', b'"auth.logout"'), *lines[6:]]
    cases = {
        "entry_changed": edited,
        "entry_missing_or_moved": [*lines[:5], *lines[6:]],
        "entry_repeated_or_moved": [*lines[:5], lines[4], *lines[5:]],
    }
    assert edited != lines
    for reason, changed in cases.items():
        report = verify_export(changed, pinned)
        assert (report.ok, report.reason, report.bad_index) == (False, reason, 4)
    report = verify_export(lines[:-2], pinned)
    assert (report.ok, report.reason, report.bad_index) == (False, "truncated", len(lines) - 3)
    await officer.close()


async def test_an_export_while_people_work_is_consistent(running: Running) -> None:
    officer = await Person.join(running, "Olga Orr", "privacy_officer")
    alice = await Person.join(running)
    exports: list[list[bytes]] = []

    async def work() -> None:
        for _ in range(25):
            await alice.get("/v1/devices")

    async def export() -> None:
        for _ in range(3):
            lines = await export_of(officer)
            exports.append(lines)

    await asyncio.gather(work(), export())
    pinned = key_of(running)
    sizes = []
    for lines in exports:
        report = verify_export(lines, pinned)
        assert report.ok
        assert report.covered == report.checked
        sizes.append(report.checked)
    assert sizes == sorted(set(sizes))
    leaves = [hash_leaf(event.encode()) for event in running.events()]
    heads = [verify_checkpoint(json.loads(lines[0])["checkpoints"][-1].encode(), pinned) for lines in exports]
    for earlier, later in itertools.pairwise(heads):
        proof = build_consistency_proof(leaves[: later.size], earlier.size)
        verify_consistency(earlier.size, later.size, earlier.root, later.root, proof)
    await officer.close()
    await alice.close()


async def test_checkpoints_are_written_off_the_box_and_on_a_graceful_stop(running: Running) -> None:
    officer = await Person.join(running, "Olga Orr", "privacy_officer")
    shown = (await officer.get("/v1/audit/checkpoint")).text
    pinned = key_of(running)
    head = verify_checkpoint(shown.encode(), pinned)
    await officer.close()
    running.stop()
    kept = [
        verify_checkpoint(body, pinned)
        for body in split_checkpoints((running.folder / "kept.checkpoints").read_bytes())
    ]
    assert head in kept
    assert kept[-1].size > head.size


def change_database(running: Running, statement: str) -> None:
    """What somebody with the database key could do behind the server's back."""
    database = open_connection(str(running.config.database_path), running.key)
    database.execute(statement)
    assert database.changes() > 0
    database.close()


async def export_offline(running: Running) -> list[bytes]:
    """The export of the command line."""
    async with open_audit(running.config) as service:
        whole = b"".join([chunk async for chunk in service.export(Operator())])
    return whole.splitlines(keepends=True)


async def test_a_row_that_was_changed_in_the_database_is_found(running: Running) -> None:
    await (await Person.join(running, "Olga Orr", "privacy_officer")).close()
    pinned, third = key_of(running), running.events()[4].encode()
    running.stop()
    forged = third.replace(b"user.created", b"auth.logout").hex()
    change_database(running, f"UPDATE audit_events SET event = x'{forged}' WHERE sequence = 4")
    report = verify_export(await export_offline(running), pinned)
    assert (report.ok, report.reason, report.bad_index) == (False, "entry_changed", 4)


async def test_a_row_that_was_changed_with_its_leaf_is_found_by_a_checkpoint(running: Running) -> None:
    await (await Person.join(running, "Olga Orr", "privacy_officer")).close()
    pinned, forged = key_of(running), running.events()[4].encode().replace(b"user.created", b"auth.logout")
    running.stop()
    kept = split_checkpoints((running.folder / "kept.checkpoints").read_bytes())
    forged_hex, leaf_hex = forged.hex(), hash_leaf(forged).hex()
    change_database(
        running, f"UPDATE audit_events SET event = x'{forged_hex}', leaf_hash = x'{leaf_hex}' WHERE sequence = 4"
    )
    report = verify_export(await export_offline(running), pinned, kept)
    assert (report.ok, report.reason) == (False, "root_differs")
    assert report.bad_index is not None
    assert report.bad_before is not None
    assert report.bad_index <= 4 < report.bad_before


async def test_a_server_whose_log_lost_its_end_does_not_start(running: Running) -> None:
    await (await Person.join(running)).close()
    running.stop()
    change_database(running, "DELETE FROM audit_events WHERE sequence >= 3")
    app = create_app(running.config)
    with pytest.raises(IntegrityError):
        await app.start()


async def test_the_command_line_may_look_while_the_server_runs(running: Running) -> None:
    alice = await Person.join(running)
    lines = await export_offline(running)
    await alice.get("/v1/devices")
    assert verify_export(lines, key_of(running)).ok
    later = await export_offline(running)
    assert verify_export(later, key_of(running), [json.loads(lines[0])["checkpoints"][-1].encode()]).ok
    assert len(later) > len(lines)
    await alice.close()


async def test_refusals_leave_events_too(running: Running) -> None:
    nurse = await Person.join(running)
    assert (await nurse.problem("GET", "/v1/audit/export"))["rule"] == "R-audit-export"
    event = running.events()[-1]
    assert (event.name.value, event.rule, event.actor_user) == (
        "access.denied",
        "R-audit-export",
        nurse.newcomer.user_id,
    )
    await nurse.close()


async def test_officers_page_through_events(running: Running) -> None:
    chief = await Person.join(running, "Carol", "administrator")
    first = (await chief.get("/v1/audit/events?limit=2")).json()
    assert [each["index"] for each in first["events"]] == [0, 1]
    assert first["events"][0]["event"]["name"] == "app.started"
    second = (await chief.get(f"/v1/audit/events?start={first['next']}&limit=1000")).json()
    assert second["events"][0]["index"] == 2
    assert (await chief.get("/v1/audit/events?start=100000")).json() == {"events": [], "next": -1}
    await chief.close()


async def test_strangers_are_counted_not_recorded_one_by_one(running: Running) -> None:
    alice = await Person.join(running)
    for _ in range(5):
        await alice.problem("GET", "/v1/devices", proof=False)
    await alice.problem("GET", "/v1/devices", headers={"authorization": "DPoP " + "x" * 43, "dpop": "x"}, proof=False)
    for _ in range(3):
        await alice.problem("POST", "/v1/signin/start", b"{", proof=False)
    await alice.close()
    running.stop()
    async with open_audit(running.config) as service:
        events = [listed.event for listed in parse_records(await service.read_events(0, 1000))]
    counted: dict[tuple[str, str], int] = {}
    for event in events:
        if "count" in event.extra and not event.actor_user:
            key = (event.name.value, event.reason)
            counted[key] = counted.get(key, 0) + int(event.extra["count"])
    assert counted == {("access.denied", "not_authenticated"): 6, ("input.rejected", "malformed"): 3}


async def test_a_changed_address_is_recorded_once(running: Running) -> None:
    running.stop()
    running.start()
    assert [event.name.value for event in running.events()].count("config.network") == 1
    running.stop()
    running.config = msgspec.structs.replace(running.config, host="localhost")
    running.start()
    assert [event.name.value for event in running.events()].count("config.network") == 2
