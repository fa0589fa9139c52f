"""Damage in every region of every kind of message: always refused, nothing changed, and the genuine one is accepted."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from curbside.errors import CurbsideError, IntegrityError, InvalidMessage, TooLarge, UsageError
from curbside.mls.codec import MAX_BYTES
from curbside.mls.group import CommitRequest, Group, JoinOptions
from curbside.mls.messages import parse_message
from curbside.mls.public import PublicGroup, describe_message, verify_key_package
from curbside.mls.results import Application, CommitReceived, ProposalReceived

from .forge import flip, forge_commit, forge_welcome
from .people import NOW, SETTINGS, TRUST, make_team, new_leaf, new_package

REGIONS = 150


def damaged(message: bytes) -> Iterator[bytes]:
    """One bit changed in each of many regions, all boundaries of length, and bytes too many."""
    step = max(1, len(message) // REGIONS)
    for position in range(0, len(message), step):
        yield flip(message, 8 * position + position % 8)
    for length in range(0, len(message), 3 * step):
        yield message[:length]
    yield message + b"\0"
    yield message + message


def refuses_all(receive: Callable[[bytes], object], message: bytes, save: Callable[[], bytes]) -> int:
    """Every damaged copy is refused with one of our errors and without a trace. Returns how many there were."""
    before, count = save(), 0
    for copy in damaged(message):
        try:
            receive(copy)
        except UsageError as error:
            raise AssertionError("a peer's bytes made us break a contract of our own") from error
        except CurbsideError:
            count += 1
        else:
            raise AssertionError(f"a damaged copy was accepted: {copy.hex()[:80]}")
        assert save() == before, "a refusal changed the state"
    return count


def test_application_message() -> None:
    team = make_team()
    genuine = team.mallory.encrypt(b"the dose is 5 mg", b"aad")
    assert refuses_all(lambda copy: team.bob.receive(copy, NOW), genuine, team.bob.save) > REGIONS
    received = team.bob.receive(genuine, NOW)
    assert isinstance(received, Application)
    assert received.data == b"the dose is 5 mg"


@pytest.mark.parametrize("wire", ["public", "private"])
def test_commit(wire: str) -> None:
    team = make_team("mallory", "bob", "carol", "dave")
    adds, removes = (new_package("erin").public,), (3,)
    staged = team.mallory.stage_commit(CommitRequest(adds, removes, wire=wire), NOW)  # type: ignore[arg-type]
    assert refuses_all(lambda copy: team.bob.receive(copy, NOW), staged.commit, team.bob.save) > REGIONS
    if wire == "public":
        # The server cannot see the membership tag and the confirmation tag, which end the message.
        seen = staged.commit[: -2 * 33]
        for copy in damaged(staged.commit):
            if copy[: len(seen)] != seen:
                before = team.public.save()
                with pytest.raises(CurbsideError):
                    team.public.check_commit(copy, NOW)
                assert team.public.save() == before
    assert isinstance(team.bob.receive(staged.commit, NOW), CommitReceived)
    assert isinstance(team.carol.receive(staged.commit, NOW), CommitReceived)


@pytest.mark.parametrize("wire", ["public", "private"])
def test_proposal(wire: str) -> None:
    team = make_team()
    genuine = team.mallory.propose_add(new_package("dave").public, NOW, wire)  # type: ignore[arg-type]
    assert refuses_all(lambda copy: team.bob.receive(copy, NOW), genuine, team.bob.save) > REGIONS
    assert isinstance(team.bob.receive(genuine, NOW), ProposalReceived)


def test_external_proposal() -> None:
    team = make_team()
    genuine = team.public.propose_remove(2, team.server.key)
    assert refuses_all(lambda copy: team.bob.receive(copy, NOW), genuine, team.bob.save) > 100
    receive = team.public.receive_proposal
    assert refuses_all(lambda copy: receive(copy, NOW), genuine, team.public.save) > 100
    assert isinstance(team.bob.receive(genuine, NOW), ProposalReceived)
    assert isinstance(receive(genuine, NOW), ProposalReceived)


def test_external_commit() -> None:
    team = make_team()
    _, genuine = Group.join_external(team.carol.group_info(), new_leaf("dave"), TRUST, NOW)
    assert refuses_all(lambda copy: team.bob.receive(copy, NOW), genuine, team.bob.save) > REGIONS
    assert isinstance(team.bob.receive(genuine, NOW), CommitReceived)


def test_welcome() -> None:
    team, package = make_team(), new_package("dave")
    genuine = forge_welcome(team.mallory, package)
    join = lambda copy: Group.join(copy, [package], TRUST, NOW, SETTINGS)  # noqa: E731
    assert refuses_all(join, genuine, package.save) > REGIONS
    assert join(genuine).own_leaf == 3


def test_group_info() -> None:
    team = make_team()
    genuine = team.carol.group_info()
    leaf = new_leaf("dave")
    join = lambda copy: Group.join_external(copy, leaf, TRUST, NOW, SETTINGS, JoinOptions())  # noqa: E731
    assert refuses_all(join, genuine, team.carol.save) > REGIONS
    follow = lambda copy: PublicGroup.from_group_info(copy, TRUST, NOW)  # noqa: E731
    assert refuses_all(follow, genuine, team.public.save) > REGIONS
    assert refuses_all(lambda copy: team.public.check_group_info(copy, NOW), genuine, team.public.save) > REGIONS
    team.public.check_group_info(genuine, NOW)


def test_key_package() -> None:
    package = new_package("dave")
    check = lambda copy: verify_key_package(copy, TRUST, NOW)  # noqa: E731
    assert refuses_all(check, package.public, package.save) > 100
    assert check(package.public).credential.identity == b"dave"


def garbage(seed: int, count: int, samples: list[bytes]) -> Iterator[bytes]:
    """Noise, noise behind real headers, and real messages cut up and put together wrong."""
    noise = random.Random(seed)
    for i in range(count):
        match i % 4:
            case 0:
                yield noise.randbytes(noise.randrange(300))
            case 1:
                yield b"\0\1\0" + bytes([noise.randrange(1, 6)]) + noise.randbytes(noise.randrange(300))
            case 2:
                sample = noise.choice(samples)
                start = noise.randrange(4, len(sample) - 80)  # at the end are tags that the server cannot check
                yield sample[:start] + noise.randbytes(8) + sample[start + 8 :]
            case _:
                one, two = noise.choice(samples), noise.choice(samples)
                yield one[: noise.randrange(1, len(one))] + two[noise.randrange(len(two)) :]


def test_garbage() -> None:
    team, package = make_team(), new_package("dave")
    samples = [
        team.mallory.encrypt(b"x"),
        forge_commit(team.mallory).message,
        forge_welcome(team.mallory, package),
        team.mallory.group_info(),
        package.public,
    ]
    before = [team.bob.save(), team.public.save(), package.save()]
    for blob in garbage(7, 300, samples):
        for receive in (
            lambda data: team.bob.receive(data, NOW),
            lambda data: team.public.apply(data, NOW),
            lambda data: team.public.receive_proposal(data, NOW),
            lambda data: Group.join(data, [package], TRUST, NOW),
            lambda data: verify_key_package(data, TRUST, NOW),
        ):
            with pytest.raises(CurbsideError) as refusal:
                receive(blob)
            assert not isinstance(refusal.value, UsageError)
        for parse in (parse_message, describe_message):
            try:
                parse(blob)
            except InvalidMessage:
                continue
    assert [team.bob.save(), team.public.save(), package.save()] == before
    team.go_on()


def test_damaged_state() -> None:
    """A saved state that is damaged is loaded as it is or refused as damaged; nothing else happens."""
    team = make_team()
    team.bob.stage_commit(CommitRequest(adds=(new_package("dave").public,)), NOW)
    loads = [(team.bob.save(), lambda blob: Group.load(blob, TRUST)), (team.public.save(), load_public)]
    for saved, load in loads:
        refused = 0
        for copy in damaged(saved):
            try:
                load(copy)
            except IntegrityError:
                refused += 1
        assert refused > REGIONS / 3
        assert load(saved).save() == saved


def load_public(blob: bytes) -> PublicGroup:
    return PublicGroup.load(blob, TRUST)


def test_message_above_every_limit() -> None:
    team = make_team()
    for receive in (team.bob.receive, team.public.apply, team.public.receive_proposal):
        with pytest.raises(TooLarge):
            receive(bytes(MAX_BYTES + 1), NOW)
    team.go_on()


def test_welcome_twice_and_key_package_secrets_apart() -> None:
    """A Welcome opens again only for somebody who kept the secrets: deleting them ends that."""
    team, package = make_team(), new_package("dave")
    welcome = forge_welcome(team.mallory, package)
    used = Group.join(welcome, [package], TRUST, NOW).used_key_package
    kept = [other for other in [package] if other.reference != used]
    with pytest.raises(InvalidMessage):
        Group.join(welcome, kept, TRUST, NOW)
