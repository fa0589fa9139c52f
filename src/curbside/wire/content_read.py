"""Reading messages: what kind one is, its text, its attachments, and a plain form for whoever knows no better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from curbside.wire import content_clinical as clinical
from curbside.wire import status
from curbside.wire.content_types import Disposition, ExternalPart, Message, MultiPart, NullPart, Part, Semantics
from curbside.wire.content_types import SinglePart as Single


class Kind(StrEnum):
    """What a message does. An unlike is a DELETE of a reaction; a task's new state is an EDIT."""

    TEXT = "text"
    PHOTO = "photo"
    ATTACHMENT = "attachment"
    REACTION = "reaction"
    EDIT = "edit"
    DELETE = "delete"
    STATUS = "status"
    TITLE = "title"
    ACKNOWLEDGEMENT = "acknowledgement"
    CONSULT = "consult"
    TASK = "task"
    CONSENT = "consent"
    SESSION = "session"
    EMPTY = "empty"
    UNKNOWN = "unknown"


_KINDS: Final[tuple[tuple[type[clinical.Clinical], Kind], ...]] = (
    (clinical.Title, Kind.TITLE),
    (clinical.Acknowledgement, Kind.ACKNOWLEDGEMENT),
    (clinical.Consult, Kind.CONSULT),
    (clinical.Task, Kind.TASK),
    (clinical.Consent, Kind.CONSENT),
)
_READABLE: Final = ("text/plain", "text/markdown")
_ASIDE: Final = (Disposition.ICON, Disposition.ATTACHMENT, Disposition.PREVIEW, Disposition.PROFILE)
"""Dispositions of nested parts that are not the message's own words."""


@dataclass(frozen=True, repr=False)
class Attachment:
    """An external part with what the message says about it. index: part index. width, height: 0 = not given.
    preview: the small picture that came inside the message."""

    part: ExternalPart
    index: int
    width: int = 0
    height: int = 0
    preview: Single | None = None


def kind(message: Message) -> Kind:
    """What the message does."""
    body = message.body
    if message.replaces is not None and isinstance(body, NullPart):
        return Kind.DELETE
    if body.disposition == Disposition.REACTION:
        return Kind.REACTION
    if message.replaces is not None:
        return Kind.EDIT
    if isinstance(body, Single) and media_type(body) == status.MEDIA_TYPE:
        return Kind.STATUS
    for extension, found in _KINDS:
        if extension.KEY in message.extensions:
            return found
    return _kind_of_body(message)


def _kind_of_body(message: Message) -> Kind:
    if message.body.disposition == Disposition.SESSION:
        return Kind.SESSION
    if found := attachments(message):
        return Kind.PHOTO if media_type(found[0].part).startswith("image/") else Kind.ATTACHMENT
    if body_text(message):
        return Kind.TEXT
    is_readable = isinstance(message.body, Single) and media_type(message.body) in _READABLE
    if is_readable:
        return Kind.TEXT
    return Kind.EMPTY if isinstance(message.body, NullPart) else Kind.UNKNOWN


def media_type(part: Single | ExternalPart) -> str:
    """Type and subtype in lower case, without parameters."""
    return part.content_type.partition(";")[0].strip(" \t").lower()


def body_text(message: Message) -> str:
    """The words of the message (of a photo: its caption; of a reaction: the emoji); "" if it has none.

    Plain text and Markdown are read, as UTF-8 with U+FFFD for what is none; of parts to choose from, the first.
    """
    return _text_of(message.body)


def _text_of(part: Part) -> str:
    if isinstance(part, Single):
        return part.content.decode(errors="replace") if media_type(part) in _READABLE else ""
    if not isinstance(part, MultiPart):
        return ""
    texts = [_text_of(nested) for nested in part.parts if nested.disposition not in _ASIDE]
    texts = [text for text in texts if text]
    return "\n".join(texts[:1] if part.semantics == Semantics.CHOOSE_ONE else texts)


def numbered_parts(message: Message) -> list[Part]:
    """All parts in the order of their part index: depth first, from 0."""
    return list(_walk(message.body))


def _walk(part: Part) -> Iterator[Part]:
    yield part
    if isinstance(part, MultiPart):
        for nested in part.parts:
            yield from _walk(nested)


def attachments(message: Message) -> list[Attachment]:
    """The external parts that are files or pictures, in order; of alternatives all are listed."""
    parts = numbered_parts(message)
    pictures = {picture.part: picture for picture in clinical.list_pictures(message)}
    return [
        _attachment(part, index, pictures.get(index), parts)
        for index, part in enumerate(parts)
        if isinstance(part, ExternalPart) and part.disposition != Disposition.SESSION
    ]


def _attachment(part: ExternalPart, index: int, picture: clinical.Picture | None, parts: list[Part]) -> Attachment:
    if picture is None:
        return Attachment(part, index)
    preview = parts[picture.preview] if picture.preview is not None and picture.preview < len(parts) else None
    return Attachment(part, index, picture.width, picture.height, preview if isinstance(preview, Single) else None)


