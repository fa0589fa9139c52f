"""Whatever the bytes are, only errors of `curbside.errors` come out, and state stays as it was."""

from __future__ import annotations

import contextlib
import json
import lzma
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mls_people import NOW, SETTINGS, TRUST, package_of, team

from curbside.errors import CurbsideError, Malformed
from curbside.mls import codec, messages
from curbside.mls.extensions import ExternalSender, RequiredCapabilities
from curbside.mls.group import CommitRequest, Group, JoinOptions, KeyPackageSecrets
from curbside.mls.messages import encode_message, parse_message
from curbside.mls.nodes import KeyPackage, LeafNode, ParentNode
from curbside.mls.proposals import PskId, read_proposal
from curbside.mls.public import PublicGroup, verify_key_package
from curbside.mls.tree import RatchetTree

READERS = [
    codec.Reader.varint, codec.Reader.u16s, codec.Reader.u32s, codec.Reader.present, PskId.read, read_proposal,
    LeafNode.read, ParentNode.read, KeyPackage.read, messages.Commit.read, messages.GroupInfo.read,
    messages.GroupSecrets.read, messages.Welcome.read, messages.AuthenticatedContent.read,
    messages.PublicMessage.read, messages.PrivateMessage.read, ExternalSender.read, RequiredCapabilities.read,
]  # fmt: skip
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

_vectors = Path(__file__).parents[3] / "vectors" / "mls" / "messages.json.xz"
SAMPLES = [
    bytes.fromhex(case[name])
    for case in json.loads(lzma.decompress(_vectors.read_bytes()))[:6]
    for name in ("mls_welcome", "mls_group_info", "mls_key_package", "public_message_commit", "private_message")
]


@st.composite
def mutated(draw: st.DrawFn, sources: list[bytes]) -> bytes:
    """A message with some bytes changed, cut or put in."""
    data = bytearray(draw(st.sampled_from(sources)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 3))
        if kind == 0 and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif kind == 1:
            del data[place : place + draw(st.integers(0, 9))]
        elif kind == 2:
            data[place:place] = draw(st.binary(max_size=9))
        else:
            data = data[:place] if draw(st.booleans()) else data
    return bytes(data)


@pytest.mark.parametrize("read", READERS, ids=lambda read: getattr(read, "__qualname__", "read"))
@QUICK
@given(data=st.binary(max_size=200))
def test_decoders(read, data: bytes) -> None:  # type: ignore[no-untyped-def]
    with contextlib.suppress(CurbsideError):
        codec.decode(data, read)


@QUICK
@given(data=mutated(SAMPLES))
def test_messages_decode_to_themselves_or_not_at_all(data: bytes) -> None:
    try:
        message = parse_message(data)
    except CurbsideError:
        return
    assert encode_message(message) == data


@QUICK
@given(data=mutated([package_of("x").public]))
def test_key_packages(data: bytes) -> None:
    with contextlib.suppress(CurbsideError):
        verify_key_package(data, TRUST, NOW)


GROUPS = team("alice", "bob", "fiona")
PACKAGE = package_of("erin")
STAGED = GROUPS[0].stage_commit(CommitRequest(adds=(PACKAGE.public,), removes=(2,)), NOW)
PRIVATE = Group.load(GROUPS[0].save(), TRUST).stage_commit(CommitRequest(wire="private"), NOW).commit
INFO = GROUPS[0].group_info()
SENT = [STAGED.commit, PRIVATE, GROUPS[0].encrypt(b"text"), GROUPS[2].propose_update(NOW), *SAMPLES]
BOB, BLOB = GROUPS[1], GROUPS[1].save()
SERVER = PublicGroup.from_group_info(INFO, TRUST, NOW)
SERVER_BLOB = SERVER.save()


@QUICK
@given(data=mutated(SENT))
def test_received_messages(data: bytes) -> None:
    if data in SENT:
        return
    with pytest.raises(CurbsideError):
        BOB.receive(data, NOW)
    assert BOB.save() == BLOB


@QUICK
@given(data=mutated(SENT))
def test_server_messages(data: bytes) -> None:
    for method in (SERVER.check_commit, SERVER.apply, SERVER.receive_proposal):
        try:
            PublicGroup.load(SERVER_BLOB, TRUST)
            if method == SERVER.check_commit:
                SERVER.check_commit(data, NOW)
            else:
                getattr(PublicGroup.load(SERVER_BLOB, TRUST), method.__name__)(data, NOW)
        except CurbsideError:
            pass
    assert SERVER.save() == SERVER_BLOB


@QUICK
@given(data=mutated([STAGED.welcome or b""]))
def test_welcomes(data: bytes) -> None:
    try:
        Group.join(data, [PACKAGE], TRUST, NOW, SETTINGS, JoinOptions())
    except CurbsideError:
        return
    assert data == STAGED.welcome


@QUICK
@given(data=mutated([INFO]))
def test_group_infos(data: bytes) -> None:
    if data != INFO:
        with pytest.raises(CurbsideError):
            PublicGroup.from_group_info(data, TRUST, NOW)


@QUICK
@given(data=mutated([GROUPS[0].ratchet_tree()]))
def test_trees(data: bytes) -> None:
    suite = GROUPS[0].state.current.public.suite
    try:
        tree = RatchetTree.parse(suite, data)
    except CurbsideError:
        return
    assert RatchetTree(suite, tree.nodes).encode() == data


@QUICK
@given(data=mutated([BLOB, SERVER_BLOB, PACKAGE.save()]))
def test_saved_state(data: bytes) -> None:
    for load in (Group.load, PublicGroup.load):
        with contextlib.suppress(CurbsideError):
            load(data, TRUST)
    with contextlib.suppress(CurbsideError):
        KeyPackageSecrets.load(data)


def test_lengths_must_be_shortest() -> None:
    for bad in ("4000", "403f", "80000000", "80003fff", "c0", "ff", ""):
        with pytest.raises(Malformed):
            codec.decode(bytes.fromhex(bad), codec.Reader.varint)
    for value in (0, 63, 64, 16383, 16384, 2**30 - 1):
        assert codec.decode(codec.varint(value), codec.Reader.varint) == value
    with pytest.raises(CurbsideError):
        codec.varint(2**30)
