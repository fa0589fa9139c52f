"""TLS in the server's own process: a device that trusts the certificate talks, one that does not is told why."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from raw_socket import RawSocket, make_frame
from running import Running, free_port
from self_signed import make_certificate

from curbside.cli.invite import create_invite, upload_invites
from curbside.client.device import Device
from curbside.client.network import Internet
from curbside.errors import PeerUnavailable
from curbside.server.config import Tls
from curbside.server.websocket import FIRST_FRAME_BYTES
from curbside.wire import frames

PASSPHRASE = "violet kettle marching 47 otters"


@pytest.fixture
def certificate(tmp_path: Path) -> Tls:
    made = make_certificate(tmp_path)
    return Tls(certificate=made.chain, key=made.key)


async def test_devices_talk_over_tls(tmp_path: Path, certificate: Tls) -> None:
    port = free_port()
    origin = f"https://127.0.0.1:{port}"
    running = Running(tmp_path, tls=certificate, port=port, public_urls=(origin,))
    running.start()
    try:
        trusting = Internet(str(certificate.certificate))
        invite = create_invite(running.authority, origin, "nurse", 3600, running.clock.now())
        with pytest.raises(PeerUnavailable):
            await upload_invites(origin, [invite.deposit])
        await upload_invites(origin, [invite.deposit], str(certificate.certificate))
        joined = await Device.join(tmp_path / "a.vault", invite.link, "Ada", PASSPHRASE, network=trusting)
        async with joined as device:
            await device.connection.wait_caught_up()
            assert [person.name for person in await device.people()] == ["Ada"]
    finally:
        running.stop()


async def test_frames_of_any_size_over_tls(tmp_path: Path, certificate: Tls) -> None:
    """The transport under TLS hands over what it decrypts in other pieces, and pauses in another way."""
    port = free_port()
    running = Running(tmp_path, tls=certificate, port=port, public_urls=(f"https://127.0.0.1:{port}",)).start()
    trust = ssl.create_default_context(cafile=str(certificate.certificate))
    try:
        socket = await RawSocket.dial(running, trust)
        assert await socket.ask(running) == 101
        assert isinstance(await socket.receive(), frames.Challenge)
        for number in range(300):
            socket.write(make_frame(0x89, b"%d" % number))
        for number in range(300):
            assert await socket.read_frame() == (0x8A, b"%d" % number)
        for number in range(100):
            socket.write(make_frame(0x02 if number == 0 else 0x00, bytes(FIRST_FRAME_BYTES // 100)))
            socket.write(make_frame(0x89, bytes(125)))
        for _ in range(100):
            assert await socket.read_frame() == (0x8A, bytes(125))
        socket.write(make_frame(0x80, bytes(2**20))[: 2**20])
        assert await socket.read_close() == 1009
        socket.write(make_frame(0x88))
        assert await socket.read_end() == b""
        await socket.close()
    finally:
        running.stop()
