"""Header Range of a request for bytes (RFC 9110 section 14.1.2), one range at most."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{1,12})?-([0-9]{1,12})?[ \t]*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AskedRange:
    """What a client asks for. first: None asks for the last `last` bytes. last: included; None: to the end."""

    first: int | None = 0
    last: int | None = None

    def resolve(self, size: int) -> tuple[int, int]:
        """First and last byte (included) of an object of `size` > 0 bytes; what cannot be met asks for everything.

        RFC 9110 section 14.2 lets a server ignore a Range; a client sees from the answer what it got.
        """
        whole = (0, size - 1)
        if self.first is None:
            return (max(size - self.last, 0), size - 1) if self.last else whole
        end = size - 1 if self.last is None else min(self.last, size - 1)
        return (self.first, end) if self.first <= end else whole


WHOLE: Final = AskedRange()


def parse_range(header: str) -> AskedRange:
    """The range of a header; WHOLE for "", for units, lists and forms that are not understood, which are ignored."""
    found = _RANGE.match(header)
    if found is None or (found[1] is None and found[2] is None):
        return WHOLE
    first = None if found[1] is None else int(found[1])
    last = None if found[2] is None else int(found[2])
    if first is not None and last is not None and last < first:
        return WHOLE
    return AskedRange(first, last)
