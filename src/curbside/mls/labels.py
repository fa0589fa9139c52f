"""The labelled functions of RFC 9420 sections 5.1, 5.2 and 8: every use of a key names its purpose."""

from __future__ import annotations

from curbside.crypto import kdf
from curbside.crypto.sign import Signer, verify_signature
from curbside.crypto.suites import Suite
from curbside.mls.codec import u16, u32, vector

_PREFIX = b"MLS 1.0 "


def _labelled(label: bytes, content: bytes) -> bytes:
    return vector(_PREFIX + label) + vector(content)


def sign_with_label(signer: Signer, label: bytes, content: bytes) -> bytes:
    """SignWithLabel (section 5.1.2)."""
    return signer.sign(_labelled(label, content))


def verify_with_label(suite: Suite, public: bytes, label: bytes, content: bytes, signature: bytes) -> None:
    """VerifyWithLabel (section 5.1.2).

    Raises: BadSignature; Malformed when the key is none.
    """
    verify_signature(suite.signature_name, public, _labelled(label, content), signature)


def encrypt_with_label(
    suite: Suite, public: bytes, label: bytes, context: bytes, plaintext: bytes
) -> tuple[bytes, bytes]:
    """EncryptWithLabel (section 5.1.3): (kem_output, ciphertext).

    Raises: Malformed when the key is none.
    """
    return suite.hpke.seal(public, _labelled(label, context), b"", plaintext)


def decrypt_with_label(
    suite: Suite, private: bytes, label: bytes, context: bytes, sealed: tuple[bytes, bytes]
) -> bytes:
    """DecryptWithLabel (section 5.1.3) of (kem_output, ciphertext).

    Raises: DecryptionFailed.
    """
    return suite.hpke.open(private, sealed[0], _labelled(label, context), b"", sealed[1])


def ref_hash(suite: Suite, label: bytes, content: bytes) -> bytes:
    """RefHash (section 5.2)."""
    return kdf.compute_hash(suite.hash_name, vector(label) + vector(content))


def key_package_ref(suite: Suite, key_package: bytes) -> bytes:
    """MakeKeyPackageRef (section 5.2)."""
    return ref_hash(suite, b"MLS 1.0 KeyPackage Reference", key_package)


def proposal_ref(suite: Suite, authenticated_content: bytes) -> bytes:
    """MakeProposalRef (section 5.2)."""
    return ref_hash(suite, b"MLS 1.0 Proposal Reference", authenticated_content)


def compute_hash(suite: Suite, content: bytes) -> bytes:
    """The suite's hash."""
    return kdf.compute_hash(suite.hash_name, content)


def compute_mac(suite: Suite, key: bytes, content: bytes) -> bytes:
    """The suite's MAC."""
    return kdf.compute_mac(suite.hash_name, key, content)


def expand_with_label(suite: Suite, secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """ExpandWithLabel (section 8)."""
    return kdf.expand(suite.hash_name, secret, u16(length) + _labelled(label, context), length)


def derive_secret(suite: Suite, secret: bytes, label: bytes) -> bytes:
    """DeriveSecret (section 8)."""
    return expand_with_label(suite, secret, label, b"", suite.hash_length)


def derive_tree_secret(suite: Suite, secret: bytes, label: bytes, generation: int, length: int) -> bytes:
    """DeriveTreeSecret (section 9.1)."""
    return expand_with_label(suite, secret, label, u32(generation), length)
