"""Curbside's extensions of MIMI content: the one table of their numbers and shapes.

| key   | class           | fields of the map (integer key: name; ? = may be absent) |
|-------|-----------------|-----|
| -4201 | Priority        | 1 level: 1 routine, 2 urgent, 3 emergency |
| -4202 | AckRequest      | 1? within_seconds |
| -4203 | Acknowledgement | 1 response: 1 seen, 2 accepted, 3 declined; 2? note. The message it answers: in_reply_to |
| -4204 | Patient         | 1 identifier; 2? system; 3? name; 4? birth_date (YYYY-MM-DD); 5? location |
| -4205 | Consult         | 1 situation; 2? background; 3? assessment; 4? recommendation (SBAR); 5? specialty |
| -4206 | Task            | 1 title; 2 state: 1 open, 2 accepted, 3 done, 4 cancelled; 3? assignee; 4? due (Unix time) |
| -4207 | Consent         | 1 decision: 1 given, 2 refused, 3 withdrawn; 2 scope: 1 photo for care, 2 teaching, |
|       |                 | 3 research, 4 messaging; 3? given_by; 4? recorded_at (Unix seconds); 5? note |
| -4208 | BodySite        | 1 display; 2? code; 3? system; 4? side: 1 left, 2 right, 3 both |
| -4209 | Title           | 1 title of the conversation |
| -4210 | Picture         | array of maps: 1 part (index); 2 width; 3 height (pixels); 4? preview (part index) |

Negative keys are the draft's private range; -4299 to -4200 are ours. Rules: numbers and meanings are never changed
or used again; a map may gain optional fields; a reader skips fields and enumeration values it does not know, and
`decode` keeps them. `web/src/core/wire/content_clinical.ts` holds the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, Final, TypeVar, cast

from curbside.errors import Malformed
from curbside.wire import cbor
from curbside.wire.content_types import Message

PRIVATE_KEYS: Final = range(-4299, -4199)
"""Extension keys that are Curbside's, assigned or not."""

ROUTINE, URGENT, EMERGENCY = 1, 2, 3
SEEN, ACCEPTED, DECLINED = 1, 2, 3
TASK_OPEN, TASK_ACCEPTED, TASK_DONE, TASK_CANCELLED = 1, 2, 3, 4
CONSENT_GIVEN, CONSENT_REFUSED, CONSENT_WITHDRAWN = 1, 2, 3
SCOPE_PHOTO, SCOPE_TEACHING, SCOPE_RESEARCH, SCOPE_MESSAGING = 1, 2, 3, 4
LEFT, RIGHT, BOTH = 1, 2, 3


@dataclass(frozen=True, repr=False)
class Clinical:
    """An extension of ours. Fields carry their number; "" and None stand for an absent field."""

    KEY: ClassVar[int]


@dataclass(frozen=True, repr=False)
class Priority(Clinical):
    """How soon the message wants eyes."""

    KEY: ClassVar[int] = -4201
    level: int = field(metadata={1: int})


@dataclass(frozen=True, repr=False)
class AckRequest(Clinical):
    """The sender wants an answer by hand."""

    KEY: ClassVar[int] = -4202
    within_seconds: int | None = field(default=None, metadata={1: int})


@dataclass(frozen=True, repr=False)
class Acknowledgement(Clinical):
    """The answer to an AckRequest."""

    KEY: ClassVar[int] = -4203
    response: int = field(metadata={1: int})
    note: str = field(default="", metadata={2: str})


@dataclass(frozen=True, repr=False)
class Patient(Clinical):
    """Whom the message is about. system: URI of what assigns the identifier (FHIR Identifier.system)."""

    KEY: ClassVar[int] = -4204
    identifier: str = field(metadata={1: str})
    system: str = field(default="", metadata={2: str})
    name: str = field(default="", metadata={3: str})
    birth_date: str = field(default="", metadata={4: str})
    location: str = field(default="", metadata={5: str})


@dataclass(frozen=True, repr=False)
class Consult(Clinical):
    """A consult request: situation, background, assessment, recommendation."""

    KEY: ClassVar[int] = -4205
    situation: str = field(metadata={1: str})
    background: str = field(default="", metadata={2: str})
    assessment: str = field(default="", metadata={3: str})
    recommendation: str = field(default="", metadata={4: str})
    specialty: str = field(default="", metadata={5: str})


@dataclass(frozen=True, repr=False)
class Task(Clinical):
    """Something to do. A later state is an edit of the message."""

    KEY: ClassVar[int] = -4206
    title: str = field(metadata={1: str})
    state: int = field(metadata={2: int})
    assignee: str = field(default="", metadata={3: str})
    due: int | None = field(default=None, metadata={4: int})


@dataclass(frozen=True, repr=False)
class Consent(Clinical):
    """What the patient (or who speaks for the patient) said yes or no to."""

    KEY: ClassVar[int] = -4207
    decision: int = field(metadata={1: int})
    scope: int = field(metadata={2: int})
    given_by: str = field(default="", metadata={3: str})
    recorded_at: int | None = field(default=None, metadata={4: int})
    note: str = field(default="", metadata={5: str})


