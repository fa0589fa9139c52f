"""The worked example of docs/protocol.md is what the code says and accepts, byte for byte."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest

import protocol_example as example
from curbside.crypto.jose import PROOF_CHARS, SKEW_SECONDS, ProofRequest, verify_proof
from curbside.crypto.sign import Signer
from curbside.server.config import Limits, Sessions
from curbside.server.groups import check_envelope
from curbside.server.websocket import FIRST_FRAME_BYTES
from curbside.wire import frames
from curbside.wire import limits as sizes


def test_the_page_has_the_example_that_the_code_makes(root: Path) -> None:
    page = (root / "docs" / "protocol.md").read_text("utf-8")
    assert page == example.replace(page)
    with pytest.raises(ValueError, match="lost a mark"):
        example.replace(page.replace(example.END, ""))


def test_a_server_accepts_the_proof_and_the_envelope() -> None:
    public = Signer("ed25519", example.SEED).public
    wanted = ProofRequest("GET", example.URL, example.NOW, example.TOKEN, example.NONCE)
    assert verify_proof(example.make_stream_proof(), wanted, public).jti == example.JTI
    (send,) = [frame for _, _, frame in example.list_frames() if isinstance(frame, frames.Send)]
    check_envelope(send, example.CONVERSATION)


def test_both_sides_read_the_frames_they_are_sent() -> None:
    kinds = {"client": frames.ClientFrame, "server": frames.ServerFrame}
    for speaker, _, frame in example.list_frames():
        data = msgspec.msgpack.encode(frame)
        assert msgspec.msgpack.decode(data, type=kinds[speaker]) == frame


def test_every_frame_is_described(root: Path) -> None:
    page = (root / "docs" / "protocol.md").read_text("utf-8")
    for kind in (*frames.ClientFrame.__args__, *frames.ServerFrame.__args__):
        speaker = "client" if kind in frames.ClientFrame.__args__ else "server"
        (row,) = [
            line for line in page.splitlines() if line.startswith(f"| {speaker} | {kind.__struct_config__.tag} |")
        ]
        fields = kind.__struct_fields__
        assert all(f"`{field}`" in row for field in fields) or fields in ((), ("items",)), row


def test_a_masked_frame_opens_again() -> None:
    data, mask = b"\x93\xa4sync\x80\x00", bytes((1, 2, 3, 4))
    wrapped = example.wrap_frame(data, mask)
    assert wrapped[:2] == bytes((0x82, 0x80 | len(data)))
    assert bytes(byte ^ mask[at % 4] for at, byte in enumerate(wrapped[6:])) == data
    assert base64.b16encode(example.wrap_frame(bytes(200), mask)[:4]) == b"82FE00C8"


def test_the_numbers_of_the_page_are_the_defaults(root: Path) -> None:
    page = " ".join((root / "docs" / "protocol.md").read_text("utf-8").split())
    limits, sessions = Limits(), Sessions()
    for expected in (
        f"up to {limits.requests_in_flight} on a connection",
        f"{limits.sends_per_second:.0f} sends a second after a burst of {limits.sends_burst}",
        f"{limits.requests_per_second:.0f} syncs and acknowledgements a second after {limits.requests_burst}",
        f"{limits.cursors_per_second:.0f} conversations named in them a second after {limits.cursors_burst:,}",
        f"{limits.connects_per_second:.0f} new streams a second after {limits.connects_burst}",
        f"auth, within {limits.handshake_seconds:.0f} seconds",
        f"pings come after {limits.ping_seconds:.0f} seconds",
        f"above {limits.pending_bytes // 2**20} MiB of waiting entries",
        f"At most {sizes.CURSORS_PER_SYNC:,} conversations",
        f"at most {sizes.ENTRIES_PER_FRAME} in a frame",
        f"at most {sizes.FRAME_BYTES // 2**20} MiB, before ready at most {FIRST_FRAME_BYTES // 1024} KiB",
        f"at most {sizes.ENVELOPE_BYTES // 1024} KiB, whose authenticated",
        f"At most {sizes.GROUP_MEMBERS} leaves",
        f"at most {sizes.BODY_BYTES // 2**20} MiB; unknown members",
        f"{sessions.max_seconds // 3600} hours at most, and ends {sessions.idle_seconds // 60} minutes",
        f"`iat` may be {SKEW_SECONDS} seconds",
        f"At most {PROOF_CHARS:,} characters",
        f"At most {sizes.KEY_PACKAGES_PER_DEVICE} wait for each device",
    ):
        assert expected in page, expected