def report(message: Message) -> status.Report:
    """The statuses of a message of kind STATUS; empty for any other.

    Raises:
        Malformed: the report cannot be read.
    """
    if not isinstance(message.body, Single) or kind(message) is not Kind.STATUS:
        return ()
    return status.decode_report(message.body.content)


# --- the plain form -----------------------------------------------------------------------------

_LEVELS: Final = {clinical.URGENT: "URGENT", clinical.EMERGENCY: "EMERGENCY"}
_RESPONSES: Final = {clinical.SEEN: "Seen", clinical.ACCEPTED: "Accepted", clinical.DECLINED: "Declined"}
_STATES: Final = {
    clinical.TASK_OPEN: "open",
    clinical.TASK_ACCEPTED: "accepted",
    clinical.TASK_DONE: "done",
    clinical.TASK_CANCELLED: "cancelled",
}
_DECISIONS: Final = {
    clinical.CONSENT_GIVEN: "given",
    clinical.CONSENT_REFUSED: "refused",
    clinical.CONSENT_WITHDRAWN: "withdrawn",
}
_SCOPES: Final = {
    clinical.SCOPE_PHOTO: "photo for care",
    clinical.SCOPE_TEACHING: "teaching",
    clinical.SCOPE_RESEARCH: "research",
    clinical.SCOPE_MESSAGING: "messaging",
}
_SIDES: Final = {clinical.LEFT: "left", clinical.RIGHT: "right", clinical.BOTH: "both sides"}
_CONTEXT: Final = (clinical.Patient, clinical.BodySite)
NEWER: Final = "This message has a part that needs a newer version of Curbside."


def fallback_text(message: Message) -> str:
    """The message as plain lines, for notifications, lists, exports and clients without a better form.

    "" for what has nothing to say to a person (a status report).
    """
    found = kind(message)
    if found is Kind.STATUS:
        return ""
    if found is Kind.DELETE:
        return "Message deleted."
    lines = [] if found is not Kind.REACTION else ["Reaction:"]
    lines += _extension_lines(message, clinical.Priority)
    lines += _words(message)
    lines += [_attachment_line(item.part) for item in attachments(message)]
    for context in _CONTEXT:
        lines += _extension_lines(message, context)
    lines += _extension_lines(message, clinical.AckRequest)
    if clinical.has_unknown_extension(message):
        lines.append(NEWER)
    if found is Kind.REACTION:
        return " ".join(lines)
    return "\n".join(lines) or ("Empty message." if found is Kind.EMPTY else NEWER)


def _words(message: Message) -> list[str]:
    body = message.body
    if words := body_text(message):
        return [words]
    if isinstance(body, ExternalPart) and body.disposition == Disposition.SESSION:
        return [body.description or "Call"]
    lines = []
    for extension, _ in _KINDS:
        lines += _extension_lines(message, extension)
    return lines


def _extension_lines(message: Message, wanted: type[clinical.Clinical]) -> list[str]:
    found = clinical.find_extension(message, wanted)
    return [] if found is None else describe(found)


def _attachment_line(part: ExternalPart) -> str:
    what = "Photo" if media_type(part).startswith("image/") else "File"
    name = part.description or part.filename
    return f"{what}: {name}" if name else what


def describe(extension: clinical.Clinical) -> list[str]:
    """An extension as plain lines."""
    match extension:
        case clinical.Priority(level):
            return [_LEVELS[level]] if level in _LEVELS else []
        case clinical.AckRequest(within):
            return [f"Please acknowledge within {_duration(within)}." if within else "Please acknowledge."]
        case clinical.Acknowledgement(response, note):
            return [_join(": ", _RESPONSES.get(response, "Acknowledged"), note)]
        case clinical.Patient():
            return [_describe_patient(extension)]
        case clinical.Consult():
            return _describe_consult(extension)
        case clinical.Task(title, state, assignee):
            return [_join(", ", f"Task: {title}", _STATES.get(state, ""), assignee and f"for {assignee}")]
        case clinical.Consent():
            return [_describe_consent(extension)]
        case clinical.BodySite(display, _, _, side):
            return [_join(", ", f"Body site: {display}", _SIDES.get(side or 0, ""))]
        case clinical.Title(title):
            return [f"Conversation title: {title}"]
        case _:
            return []


def _describe_patient(patient: clinical.Patient) -> str:
    born = patient.birth_date and f"born {patient.birth_date}"
    return "Patient: " + _join(", ", patient.name, born, patient.identifier, patient.location)


def _describe_consult(request: clinical.Consult) -> list[str]:
    lines = [_join(": ", "Consult request", request.specialty), f"Situation: {request.situation}"]
    rest = (
        ("Background", request.background),
        ("Assessment", request.assessment),
        ("Recommendation", request.recommendation),
    )
    return lines + [f"{name}: {text}" for name, text in rest if text]


def _describe_consent(record: clinical.Consent) -> str:
    by = record.given_by and f"by {record.given_by}"
    decision = "Consent " + _DECISIONS.get(record.decision, "recorded")
    return _join(": ", decision, _join(", ", _SCOPES.get(record.scope, ""), by, record.note))


def _duration(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


def _join(separator: str, *pieces: str) -> str:
    return separator.join(piece for piece in pieces if piece)
