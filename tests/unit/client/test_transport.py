"""Problems on the wire become errors of the one tree, each code its own class."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from curbside import errors
from curbside.client.account import error_of_closing, error_of_json
from curbside.client.outbox import problem_json
from curbside.client.transport import ERRORS, _error_of_response, error_of_problem
from curbside.errors import CurbsideError, IntegrityError, PeerUnavailable, RuleBroken, UntrustedDevice, UsageError
from curbside.server.problems import encode_problem
from curbside.wire.frames import Closing


def concrete(kind: type[CurbsideError] = CurbsideError) -> Iterator[type[CurbsideError]]:
    for each in kind.__subclasses__():
        if "code" in vars(each) and each.__module__ == errors.__name__:
            yield each
        yield from concrete(each)


CLASSES = sorted(set(concrete()), key=lambda kind: kind.code)


def make(kind: type[CurbsideError]) -> CurbsideError:
    if kind is RuleBroken:
        return RuleBroken("mls.leaf.lifetime", "too old")
    if kind is UntrustedDevice:
        return UntrustedDevice("Ghost phone", "trust.chain.issuer")
    return kind("what happened", current_epoch=7)


def test_there_is_a_class_for_every_code() -> None:
    assert len(CLASSES) > 30
    assert {kind.code for kind in CLASSES} == set(ERRORS)
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: str(kind.code))
def test_a_problem_becomes_the_class_that_the_server_raised(kind: type[CurbsideError]) -> None:
    raised = make(kind)
    status, headers, body = encode_problem(raised, "request-1")
    assert headers["content-type"].startswith("application/problem+json")
    got = _error_of_response(httpx.Response(status, headers=headers, content=body))
    assert type(got) is kind
    assert (got.title, got.status, got.retry, got.next_step) == (kind.title, kind.status, kind.retry, kind.next_step)
    if kind not in (UsageError, IntegrityError):  # the server keeps to itself what went wrong inside
        assert got.detail == raised.detail
        assert got.members == raised.members


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: str(kind.code))
def test_what_the_vault_keeps_of_an_error_becomes_it_again(kind: type[CurbsideError]) -> None:
    raised = make(kind)
    got = error_of_json(problem_json(raised))
    assert type(got) is kind
    assert (got.detail, got.members) == (raised.detail, raised.members)


def test_the_check_and_the_device_are_attributes_again() -> None:
    broken = error_of_problem("rule_broken", "", {"check": "group.add"})
    assert isinstance(broken, RuleBroken)
    assert broken.check == "group.add"
    untrusted = error_of_problem("untrusted_device", "", {"check": "trust.chain.issuer", "device": "Ghost phone"})
    assert isinstance(untrusted, UntrustedDevice)
    assert (untrusted.check, untrusted.device) == ("trust.chain.issuer", "Ghost phone")


def test_an_unknown_problem_is_tried_again_later() -> None:
    got = error_of_problem("teapot", "short and stout", {})
    assert isinstance(got, PeerUnavailable)
    assert "teapot" in got.detail


@pytest.mark.parametrize(
    "body", [b"", b"<html>502</html>", b"[]", b'"x"', b'{"detail": "no type"}', b"\xff", b"null", b"7"]
)
def test_an_answer_that_is_no_problem_is_unavailability(body: bytes) -> None:
    got = _error_of_response(httpx.Response(502, content=body))
    assert isinstance(got, PeerUnavailable)


def test_a_farewell_is_an_error_of_its_code() -> None:
    assert isinstance(error_of_closing(Closing("draining", "the server restarts", 1000)), PeerUnavailable)
    assert error_of_closing(Closing("device_revoked", "", -1)).code == "device_revoked"
