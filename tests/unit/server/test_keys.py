"""The server's keys: made once, of one organisation, and no secret shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from enrolment import START, Hospital

from curbside.crypto.x509 import make_authority
from curbside.errors import ConfigError
from curbside.server.keys import prepare_keys
from curbside.server.store.ports import Change


@pytest_asyncio.fixture
async def hospital(tmp_path: Path) -> AsyncIterator[Hospital]:
    opened = await Hospital.open(tmp_path)
    yield opened
    await opened.close()


async def test_keys_are_made_once(hospital: Hospital) -> None:
    again = await prepare_keys(hospital.store, None)
    assert again.sender.public == hospital.keys.sender.public
    assert again.audit_key == hospital.keys.audit_key
    assert again.opaque_setup.is_same(hospital.keys.opaque_setup)
    assert again.hash_query("Ang") == hospital.keys.hash_query("ang") != hospital.keys.hash_query("bang")
    assert again.organization == "Sankt Elsewhere"


async def test_a_database_belongs_to_one_organisation(hospital: Hospital) -> None:
    other = make_authority("Sankt Elsewhere", START)
    with pytest.raises(ConfigError, match="another organisation"):
        await prepare_keys(hospital.store, other.certificate.raw)


async def test_a_first_start_needs_the_authoritys_certificate(hospital: Hospital) -> None:
    def forget(tx: Change) -> None:
        tx.identity.put_setting("organization.authority_certificate", b"")

    await hospital.store.write(forget)
    with pytest.raises(ConfigError):
        await prepare_keys(hospital.store, None)


async def test_an_enrolment_is_no_authority(hospital: Hospital, tmp_path: Path) -> None:
    alice = await hospital.invite()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    other = await Hospital.open(fresh)
    with pytest.raises(ConfigError):
        await prepare_keys(other.store, alice.enrolment.certificate.raw)
    await other.close()


async def test_no_secret_shows(hospital: Hospital) -> None:
    shown = repr(hospital.keys)
    for secret in (hospital.keys.opaque_setup, hospital.keys.query_key, hospital.keys.audit.private):
        assert secret.reveal().hex() not in shown
        assert str(secret.reveal()) not in shown
