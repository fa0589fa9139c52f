"""DPoP proofs against the vectors, and against bytes changed at random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbside.crypto.jose import (
    ProofRequest,
    compute_thumbprint,
    make_proof,
    sign_api_key,
    verify_api_key,
    verify_proof,
)
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.errors import BadSignature, Malformed, NotAuthenticated
from curbside.ids import DeviceId, decode_base64url, decode_id, encode_id

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[3] / "vectors" / "trust" / "proofs.json").read_text("utf-8")
)
SEED = SecretBytes(decode_base64url(VECTORS["seed"]))
PUBLIC = decode_base64url(VECTORS["public_key"])


def request_of(case: dict[str, Any]) -> ProofRequest:
    return ProofRequest(case["method"], case["uri"], case["now"], case["token"], decode_base64url(case["nonce"]))


FIRST = request_of(VECTORS["made"][0])


@pytest.mark.parametrize("case", VECTORS["made"], ids=lambda case: case["method"])
def test_vectors_are_made_and_verified(case: dict[str, Any]) -> None:
    request = request_of(case)
    assert make_proof(SEED, request, case["jti"]) == case["proof"]
    proof = verify_proof(case["proof"], request, PUBLIC)
    assert (proof.public_key, proof.jti, proof.issued_at) == (PUBLIC, case["jti"], case["now"])
    assert verify_proof(case["proof"], request).public_key == PUBLIC


@pytest.mark.parametrize("proof", VECTORS["accepted"])
def test_clocks_may_differ_by_120_seconds(proof: str) -> None:
    verify_proof(proof, FIRST, PUBLIC)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["reason"])
def test_refused_with_the_check_that_fails(case: dict[str, Any]) -> None:
    with pytest.raises(NotAuthenticated) as refused:
        verify_proof(case["proof"], FIRST, PUBLIC)
    assert refused.value.members["check"] == case["check"]


def test_proofs_of_one_request_differ() -> None:
    proofs = [verify_proof(make_proof(SEED, FIRST), FIRST) for _ in range(2)]
    assert proofs[0].jti != proofs[1].jti
    assert len(decode_id(proofs[0].jti)) == 16


def test_thumbprint_is_that_of_rfc_8037_appendix_a_3() -> None:
    key = decode_base64url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert compute_thumbprint(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert compute_thumbprint(PUBLIC) == VECTORS["thumbprint"]


def test_api_key_is_vouched_for_by_the_device_key_only() -> None:
    case = VECTORS["api_key"]
    device_key, device_id = SecretBytes(decode_base64url(case["device_seed"])), DeviceId(case["device_id"])
    signature = decode_base64url(case["signature"])
    device_public = Signer("ed25519", device_key).public
    assert sign_api_key(device_key, device_id, PUBLIC) == signature
    verify_api_key(device_public, device_id, PUBLIC, signature)
    for other in (
        (PUBLIC, device_id, PUBLIC, signature),
        (device_public, DeviceId(encode_id(bytes(16))), PUBLIC, signature),
        (device_public, device_id, device_public, signature),
        (device_public, device_id, PUBLIC, bytes(64)),
    ):
        with pytest.raises(BadSignature):
            verify_api_key(*other)
    with pytest.raises(Malformed):
        verify_api_key(device_public, device_id, PUBLIC + b"x", signature)


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(NotAuthenticated):
        verify_proof(text, FIRST)


@given(st.data())
def test_a_changed_character_is_refused(data: st.DataObject) -> None:
    proof: str = VECTORS["made"][0]["proof"]
    at = data.draw(st.integers(0, len(proof) - 1))
    other = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda char: char != proof[at]))
    with pytest.raises(NotAuthenticated):
        verify_proof(proof[:at] + other + proof[at + 1 :], FIRST)