@dataclass(frozen=True, repr=False)
class BodySite(Clinical):
    """Where on the body. system: code system's URI, for example http://snomed.info/sct."""

    KEY: ClassVar[int] = -4208
    display: str = field(metadata={1: str})
    code: str = field(default="", metadata={2: str})
    system: str = field(default="", metadata={3: str})
    side: int | None = field(default=None, metadata={4: int})


@dataclass(frozen=True, repr=False)
class Title(Clinical):
    """The conversation's title from here on."""

    KEY: ClassVar[int] = -4209
    title: str = field(metadata={1: str})


@dataclass(frozen=True, repr=False)
class Picture(Clinical):
    """Size of a picture before it is fetched, so that nothing shifts. part, preview: part indexes."""

    KEY: ClassVar[int] = -4210
    part: int = field(metadata={1: int})
    width: int = field(metadata={2: int})
    height: int = field(metadata={3: int})
    preview: int | None = field(default=None, metadata={4: int})


KNOWN: Final[tuple[type[Clinical], ...]] = (
    Priority,
    AckRequest,
    Acknowledgement,
    Patient,
    Consult,
    Task,
    Consent,
    BodySite,
    Title,
    Picture,
)
_C = TypeVar("_C", bound=Clinical)


def with_extensions(message: Message, *extensions: Clinical) -> Message:
    """The message with these extensions beside, or instead of, those it has."""
    found = dict(message.extensions)
    pictures = [item for item in extensions if isinstance(item, Picture)]
    for extension in extensions:
        if not isinstance(extension, Picture):
            found[extension.KEY] = _to_map(extension)
    if pictures:
        found[Picture.KEY] = tuple(map(_to_map, pictures))
    return replace(message, extensions=found)


def find_extension(message: Message, wanted: type[_C]) -> _C | None:
    """The message's extension of this class, if it has one; of Pictures the first.

    Raises:
        Malformed: it has not the shape of the table; never for a message from `decode`.
    """
    value = message.extensions.get(wanted.KEY)
    if value is None:
        return None
    if wanted is Picture:
        pictures = list_pictures(message)
        return cast("_C", pictures[0]) if pictures else None
    return _from_map(wanted, value)


def list_pictures(message: Message) -> tuple[Picture, ...]:
    """All Picture entries.

    Raises:
        Malformed: they have not the shape of the table; never for a message from `decode`.
    """
    value = message.extensions.get(Picture.KEY, ())
    if not isinstance(value, list | tuple):
        raise Malformed("extension: an array was expected")
    return tuple(_from_map(Picture, item) for item in value)


def check_extensions(message: Message) -> None:
    """Every extension of the table has its shape.

    Raises:
        Malformed: one has not.
    """
    if not message.extensions:
        return
    for known in KNOWN:
        if known.KEY in message.extensions and message.extensions[known.KEY] is None:
            raise Malformed("extension: a map was expected")
        find_extension(message, known)


def has_unknown_extension(message: Message) -> bool:
    """Whether a newer Curbside put something in that this one cannot show."""
    numbers = {known.KEY for known in KNOWN}
    return any(isinstance(key, int) and key in PRIVATE_KEYS and key not in numbers for key in message.extensions)


def _to_map(extension: Clinical) -> dict[cbor.Key, cbor.Value]:
    found: dict[cbor.Key, cbor.Value] = {}
    for name, number, _, required in _shape(type(extension)):
        value = getattr(extension, name)
        if required or value not in ("", None):
            found[number] = value
    return found


def _from_map(wanted: type[_C], value: cbor.Value) -> _C:
    if not isinstance(value, Mapping):
        raise Malformed("extension: a map was expected")
    arguments: dict[str, Any] = {}
    for name, number, kind, required in _shape(wanted):
        if number not in value:
            if required:
                raise Malformed("extension: a field is missing")
            continue
        item = value[number]
        if kind is int and not (isinstance(item, int) and not isinstance(item, bool) and _is_count(item)):
            raise Malformed("extension: a number from 0 to 2^53 - 1 was expected")
        if kind is str and not isinstance(item, str):
            raise Malformed("extension: text was expected")
        arguments[name] = item
    return wanted(**arguments)


def _is_count(value: int) -> bool:
    return 0 <= value <= cbor.MAX_SAFE_INTEGER


def _read_shape(of: type[Clinical]) -> list[tuple[str, int, type, bool]]:
    return [
        (item.name, number, kind, item.default is MISSING)
        for item in fields(of)
        for number, kind in cast("Mapping[int, type]", item.metadata).items()
    ]


_SHAPES: Final = {known.KEY: _read_shape(known) for known in KNOWN}


def _shape(of: type[Clinical]) -> list[tuple[str, int, type, bool]]:
    """(name, number, type, required) of each field; one with no default is required."""
    return _SHAPES[of.KEY]
