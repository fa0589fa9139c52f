"""Exports of the audit log: JSON lines that a stranger can verify without the server.

    line 0      {"format": "curbside-audit-export/2", "key": <verifier key>, "checkpoints": [<signed text>, …]}
    an entry    {"index": i, "leaf": <SHA-256(0x00 ‖ event), base64url>, "event": {…canonical JSON…}}
    a row       {"index": i, "row": r, "event": {…canonical JSON…}}

Each event is the bytes that were hashed. After an entry whose event is a `message.batch` come its rows, 0 to count - 1:
the sends and deliveries that it stands for. The root in the batch's event is that of the Merkle tree over their leaf
hashes (audit.batch). `verify_export` recomputes every leaf, every batch's root and the root at each checkpoint; it
names the first entry that is wrong. Where somebody rewrote an entry together with its leaf hash, or renumbered entries,
the roots show it, and the first wrong entry is known to lie between two checkpoints (`bad_index` to `bad_before`).

Format 1 had no batches; it is still verified.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from curbside.audit.batch import BatchHead, parse_row_event, parse_rows, read_batch, verify_rows
from curbside.audit.checkpoint import Checkpoint, VerifierKey, parse_verifier_key, verify_checkpoint
from curbside.audit.events import parse_event
from curbside.audit.merkle import Frontier, hash_leaf
from curbside.crypto.kdf import is_same
from curbside.errors import BadSignature, IntegrityError, Malformed
from curbside.ids import encode_base64url

FORMAT: Final = "curbside-audit-export/2"
_FORMAT_1: Final = "curbside-audit-export/1"
_encoder: Final = msgspec.json.Encoder()


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. key: verifier key of the audit key. checkpoints: signed texts, by rising size."""

    format: str
    key: str
    checkpoints: list[str]


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entry, or one row of the batch at `index`. leaf: of an entry. row: of a row, from 0. event: the canonical
    bytes as they stand."""

    index: int
    event: msgspec.Raw
    leaf: str | None = None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What verification found.

    ok: everything fits. checked: entries read and found in order. covered: entries under a signed checkpoint.
    rows: sends and deliveries that batches among the checked entries stand for.
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
    rows: int = 0


def _wrong(reason: str, index: int | None = None, before: int | None = None) -> IntegrityError:
    """Where verification ends; `verify_export` turns it into the report."""
    if before is None and index is not None:
        before = index + 1
    return IntegrityError(f"audit export: {reason}", reason=reason, index=index, before=before)


def build_header(key: VerifierKey, checkpoints: Sequence[bytes]) -> bytes:
    """The first line of an export, newline included. checkpoints: by rising size; the last covers what follows."""
    header = Header(FORMAT, key.encode(), [body.decode() for body in checkpoints])
    return msgspec.json.encode(header) + b"\n"


def build_line(index: int, event: bytes, leaf_hash: bytes, rows: bytes = b"") -> bytes:
    """One entry's line, newline included; of a batch, its rows' lines too. event, rows: as they are stored.

    Rows that cannot be read are left out: whoever verifies the export sees that.
    """
    lines = [Line(index, msgspec.Raw(event), leaf=encode_base64url(leaf_hash))]
    if rows:
        with contextlib.suppress(IntegrityError):
            lines += [Line(index, msgspec.Raw(row), row=number) for number, row in enumerate(parse_rows(rows))]
    return _encoder.encode_lines(lines)


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
        return Report(False, reader.checked, reader.covered, reason, pinned is not None, index, before, reader.rows)
    return Report(True, reader.checked, reader.covered, "ok", pinned is not None, rows=reader.rows)


@dataclass(slots=True)
class _OpenBatch:
    """A batch whose rows are being read."""

    head: BatchHead
    leaf_hash: bytes
    rows: list[bytes] = field(default_factory=list)


class _Reader:
    def __init__(self, pinned: VerifierKey | None) -> None:
        self.pinned = pinned
        self.tree = Frontier()
        self.covered = 0
        self.rows = 0
        self._has_batches = True
        self._batch: _OpenBatch | None = None

    @property
    def checked(self) -> int:
        return self.tree.size

    def read(self, lines: Iterator[bytes], kept: Sequence[bytes]) -> None:
        heads = self._read_header(next(lines, b""), kept)
        self._compare(heads)
        for text in lines:
            self._read_line(text)
            self._compare(heads)
        if self._batch is not None:
            raise _wrong("truncated", self.checked)
        if heads:
            raise _wrong("truncated", self.checked, heads[0].size)

    def _read_header(self, text: bytes, kept: Sequence[bytes]) -> list[Checkpoint]:
        try:
            header = msgspec.json.decode(text, type=Header)
            own = parse_verifier_key(header.key)
        except (msgspec.MsgspecError, Malformed, UnicodeDecodeError):
            raise _wrong("header_malformed") from None
        if header.format not in (FORMAT, _FORMAT_1):
            raise _wrong("header_malformed")
        self._has_batches = header.format == FORMAT
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
        if self._batch is not None:
            self._read_row(line, self._batch)
            return
        if line.row is not None or line.leaf is None:
            raise _wrong("row_missing_or_moved", index)
        if line.index > index:
            raise _wrong("entry_missing_or_moved", index)
        if line.index < index:
            raise _wrong("entry_repeated_or_moved", index)
        self._read_entry(line)

    def _read_entry(self, line: Line) -> None:
        index, data = self.checked, bytes(line.event)
        leaf_hash = hash_leaf(data)
        if line.leaf != encode_base64url(leaf_hash):
            raise _wrong("entry_changed", index)
        try:
            head = read_batch(parse_event(data))
        except Malformed:
            raise _wrong("entry_malformed", index) from None
        if head is None:
            self.tree.append(leaf_hash)
        elif self._has_batches:
            self._batch = _OpenBatch(head, leaf_hash)
        else:
            raise _wrong("entry_malformed", index)

    def _read_row(self, line: Line, batch: _OpenBatch) -> None:
        index, data = self.checked, bytes(line.event)
        if line.row != len(batch.rows) or line.index != index or line.leaf is not None:
            raise _wrong("row_missing_or_moved", index)
        try:
            parse_row_event(data)
        except Malformed:
            raise _wrong("row_malformed", index) from None
        batch.rows.append(hash_leaf(data))
        if len(batch.rows) < batch.head.count:
            return
        try:
            verify_rows(batch.head, batch.rows)
        except IntegrityError:
            raise _wrong("rows_changed", index) from None
        self.rows += len(batch.rows)
        self._batch = None
        self.tree.append(batch.leaf_hash)

    def _compare(self, heads: list[Checkpoint]) -> None:
        """Take the checkpoints of the present size off the list; each must have the present root."""
        while heads and heads[0].size == self.checked:
            if not is_same(heads.pop(0).root, self.tree.root()):
                raise _wrong("root_differs", self.covered, self.checked)
            self.covered = self.checked
