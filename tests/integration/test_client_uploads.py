"""Uploads of devices that were away for long, or whose bytes were damaged on their way: healed, or told."""

from __future__ import annotations

import io
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image
from ward import Ward, eventually, sees

from curbside.client.device import Device

MEBIBYTE = 1024 * 1024


@dataclass
class Spoiler:
    """Stands before the server. spoils: whether the n-th part of an upload loses a bit."""

    spoils: Callable[[int], bool] = lambda _: False
    on_part: Callable[[int], None] = lambda _: None
    parts: int = 0

    def middleman(self, app: Any, who: str) -> Any:
        async def handle(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["method"] != "PATCH":
                await app(scope, receive, send)
                return
            self.parts += 1
            is_spoiled = self.spoils(self.parts)
            self.on_part(self.parts)

            async def changed() -> Any:
                event = await receive()
                if is_spoiled and event.get("body"):
                    body = bytearray(event["body"])
                    body[0] ^= 1
                    event = event | {"body": bytes(body)}
                return event

            await app(scope, changed, send)

        return handle


@pytest.fixture
def spoiler() -> Spoiler:
    return Spoiler()


@pytest_asyncio.fixture
async def ward(tmp_path: Path, spoiler: Spoiler) -> AsyncIterator[Ward]:
    async with Ward.new(tmp_path / "ward", spoiler.middleman) as opened:
        yield opened


async def people(ward: Ward) -> tuple[Device, Device]:
    for name in ("alice", "bob"):
        await ward.sign_up(name)
    alice, bob = await ward.open_all(("alice", "bob"))
    return alice, bob


def noise() -> bytes:
    """A picture of several parts."""
    image = Image.frombytes("RGB", (1500, 1500), random.Random(7).randbytes(1500 * 1500 * 3))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


async def test_a_bit_lost_on_the_way_costs_a_second_upload_and_nothing_else(ward: Ward, spoiler: Spoiler) -> None:
    alice, bob = await people(ward)
    conversation = await alice.start_conversation([bob.user_id])
    spoiler.spoils = lambda number: number == 1
    await alice.send_picture(conversation, noise(), caption="wound")
    shown = await sees(bob, conversation, "wound")
    assert Image.open(io.BytesIO(await bob.open_attachment(shown.id))).size == (1500, 1500)
    assert spoiler.parts % 2 == 0, "each part went twice"


async def test_bytes_that_are_damaged_every_time_fail_the_message(ward: Ward, spoiler: Spoiler) -> None:
    alice, bob = await people(ward)
    conversation = await alice.start_conversation([bob.user_id])
    spoiler.spoils = lambda _: True
    message = await alice.send_picture(conversation, noise(), caption="wound")
    await eventually(lambda: alice.message(message).delivery == "failed")
    assert alice.message(message).text == "wound"


async def test_an_upload_that_ended_while_the_device_was_away_begins_anew(ward: Ward, spoiler: Spoiler) -> None:
    alice, bob = await people(ward)
    conversation = await alice.start_conversation([bob.user_id])

    def cut(number: int) -> None:
        ward.weather["alice"].lose_answers = number == 2

    spoiler.on_part = cut
    message = await alice.send_picture(conversation, noise(), caption="wound")
    await eventually(lambda: spoiler.parts == 2)
    await ward.close("alice")
    ward.weather["alice"].lose_answers = False
    spoiler.on_part = lambda _: None
    services = ward.app.services
    assert services is not None
    ward.clock.advance(services.blobs._limits.upload_seconds + 1)
    assert (await services.blob_sweep.sweep()).ended == 1
    alice = await ward.open("alice")
    shown = await sees(bob, conversation, "wound")
    assert alice.message(message).sequence == shown.sequence
    assert Image.open(io.BytesIO(await bob.open_attachment(shown.id))).size == (1500, 1500)
