"""Attachments: whole, piece by piece, and with every kind of damage."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbside.crypto.secret import SecretBytes
from curbside.crypto.stream_aead import (
    CHUNK_BYTES,
    SEALED_CHUNK_BYTES,
    Opener,
    Sealer,
    count_chunks,
    hash_file,
    make_key,
    open_bytes,
    open_chunk,
    pad_size,
    seal_bytes,
    sealed_size,
)
from curbside.errors import BlobCorrupt, TooLarge, UsageError
from curbside.ids import decode_base64url

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[3] / "vectors" / "trust" / "attachments.json").read_text("utf-8")
)
KEY = SecretBytes(decode_base64url(VECTORS["key"]))
PREFIX = decode_base64url(VECTORS["prefix"])


def pattern(size: int) -> bytes:
    return bytes((7 * i + i // 256) % 251 for i in range(size))


def seal(size: int) -> bytes:
    sealer = Sealer(KEY, size, PREFIX)
    return sealer.update(pattern(size)) + sealer.finish()


@pytest.mark.parametrize("case", VECTORS["sizes"], ids=lambda case: str(case["size"]))
def test_size_buckets(case: dict[str, int]) -> None:
    assert pad_size(case["size"]) == case["padded"]
    assert sealed_size(case["size"]) == case["sealed"]


@given(st.integers(0, 2**40))
def test_a_bucket_holds_its_size_and_wastes_a_fifth_at_most(size: int) -> None:
    assert size <= pad_size(size) <= max(4096, size * 1.1893 + 1)
    assert pad_size(pad_size(size)) == pad_size(size)


@pytest.mark.parametrize("size", [-1, 2**40 + 1])
def test_sizes_out_of_range(size: int) -> None:
    with pytest.raises(TooLarge):
        pad_size(size)


@pytest.mark.parametrize("case", VECTORS["files"], ids=lambda case: str(case["size"]))
def test_vectors_are_sealed_and_opened(case: dict[str, Any]) -> None:
    sealed = seal(case["size"])
    assert len(sealed) == case["length"] == sealed_size(case["size"])
    assert sealed[:64] == decode_base64url(case["begin"])
    assert hash_file(sealed) == decode_base64url(case["sha256"])
    assert open_bytes(KEY, case["size"], sealed) == pattern(case["size"])


def corrupt(sealed: bytes, edit: list[Any]) -> bytes:
    match edit:
        case ["cut", at]:
            return sealed[:at]
        case ["drop", count]:
            return sealed[:-count]
        case ["append", count]:
            return sealed + bytes(count)
        case ["flip", at]:
            return sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :]
    chunks = [sealed[i : i + SEALED_CHUNK_BYTES] for i in range(7, len(sealed), SEALED_CHUNK_BYTES)]
    match edit:
        case ["swap", one, other]:
            chunks[one], chunks[other] = chunks[other], chunks[one]
        case ["copy", source, target]:
            chunks[target] = chunks[source]
        case _:
            return sealed
    return sealed[:7] + b"".join(chunks)


@pytest.mark.parametrize("case", VECTORS["corrupt"], ids=lambda case: case["reason"])
def test_damage_is_noticed(case: dict[str, Any]) -> None:
    size = VECTORS["corrupt_size"]
    sealed = seal(size)
    assert open_bytes(KEY, size, sealed) == pattern(size)
    damaged = corrupt(sealed, case["edit"])
    key = make_key() if case["edit"] == ["key"] else KEY
    claimed = case["edit"][1] if case["edit"][0] == "size" else size
    assert damaged != sealed or key is not KEY or claimed != size
    with pytest.raises(BlobCorrupt):
        open_bytes(key, claimed, damaged)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 150_000), st.lists(st.integers(0, 70_000), max_size=6))
def test_pieces_of_any_size_give_the_same_file(size: int, cuts: list[int]) -> None:
    plaintext, whole = pattern(size), seal(size)
    sealer, sealed = Sealer(KEY, size, PREFIX), b""
    for start, end in _pieces(size, cuts):
        sealed += sealer.update(plaintext[start:end])
    assert sealed + sealer.finish() == whole
    opener, opened = Opener(KEY, size), b""
    for start, end in _pieces(len(whole), cuts):
        opened += opener.update(whole[start:end])
    assert opened + opener.finish() == plaintext


def _pieces(size: int, cuts: list[int]) -> list[tuple[int, int]]:
    marks = sorted({0, size, *(cut for cut in cuts if cut < size)})
    return list(pairwise(marks))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    sealed = bytearray(SMALL)
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BlobCorrupt):
        open_bytes(KEY, 5000, bytes(sealed))


SMALL = seal(5000)


def test_one_chunk_from_the_middle() -> None:
    size = 200_000
    sealed = seal(size)
    assert count_chunks(size) == 4
    for number in range(4):
        start = 7 + number * SEALED_CHUNK_BYTES
        chunk = open_chunk(KEY, size, sealed[:7], number, sealed[start : start + SEALED_CHUNK_BYTES])
        assert chunk == pattern(size)[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
    with pytest.raises(BlobCorrupt):
        open_chunk(KEY, size, sealed[:7], 1, sealed[7 : 7 + SEALED_CHUNK_BYTES])
    with pytest.raises(UsageError):
        open_chunk(KEY, size, sealed[:7], 4, b"")


def test_padding_that_is_not_zero_is_refused() -> None:
    sealer = Sealer(KEY, 4096, PREFIX)
    sealed = sealer.update(pattern(4096)) + sealer.finish()
    with pytest.raises(BlobCorrupt):
        open_bytes(KEY, 4000, sealed)


def test_two_files_never_share_a_nonce() -> None:
    assert seal_bytes(KEY, b"x")[:7] != seal_bytes(KEY, b"x")[:7]


def test_callers_mistakes_are_usage_errors() -> None:
    with pytest.raises(UsageError):
        Sealer(SecretBytes(b"short"), 1)
    with pytest.raises(UsageError):
        Opener(SecretBytes(b"short"), 1)
    sealer = Sealer(KEY, 2)
    with pytest.raises(UsageError):
        sealer.update(b"abc")
    with pytest.raises(UsageError):
        sealer.finish()
    sealer.update(b"ab")
    sealer.finish()
    with pytest.raises(UsageError):
        sealer.finish()


def test_nothing_is_opened_before_all_bytes_are_there() -> None:
    opener = Opener(KEY, 5000)
    assert opener.update(SMALL[:-1]) == b""
    with pytest.raises(BlobCorrupt):
        opener.finish()
    assert opener.update(SMALL[-1:]) == pattern(5000)
    assert opener.finish() == b""
