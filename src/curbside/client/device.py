"""Device: the public face of the SDK. One device of one person: its vault, its conversations, its connection.

async with await Device.open(Path("bot.vault"), passphrase) as device:
    async for event in device.events():
        if event.kind == "message" and not event.message.is_mine:
            await device.send_text(event.message.conversation, "Received.")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from curbside.client import account, media
from curbside.client.connection import Connection
from curbside.client.effects import (
    Arrived,
    Changed,
    CommitSettled,
    Effect,
    Joined,
    Notice,
    SendFrame,
    Signalled,
)
from curbside.client.engine import Engine
from curbside.client.groups import Groups
from curbside.client.network import Internet, Network
from curbside.client.rows import MessageRow
from curbside.client.transport import Transport
from curbside.client.trust import compute_safety_number
from curbside.client.vault import Vault
from curbside.clock import Clock, SystemClock
from curbside.crypto import stream_aead
from curbside.crypto.secret import SecretBytes
from curbside.errors import BlobCorrupt, CurbsideError, EpochConflict, NotFound, PeerUnavailable, UntrustedDevice
from curbside.ids import ConversationId, DeviceId, UserId, decode_base64url, decode_id
from curbside.mls.group import CommitRequest
from curbside.mls.public import verify_key_package
from curbside.policy.chain import VerifiedDevice
from curbside.wire import bodies, content, frames
from curbside.wire.group_policy import make_direct_policy, make_group_policy

COMMIT_TRIES = 5
COMMIT_SECONDS = 30.0


@dataclass(frozen=True)
class Message:
    """One message as a person sees it. at: Unix milliseconds. delivery: "" for other people's messages."""

    id: str
    conversation: ConversationId
    sequence: int
    sender: UserId
    sender_name: str
    sender_device: DeviceId
    is_mine: bool
    at: int
    kind: str
    text: str
    attachments: tuple[content.Attachment, ...]
    delivery: str
    problem: str


@dataclass(frozen=True)
class Conversation:
    """One conversation as a person sees it."""

    id: ConversationId
    kind: str
    title: str
    people: tuple[VerifiedDevice, ...]
    unread: int
    alarm: str


@dataclass(frozen=True)
class Event:
    """Something happened. message: with kind "message" and "delivery"; error: with "notice".

    user_id, seconds: with "typing" and "presence", who, and for how long it may be believed; 0: it is over.
    """

    kind: Literal["message", "delivery", "joined", "changed", "notice", "typing", "presence"]
    conversation: ConversationId | None = None
    message: Message | None = None
    error: CurbsideError | None = None
    user_id: UserId | None = None
    seconds: float = 0.0


