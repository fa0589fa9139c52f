"""Passphrases: normal forms, wraps and ratings against the vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from argon2.low_level import Type, hash_secret_raw
from hypothesis import given
from hypothesis import strategies as st

from curbside.crypto.aead import open_sealed
from curbside.crypto.passphrase import (
    MAXIMUM_CHARS,
    MINIMUM_CHARS,
    parse_wrap_record,
    prepare_passphrase,
    unwrap,
    wrap,
)
from curbside.crypto.passphrase_rating import WORDS, Rating, count_units, rate_passphrase
from curbside.crypto.secret import SecretBytes
from curbside.errors import Malformed, UsageError, WrongPassphrase
from curbside.ids import decode_base64url

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[3] / "vectors" / "trust" / "passphrases.json").read_text("utf-8")
)
KEY = SecretBytes(bytes(range(32)))


@pytest.mark.parametrize("case", VECTORS["normal"], ids=lambda case: case["bytes"][:16])
def test_normal_form(case: dict[str, str]) -> None:
    assert prepare_passphrase(case["text"]).reveal().hex() == case["bytes"]


@pytest.mark.parametrize("case", VECTORS["wraps"], ids=["ascii", "composed"])
def test_vectors_are_unwrapped_and_wrapped(case: dict[str, Any]) -> None:
    record, key = case["record"], SecretBytes(decode_base64url(case["vault_key"]))
    assert unwrap(record, case["passphrase"], case["vault_id"]).is_same(key)
    salt, nonce = decode_base64url(record["salt"]), decode_base64url(record["nonce"])
    assert wrap(key, case["passphrase"], case["vault_id"], salt, nonce) == record


def test_another_argon2_library_opens_the_wrap() -> None:
    case = VECTORS["wraps"][0]
    record = case["record"]
    salt = decode_base64url(record["salt"])
    key = hash_secret_raw(case["passphrase"].encode(), salt, 3, 65_536, 1, 32, Type.ID)
    aad = b"curbside vault wrap v1\x00" + case["vault_id"].encode()
    sealed, nonce = decode_base64url(record["ciphertext"]), decode_base64url(record["nonce"])
    assert open_sealed("aes256gcm", key, nonce, sealed, aad) == decode_base64url(case["vault_key"])


@pytest.mark.parametrize("case", VECTORS["wrong"], ids=lambda case: case["reason"])
def test_wrong_passphrase_vault_or_bytes(case: dict[str, Any]) -> None:
    with pytest.raises(WrongPassphrase):
        unwrap(case["record"], case["passphrase"], case["vault_id"])


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["reason"])
def test_records_of_another_form(case: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_wrap_record(case["record"])


def test_two_wraps_share_neither_salt_nor_nonce() -> None:
    first, second = wrap(KEY, "a", "v"), wrap(KEY, "a", "v")
    assert first["salt"] != second["salt"]
    assert first["nonce"] != second["nonce"]
    assert first["ciphertext"] != second["ciphertext"]


def test_only_a_vault_key_is_wrapped() -> None:
    with pytest.raises(UsageError):
        wrap(SecretBytes(b"short"), "a", "v")


@pytest.mark.parametrize("text", ["x" * (MAXIMUM_CHARS + 1), "\ud800"])
def test_what_is_no_passphrase_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        prepare_passphrase(text)


@pytest.mark.parametrize("case", VECTORS["ratings"], ids=lambda case: case["passphrase"][:20])
def test_ratings(case: dict[str, Any]) -> None:
    person = VECTORS["person"]
    rating = rate_passphrase(case["passphrase"], person["name"], person["organization"])
    assert rating == Rating(case["score"], case["hint"], case["acceptable"])


@given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_nothing_short_is_acceptable(text: str, name: str, organization: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in text + name + organization):
        return
    rating = rate_passphrase(text, name, organization)
    normal = prepare_passphrase(text).reveal().decode()
    assert 0 <= rating.score <= 4
    assert not rating.acceptable or (len(normal) >= MINIMUM_CHARS and rating.score >= 2)
    assert rating.hint == "" or not rating.acceptable or rating.score < 4


def test_the_list_of_words_is_the_shared_one() -> None:
    assert VECTORS["words"] == WORDS
    assert len(set(WORDS)) == len(WORDS)


def test_own_name_counts_as_one_character() -> None:
    assert count_units("wilhelmina", []) == 10
    assert count_units("wilhelmina", ["wilhelmina"]) == 1
    assert not rate_passphrase("Wilhelmina Stradivari 1", "Wilhelmina Stradivari", "Olaf").acceptable
    assert rate_passphrase("Wilhelmina Stradivari 1", "Bob", "Olaf").acceptable


def test_too_long_is_not_acceptable() -> None:
    assert rate_passphrase("x" * (MAXIMUM_CHARS + 1), "", "") == Rating(0, "At most 1024 characters.", False)
