"""Invites as an administrator makes them: the authority's key, the command's library functions, a running server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from running import Person, Running

from curbside.cli.invite import create_invite, draw_code, parse_duration, upload_invites
from curbside.client.trust import verify_invite
from curbside.crypto.x509 import make_authority
from curbside.errors import DuplicateRequest, Malformed, PeerUnavailable, UntrustedDevice, UsageError
from curbside.ids import decode_base64url
from curbside.wire import bodies
from curbside.wire.invite_link import parse_invite_link


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    server = Running(tmp_path).start()
    yield server
    server.stop()


async def test_a_client_believes_the_invite_that_the_command_made(running: Running) -> None:
    made = create_invite(running.authority, running.url, "physician", 3600, running.clock.now())
    await upload_invites(running.url, [made.deposit])
    await upload_invites(running.url, [made.deposit])
    alice = await Person.join(running)
    answer = await alice.get(f"/v1/invites/{made.deposit.invite_id}", proof=False)
    await alice.close()
    shown = msgspec.json.decode(answer.content, type=bodies.Invite)
    verified = verify_invite(parse_invite_link(made.link), shown, running.clock.now())
    assert (verified.user_id, verified.role) == (made.user_id, "physician")
    assert (shown.role, shown.expires_at) == ("physician", made.expires_at)


async def test_the_server_never_hears_the_secret_of_the_link(running: Running) -> None:
    made = create_invite(running.authority, running.url, "nurse", 3600, running.clock.now())
    await upload_invites(running.url, [made.deposit])
    seed = parse_invite_link(made.link).enrolment_seed.reveal()
    assert seed not in decode_base64url(made.deposit.enrolment_certificate)
    running.stop()
    for path in running.config.data_folder.rglob("*"):
        assert not path.is_file() or seed not in path.read_bytes()


async def test_another_authority_cannot_invite(running: Running) -> None:
    other = make_authority("Sankt Elsewhere", running.clock.now())
    made = create_invite(other, running.url, "administrator", 3600, running.clock.now())
    with pytest.raises(UntrustedDevice) as refused:
        await upload_invites(running.url, [made.deposit])
    assert refused.value.check.startswith("trust.chain.")
    event = running.events()[-1]
    assert (event.name.value, event.outcome.value) == ("invite.refused", 4)


async def test_an_invites_id_is_not_given_twice(running: Running) -> None:
    first, second = (
        create_invite(running.authority, running.url, "nurse", 3600, running.clock.now()) for _ in range(2)
    )
    await upload_invites(running.url, [first.deposit])
    clash = bodies.NewInvite(first.deposit.invite_id, second.deposit.enrolment_certificate)
    with pytest.raises(DuplicateRequest):
        await upload_invites(running.url, [clash])


async def test_an_unreachable_server_is_said_to_be_so(running: Running) -> None:
    made = create_invite(running.authority, running.url, "nurse", 3600, running.clock.now())
    running.stop()
    with pytest.raises(PeerUnavailable):
        await upload_invites(running.url, [made.deposit])


@pytest.mark.parametrize(("role", "origin"), [("wizard", "https://a.example"), ("nurse", "http://a.example")])
def test_what_has_no_form_is_no_invite(role: str, origin: str) -> None:
    with pytest.raises(UsageError):
        create_invite(make_authority("X", 1_790_000_000), origin, role, 3600, 1_790_000_000)


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("12h", 43_200), ("7d", 604_800)])
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0d", "7", "7w", "-1d", "1.5h", "７d", "100000d"])
def test_other_words_are_no_durations(text: str) -> None:
    with pytest.raises(Malformed):
        parse_duration(text)


def test_the_code_is_drawn_as_text() -> None:
    lines = draw_code("https://chat.example.org/#/join/" + "A" * 108).splitlines()
    assert len(lines) > 20
    assert len({len(line) for line in lines}) == 1
