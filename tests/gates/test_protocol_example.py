"""The worked example of docs/protocol.md is what the code says and accepts, byte for byte."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest

import protocol_example as example
from curbside.crypto.jose import ProofRequest, verify_proof
from curbside.crypto.sign import Signer
from curbside.server.groups import check_envelope
from curbside.wire import frames


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
