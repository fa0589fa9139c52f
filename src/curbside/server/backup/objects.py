"""Content that goes into a backup: cut into objects, each written once, recognised by a keyed hash.

A table's rows are cut where the content says so: a row whose hash ends in zeros ends a chunk. So a row that is added or
changed changes one chunk, and all others are recognised and not written again. Attachments never change; one that an
earlier backup has is not even read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from curbside.crypto.kdf import compute_hash
from curbside.server.backup.place import OBJECTS, Place, name_object
from curbside.server.backup.sealing import Index, IndexKeys, seal_object
from curbside.server.store.tables import Row, RowSum, encode_row, join_rows

LEAST_BYTES: Final = 256 * 1024
MOST_BYTES: Final = 4 * 1024 * 1024
"""Content of one object."""
ROWS: Final = b"rows"
BYTES: Final = b"bytes"
_BLOB: Final = b"blob"
_CUT_MASK: Final = 0xFF
"""A row ends a chunk, once it is long enough, when these bits of its hash's last byte are zero: one row in 256."""


def cut_rows(rows: Iterable[Row], total: RowSum) -> Iterator[bytes]:
    """Chunks of a table. total: counts the rows."""
    encoded: list[bytes] = []
    size = 0
    for row in rows:
        one = encode_row(row)
        digest = total.add(one)
        encoded.append(one)
        size += len(one)
        if (size >= LEAST_BYTES and not digest[-1] & _CUT_MASK) or size >= MOST_BYTES:
            yield join_rows(encoded)
            encoded, size = [], 0
    if encoded:
        yield join_rows(encoded)


class Objects:
    """Objects of a place. old: what earlier backups wrote. digests: in the order of their first use."""

    def __init__(self, place: Place, recipient: bytes, place_id: bytes, keys: IndexKeys, old: Index | None) -> None:
        self._place = place
        self._recipient = recipient
        self._place_id = place_id
        self._keys = keys
        self._there = frozenset(place.list_names(OBJECTS)) if old else frozenset()
        self._old = old or Index({}, {})
        self.index = Index({}, {})
        self.digests: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self.new_objects = 0
        self.new_bytes = 0

    def put(self, kind: bytes, content: bytes) -> int:
        """The number of the object that holds this content, written if it is not there."""
        name = self._keys.name(kind, compute_hash("sha256", content))
        digest = self._find(name)
        if digest is None:
            sealed = seal_object(self._recipient, self._place_id, content)
            digest = compute_hash("sha256", sealed)
            self._place.write_new(name_object(digest), sealed)
            self.new_objects += 1
            self.new_bytes += len(sealed)
        self.index.contents[name] = digest
        return self._number(digest)

    def find_blob(self, sha256: bytes) -> list[int] | None:
        """The objects of an attachment that an earlier backup has; None when it has not."""
        name = self._keys.name(_BLOB, sha256)
        digests = self.index.blobs.get(name) or self._old.blobs.get(name)
        if digests is None or any(name_object(digest) not in self._there for digest in digests):
            return None
        self.index.blobs[name] = digests
        return [self._number(digest) for digest in digests]

    def keep_blob(self, sha256: bytes, numbers: list[int]) -> None:
        """Remember the objects of an attachment."""
        self.index.blobs[self._keys.name(_BLOB, sha256)] = [self.digests[number] for number in numbers]

    def _find(self, name: bytes) -> bytes | None:
        found = self.index.contents.get(name)
        if found is not None:
            return found
        found = self._old.contents.get(name)
        return found if found is not None and name_object(found) in self._there else None

    def _number(self, digest: bytes) -> int:
        number = self._numbers.setdefault(digest, len(self.digests))
        if number == len(self.digests):
            self.digests.append(digest)
        return number
