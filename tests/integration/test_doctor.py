"""The doctor against real servers, databases, certificates and NATS: what is well, and what each fault looks like."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backups import START, Ward
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from nats_server import nats_server
from running import Running, free_port

from curbside.audit.events import AuditEvent, EventName
from curbside.cli.main import run
from curbside.clock import ManualClock, SystemClock
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.server.backup_settings import Backup
from curbside.server.blob_settings import BlobSettings
from curbside.server.config import Config, KeyGiven, Proxy, Tls
from curbside.server.database import open_store
from curbside.server.database_key import load_database_key
from curbside.server.doctor.examine import Examination, examine
from curbside.server.doctor.findings import Finding, Verdict
from curbside.server.node_settings import Bus
from curbside.server.store.sqlite_open import open_connection

DAY = 86400


async def look(config: Config, clock: Any, file: Path | None = None, **more: Any) -> dict[str, Finding]:
    """What the doctor finds, the worst of each check."""
    found: dict[str, Finding] = {}
    order = list(Verdict)
    for each in await examine(Examination(config, file, **more), clock):
        if each.check not in found or order.index(each.verdict) > order.index(found[each.check].verdict):
            found[each.check] = each
    return found


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    """Only what is not well."""
    return {name: str(each.verdict) for name, each in found.items() if each.verdict is not Verdict.OK}


async def make(folder: Path, engine: str = "sqlite") -> Ward:
    """A ward that is well: backed up, signed, its authority key away."""
    ward = await Ward(folder, engine).prepare()
    (ward.folder / "authority" / "authority.key").unlink()
    await ward.fill()
    await ward.back_up()
    await ward.sign_log()
    backup = Backup(place=str(ward.place.folder), recipient_file=ward.public_file, receipts_file=ward.receipts)
    limits = msgspec.structs.replace(ward.config.limits, streams=100)
    ward.config = msgspec.structs.replace(ward.config, backup=backup, limits=limits)
    return ward


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_what_is_well_is_called_so(tmp_path: Path, engine: str) -> None:
    ward = await make(tmp_path, engine)
    found = await look(ward.config, ward.clock, ward.folder / "curbside.toml", is_offline=True)
    expected = {"server.runs": "warn", "backup.drill": "warn"}
    assert verdicts(found) == expected
    assert {"keys.database", "files.permissions", "disk.room", "audit.log", "backup.age", "backup.place"} <= set(found)
    assert ("database.whole" in found) == (engine == "sqlite")
    assert "all entries verify" in found["audit.log"].text
    quick = await look(ward.config, ward.clock, is_offline=True, is_quick=True)
    assert "database.whole" not in quick
    assert "not read as a whole" in quick["audit.log"].text


def _open_key(ward: Ward) -> None:
    (ward.folder / "keys" / "database.key").chmod(0o644)


def _lose_certificate(ward: Ward) -> None:
    ward.config.authority_path.write_bytes(b"x")


def _keep_authority(ward: Ward) -> None:
    (ward.folder / "authority" / "authority.key").write_text("{}")


def _open_data(ward: Ward) -> None:
    ward.config.data_folder.chmod(0o777)


def _show_data(ward: Ward) -> None:
    ward.config.data_folder.chmod(0o755)


def _open_config(ward: Ward) -> None:
    (ward.folder / "curbside.toml").chmod(0o666)


def _damage_database(ward: Ward) -> None:
    with ward.config.database_path.open("r+b") as file:
        file.seek(8192)
        file.write(bytes(64))


def _rewrite_log(ward: Ward) -> None:
    event = AuditEvent(name=EventName.MESSAGE_SENT, at=START * 1000, extra={"sequence": 7}).encode()
    connection = open_connection(str(ward.config.database_path), load_database_key(ward.config.database_key))
    connection.execute(
        "UPDATE audit_events SET event = ?, leaf_hash = unhex(?) WHERE sequence = 3",
        (event, hashlib.sha256(b"\x00" + event).hexdigest()),
    )
    connection.close()


def _cut_log(ward: Ward) -> None:
    connection = open_connection(str(ward.config.database_path), load_database_key(ward.config.database_key))
    connection.execute("DELETE FROM audit_events WHERE sequence > 5")
    connection.close()


def _age_backup(ward: Ward) -> None:
    ward.clock.advance(49 * 3600)


def _turn_clock_back(ward: Ward) -> None:
    ward.clock.advance(-7200)


def _remove_backups(ward: Ward) -> None:
    (ward.place.folder / "manifests" / "00000001").unlink()


def _tamper_with_backups(ward: Ward) -> None:
    (ward.place.folder / "manifests" / "00000001").write_bytes(b"x")


def _lose_recipient(ward: Ward) -> None:
    ward.public_file.write_text("x")


FAULTS: list[tuple[Callable[[Ward], None], str, str]] = [
    (_open_key, "keys.database", "fail"),
    (_lose_certificate, "keys.authority", "fail"),
    (_keep_authority, "keys.authority", "warn"),
    (_open_data, "files.permissions", "fail"),
    (_show_data, "files.permissions", "warn"),
    (_open_config, "files.permissions", "fail"),
    (_damage_database, "database.whole", "fail"),
    (_rewrite_log, "audit.log", "fail"),
    (_cut_log, "audit.log", "fail"),
    (_age_backup, "backup.age", "fail"),
    (_turn_clock_back, "clock", "fail"),
    (_remove_backups, "backup.place", "fail"),
    (_tamper_with_backups, "backup.place", "fail"),
    (_lose_recipient, "backup.place", "fail"),
]


@pytest.mark.parametrize(("spoil", "check", "verdict"), FAULTS, ids=[each[0].__name__.strip("_") for each in FAULTS])
async def test_each_fault_is_named_with_a_next_step(
    tmp_path: Path, spoil: Callable[[Ward], None], check: str, verdict: str
) -> None:
    ward = await make(tmp_path)
    spoil(ward)
    found = await look(ward.config, ward.clock, ward.folder / "curbside.toml", is_offline=True)
    assert found[check].verdict == verdict, found[check]
    assert found[check].next_step
    assert found[check].text.endswith(".")


async def test_a_log_that_was_cut_below_a_checkpoint_kept_elsewhere_is_seen(tmp_path: Path) -> None:
    """The store alone agrees with itself: the file of checkpoints does not."""
    ward = await make(tmp_path)
    kept = await ward.sign_log()
    store = open_store(ward.config, is_server=False)
    await store.close()
    connection = open_connection(str(ward.config.database_path), load_database_key(ward.config.database_key))
    connection.execute("DELETE FROM audit_events WHERE sequence > 5; DELETE FROM audit_checkpoints")
    connection.close()
    file = tmp_path / "kept"
    file.write_bytes(kept)
    audit = msgspec.structs.replace(ward.config.audit, checkpoint_file=file)
    found = await look(msgspec.structs.replace(ward.config, audit=audit), ward.clock, is_offline=True)
    assert (found["audit.log"].verdict, "truncated" in found["audit.log"].text) == (Verdict.FAIL, True)


# --- over the network -------------------------------------------------------------------------


def write_certificate(folder: Path, days: int, host: str = "127.0.0.1") -> Tls:
    """A certificate for this machine, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=365))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "tls.pem", folder / "tls.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return Tls(certificate=pem, key=private)


