"""A client of the stream, written from docs/protocol.md alone: it shares no code with Curbside.

    python -m bench.stage init FOLDER 8500; … ; python -m bench.stranger < scene.json

scene.json: {"url": …, "sender": credentials, "receiver": credentials, "conversation": …}, as `bench.stage` answers.
It sends, receives, loses its connection, sends again what it has no answer for, and goes on from its cursor; then it
prints what it saw as JSON. The envelopes hold nothing that could be opened, which the server cannot see.
"""
# ruff: noqa: TID251  it has its own randomness, as it has its own of everything

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import struct
import sys
import time
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PROTOCOL = 1
FRAME_BYTES = 2 * 1024 * 1024
MESSAGES = 20


def base64url(data: bytes) -> str:
    """RFC 4648 section 5, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_proof(seed: bytes, method: str, url: str, token: str, nonce: bytes = b"") -> str:
    """A DPoP proof (RFC 9449) by an Ed25519 key. nonce: of the challenge, on the stream only."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64url(public)}
    claims: dict[str, Any] = {"jti": base64url(os.urandom(16)), "htm": method, "htu": url, "iat": int(time.time())}
    claims["ath"] = base64url(hashlib.sha256(token.encode()).digest())
    if nonce:
        claims["nonce"] = base64url(nonce)
    header = {"typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk}
    parts = [base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)]
    signed = ".".join(parts)
    return f"{signed}.{base64url(key.sign(signed.encode()))}"


def make_envelope(conversation: str, epoch: int, message_id: bytes, payload: bytes) -> bytes:
    """The bytes of an MLSMessage that holds a PrivateMessage (RFC 9420 section 6.3) with `payload` as ciphertext."""
    group_id = base64.urlsafe_b64decode(conversation + "==")
    return b"".join(
        (
            b"\x00\x01\x00\x02",  # version mls10, wire format mls_private_message
            vector(group_id),
            struct.pack(">QB", epoch, 1),  # content type application
            vector(message_id),  # authenticated data
            vector(bytes(28)),  # encrypted sender data
            vector(payload),
        )
    )


def vector(data: bytes) -> bytes:
    """A variable-size vector of TLS presentation language with QUIC's length (RFC 9420 section 2.1.2)."""
    size = len(data)
    head = bytes((size,)) if size < 64 else struct.pack(">H", 0x4000 | size)
    return head + data


class Stream:
    """One device's connection. entries: (sequence, message id), by conversation, as they came."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.stored: dict[int, int] = {}
        self.entries: dict[str, list[tuple[int, bytes]]] = {}
        self.refused: list[str] = []
        self.is_caught_up = False

    @classmethod
    async def open(cls, url: str, credentials: dict[str, str]) -> Stream:
        """Connect and prove who it is."""
        address = "ws" + url.removeprefix("http") + "/v1/stream"
        socket = await connect(address, compression=None, max_size=FRAME_BYTES, proxy=None)
        tag, nonce, _server_time, protocol = msgspec.msgpack.decode(await socket.recv(decode=False))
        assert (tag, protocol) == ("challenge", PROTOCOL)
        seed = base64.urlsafe_b64decode(credentials["api_key"] + "==")
        proof = make_proof(seed, "GET", f"{url}/v1/stream", credentials["token"], nonce)
        await socket.send(msgspec.msgpack.encode(["auth", credentials["token"], proof, PROTOCOL]))
        tag, *rest = msgspec.msgpack.decode(await socket.recv(decode=False))
        assert tag == "ready", rest
        return cls(socket)

    async def sync(self, conversation: str, cursor: int) -> None:
        """Follow a conversation from a cursor on; returns when everything up to now is here."""
        self.is_caught_up = False
        await self._send(["sync", {conversation: cursor}, 0])
        while not self.is_caught_up:
            await self.receive()

    async def send(self, request: int, conversation: str, epoch: int, message_id: bytes, envelope: bytes) -> None:
        """Send a message; the answer comes as `stored` or `refused`."""
        await self._send(["send", request, conversation, message_id, epoch, envelope])

    async def acknowledge(self, conversation: str, cursor: int) -> None:
        """Everything up to here is safe with us."""
        await self._send(["ack", {conversation: cursor}, 0])

    async def receive(self) -> None:
        """Take one frame."""
        tag, *fields = msgspec.msgpack.decode(await self._socket.recv(decode=False))
        match tag:
            case "stored":
                self.stored |= {request: sequence for request, sequence, _received_at in fields[0]}
            case "entries":
                for conversation, sequence, _kind, message_id, _received_at, _envelope in fields[0]:
                    self.entries.setdefault(conversation, []).append((sequence, message_id))
            case "caught_up":
                self.is_caught_up = True
            case "refused":
                self.refused.append(fields[1])
            case "closing":
                raise ConnectionError(fields[0])  # a tag that is not known is passed over

    async def cut(self) -> None:
        """Lose the connection, without a word."""
        self._socket.transport.abort()
        await self._socket.wait_closed()

    async def _send(self, frame: list[Any]) -> None:
        await self._socket.send(msgspec.msgpack.encode(frame))


async def play(scene: dict[str, Any]) -> dict[str, Any]:
    """The scene of the module's first lines; what was seen."""
    url, place = scene["url"], scene["conversation"]
    conversation, epoch, begun = place["conversation"], place["epoch"], place["sequence"]
    sender, receiver = [await Stream.open(url, scene[who]) for who in ("sender", "receiver")]
    for stream in (sender, receiver):
        await stream.sync(conversation, begun)
    ids = [os.urandom(16) for _ in range(MESSAGES)]
    envelopes = [make_envelope(conversation, epoch, each, os.urandom(1024)) for each in ids]
    for request in range(MESSAGES // 2):
        await sender.send(request + 1, conversation, epoch, ids[request], envelopes[request])
    while len(sender.stored) < MESSAGES // 4:
        await sender.receive()
    await sender.cut()  # some of its sends have no answer yet
    again = await Stream.open(url, scene["sender"])
    await again.sync(conversation, begun)
    in_log = {message_id for _, message_id in again.entries.get(conversation, [])}
    for request in range(MESSAGES):  # all of them: what the log has already gets the same number again
        await again.send(request + 1, conversation, epoch, ids[request], envelopes[request])
    while len(again.stored) < MESSAGES:
        await again.receive()
    await again.send(MESSAGES + 1, conversation, epoch, ids[0], make_envelope(conversation, epoch, ids[0], b"another"))
    too_new = make_envelope(conversation, epoch + 1, bytes(16), b"from an epoch that is not here yet")
    await again.send(MESSAGES + 2, conversation, epoch + 1, bytes(16), too_new)
    while len(again.refused) < 2:
        await again.receive()
    while len(receiver.entries.get(conversation, [])) < MESSAGES:
        await receiver.receive()
    await receiver.acknowledge(conversation, begun + MESSAGES)
    got = receiver.entries[conversation]
    kept = all(again.stored[request] == sequence for request, sequence in sender.stored.items())
    for stream in (again, receiver):
        await stream.cut()
    return {
        "received": len(got),
        "in_order": [sequence for sequence, _ in got] == list(range(begun + 1, begun + 1 + MESSAGES)),
        "each_once": sorted(message_id for _, message_id in got) == sorted(ids),
        "in_log_after_the_cut": len(in_log),
        "same_number_again": kept,
        "refused": sorted(again.refused),
    }


def main() -> int:
    """Play the scene of standard input."""
    try:
        print(json.dumps(asyncio.run(play(json.load(sys.stdin)))))
    except (ConnectionError, ConnectionClosed) as error:
        print(f"the server ended the stream: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
