"""Header Range: its forms, what is ignored, and that no header breaks anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbside.server.ranges import WHOLE, AskedRange, parse_range

HEADERS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="bytes=-0123456789, \t\r\n\x00٣²", max_size=40),
    st.from_regex(r"bytes=[0-9]{0,14}-[0-9]{0,14}", fullmatch=True),
)


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("bytes=0-99", AskedRange(0, 99)),
        ("bytes=5-5", AskedRange(5, 5)),
        ("bytes=4000-", AskedRange(4000)),
        ("bytes=-5", AskedRange(None, 5)),
        ("Bytes= 1-2\t", AskedRange(1, 2)),
        ("", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=5-1", WHOLE),
        ("bytes=1-2,4-5", WHOLE),
        ("bytes 1-2", WHOLE),
        ("lines=1-2", WHOLE),
        ("bytes=+1-2", WHOLE),
        ("bytes=1-2\n", WHOLE),
        ("bytes=٣-٤", WHOLE),
        ("bytes=0-9999999999999", WHOLE),
    ],
)
def test_forms(header: str, asked: AskedRange) -> None:
    assert parse_range(header) == asked


@given(HEADERS, st.integers(1, 10**12))
def test_whatever_is_asked_stays_within_the_object(header: str, size: int) -> None:
    first, last = parse_range(header).resolve(size)
    assert 0 <= first <= last < size


@given(st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1), st.integers(1, 10**12))
def test_a_range_that_can_be_met_is_met_exactly(first: int, last: int, size: int) -> None:
    resolved = parse_range(f"bytes={first}-{last}").resolve(size)
    if first <= last and first < size:
        assert resolved == (first, min(last, size - 1))
    else:
        assert resolved == (0, size - 1)


@given(st.integers(0, 10**12 - 1), st.integers(1, 10**12))
def test_the_end_of_an_object_is_as_long_as_asked(count: int, size: int) -> None:
    first, last = parse_range(f"bytes=-{count}").resolve(size)
    assert last == size - 1
    assert last - first + 1 == (min(count, size) if count else size)
