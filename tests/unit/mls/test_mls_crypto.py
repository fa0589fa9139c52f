"""The primitives under MLS refuse bad keys with errors of our own."""

from __future__ import annotations

import pytest

from curbside.crypto import hpke, kdf
from curbside.crypto.hpke import KEMS, Hpke
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, check_signature_key, generate_signature_key, verify_signature
from curbside.crypto.suites import SUITES, get_suite
from curbside.errors import BadSignature, DecryptionFailed, Malformed, RuleBroken, UsageError
from curbside.mls.checks import Check


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_hpke_round_trip_and_tampering(suite) -> None:  # type: ignore[no-untyped-def]
    box: Hpke = suite.hpke
    private, public = hpke.generate_key_pair(box.kem)
    hpke.check_public_key(box.kem, public)
    kem_output, sealed = box.seal(public, b"info", b"aad", b"text")
    assert box.open(private, kem_output, b"info", b"aad", sealed) == b"text"
    for bad in ((kem_output, b"other", sealed), (kem_output[:-1], b"info", sealed), (kem_output, b"info", b"")):
        with pytest.raises(DecryptionFailed):
            box.open(private, bad[0], bad[1], b"aad", bad[2])
    kem_output, secret = box.export_to(public, b"", b"label")
    assert box.export_from(private, kem_output, b"", b"label") == secret
    assert len(secret) == suite.hash_length
    with pytest.raises(Malformed):
        box.seal(public[:-1], b"", b"", b"")
    with pytest.raises(Malformed):
        hpke.check_public_key(box.kem, public[:-1])
    with pytest.raises(UsageError):
        hpke.public_key(box.kem, b"")


def test_points_of_small_order_and_compressed_points_are_refused() -> None:
    for value in (0, 1, 2**255 - 19, 2**255 - 20, 2**255 - 18):
        for key in (value.to_bytes(32, "little"), (value | 2**255).to_bytes(32, "little")):
            with pytest.raises(Malformed):
                hpke.check_public_key(KEMS["x25519"], key)
            with pytest.raises(Malformed):
                get_suite(1).hpke.seal(key, b"", b"", b"")
    for value in (0, 1, 2**448 - 2**224 - 1):
        with pytest.raises(Malformed):
            hpke.check_public_key(KEMS["x448"], value.to_bytes(56, "little"))
    public = hpke.generate_key_pair(KEMS["p256"])[1]
    compressed = bytes((2 + public[-1] % 2,)) + public[1:33]
    for refuse in (
        lambda: hpke.check_public_key(KEMS["p256"], compressed),
        lambda: get_suite(2).hpke.seal(compressed, b"", b"", b""),
        lambda: check_signature_key("p256", compressed),
    ):
        with pytest.raises(Malformed):
            refuse()


@pytest.mark.parametrize("name", ["ed25519", "ed448", "p256", "p384", "p521"])
def test_signatures(name) -> None:  # type: ignore[no-untyped-def]
    signer = Signer(name, generate_signature_key(name))
    signature = signer.sign(b"content")
    verify_signature(name, signer.public, b"content", signature)
    for content, bad in ((b"other", signature), (b"content", signature[:-1]), (b"content", b"")):
        with pytest.raises(BadSignature):
            verify_signature(name, signer.public, content, bad)
    with pytest.raises(Malformed):
        verify_signature(name, signer.public[:-1], b"content", signature)
    with pytest.raises(UsageError):
        Signer(name, SecretBytes(b"")).sign(b"")
    assert name in repr(signer)
    assert signer.private.reveal().hex() not in repr(signer)


def test_hkdf_knows_its_limit() -> None:
    assert len(kdf.expand("sha256", random_bytes(32), b"", 100)) == 100
    with pytest.raises(UsageError):
        kdf.expand("sha256", b"", b"", 256 * 32)
    assert kdf.is_same(b"a", b"a")
    assert not kdf.is_same(b"a", b"b")


def test_unknown_suites_and_the_table_of_checks() -> None:
    with pytest.raises(RuleBroken) as error:
        get_suite(99)
    assert error.value.check == Check.SUITE_KNOWN
    assert len({check.value for check in Check}) == len(list(Check))
    for check in Check:
        assert check.value.startswith("mls.")
        assert check.sentence.endswith(".")
        assert check.section[0].isdigit()
