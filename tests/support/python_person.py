"""A person whose device is the Python SDK, driven from a test that drives browsers: a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from serving import wait_until

from curbside.client.device import Conversation, Device, Message
from curbside.crypto import stream_aead
from curbside.crypto.secret import SecretBytes
from curbside.ids import ConversationId
from curbside.wire import content

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
        """Disconnect and lock the vault; nothing when that was done."""
        if self._loop.is_closed():
            return
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

    # --- what only a test does --------------------------------------------------------------------

    def open_unchanged(self, message: Message) -> bytes:
        """The bytes of a message's first attachment as its sender sealed them; an SDK's user gets them drawn anew."""
        self.open_picture(message)
        part = message.attachments[0].part
        ciphertext = self.device.vault.rows.find_attachment(part.url.removeprefix(content.BLOB_SCHEME))
        assert ciphertext is not None
        return stream_aead.open_bytes(SecretBytes(part.key), part.size, ciphertext)

    def content_of(self, message: Message) -> bytes:
        """What was inside a message's encryption, as it came."""
        row = self.device.vault.rows.find_message(message.id)
        assert row is not None
        return row.content

    def send_disguised(self, title: str, data: bytes, caption: str) -> str:
        """Send a file that says it is a picture, whatever it is: what a hostile device would do."""
        key = stream_aead.make_key()
        sealed = stream_aead.seal_bytes(key, data)
        part = content.blob(
            "", content_type="image/jpeg", size=len(data), key=key.reveal(), content_hash=stream_aead.hash_file(sealed)
        )
        message = content.photo(part, 640, 480, caption, content.SinglePart("image/jpeg", data[:2048]))
        return self.call(self._upload(self.find(title).id, message, sealed))

    async def _upload(self, conversation: ConversationId, message: content.Message, sealed: bytes) -> str:
        device = self.device
        message_id = device.engine.write_with_upload(conversation, message, sealed, device.clock.now_ms())
        device.connection.upload_soon()
        await device.wait_until_sent(message_id)
        return message_id
