"""Writes the worked example of docs/protocol.md: every byte of a short talk, made by the code that makes them.

python tools/protocol_example.py            write it between its two marks
python tools/protocol_example.py --check    fail when what stands there is not what would be written
"""

from __future__ import annotations

import argparse
import base64
import struct
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from curbside.crypto.jose import ProofRequest, make_proof
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.ids import encode_base64url, encode_id
from curbside.mls.messages import APPLICATION, PrivateMessage, encode_message
from curbside.wire import frames

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "protocol.md"
BEGIN: Final = "<!-- example: written by tools/protocol_example.py -->"
END: Final = "<!-- /example -->"

SEED: Final = SecretBytes(bytes(range(32)))
NONCE: Final = bytes(range(0x40, 0x60))
TOKEN: Final = encode_base64url(bytes(range(0x80, 0xA0)))
CONVERSATION: Final = bytes(range(0xA0, 0xB0))
MESSAGE_ID: Final = bytes(range(0xB0, 0xC0))
USER, DEVICE = encode_id(bytes(range(0xC0, 0xD0))), encode_id(bytes(range(0xD0, 0xE0)))
JTI: Final = encode_id(bytes(range(0xE0, 0xF0)))
URL: Final = "http://127.0.0.1:8500/v1/stream"
NOW: Final = 1_790_000_000
ENVELOPE: Final = encode_message(
    PrivateMessage(CONVERSATION, 1, APPLICATION, MESSAGE_ID, bytes(28), bytes.fromhex("c1") * 70)
)


def make_stream_proof() -> str:
    """The proof of the example's Authenticate."""
    return make_proof(SEED, ProofRequest("GET", URL, NOW, TOKEN, NONCE), JTI)


def list_frames() -> list[tuple[str, str, frames.ClientFrame | frames.ServerFrame]]:
    """The talk: who says it, a word about it, the frame."""
    name = encode_id(CONVERSATION)
    entry = frames.Entry(name, 3, frames.KIND_APPLICATION, MESSAGE_ID, NOW * 1000 + 250, ENVELOPE)
    too_old = {"current_epoch": 2}
    return [
        ("server", "a nonce, the server's time", frames.Challenge(NONCE, NOW * 1000, frames.PROTOCOL)),
        ("client", "token and proof", frames.Authenticate(TOKEN, make_stream_proof(), frames.PROTOCOL)),
        ("server", "who it is", frames.Ready(USER, DEVICE, NOW + 43_200)),
        ("client", "has processed two entries of one conversation", frames.Sync({name: 2}, 0)),
        ("server", "nothing was missed", frames.CaughtUp()),
        ("client", "request 1", frames.Send(1, name, MESSAGE_ID, 1, ENVELOPE)),
        ("server", "it is entry 3", frames.Stored([frames.StoredItem(1, 3, NOW * 1000 + 250)])),
        ("server", "to the other members", frames.Entries([entry])),
        ("client", "the other member has it", frames.Acknowledge({name: 3}, 0)),
        ("server", "request 2 was encrypted too early", frames.Refused(2, "stale_epoch", "", too_old)),
        ("server", "good-bye", frames.Closing("draining", "the server restarts", 1000)),
    ]


def wrap_frame(data: bytes, mask: bytes) -> bytes:
    """One WebSocket message of a client: final, binary, masked (RFC 6455 section 5.2)."""
    size = len(data)
    head = struct.pack(">BB", 0x82, 0x80 | size) if size < 126 else struct.pack(">BBH", 0x82, 0xFE, size)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


def render() -> str:
    """The example, without its marks."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield "## Every byte of a short talk"
    yield ""
    yield "A test compares this with the code. Bytes count up, so that one can see where each went."
    yield ""
    yield from _block(
        f"API key, seed      {SEED.reveal().hex()}",
        f"          public   {Signer('ed25519', SEED).public.hex()}",
        f"token              {TOKEN}",
        f"conversation       {encode_id(CONVERSATION)} = {CONVERSATION.hex()}",
        f"message id         {MESSAGE_ID.hex()}",
        f"htu                {URL}",
        f"iat                {NOW}",
    )
    yield "The proof, its two JSON parts first:"
    yield ""
    proof = make_stream_proof()
    yield from _block(
        *(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode() for part in proof.split(".")[:2]), "", proof
    )
    yield "The envelope: version and wire format, group id, epoch 1, content type, authenticated data, sender data (28"
    yield "bytes, any), ciphertext (70 bytes, any; its length takes two):"
    yield ""
    head = ENVELOPE.hex()
    ends = (8, 8 + 34, 42 + 16, 58 + 2, 60 + 34, 94 + 58, len(head))
    yield from _block(*(head[a:b] for a, b in zip((0, *ends), ends, strict=False)))
    yield "The frames:"
    yield ""
    for speaker, why, frame in list_frames():
        data = msgspec.msgpack.encode(frame)
        tag = msgspec.msgpack.decode(data)[0]
        yield f"*{speaker}*: **{tag}**, {why}"
        yield ""
        yield from _block(data.hex())
    sync = msgspec.msgpack.encode(list_frames()[3][2])
    yield "The sync as it stands in the WebSocket, masked with 01020304:"
    yield ""
    yield from _block(wrap_frame(sync, bytes((1, 2, 3, 4))).hex())


def _block(*lines: str) -> Iterator[str]:
    for line in lines:
        for part in textwrap.wrap(line, 112, drop_whitespace=False, break_on_hyphens=False) or [""]:
            yield f"    {part}".rstrip()
    yield ""


def replace(text: str) -> str:
    """The page with the example in its place. Raises: ValueError when a mark is missing."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{PAGE.name} has lost a mark of the example")
    return f"{before}{BEGIN}\n\n{render()}\n{END}{after}"


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the example is not up to date")
    options = parser.parse_args()
    present = PAGE.read_text("utf-8")
    wanted = replace(present)
    if options.check:
        return int(present != wanted)
    PAGE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
