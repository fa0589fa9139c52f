"""A person whose device is the Python SDK, driven from a test that drives browsers: a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from serving import wait_until

from curbside.client.device import Conversation, Device, Message

T = TypeVar("T")
WAIT = 60.0


class PythonPerson:
    """Close it, so that the vault is given back."""

    def __init__(self, folder: Path, name: str, passphrase: str, kind: type[Device] = Device) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.vault = folder / "device.vault"
        self.name = name
        self.device: Device
        self._passphrase = passphrase
        self._kind = kind
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine of the device's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT)

    def join(self, link: str) -> None:
        """Sign up and connect."""
        self.device = self.call(self._kind.join(self.vault, link, self.name, self._passphrase))
        self.call(self._enter())

    async def _enter(self) -> None:
        await self.device.__aenter__()
        await self.device.connection.wait_caught_up()

    def close(self) -> None:
        """Disconnect and lock the vault."""
        if hasattr(self, "device"):
            self.call(self.device.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()

    # --- what a person does and sees --------------------------------------------------------------

    def find(self, title: str) -> Conversation:
        """The conversation of this title, as soon as the device has it."""

        def found() -> list[Conversation]:
            return [each for each in self._ask_conversations() if each.title == title]

        wait_until(found, f"{self.name} is in {title!r}")
        return found()[0]

    def send(self, title: str, text: str, *, in_reply_to: str = "") -> str:
        """Send a text; its id."""
        return self.call(self.device.send_text(self.find(title).id, text, in_reply_to=in_reply_to))

    def send_picture(self, title: str, data: bytes, caption: str) -> str:
        """Send a picture; its id."""
        return self.call(self.device.send_picture(self.find(title).id, data, caption=caption))

    def read(self, title: str) -> list[Message]:
        """What is in the conversation, which is read by that."""
        conversation = self.find(title).id

        async def look() -> list[Message]:
            await self.device.mark_read(conversation)
            return self.device.messages(conversation, limit=500)

        return self.call(look())

    def wait_for(self, title: str, text: str, seconds: float = 60.0) -> Message:
        """The message with this text or caption, which is read by that."""

        def found() -> list[Message]:
            return [message for message in self.read(title) if message.text == text and message.sequence]

        wait_until(found, f"{self.name} has {text!r}", seconds)
        return found()[0]

    def open_picture(self, message: Message) -> bytes:
        """The bytes of a message's first attachment."""
        return self.call(self.device.open_attachment(message.id))

    def _ask_conversations(self) -> list[Conversation]:
        async def look() -> list[Conversation]:
            return self.device.conversations()

        return self.call(look())