async def test_a_running_server_is_reached_as_clients_reach_it(tmp_path: Path) -> None:
    running = Running(tmp_path).start()
    try:
        found = await look(running.config, SystemClock())
        assert {name: found[name].verdict for name in ("url.http", "url.stream", "clock", "server.runs")} == {
            "url.http": Verdict.OK,
            "url.stream": Verdict.OK,
            "clock": Verdict.OK,
            "server.runs": Verdict.OK,
        }
        assert found["blobs.reached"].verdict is Verdict.OK
        late = await look(running.config, ManualClock(SystemClock().now() + 3600))
        assert (late["clock"].verdict, "differ" in late["clock"].text) == (Verdict.FAIL, True)
    finally:
        running.stop()
    gone = await look(running.config, SystemClock())
    assert gone["url.http"].verdict is Verdict.FAIL
    assert "url.stream" not in gone


@pytest.mark.parametrize(("days", "verdict"), [(100, Verdict.OK), (5, Verdict.WARN)])
async def test_a_certificate_that_ends_soon_is_told_from_inside_and_outside(
    tmp_path: Path, days: int, verdict: Verdict
) -> None:
    port = free_port()
    tls = write_certificate(tmp_path, days)
    running = Running(tmp_path, tls=tls, port=port, public_urls=(f"https://127.0.0.1:{port}",)).start()
    try:
        trusting = await look(
            running.config, SystemClock(), make_tls=lambda: ssl.create_default_context(cafile=str(tls.certificate))
        )
        assert trusting["tls.certificate"].verdict is verdict
        assert trusting["url.certificate"].verdict is verdict
        assert trusting["url.stream"].verdict is Verdict.OK
        strict = await look(running.config, SystemClock())
        assert strict["url.http"].verdict is Verdict.FAIL
        assert "self-signed" in strict["url.http"].text
    finally:
        running.stop()


