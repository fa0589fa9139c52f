"""Connection: keeps a device signed in and connected, and carries out the engine's effects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from curbside.client import account
from curbside.client.attachments import download_attachment
from curbside.client.effects import AcknowledgeSoon, CaughtUp, Effect, Joined, Notice, PostCommit, Retry, SendFrame
from curbside.client.engine import Engine
from curbside.client.rows import UploadRow
from curbside.client.transport import Stream, Transport
from curbside.crypto.kdf import compute_hash
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import (
    BlobCorrupt,
    CurbsideError,
    DeviceRevoked,
    NotAuthenticated,
    NotFound,
    OffsetConflict,
    PeerUnavailable,
    Unavailable,
    UsageError,
    WrongPassphrase,
)
from curbside.ids import ConversationId, encode_base64url
from curbside.wire import bodies, content, frames, limits

FIRST_WAIT = 0.2
LONGEST_WAIT = 20.0
FAREWELL_SECONDS = 1.0
ACKNOWLEDGE_SECONDS = 1.0
"""How long what was processed waits to be acknowledged, together with what comes meanwhile."""
KEY_PACKAGES_KEPT = 20
UPLOAD_TRIES = 6
RETRY_SECONDS = 5.0


class Connection:
    """Runs until stopped; loses nothing when the server goes away, because everything waits in the vault."""

    def __init__(
        self,
        engine: Engine,
        transport: Transport,
        passphrase: SecretBytes,
        released: Callable[[list[Effect]], None],
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._passphrase = passphrase
        self._released = released
        self._stream: Stream | None = None
        self._runner: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._posting: set[ConversationId] = set()
        self._acknowledging: asyncio.Task[None] | None = None
        self._uploading = asyncio.Lock()
        self._signed_in = asyncio.Event()
        self.caught_up = asyncio.Event()
        self._syncs = 0
        self.ended_by: CurbsideError | None = None

    def start(self) -> None:
        """Begin to connect."""
        self._runner = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Disconnect, after a last word on what was processed."""
        if self._stream is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self.carry_out(self._engine.acknowledge())
        running = [task for task in (self._runner, *self._tasks) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._stream is not None:
            await self._stream.close()
        self._passphrase.wipe()

    async def wait_signed_in(self, seconds: float = 20.0) -> None:
        """Return when there is a session. Raises: PeerUnavailable, or what ended this connection."""
        await self._wait(self._signed_in, seconds)

    async def wait_caught_up(self, seconds: float = 30.0) -> None:
        """Return when everything the server held is processed. Raises: as `wait_signed_in`."""
        await self._wait(self.caught_up, seconds)

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        if self._runner is None:
            raise PeerUnavailable("the device is not connected: use it as an async context manager")
        waiter = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({waiter, self._runner}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        if self.ended_by is not None:
            raise self.ended_by
        if not event.is_set():
            raise PeerUnavailable()

    # --- the loop ----------------------------------------------------------------------------

    async def _run(self) -> None:
        wait = FIRST_WAIT
        while True:
            try:
                if self._transport.session is None:
                    await account.sign_in(self._engine.vault, self._transport, self._passphrase)
                self._signed_in.set()
                self._stream = await self._transport.open_stream()
                wait = FIRST_WAIT
                await self._pump(self._stream)
            except (DeviceRevoked, WrongPassphrase) as error:
                self.ended_by = error
                self._released([Notice(None, error)])
                return
            except NotAuthenticated:
                self._transport.session = None
                self._signed_in.clear()
            except CurbsideError as error:
                if not isinstance(error, Unavailable):
                    self._released([Notice(None, error)])
            except Exception:  # noqa: BLE001  a mistake of ours is told, and is no reason to stay away for good
                self._released([Notice(None, UsageError())])
            finally:
                await self._disconnected()
            await asyncio.sleep(wait * (0.5 + random_bytes(1)[0] / 256))
            wait = min(wait * 2, LONGEST_WAIT)

    async def _disconnected(self) -> None:
        self.caught_up.clear()
        self._syncs = 0
        self._engine.disconnected()
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    async def _pump(self, stream: Stream) -> None:
        await self.carry_out(self._engine.connected())
        async for frame in stream:
            if isinstance(frame, frames.Closing):
                raise account.error_of_closing(frame)
            await self.carry_out(self._engine.received(frame, self._transport.now_ms()))

    # --- effects -----------------------------------------------------------------------------

    async def carry_out(self, effects: list[Effect]) -> None:
        """Do what the engine asks, in its order; what cannot be sent now is made again at the next Sync."""
        self._released(effects)
        for effect in effects:
            match effect:
                case SendFrame(frame):
                    await self._send(frame)
                    if isinstance(frame, frames.Sync):
                        self._syncs += 1
                        self.caught_up.clear()
                case PostCommit(conversation, request):
                    if conversation not in self._posting:
                        self._posting.add(conversation)
                        self._spawn(self._post_commit(conversation, request))
                case Retry(conversation, seconds):
                    self._spawn(self._release_later(conversation, seconds))
                case AcknowledgeSoon():
                    if self._acknowledging is None or self._acknowledging.done():
                        self._acknowledging = self._spawn(self._acknowledge_later())
                case CaughtUp():
                    self._syncs -= 1
                    if self._syncs <= 0:
                        self.caught_up.set()
                    self.upload_soon()
                    self._spawn(self._refill_key_packages())
                case Joined():
                    self._spawn(self._refill_key_packages())
                case _:
                    pass

    async def _send(self, frame: frames.ClientFrame) -> None:
        if self._stream is None:
            return
        try:
            await self._stream.send(frame)
        except PeerUnavailable:
            return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def follow(self, conversation: ConversationId) -> None:
        """Ask for the entries of a conversation that this device has just made."""
        await self.carry_out([SendFrame(self._engine.sync.frame(conversation))])

    async def _post_commit(self, conversation: ConversationId, request: bodies.NewCommit) -> None:
        error: CurbsideError | None = None
        try:
            await self._transport.call("POST", f"/v1/conversations/{conversation}/commits", bodies.Appended, request)
        except CurbsideError as refused:
            error = refused
        finally:
            self._posting.discard(conversation)
        await self.carry_out(self._engine.commit_answered(conversation, error, self._transport.now_ms()))

    async def _acknowledge_later(self) -> None:
        await asyncio.sleep(ACKNOWLEDGE_SECONDS)
        await self.carry_out(self._engine.acknowledge())

    async def _release_later(self, conversation: ConversationId, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.carry_out(self._engine.release(conversation, self._transport.now_ms()))

    async def _refill_key_packages(self) -> None:
        try:
            count = await self._transport.call("GET", "/v1/key-packages", bodies.KeyPackageCount)
            missing = KEY_PACKAGES_KEPT - count.available
            now = self._transport.now()
            last_resort = self._engine.renew_last_resort(now)
            made = self._engine.make_key_packages(missing, now) if missing > KEY_PACKAGES_KEPT // 2 else []
            if made or last_resort is not None:
                body = bodies.KeyPackages(
                    [encode_base64url(package) for package in made],
                    None if last_resort is None else encode_base64url(last_resort),
                )
                await self._transport.call("POST", "/v1/key-packages", type(None), body)
        except CurbsideError as error:
            if not isinstance(error, Unavailable):
                self._released([Notice(None, error)])

    # --- attachments up ------------------------------------------------------------------------

    def upload_soon(self) -> None:
        """Upload what waits; harmless when an upload is under way."""
        self._spawn(self._upload_all())

    async def _upload_all(self) -> None:
        async with self._uploading:
            for upload in self._engine.vault.rows.uploads():
                try:
                    await self._upload(upload)
                except CurbsideError as error:
                    if isinstance(error, NotAuthenticated):
                        return
                    if error.retry == "later":
                        self._spawn(self._upload_later())
                        return
                    await self.carry_out(self._engine.fail(upload.conversation, upload.id, error))

    async def _upload_later(self) -> None:
        await asyncio.sleep(RETRY_SECONDS)
        await self._upload_all()

    async def _upload(self, upload: UploadRow) -> None:
        """Raises: what cannot be healed here; PeerUnavailable: later."""
        blob_id, offset, healed = upload.blob_id, upload.offset, False
        for _ in range(UPLOAD_TRIES):
            try:
                if not blob_id:
                    blob_id, offset = await self._begin_upload(upload)
                offset = await self._upload_from(blob_id, upload.ciphertext, offset)
                break
            except OffsetConflict as error:
                offset = int(error.members["offset"])
            except (BlobCorrupt, NotFound) as error:
                # Damaged on its way or in the storage, or ended there after a long time away: what we keep is whole.
                if healed or (isinstance(error, NotFound) and not upload.blob_id):
                    raise
                healed, offset = True, 0
                blob_id = blob_id if isinstance(error, BlobCorrupt) else ""
        if offset < len(upload.ciphertext):
            raise PeerUnavailable("the upload does not make progress")
        await self.carry_out(self._engine.upload_done(upload.conversation, upload.id, self._transport.now_ms()))

    async def _begin_upload(self, upload: UploadRow) -> tuple[str, int]:
        """A place on the server, which the message names from now on; blob id and offset."""
        digest = encode_base64url(compute_hash("sha256", upload.ciphertext))
        new = bodies.NewBlob(upload.conversation, len(upload.ciphertext), digest)
        began = await self._transport.call("POST", "/v1/blobs", bodies.BlobUpload, new)
        row = self._engine.vault.rows.find_message(upload.id)
        if row is None:
            raise NotFound("the message is gone")
        message = place_blob(content.decode(row.content), began.blob_id)
        self._engine.upload_began(upload.conversation, upload.id, message, began.blob_id)
        return began.blob_id, began.offset

    async def _upload_from(self, blob_id: str, ciphertext: bytes, offset: int) -> int:
        while offset < len(ciphertext):
            chunk = ciphertext[offset : offset + limits.BLOB_CHUNK_BYTES]
            headers = {"upload-offset": str(offset), "content-type": "application/offset+octet-stream"}
            response = await self._transport.request("PATCH", f"/v1/blobs/{blob_id}", content=chunk, headers=headers)
            offset = int(response.json()["offset"])
        return offset

    # --- attachments down ----------------------------------------------------------------------

    async def download(self, blob_id: str, content_hash: bytes) -> bytes:
        """See attachments.download_attachment; waits for the sign-in."""
        await self.wait_signed_in()
        return await download_attachment(self._transport, blob_id, content_hash)


def place_blob(message: content.Message, blob_id: str) -> content.Message:
    """The message with its attachment's url set, now that the server has given it a place."""

    def placed(part: content.Part) -> content.Part:
        if isinstance(part, content.ExternalPart):
            return replace(part, url=content.BLOB_SCHEME + blob_id)
        if isinstance(part, content.MultiPart):
            return replace(part, parts=tuple(placed(p) for p in part.parts))
        return part

    return replace(message, body=placed(message.body))