class Device:
    """Use as an async context manager: entering connects, leaving locks the vault."""

    def __init__(self, vault: Vault, passphrase: SecretBytes, clock: Clock, network: Network) -> None:
        rows = vault.rows
        self.vault = vault
        self.clock = clock
        self.user_id = UserId(rows.get_setting("user_id"))
        self.device_id = DeviceId(rows.get_setting("device_id"))
        self.name = rows.get_setting("name")
        self.organization = rows.get_setting("organization")
        identity = account.load_identity(vault)
        self._validator = identity.validator
        self._groups = Groups(vault, identity.leaf, identity.validator)
        self.engine = Engine(vault, self._groups, self.user_id, self.device_id)
        self.transport = Transport(rows.get_setting("server"), identity.api_key, clock, network)
        self.connection = Connection(self.engine, self.transport, passphrase, self._released)
        self._listeners: set[asyncio.Queue[Event]] = set()
        self._commits: dict[ConversationId, asyncio.Future[bool]] = {}
        self._refusals: dict[ConversationId, CurbsideError] = {}

    # --- open and close ----------------------------------------------------------------------

    @classmethod
    async def join(  # noqa: PLR0913  all that a person gives at sign-up
        cls,
        path: Path,
        link: str,
        name: str,
        passphrase: str,
        *,
        label: str = "Python device",
        clock: Clock | None = None,
        network: Network | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> Device:
        """Sign up by an invite link and make the vault at `path`.

        Raises: InviteExpired, InviteUsed, UntrustedDevice (the invite is not from the organisation in the link),
        PeerUnavailable, VaultBusy, RuleBroken (passphrase too weak).
        """
        wanted = account.SignUp(path, link, name, label, passphrase)
        clock, network = clock or SystemClock(), network or Internet()
        vault = await account.sign_up(wanted, clock, network, progress)
        return cls(vault, SecretBytes(passphrase.encode()), clock, network)

    @classmethod
    async def open(
        cls, path: Path, passphrase: str, *, clock: Clock | None = None, network: Network | None = None
    ) -> Device:
        """Open the vault at `path`. Raises: NotFound, VaultBusy, WrongPassphrase, IntegrityError."""
        vault = Vault.open(path, passphrase)
        try:
            return cls(vault, SecretBytes(passphrase.encode()), clock or SystemClock(), network or Internet())
        except BaseException:
            vault.close()
            raise

    async def __aenter__(self) -> Device:
        self.connection.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect and lock the vault."""
        await self.connection.stop()
        await self.transport.close()
        self.vault.close()

    # --- reading -----------------------------------------------------------------------------

    def conversations(self) -> list[Conversation]:
        """All conversations of this device."""
        return [self.conversation(row.id) for row in self.vault.rows.conversations()]

    def conversation(self, conversation: str) -> Conversation:
        """One conversation. Raises: NotFound."""
        row = self.vault.rows.get_conversation(conversation)
        people = self._groups.people(row.id)
        others = [p.name for p in people.values() if p.user_id != self.user_id]
        return Conversation(
            row.id,
            row.kind,
            row.title or ", ".join(others),
            tuple(people.values()),
            len(self.vault.rows.unread(row.id, self.user_id)),
            row.alarm,
        )

    def messages(self, conversation: str, *, before: int = 0, limit: int = 50) -> list[Message]:
        """The newest messages in order; `before`: only those older than that sequence number."""
        return [self._message(row) for row in self.vault.rows.messages(conversation, before=before, limit=limit)]

    def message(self, message_id: str) -> Message:
        """One message. Raises: NotFound."""
        row = self.vault.rows.find_message(message_id)
        if row is None:
            raise NotFound("there is no such message")
        return self._message(row)

    def _message(self, row: MessageRow) -> Message:
        person = self.vault.rows.find_person(row.sender)
        mine = row.sender == self.user_id
        decoded = content.decode(row.content) if row.content else None
        return Message(
            id=row.id,
            conversation=row.conversation,
            sequence=row.sequence,
            sender=row.sender,
            sender_name=self.name if mine else (person[0] if person else ""),
            sender_device=row.sender_device,
            is_mine=mine,
            at=row.at,
            kind=str(content.kind(decoded)) if decoded else "unknown",
            text=content.body_text(decoded) if decoded else "",
            attachments=tuple(content.attachments(decoded)) if decoded else (),
            delivery=row.delivery,
            problem=row.problem,
        )

    async def people(self, query: str = "") -> list[bodies.Person]:
        """People of the organisation with `query` in their name; each one's certificates are checked.

        The directory is read whole and searched here: what somebody looks for is nothing the server should hear.
        """
        found: list[bodies.Person] = []
        after = ""
        while True:
            page = await self._call("GET", "/v1/people?" + urlencode({"after": after}), bodies.People)
            found += [person for person in page.people if query.casefold() in person.name.casefold()]
            if not page.next:
                break
            after = page.next
        for person in found:
            self._verify_person(person)
        return found

    def _verify_person(self, person: bodies.Person) -> None:
        verified = self._validator.verify_person(
            [decode_base64url(person.user_certificate), decode_base64url(person.enrolment_certificate)],
            self.transport.now(),
        )
        if (verified.user_id, verified.name, verified.role) != (person.user_id, person.name, person.role):
            raise UntrustedDevice(
                person.name, "trust.user.match", "the directory names somebody else than the certificate"
            )

    # --- writing -----------------------------------------------------------------------------

    async def send_text(self, conversation: str, text: str, *, in_reply_to: str = "") -> str:
        """Send a text; returns its id at once. It goes out when it can. Raises: NotFound, TooLarge."""
        replied = self.vault.rows.find_message(in_reply_to) if in_reply_to else None
        message = content.text(text, in_reply_to=replied.mimi_id) if replied else content.text(text)
        return await self._write(ConversationId(conversation), message)

    async def send_picture(self, conversation: str, data: bytes, *, caption: str = "") -> str:
        """Send a picture: drawn anew without metadata, sealed, uploaded, then told; returns its id at once.

        Raises: NotFound, Malformed (not a picture), TooLarge.
        """
        picture = await asyncio.to_thread(media.redraw_picture, data)
        key = stream_aead.make_key()
        sealed = await asyncio.to_thread(stream_aead.seal_bytes, key, picture.data)
        external = content.blob(
            "",
            content_type="image/jpeg",
            size=len(picture.data),
            key=key.reveal(),
            content_hash=stream_aead.hash_file(sealed),
        )
        thumbnail = content.SinglePart("image/jpeg", picture.thumbnail)
        message = content.photo(external, picture.width, picture.height, caption, thumbnail)
        target = ConversationId(conversation)
        message_id = self.engine.write_with_upload(target, message, sealed, self.transport.now_ms())
        self._released([Changed(target, message_id)])
        self.connection.upload_soon()
        return message_id

    async def _write(self, conversation: ConversationId, message: content.Message) -> str:
        message_id, effects = self.engine.write(conversation, message, self.transport.now_ms())
        await self.connection.carry_out(effects)
        return message_id

    async def retry(self, message_id: str) -> None:
        """Try a failed message again."""
        await self.connection.carry_out(self.engine.retry(message_id, self.transport.now_ms()))

    async def mark_read(self, conversation: str) -> None:
        """Tell the others that everything here was read."""
        await self.connection.carry_out(self.engine.mark_read(ConversationId(conversation), self.transport.now_ms()))

    async def show_typing(self, conversation: str, *, is_typing: bool = True) -> None:
        """Tell the others that somebody types here; repeat it every 4 seconds while it lasts. Lost when offline."""
        await self._signal(conversation, frames.SIGNAL_TYPING if is_typing else frames.SIGNAL_STOPPED)

    async def show_presence(self, conversation: str, *, is_here: bool = True) -> None:
        """Tell the others that somebody looks at this conversation; repeat it every 20 seconds. Lost when offline."""
        await self._signal(conversation, frames.SIGNAL_HERE if is_here else frames.SIGNAL_AWAY)

    async def _signal(self, conversation: str, kind: int) -> None:
        self.vault.rows.get_conversation(conversation)
        await self.connection.carry_out([SendFrame(frames.Signal(conversation, kind))])

    async def wait_until_sent(self, message_id: str, seconds: float = 30.0) -> Message:
        """The message once the server has it.

        Raises: PeerUnavailable (still waiting); why it was refused; why its conversation has stopped.
        """
        queue = self._listen()
        try:
            async with asyncio.timeout(seconds):
                while not self._is_sent(message_id):
                    await queue.get()
                return self.message(message_id)
        except TimeoutError as error:
            raise PeerUnavailable("the message waits; it goes out when the server can be reached") from error
        finally:
            self._listeners.discard(queue)

    def _is_sent(self, message_id: str) -> bool:
        row = self.vault.rows.find_message(message_id)
        if row is None:
            raise NotFound("there is no such message")
        if row.delivery == "failed":
            raise account.error_of_json(row.problem)
        if not row.sequence and (alarm := self.vault.rows.get_conversation(row.conversation).alarm):
            raise account.error_of_json(alarm)
        return row.sequence > 0

    # --- attachments -------------------------------------------------------------------------

    async def open_attachment(self, message_id: str, index: int = 0) -> bytes:
        """The bytes of an attachment: fetched, checked against the message's hash, opened. A picture is drawn anew.

        Raises: NotFound, Malformed (no blob's id), BlobCorrupt, PeerUnavailable, StoreUnavailable.
        """
        found = self.message(message_id).attachments
        if index >= len(found):
            raise NotFound("the message has no such attachment")
        part = found[index].part
        if not part.url.startswith(content.BLOB_SCHEME):
            raise NotFound("the attachment is in another place than our server")
        blob_id = part.url.removeprefix(content.BLOB_SCHEME)
        decode_id(blob_id)  # it becomes part of a path
        ciphertext = self.vault.rows.find_attachment(blob_id)
        # What is kept may be of another message that named the same blob.
        if ciphertext is None or stream_aead.hash_file(ciphertext) != part.content_hash:
            ciphertext = await self.connection.download(blob_id, part.content_hash)
            with self.vault.transaction() as rows:
                rows.save_attachment(blob_id, ciphertext, self.transport.now_ms())
        plain = await asyncio.to_thread(stream_aead.open_bytes, SecretBytes(part.key), part.size, ciphertext)
        if part.content_type.startswith("image/"):
            try:
                return (await asyncio.to_thread(media.redraw_picture, plain)).data
            except CurbsideError as error:
                raise BlobCorrupt("the attachment is not the picture it says it is") from error
        return plain

    # --- conversations -----------------------------------------------------------------------

    async def start_conversation(self, user_ids: list[str], *, title: str = "") -> ConversationId:
        """A conversation with these people; with one person and no title, the direct one if it exists already.

        Raises: UntrustedDevice (names the device), NotFound, PeerUnavailable.
        """
        others = [user for user in dict.fromkeys(user_ids) if user != self.user_id]
        direct = len(others) == 1 and not title
        if direct and (existing := self._find_direct(others[0])) is not None:
            return existing
        packages = await self._claim([*others, self.user_id])
        policy = make_direct_policy(self.user_id, UserId(others[0])) if direct else make_group_policy(self.user_id)
        request = self.engine.create(policy, title, self.transport.now_ms())
        conversation = ConversationId(request.conversation_id)
        await self._call("POST", "/v1/conversations", bodies.ConversationState, request)
        await self.connection.follow(conversation)
        await self._commit(conversation, CommitRequest(adds=tuple(packages)))
        if title:
            await self._write(conversation, content.conversation_title(title))
        return conversation

    async def add_people(self, conversation: str, user_ids: list[str]) -> None:
        """Add people to a group. Raises: RuleBroken (not allowed by the group's policy), UntrustedDevice, NotFound."""
        for attempt in range(COMMIT_TRIES):
            packages = await self._claim(user_ids)
            try:
                await self._commit(ConversationId(conversation), CommitRequest(adds=tuple(packages)))
            except EpochConflict:
                if attempt == COMMIT_TRIES - 1:
                    raise
            else:
                effects = self.engine.repeat_title(ConversationId(conversation), self.transport.now_ms())
                await self.connection.carry_out(effects)
                return

    async def refresh_keys(self, conversation: str) -> None:
        """Commit a path update: new keys for this device (post-compromise security, RFC 9420 section 12.4)."""
        await self._commit(ConversationId(conversation), CommitRequest())

    def safety_number(self, conversation: str) -> str:
        """Digits that two people compare; the same on both sides when nobody stands between."""
        people = self._groups.people(conversation).values()
        return compute_safety_number((person.user_id, person.user_key) for person in people)

    def _find_direct(self, user_id: str) -> ConversationId | None:
        for row in self.vault.rows.conversations():
            people = self._groups.people(row.id)
            if row.kind == "direct" and not row.alarm and set(people) == {self.user_id, user_id}:
                return row.id
        return None

    async def _claim(self, user_ids: list[str]) -> list[bytes]:
        packages: list[bytes] = []
        for user_id in user_ids:
            path = f"/v1/people/{user_id}/key-packages/claim"
            claimed = await self._call("POST", path, bodies.ClaimedKeyPackages)
            if not claimed.devices and user_id != self.user_id:
                raise NotFound("this person has no device that can be reached")
            for device in claimed.devices:
                package = decode_base64url(device.key_package)
                found = self._identify_package(package)
                if found.user_id != user_id:
                    raise UntrustedDevice(
                        found.device_label,
                        "trust.user.match",
                        f"the device {found.device_label} belongs to another person",
                    )
                if found.device_id != self.device_id:
                    packages.append(package)
        return packages

    def _identify_package(self, package: bytes) -> VerifiedDevice:
        """Whose key package it is, after all of its checks. Raises: UntrustedDevice, InvalidMessage errors."""
        now = self.transport.now()
        info = verify_key_package(package, self._validator, now)
        return self._validator.verify_device(info.credential, info.signature_key, now)

    async def _commit(self, conversation: ConversationId, request: CommitRequest) -> None:
        """Stage, post, and wait until the log decides. Raises: EpochConflict (another won), or why it was refused."""
        settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._refusals.pop(conversation, None)
        self._commits[conversation] = settled
        try:
            effects = self.engine.commit(conversation, request, self.transport.now_ms())
            await self.connection.carry_out(effects)
            async with asyncio.timeout(COMMIT_SECONDS):
                accepted = await settled
        except TimeoutError as error:
            raise PeerUnavailable("the change waits; it is made when the server can be reached") from error
        finally:
            self._commits.pop(conversation, None)
        if not accepted:
            raise self._refusals.pop(conversation, EpochConflict())

    async def _call(self, method: str, path: str, answer: type[Any], body: Any = None) -> Any:
        await self.connection.wait_signed_in()
        return await self.transport.call(method, path, answer, body)

    # --- events ------------------------------------------------------------------------------

    def events(self) -> AsyncIterator[Event]:
        """What happens from this call on, until the device is closed."""
        return self._drain(self._listen())

    async def _drain(self, queue: asyncio.Queue[Event]) -> AsyncIterator[Event]:
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    def _listen(self) -> asyncio.Queue[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._listeners.add(queue)
        return queue

    def _released(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._settle(effect)
            if self._listeners and (event := self._event(effect)) is not None:
                for queue in self._listeners:
                    queue.put_nowait(event)

    def _settle(self, effect: Effect) -> None:
        """What waits in `_commit` hears how its commit ended."""
        match effect:
            case Notice(conversation, error) if conversation is not None:
                self._refusals[conversation] = error
            case CommitSettled(conversation, accepted):
                settled = self._commits.get(conversation)
                if settled is not None and not settled.done():
                    settled.set_result(accepted)
            case _:
                pass

    def _event(self, effect: Effect) -> Event | None:
        match effect:
            case Arrived(conversation, message):
                return Event("message", conversation, self.message(message))
            case Changed(conversation, ""):
                return Event("changed", conversation)
            case Changed(conversation, message):
                return Event("delivery", conversation, self.message(message))
            case Joined(conversation):
                return Event("joined", conversation)
            case Signalled(conversation, user_id, kind, lasts):
                is_typing = kind in (frames.SIGNAL_TYPING, frames.SIGNAL_STOPPED)
                return Event("typing" if is_typing else "presence", conversation, user_id=user_id, seconds=lasts / 1000)
            case Notice(conversation, error):
                return Event("notice", conversation, None, error)
            case _:
                return None
