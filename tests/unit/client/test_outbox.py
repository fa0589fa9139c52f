"""Ids of messages: alike in their beginning, so that a server finds room for them at the end of its index."""

from __future__ import annotations

from curbside.client.outbox import make_message_id
from curbside.ids import decode_id

HOUR_MS = 3_600_000


def test_an_id_begins_with_the_hour_and_is_like_no_other() -> None:
    ids = [decode_id(make_message_id(497_222 * HOUR_MS + minute * 60_000)) for minute in range(60)]
    assert {raw[:4] for raw in ids} == {(497_222).to_bytes(4, "big")}
    assert len({raw[4:] for raw in ids}) == 60
    assert decode_id(make_message_id(497_223 * HOUR_MS)) > max(ids)


def test_a_clock_that_is_far_off_makes_an_id_all_the_same() -> None:
    for now_ms in (-1, 0, 2**53):
        assert len(decode_id(make_message_id(now_ms))) == 16
