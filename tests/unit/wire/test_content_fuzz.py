"""Random bytes and random content: only typed errors come out, and what goes in comes back."""

from __future__ import annotations

import contextlib
from typing import Any

import cbor2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curbside.errors import Malformed, TooLarge
from curbside.wire import cbor, content, status

_SAFE = 2**53 - 1
_text = st.text(max_size=20)
_octets = st.binary(max_size=40)
_key = st.one_of(st.integers(-_SAFE, _SAFE), st.text(min_size=1, max_size=60), st.binary(max_size=20))
_leaf = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64 - 1),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False, width=16),
    _text,
    _octets,
    st.builds(cbor.Simple, st.sampled_from([0, 19, 23, 32, 255])),
)
_value = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(_key, inner, max_size=4),
        st.builds(cbor.Tag, st.integers(60_000, 2**64 - 1), inner),
    ),
    max_leaves=12,
)
_flat_value = st.one_of(_leaf, st.lists(_leaf, max_size=3).map(tuple), st.dictionaries(_key, _leaf, max_size=3))
_dispositions = st.integers(0, 255)
_leaf_part = st.one_of(
    st.builds(content.NullPart, _dispositions, _text),
    st.builds(content.SinglePart, _text, _octets, _dispositions, _text),
    st.builds(
        content.ExternalPart,
        content_type=_text,
        url=st.text(min_size=1, max_size=20),
        expires=st.integers(0, 2**32 - 1),
        size=st.integers(0, _SAFE),
        enc_alg=st.integers(1, 2**16 - 1),
        key=_octets,
        nonce=_octets,
        aad=_octets,
        hash_alg=st.integers(0, 255),
        content_hash=_octets,
        description=_text,
        filename=_text,
        disposition=_dispositions,
        language=_text,
    ),
)


def _multi(inner: st.SearchStrategy[content.Part]) -> st.SearchStrategy[content.Part]:
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(content.MultiPart, st.sampled_from(content.Semantics), parts, _dispositions, _text)


_part = st.one_of(_leaf_part, _multi(_leaf_part), _multi(_multi(_leaf_part)))
_message_id = st.none() | st.binary(min_size=31, max_size=31).map(lambda rest: b"\x01" + rest)
_expiry = st.none() | st.builds(content.Expiry, st.booleans(), st.integers(0, 366 * 86400))
_foreign = st.dictionaries(
    st.integers(-_SAFE, -5000) | st.integers(3, _SAFE) | st.text(min_size=1, max_size=60), _flat_value, max_size=3
)
_messages = st.builds(
    content.Message,
    salt=st.binary(min_size=16, max_size=16),
    body=_part,
    replaces=_message_id,
    topic_id=_octets,
    expires=_expiry,
    in_reply_to=_message_id,
    extensions=_foreign,
)
_valid = content.encode(
    content.photo(
        content.blob("1", content_type="image/webp", size=1, key=bytes(32), content_hash=bytes(32)),
        4,
        3,
        "caption",
        content.SinglePart("image/webp", b"small"),
        clinical=[content.Patient("1"), content.Priority(2)],
        expires=content.Expiry(True, 5),
        salt=bytes(16),
    )
)


def _read_all(data: bytes) -> None:
    """Decode, and look at it in every way there is."""
    message = content.decode(data)
    assert content.encode(message) == data
    content.kind(message)
    content.body_text(message)
    content.attachments(message)
    content.fallback_text(message)
    with contextlib.suppress(Malformed, TooLarge):
        content.report(message)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_random_bytes_bring_only_typed_errors(data: bytes) -> None:
    for read in (_read_all, cbor.decode, status.decode_report):
        with contextlib.suppress(Malformed, TooLarge):
            read(data)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_a_damaged_message_brings_only_typed_errors(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(_valid)))
    end = data.draw(st.integers(at, min(at + 4, len(_valid))))
    damaged = _valid[:at] + data.draw(st.binary(max_size=4)) + _valid[end:]
    with contextlib.suppress(Malformed, TooLarge):
        _read_all(damaged)


@given(_messages)
@settings(max_examples=300, deadline=None)
def test_a_message_comes_back_as_it_was(message: content.Message) -> None:
    encoded = content.encode(message)
    assert content.decode(encoded) == message
    _read_all(encoded)


@given(_value)
@example({"a": 1, -1: 2, 24: 3, b"": 4})
@settings(max_examples=300, deadline=None)
def test_a_value_comes_back_as_it_was_and_another_library_reads_it_too(value: Any) -> None:
    encoded = cbor.encode(value, 60)
    assert cbor.decode(encoded, 60) == value
    cbor2.loads(encoded)


@given(
    st.recursive(
        st.integers(-(2**64), 2**64 - 1) | _text | _octets | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_key, inner, max_size=5),
        max_leaves=15,
    )
)
@settings(max_examples=200, deadline=None)
def test_what_another_library_writes_sorted_is_what_ours_writes(value: Any) -> None:
    assert cbor.encode(value, 60) == _sorted_by_bytes(value)


def _sorted_by_bytes(value: Any) -> bytes:
    """cbor2 without its canonical order, which is the older, length-first one."""
    match value:
        case dict():
            items = sorted((cbor2.dumps(key), _sorted_by_bytes(item)) for key, item in value.items())
            head = bytes((0xA0 | len(items),))
            return head + b"".join(key + item for key, item in items)
        case list():
            return bytes((0x80 | len(value),)) + b"".join(map(_sorted_by_bytes, value))
        case _:
            return bytes(cbor2.dumps(value))
