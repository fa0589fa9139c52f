"""What an error of the embedded engine means to a caller."""

from __future__ import annotations

import apsw
import pytest

from curbside.errors import CurbsideError, IntegrityError, StorageFull, StoreUnavailable, UsageError
from curbside.server.store.sqlite_open import map_engine_error


def make_error(kind: type[apsw.Error], extended: int = 0) -> apsw.Error:
    """As the engine raises it."""
    error = kind("as the engine words it")
    error.extendedresult = extended
    return error


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (make_error(apsw.FullError), StorageFull),
        (make_error(apsw.IOError, apsw.SQLITE_IOERR_SHMSIZE), StorageFull),  # the index of the log could not grow
        (make_error(apsw.IOError, apsw.SQLITE_IOERR_READ), StoreUnavailable),
        (make_error(apsw.BusyError), StoreUnavailable),
        (make_error(apsw.CorruptError), IntegrityError),
        (make_error(apsw.ConstraintError), UsageError),
    ],
)
def test_each_error_has_a_meaning(error: apsw.Error, meaning: type[CurbsideError]) -> None:
    assert type(map_engine_error(error)) is meaning
