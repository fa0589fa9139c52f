"""Attachments through S3-compatible storage: a photo from a Python device to a browser and back, by links."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Playwright, Response
from python_person import PythonPerson
from s3 import SECRET_KEY, bucket_of, s3_server
from test_web_core import PASSPHRASE, CoreBrowser, CoreServer
from test_web_core import static_folder as static_folder  # a fixture

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SIDE = 1600
TITLE = "Consult"


@pytest.fixture(scope="module")
def server(static_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreServer]:
    """A server whose attachments lie in a bucket, with links switched on; told so by its environment alone."""
    folder = tmp_path_factory.mktemp("cloud")
    settings = s3_server().settings(bucket_of(folder))
    with pytest.MonkeyPatch.context() as environment:
        for name, value in (
            ("ENDPOINT", settings.endpoint),
            ("BUCKET", settings.bucket),
            ("ACCESS_KEY_ID", settings.access_key_id),
            ("SECRET_ACCESS_KEY", SECRET_KEY),
            ("PRESIGN_SECONDS", "60"),
        ):
            environment.setenv(f"CURBSIDE_BLOBS_{name}", str(value))
        running = CoreServer(folder / "ward", static_folder)
        yield running
        running.kill()


def noise() -> bytes:
    """A picture that does not compress: several pieces."""
    image = Image.frombytes("RGB", (SIDE, SIDE), random.Random(7).randbytes(SIDE * SIDE * 3))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


def test_photos_go_both_ways_through_the_bucket(
    playwright: Playwright, server: CoreServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fiona = PythonPerson(tmp_path_factory.mktemp("fiona"), "Fiona Finn", PASSPHRASE)
    browser = CoreBrowser(playwright, tmp_path_factory.mktemp("alice"), server.url)
    linked: list[tuple[str, int]] = []
    told: set[str] = set()

    def hear(response: Response) -> None:
        if response.url.startswith(s3_server().endpoint):
            linked.append((response.request.headers.get("range", ""), response.status))
            told.update(name for name, value in response.request.headers.items() if value)

    browser.context.on("response", hear)
    try:
        browser.join(server.invite("physician"), "Dr. Alice Adler")
        fiona.join(server.invite("nurse"))
        (person,) = browser.call("people", "Fiona")
        conversation = browser.call("startConversation", {"userIds": [person["userId"]], "title": TITLE})
        assert isinstance(conversation, str), conversation
        script = """([id, photo]) => core.sendPhoto(id, {
            blob: new Blob([Uint8Array.from(atob(photo), (c) => c.charCodeAt(0))]), caption: "to Fiona" })"""
        browser.page.evaluate(script, [conversation, base64.b64encode(noise()).decode()])
        message = fiona.wait_for(TITLE, "to Fiona")
        assert Image.open(io.BytesIO(fiona.open_picture(message))).size == (SIDE, SIDE)
        fiona.send_picture(TITLE, noise(), "to Alice")
        browser.until(
            "(await core.messages(x, { limit: 20 })).messages.some((message) => message.text === 'to Alice')",
            conversation,
        )
        size = browser.page.evaluate(
            """async (id) => {
                const { messages } = await core.messages(id, { limit: 20 });
                const image = await core.openImage(messages.find((found) => found.text === "to Alice").id, 0);
                const bitmap = await createImageBitmap(new Blob([image.bytes], { type: image.mediaType }));
                return [bitmap.width, bitmap.height];
            }""",
            conversation,
        )
        assert size == [SIDE, SIDE]
        assert linked, "nothing was fetched by a link"
        assert {status for _, status in linked} == {206}
        assert not {"authorization", "dpop", "cookie", "referer"} & told
        assert browser.faults == []
    finally:
        fiona.close()
        browser.close()
