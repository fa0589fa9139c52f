"""Making messages: one function for each thing people send.

Every function takes the options of `Options` as keywords. Without a `salt` a message gets a fresh random one;
a salt must never be used twice, because the message's id hangs on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, TypedDict, Unpack

from curbside.crypto.random import random_bytes
from curbside.errors import TooLarge
from curbside.wire import status
from curbside.wire.content_clinical import (
    Acknowledgement,
    Clinical,
    Consent,
    Consult,
    Picture,
    Task,
    Title,
    with_extensions,
)
from curbside.wire.content_read import describe
from curbside.wire.content_types import (
    HASH_SHA256,
    SALT_BYTES,
    Disposition,
    Expiry,
    ExternalPart,
    Message,
    MultiPart,
    NullPart,
    Part,
    Semantics,
    SinglePart,
)

PLAIN: Final = "text/plain;charset=utf-8"
MARKDOWN: Final = "text/markdown;variant=GFM-MIMI"
THUMBNAIL_BYTES: Final = 16 * 1024
"""A preview inside a message."""
BLOB_SCHEME: Final = "curbside-blob:"
ENC_STREAM_AES_256_GCM: Final = 0x8001
"""Our chunked AES-256-GCM (docs/protocol.md, "Blobs"); 0x8000 and up is the IANA registry's private range."""


class Options(TypedDict, total=False):
    """What any message may carry. clinical: extensions; the others as in Message."""

    salt: bytes
    replaces: bytes
    topic_id: bytes
    expires: Expiry
    in_reply_to: bytes
    clinical: Sequence[Clinical]


def message(body: Part, **options: Unpack[Options]) -> Message:
    """A message around a body."""
    made = Message(
        salt=options.get("salt") or random_bytes(SALT_BYTES),
        body=body,
        replaces=options.get("replaces"),
        topic_id=options.get("topic_id", b""),
        expires=options.get("expires"),
        in_reply_to=options.get("in_reply_to"),
    )
    return with_extensions(made, *options.get("clinical", ()))


def text_part(text: str, content_type: str = PLAIN) -> SinglePart:
    """A body of text."""
    return SinglePart(content_type, _utf8(text))


def text(text: str, **options: Unpack[Options]) -> Message:
    """A plain text; a reply with `in_reply_to`."""
    return message(text_part(text), **options)


def markdown(text: str, **options: Unpack[Options]) -> Message:
    """A text in the draft's Markdown (GFM-MIMI: no HTML)."""
    return message(text_part(text, MARKDOWN), **options)


def reaction(emoji: str, target: bytes, **options: Unpack[Options]) -> Message:
    """One reaction to the message `target`. Taken back with `delete` of the reaction's own id."""
    options["in_reply_to"] = target
    return message(SinglePart(PLAIN, _utf8(emoji), Disposition.REACTION), **options)


def edit(target: bytes, body: str | Part, **options: Unpack[Options]) -> Message:
    """A new body for the message whose first version has the id `target`. Pass the original's `in_reply_to` on."""
    options["replaces"] = target
    return message(text_part(body) if isinstance(body, str) else body, **options)


def delete(target: bytes, **options: Unpack[Options]) -> Message:
    """Retract the message (or reaction) whose first version has the id `target`."""
    options["replaces"] = target
    return message(NullPart(), **options)


def status_report(statuses: Iterable[tuple[bytes, int]], **options: Unpack[Options]) -> Message:
    """What became of messages on this side: (message id, Status).

    Raises:
        Malformed: no status, or what is none.
        TooLarge: over status.REPORTED_MESSAGES.
    """
    report = status.encode_report(statuses)
    return message(SinglePart(status.MEDIA_TYPE, report, Disposition.UNSPECIFIED), **options)


def blob(  # noqa: PLR0913 - the fields of an attachment, all by keyword but the first
    blob_id: str,
    *,
    content_type: str,
    size: int,
    key: bytes,
    content_hash: bytes,
    filename: str = "",
    description: str = "",
    disposition: int = Disposition.ATTACHMENT,
) -> ExternalPart:
    """An attachment kept as a blob. size: of the plain file. key: the blob's. content_hash: SHA-256 of the ciphertext.

    The nonce is at the head of the ciphertext, so the part has none.
    """
    return ExternalPart(
        content_type=content_type,
        url=BLOB_SCHEME + blob_id,
        size=size,
        enc_alg=ENC_STREAM_AES_256_GCM,
        key=key,
        hash_alg=HASH_SHA256,
        content_hash=content_hash,
        filename=filename,
        description=description,
        disposition=disposition,
    )


def photo(
    external: ExternalPart,
    width: int,
    height: int,
    caption: str = "",
    thumbnail: SinglePart | None = None,
    **options: Unpack[Options],
) -> Message:
    """A picture with its size in pixels, a caption, and a small preview that travels inside the message.

    Raises:
        TooLarge: the preview is over THUMBNAIL_BYTES.
    """
    parts: list[Part] = [text_part(caption)] if caption else []
    parts.append(replace(external, disposition=Disposition.INLINE))
    if thumbnail is not None:
        if len(thumbnail.content) > THUMBNAIL_BYTES:
            raise TooLarge("a preview is over its size limit", limit=THUMBNAIL_BYTES)
        parts.append(SinglePart(thumbnail.content_type, thumbnail.content, Disposition.PREVIEW))
    body = parts[0] if len(parts) == 1 else MultiPart(Semantics.PROCESS_ALL, tuple(parts))
    index = 0 if len(parts) == 1 else 1 + bool(caption)
    picture = Picture(index, width, height, None if thumbnail is None else index + 1)
    options["clinical"] = (*options.get("clinical", ()), picture)
    return message(body, **options)


def attachment(external: ExternalPart, caption: str = "", **options: Unpack[Options]) -> Message:
    """A file, with a caption if there is one."""
    if not caption:
        return message(external, **options)
    return message(MultiPart(Semantics.PROCESS_ALL, (text_part(caption), external)), **options)


def conversation_title(title: str, **options: Unpack[Options]) -> Message:
    """Name the conversation from here on; the title is content like any other."""
    return _clinical(Title(title), options)


def acknowledge(target: bytes, response: int, note: str = "", **options: Unpack[Options]) -> Message:
    """Answer the acknowledge-request of the message `target`."""
    options["in_reply_to"] = target
    return _clinical(Acknowledgement(response, note), options)


def consult(request: Consult, **options: Unpack[Options]) -> Message:
    """Ask for a consult."""
    return _clinical(request, options)


def task(task: Task, **options: Unpack[Options]) -> Message:
    """Give something to do; a later state is the same with `replaces`."""
    return _clinical(task, options)


def consent(record: Consent, **options: Unpack[Options]) -> Message:
    """Put a consent on record."""
    return _clinical(record, options)


def _clinical(extension: Clinical, options: Options) -> Message:
    """A message that is an extension, with its readable form as the body for those who do not know it."""
    options["clinical"] = (extension, *options.get("clinical", ()))
    return message(text_part("\n".join(describe(extension))), **options)


def _utf8(text: str) -> bytes:
    """What is no character (half of a surrogate pair) becomes U+FFFD, as in a browser."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
