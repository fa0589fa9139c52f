"""Exports of the audit log: JSON lines that a stranger can verify without the server.

    line 0      {"format": "curbside-audit-export/1", "key": <verifier key>, "checkpoints": [<signed text>, …]}
    line 1 + i  {"index": i, "leaf": <SHA-256(0x00 ‖ event), base64url>, "event": {…canonical JSON…}}

Each event is the bytes that were hashed. `verify_export` recomputes every leaf and the root at each checkpoint; it
names the first entry that is wrong. Where somebody rewrote an entry together with its leaf hash, or renumbered entries,
the roots show it, and the first wrong entry is known to lie between two checkpoints (`bad_index` to `bad_before`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from curbside.audit.checkpoint import Checkpoint, VerifierKey, parse_verifier_key, verify_checkpoint
from curbside.audit.events import parse_event
from curbside.audit.merkle import Frontier, hash_leaf
from curbside.crypto.kdf import is_same
from curbside.errors import BadSignature, IntegrityError, Malformed
from curbside.ids import encode_base64url

FORMAT: Final = "curbside-audit-export/1"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. key: verifier key of the audit key. checkpoints: signed texts, by rising size."""

    format: str
    key: str
    checkpoints: list[str]


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry. event: the canonical bytes as they stand."""

    index: int
    leaf: str
    event: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Report:
    """What verification found.

    ok: everything fits. checked: entries read and found in order. covered: entries under a signed checkpoint.
    bad_index: first wrong entry, None if ok or if no single entry is to blame. bad_before: when above bad_index + 1,
    the wrong entry lies in bad_index … bad_before - 1. reason: a stable word. is_pinned: the key was given by the
    caller; if not, the export vouches for itself only.
    """

    ok: bool
    checked: int
    covered: int
    reason: str
    is_pinned: bool
    bad_index: int | None = None
    bad_before: int | None = None


def _wrong(reason: str, index: int | None = None, before: int | None = None) -> IntegrityError:
    """Where verification ends; `verify_export` turns it into the report."""
    if before is None and index is not None:
        before = index + 1
    return IntegrityError(f"audit export: {reason}", reason=reason, index=index, before=before)


def build_header(key: VerifierKey, checkpoints: Sequence[bytes]) -> bytes:
    """The first line of an export, newline included. checkpoints: by rising size; the last covers what follows."""
    header = Header(FORMAT, key.encode(), [body.decode() for body in checkpoints])
    return msgspec.json.encode(header) + b"\n"


def build_line(index: int, event: bytes, leaf_hash: bytes) -> bytes:
    """One entry's line, newline included. event: the stored bytes."""
    return msgspec.json.encode(Line(index, encode_base64url(leaf_hash), msgspec.Raw(event))) + b"\n"


def verify_export(lines: Iterable[bytes], pinned: VerifierKey | None = None, kept: Sequence[bytes] = ()) -> Report:
    """Verify an export, read once from front to back in little memory.

    pinned: the audit key known from elsewhere. kept: signed checkpoints kept elsewhere (audit.checkpoint_file); those
    of the export must agree with them, and truncation below them is seen.
    """
    reader = _Reader(pinned)
    try:
        reader.read(iter(lines), kept)
    except IntegrityError as wrong:
        reason, index, before = (wrong.members[name] for name in ("reason", "index", "before"))
        return Report(False, reader.checked, reader.covered, reason, pinned is not None, index, before)
    return Report(True, reader.checked, reader.covered, "ok", pinned is not None)


class _Reader:
    def __init__(self, pinned: VerifierKey | None) -> None:
        self.pinned = pinned
        self.tree = Frontier()
        self.covered = 0

    @property
    def checked(self) -> int:
        return self.tree.size

    def read(self, lines: Iterator[bytes], kept: Sequence[bytes]) -> None:
        heads = self._read_header(next(lines, b""), kept)
        self._compare(heads)
        for text in lines:
            self._read_line(text)
            self._compare(heads)
        if heads:
            raise _wrong("truncated", self.checked, heads[0].size)

    def _read_header(self, text: bytes, kept: Sequence[bytes]) -> list[Checkpoint]:
        try:
            header = msgspec.json.decode(text, type=Header)
            own = parse_verifier_key(header.key)
        except (msgspec.MsgspecError, Malformed, UnicodeDecodeError):
            raise _wrong("header_malformed") from None
        if header.format != FORMAT:
            raise _wrong("header_malformed")
        if self.pinned is not None and own != self.pinned:
            raise _wrong("other_key")
        try:
            heads = [verify_checkpoint(body, own) for body in (*map(str.encode, header.checkpoints), *kept)]
        except (Malformed, BadSignature):
            raise _wrong("checkpoint_signature") from None
        if not heads:
            raise _wrong("no_checkpoint")
        return sorted(heads, key=lambda head: head.size)

    def _read_line(self, text: bytes) -> None:
        index = self.checked
        try:
            line = msgspec.json.decode(text, type=Line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise _wrong("line_malformed", index) from None
        if line.index > index:
            raise _wrong("entry_missing_or_moved", index)
        if line.index < index:
            raise _wrong("entry_repeated_or_moved", index)
        event = bytes(line.event)
        leaf_hash = hash_leaf(event)
        if line.leaf != encode_base64url(leaf_hash):
            raise _wrong("entry_changed", index)
        try:
            parse_event(event)
        except Malformed:
            raise _wrong("entry_malformed", index) from None
        self.tree.append(leaf_hash)

    def _compare(self, heads: list[Checkpoint]) -> None:
        """Take the checkpoints of the present size off the list; each must have the present root."""
        while heads and heads[0].size == self.checked:
            if not is_same(heads.pop(0).root, self.tree.root()):
                raise _wrong("root_differs", self.covered, self.checked)
            self.covered = self.checked
