"""Writes the vectors that hold the Python and the TypeScript of `wire` together.

    python tools/wire_vectors.py            write vectors/content/*.json and vectors/wire/frames.json
    python tools/wire_vectors.py --check    fail when a file is not what would be written

What is refused is listed by hand, never computed: a decoder that grows lax must fail against this list.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

import wire_refused
from curbside.wire import cbor, content, frames, status
from curbside.wire.content_clinical import KNOWN, Picture

ROOT = Path(__file__).resolve().parent.parent
SENDER: Final = content.user_uri("alice")
ROOM: Final = content.conversation_uri("ward")
SALT: Final = bytes(range(16))
TARGET: Final = b"\x01" + bytes(range(31))
OTHER: Final = b"\x01" + bytes(range(100, 131))

# --- messages -------------------------------------------------------------------------------------

_ATTACHMENT = content.blob(
    "0f3c",
    content_type="image/webp",
    size=123456,
    key=bytes(range(32)),
    content_hash=bytes(range(32, 64)),
    filename="IMG.webp",
)
_THUMBNAIL = content.SinglePart("image/webp", b"RIFF-thumbnail")
_NOTE = content.text_part("See both.")


def _with(message: content.Message, extensions: Mapping[int | str, cbor.Value]) -> content.Message:
    return content.Message(salt=message.salt, body=message.body, extensions={**message.extensions, **extensions})


def messages() -> dict[str, content.Message]:
    """Valid messages by name. The TypeScript tests build those they can by the same names."""
    made = {
        "text": content.text("Café ☕ at 3?", salt=SALT),
        "text-empty": content.text("", salt=SALT),
        "text-lone-surrogate": content.text("half \ud83d", salt=SALT),
        "text-not-utf8": content.message(content.SinglePart(content.PLAIN, b"a\xf0\x9f\x98b\xff\xe2\x82"), salt=SALT),
        "text-bom": content.text("\ufeffbom", salt=SALT),
        "markdown": content.markdown("**stat** please", salt=SALT),
        "html-only": content.message(content.SinglePart("text/html;charset=utf-8", b"<p>x</p>"), salt=SALT),
        "reply": content.text("Yes", in_reply_to=TARGET, salt=SALT),
        "topic-expiry": content.text("x", topic_id=b"t", expires=content.Expiry(True, 86400), salt=SALT),
        "expiry-absolute": content.text("x", expires=content.Expiry(False, 4294967295), salt=SALT),
        "reaction": content.reaction("👍🏽", TARGET, salt=SALT),
        "reaction-changed": content.reaction("🙏", TARGET, replaces=OTHER, salt=SALT),
        "edit": content.edit(TARGET, "5 mg, not 50 mg", in_reply_to=OTHER, salt=SALT),
        "delete": content.delete(TARGET, salt=SALT),
        "null": content.message(content.NullPart(), salt=SALT),
        "status": content.status_report([(TARGET, content.Status.DELIVERED), (OTHER, content.Status.READ)], salt=SALT),
        "title": content.conversation_title("Ward 4 nights", salt=SALT),
        "photo": content.photo(_ATTACHMENT, 4000, 3000, "Left heel", _THUMBNAIL, salt=SALT),
        "photo-plain": content.photo(_ATTACHMENT, 4000, 3000, salt=SALT),
        "photo-caption": content.photo(_ATTACHMENT, 4000, 3000, "Left heel", salt=SALT),
        "photo-thumbnail": content.photo(_ATTACHMENT, 4000, 3000, thumbnail=_THUMBNAIL, salt=SALT),
        "attachment": content.attachment(_file("application/pdf", "ECG.pdf"), salt=SALT),
        "attachment-caption": content.attachment(_file("application/pdf", ""), "ECG from 10:40", salt=SALT),
        "session": content.message(_session(), salt=SALT),
        "choose-one": content.message(_alternatives(), salt=SALT),
        "levels": content.message(_levels(4), salt=SALT),
        "priority": content.text("BP 70/40", clinical=[content.Priority(content.EMERGENCY)], salt=SALT),
        "priority-later": content.text("x", clinical=[content.Priority(9)], salt=SALT),
        "ack-request": content.text("K 6.9", clinical=[content.AckRequest(900)], salt=SALT),
        "ack-request-seconds": content.text("K 6.9", clinical=[content.AckRequest(90)], salt=SALT),
        "ack-request-open": content.text("K 6.9", clinical=[content.AckRequest()], salt=SALT),
        "acknowledgement": content.acknowledge(TARGET, content.ACCEPTED, "on my way", salt=SALT),
        "acknowledgement-later": content.acknowledge(TARGET, 77, salt=SALT),
        "patient": content.text("Ready to go home?", clinical=[_patient()], salt=SALT),
        "patient-short": content.text("x", clinical=[content.Patient("4711")], salt=SALT),
        "consult": content.consult(_consult(), clinical=[content.Priority(content.URGENT), _patient()], salt=SALT),
        "consult-short": content.consult(content.Consult("New murmur"), salt=SALT),
        "task": content.task(content.Task("Repeat K", content.TASK_OPEN, "Dr. Ito", 1900000000), salt=SALT),
        "task-done": content.task(content.Task("Repeat K", content.TASK_DONE), replaces=TARGET, salt=SALT),
        "consent": content.consent(_consent(), salt=SALT),
        "consent-short": content.consent(content.Consent(content.CONSENT_REFUSED, 99), salt=SALT),
        "body-site": content.photo(_ATTACHMENT, 3, 4, clinical=[_heel()], salt=SALT),
    }
    plain = content.text("x", salt=SALT)
    nested: cbor.Value = {1: {2: {3: "deep"}}}
    made["extension-bare"] = content.with_extensions(
        content.message(content.NullPart(), salt=SALT), content.Task("Bare", content.TASK_ACCEPTED)
    )
    made["extension-newer"] = _with(plain, {-4250: {1: "?"}})
    made["extension-newer-bare"] = _with(content.message(content.NullPart(), salt=SALT), {-4299: None})
    made["extension-newer-field"] = _with(plain, {-4201: {1: 2, 99: ("new", True)}})
    made["extension-foreign"] = _with(plain, {-7: nested, "vendor": (1.5, None, b"\x00"), 300: 2**64 - 1, -1: -(2**64)})
    made["extension-exotic"] = _with(plain, {-8: (cbor.Tag(32, "u"), cbor.Simple(23), 1.0, float("nan"), 1e300)})
    made["extension-uris"] = _with(plain, {1: "mimi://example.com/u/a", 2: "mimi://example.com/r/b"})
    made["extension-key-255"] = _with(plain, {"k" * 255: 1})
    return made


def _file(content_type: str, filename: str) -> content.ExternalPart:
    return content.blob(
        "77", content_type=content_type, size=9, key=bytes(32), content_hash=bytes(32), filename=filename
    )


def _session() -> content.ExternalPart:
    return content.ExternalPart(
        "", "https://meet.example/1", description="Join the round", disposition=content.Disposition.SESSION
    )


def _alternatives() -> content.MultiPart:
    html = content.SinglePart("text/html", b"<b>hi</b>")
    first, second = content.text_part("hi"), content.text_part("salut")
    return content.MultiPart(content.Semantics.CHOOSE_ONE, (html, first, second))


def _levels(levels: int) -> content.Part:
    if levels == 1:
        return _NOTE
    return content.MultiPart(content.Semantics.PROCESS_ALL, (_levels(levels - 1), content.NullPart(0, "de,en")))


def _patient() -> content.Patient:
    return content.Patient("4711", "urn:oid:2.16.840.1", "Ada Muster", "1950-01-02", "4 West, bed 12")


def _consult() -> content.Consult:
    return content.Consult("Fast AF, BP 85/50", "Mitral repair 2019", "Unstable", "Cardiovert?", "Cardiology")


def _consent() -> content.Consent:
    return content.Consent(content.CONSENT_GIVEN, content.SCOPE_PHOTO, "patient", 1790000000, "verbal")


def _heel() -> content.BodySite:
    return content.BodySite("heel", "76853006", "http://snomed.info/sct", content.LEFT)


def describe(message: content.Message) -> dict[str, Any]:
    """A message as JSON: bytes as hex, extension values as the hex of their CBOR."""
    expires = message.expires
    return {
        "salt": message.salt.hex(),
        "replaces": message.replaces and message.replaces.hex(),
        "topic_id": message.topic_id.hex(),
        "expires": None if expires is None else [expires.relative, expires.time],
        "in_reply_to": message.in_reply_to and message.in_reply_to.hex(),
        "extensions": [[key, cbor.encode(value).hex()] for key, value in message.extensions.items()],
        "body": describe_part(message.body),
    }


_PART_TYPES = {
    content.NullPart: "null",
    content.SinglePart: "single",
    content.ExternalPart: "external",
    content.MultiPart: "multi",
}


def describe_part(part: content.Part) -> dict[str, Any]:
    """A part as JSON."""
    found: dict[str, Any] = {"type": _PART_TYPES[type(part)]}
    for field in fields(part):
        value = getattr(part, field.name)
        found[field.name] = value.hex() if isinstance(value, bytes) else value
    if isinstance(part, content.MultiPart):
        found["parts"] = [describe_part(nested) for nested in part.parts]
    return found


def describe_clinical(message: content.Message) -> list[dict[str, Any]]:
    """The known extensions as JSON, in the order of the table; absent fields are left out."""
    found: list[content.Clinical] = []
    for known in KNOWN:
        if known is Picture:
            found += content.list_pictures(message)
        elif (extension := content.find_extension(message, known)) is not None:
            found.append(extension)
    return [
        {"extension": type(item).__name__}
        | {
            field.name: getattr(item, field.name)
            for field in fields(item)
            if getattr(item, field.name) not in ("", None)
        }
        for item in found
        if is_dataclass(item)
    ]


def _attachments(message: content.Message) -> list[list[Any]]:
    return [
        [item.part.url, item.index, item.width, item.height, item.preview and item.preview.content.hex()]
        for item in content.attachments(message)
    ]


def valid_source() -> list[dict[str, Any]]:
    """vectors/content/valid.json"""
    found = []
    for name, message in messages().items():
        encoded = content.encode(message)
        decoded = content.decode(encoded)
        found.append(
            {
                "name": name,
                "hex": encoded.hex(),
                "message": describe(decoded),
                "clinical": describe_clinical(decoded),
                "kind": content.kind(decoded),
                "body_text": content.body_text(decoded),
                "fallback_text": content.fallback_text(decoded),
                "attachments": _attachments(decoded),
                "message_id": content.message_id(encoded, SENDER, ROOM).hex(),
            }
        )
    return found


def invalid_source() -> list[dict[str, str]]:
    """vectors/content/invalid.json"""
    return [{"name": name, "hex": data, "error": code} for name, (data, code) in wire_refused.messages().items()]


# --- reports and plain CBOR -----------------------------------------------------------------------

_DRAFT_REPORT = (
    "84825820d3c14744d1791d02548232c23d35efa97668174ba385af066011e43bd7e5150102"
    "825820e701beee59f9376282f39092e1041b2ac2e3aad1776570c1a28de244979c71ed02"
    "8258206b50bfdd71edc83554ae21380080f4a3ba77985da34528a515fac3c38e4998b800"
    "8258205c95a4dfddab84348bcc265a479299fbd3a2eecfa3d490985da5113e5480c7f103"
)


def reports_source() -> dict[str, list[dict[str, Any]]]:
    """vectors/content/reports.json"""
    one = "825820" + TARGET.hex()
    made = {"draft": _DRAFT_REPORT, "one": "81" + one + "01", "later-status": "81" + one + "18ff"}
    valid = [
        {"name": name, "hex": data, "statuses": [[m.hex(), s] for m, s in status.decode_report(bytes.fromhex(data))]}
        for name, data in made.items()
    ]
    invalid = [
        {"name": name, "hex": data, "error": wire_refused.MALFORMED} for name, data in wire_refused.reports().items()
    ]
    invalid.append({"name": "too-many", "hex": "990401" + (one + "01") * 1025, "error": "too_large"})
    return {"valid": valid, "invalid": invalid}


def cbor_source() -> dict[str, list[str]]:
    """vectors/content/cbor.json"""
    return {"valid": wire_refused.CBOR_VALID.split(), "invalid": ["", *wire_refused.CBOR_INVALID.split()]}


# --- frames ---------------------------------------------------------------------------------------


def example_frames() -> dict[str, tuple[bool, msgspec.Struct]]:
    """Frames by name; True = sent by the client."""
    item = frames.Entry("c1", 2**32, frames.KIND_APPLICATION, bytes(16), 1_790_000_000_000, b"\x00\xff" * 40)
    queued = frames.QueueItem(7, frames.QUEUE_WELCOME, "c2", 3, b"welcome")
    members: dict[str, str | int | list[str]] = {"current_epoch": 5, "rule": "ü", "missing_devices": ["d1", "d2"]}
    return {
        "challenge": (False, frames.Challenge(bytes(range(32)), 1_790_000_000_123, frames.PROTOCOL)),
        "auth": (True, frames.Authenticate("token", "ey.J.x", frames.PROTOCOL)),
        "ready": (False, frames.Ready("u1", "d1", 1_790_000_000)),
        "sync": (True, frames.Sync({"c1": 0, "c2": 2**53 - 1}, 128)),
        "sync-empty": (True, frames.Sync({}, 0)),
        "send": (True, frames.Send(1, "c1", bytes(range(16)), 65536, bytes(300))),
        "ack": (True, frames.Acknowledge({"c1": 255}, 32767)),
        "stored": (False, frames.Stored([frames.StoredItem(1, 2, 3), frames.StoredItem(256, 65535, 4294967295)])),
        "entries": (False, frames.Entries([item, item])),
        "entries-none": (False, frames.Entries([])),
        "queue": (False, frames.QueueItems([queued])),
        "signal": (True, frames.Signal("c1", frames.SIGNAL_HERE)),
        "signals": (False, frames.Signals([frames.SignalItem("c1", "u1", "d1", frames.SIGNAL_TYPING, 6000)])),
        "caught_up": (False, frames.CaughtUp()),
        "refused": (False, frames.Refused(9, "epoch_conflict", "détail", members)),
        "closing": (False, frames.Closing("draining", "", -1)),
    }


def _frame_json(value: Any) -> Any:
    """Arrays as on the wire; bytes as {"hex": …}."""
    match value:
        case bytes():
            return {"hex": value.hex()}
        case list() | tuple():
            return [_frame_json(item) for item in value]
        case dict():
            return {"map": {key: _frame_json(item) for key, item in value.items()}}
        case _:
            return value


def frames_source() -> dict[str, Any]:
    """vectors/wire/frames.json"""
    valid = []
    for name, (is_client, frame) in example_frames().items():
        packed = msgspec.msgpack.encode(frame)
        valid.append(
            {
                "name": name,
                "from": "client" if is_client else "server",
                "hex": packed.hex(),
                "frame": _frame_json(msgspec.msgpack.decode(packed)),
                "fields": {
                    field: _frame_json(msgspec.to_builtins(getattr(frame, field), builtin_types=(bytes,)))
                    for field in frame.__struct_fields__
                },
            }
        )
    wrong: dict[str, Any] = {
        "null": None,
        "text": "ack",
        "map": {"type": "ack"},
        "empty": [],
        "tag-unknown": ["nope"],
        "tag-number": [1],
        "tag-null": [None, {}, 1],
        "tag-prototype": ["__proto__"],
        "ack-short": ["ack", {}],
        "ack-cursors-list": ["ack", [], 1],
        "ack-cursor-text": ["ack", {"c1": "1"}, 1],
        "ack-cursor-null": ["ack", {"c1": None}, 1],
        "ack-queue-text": ["ack", {}, "1"],
        "ack-queue-true": ["ack", {}, True],
        "ack-queue-fraction": ["ack", {}, 1.5],
        "ack-queue-null": ["ack", {}, None],
        "send-message-id-text": ["send", 1, "c1", "0123456789abcdef", 1, b"x"],
        "send-envelope-list": ["send", 1, "c1", bytes(16), 1, [1]],
        "send-conversation-bytes": ["send", 1, b"c1", bytes(16), 1, b"x"],
        "send-short": ["send", 1, "c1", bytes(16), 1],
        "auth-token-null": ["auth", None, "p", 1],
    }
    invalid = [{"name": name, "hex": msgspec.msgpack.encode(value).hex()} for name, value in wrong.items()]
    longer = ["ack", {"c1": 1}, 2, "a field of a later version"]
    return {
        "valid": valid,
        "invalid": invalid,
        "longer": {"hex": msgspec.msgpack.encode(longer).hex(), "same_as": msgspec.msgpack.encode(longer[:3]).hex()},
    }


# --- files ----------------------------------------------------------------------------------------

FILES: dict[str, Callable[[], Any]] = {
    "vectors/content/valid.json": valid_source,
    "vectors/content/invalid.json": invalid_source,
    "vectors/content/reports.json": reports_source,
    "vectors/content/cbor.json": cbor_source,
    "vectors/wire/frames.json": frames_source,
}


def stale_files(root: Path) -> dict[str, str]:
    """Those of FILES that are missing or are not what would be written, with what would."""
    made = {name: json.dumps(source(), ensure_ascii=True, indent=1) + "\n" for name, source in FILES.items()}
    return {
        name: text
        for name, text in made.items()
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != text
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Vectors for curbside.wire.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds vectors/")
    options = parser.parse_args(arguments)
    stale = stale_files(options.root)
    for name, text in stale.items():
        if options.check:
            print(f"wire vectors: {name} is out of date: run `python tools/wire_vectors.py`", file=sys.stderr)
            continue
        target = options.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(f"wire vectors: wrote {name}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