async def test_a_certificate_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    ward = await make(tmp_path)
    for word, days, url in (("expired", -1, "https://127.0.0.1"), ("not for", 100, "https://chat.example.org")):
        tls = write_certificate(tmp_path, days)
        config = msgspec.structs.replace(ward.config, tls=tls, public_urls=(url,))
        found = await look(config, SystemClock(), is_offline=True)
        assert found["tls.certificate"].verdict is Verdict.FAIL
        assert word in found["tls.certificate"].text
    (tmp_path / "tls.key").write_text("x")
    broken = await look(msgspec.structs.replace(ward.config, tls=tls), SystemClock(), is_offline=True)
    assert broken["tls.certificate"].verdict is Verdict.FAIL


async def test_a_proxy_that_nobody_trusts_is_told(tmp_path: Path) -> None:
    ward = await make(tmp_path)
    behind = msgspec.structs.replace(ward.config, public_urls=("https://chat.example.invalid",))
    assert (await look(behind, SystemClock()))["proxy.trusted"].verdict is Verdict.WARN
    trusted = msgspec.structs.replace(behind, proxy=Proxy(trusted=("127.0.0.1",)))
    assert (await look(trusted, SystemClock()))["proxy.trusted"].verdict is Verdict.OK
    wide = msgspec.structs.replace(trusted, host="0.0.0.0")
    assert (await look(wide, SystemClock()))["proxy.trusted"].verdict is Verdict.WARN


async def test_what_the_server_leans_on_is_asked(tmp_path: Path) -> None:
    ward = await make(tmp_path, "postgres")
    with nats_server(tmp_path / "nats") as server:
        bus = Bus(nats=SecretBytes(server.address.encode()))
        config = msgspec.structs.replace(ward.config, bus=bus, blobs_folder=ward.config.blobs_path)
        assert (await look(config, ward.clock))["nats.reached"].verdict is Verdict.OK
    gone = (await look(config, ward.clock))["nats.reached"]
    assert gone.verdict is Verdict.FAIL
    bucket = BlobSettings(
        endpoint=f"http://127.0.0.1:{free_port()}",
        bucket="none",
        access_key_id="x",
        secret_access_key=SecretBytes(b"y"),
        timeout_seconds=1.0,
    )
    away = await look(msgspec.structs.replace(ward.config, blobs=bucket), ward.clock)
    assert away["blobs.reached"].verdict is Verdict.FAIL
    url = SecretBytes(f"postgres://CANARY:CANARY@127.0.0.1:{free_port()}/none".encode())
    nowhere = await look(msgspec.structs.replace(ward.config, database_url=url), ward.clock, is_offline=True)
    assert nowhere["database.open"].verdict is Verdict.FAIL
    assert "CANARY" not in repr(nowhere)
    other = msgspec.structs.replace(ward.config, database_key=KeyGiven(SecretBytes(random_bytes(32))))
    assert (await look(other, ward.clock, is_offline=True))["database.open"].verdict is Verdict.FAIL


# --- the command ------------------------------------------------------------------------------


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and standard output."""
    code = run(arguments)
    return code, capsys.readouterr().out


def test_the_command_ends_with_1_when_something_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "ward")
    assert run(["init", "--folder", folder, "--name", "Ward", "--no-passphrase"]) == 0
    capsys.readouterr()
    code, out = answer(capsys, "doctor", "--folder", folder, "--offline", "--json")
    found = json.loads(out)
    assert (code, found["worst"]) == (0, "warn")
    assert {"check", "verdict", "text", "next_step"} == set(found["findings"][0])
    assert answer(capsys, "doctor", "--folder", folder, "--offline", "--strict")[0] == 1
    (tmp_path / "ward" / "keys" / "database.key").chmod(0o644)
    code, out = answer(capsys, "doctor", "--folder", folder, "--offline")
    assert code == 1
    assert "FAIL  keys.database" in out
    assert "Next: " in out
    (tmp_path / "ward" / "curbside.toml").write_text("nonsense = 1")
    code, out = answer(capsys, "doctor", "--folder", folder, "--json")
    assert (code, [each["check"] for each in json.loads(out)["findings"]]) == (1, ["configuration"])
