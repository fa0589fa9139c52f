"""One's own leaf and KeyPackages (RFC 9420 sections 7.2 and 10). Secret side."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from curbside.crypto import hpke
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer
from curbside.crypto.suites import Suite, get_suite
from curbside.errors import UsageError
from curbside.mls.codec import Reader, decode, u8, vector
from curbside.mls.labels import key_package_ref, sign_with_label
from curbside.mls.messages import encode_message
from curbside.mls.nodes import (
    MLS10,
    SOURCE_COMMIT,
    SOURCE_KEY_PACKAGE,
    SOURCE_UPDATE,
    Capabilities,
    Credential,
    Extension,
    Extensions,
    KeyPackage,
    LeafNode,
    Lifetime,
    encode_extensions,
    read_extensions,
)

_SAVE_VERSION = 1


@dataclass(frozen=True, slots=True)
class OwnLeaf:
    """How this device shows itself: credential, private signature key (raw), capabilities and leaf extensions."""

    credential: Credential
    signer: SecretBytes = field(repr=False)
    capabilities: Capabilities = Capabilities(suites=(1, 2))
    extensions: tuple[Extension, ...] = ()

    def encode(self) -> bytes:
        """For saved state."""
        head = self.credential.encode() + vector(self.signer.reveal()) + self.capabilities.encode()
        return head + encode_extensions(self.extensions)

    @classmethod
    def read(cls, reader: Reader) -> OwnLeaf:
        """Decode. Raises: Malformed."""
        credential, signer = Credential.read(reader), SecretBytes(reader.vector())
        return cls(credential, signer, Capabilities.read(reader), read_extensions(reader))


@dataclass(frozen=True, slots=True)
class LeafPlace:
    """Where a leaf stands: its source with what that source needs."""

    source: int
    lifetime: Lifetime | None = None
    parent_hash: bytes = b""
    group_id: bytes = b""
    leaf_index: int = 0

    @classmethod
    def for_commit(cls, group_id: bytes, leaf_index: int, parent_hash: bytes) -> LeafPlace:
        """In the path of a commit."""
        return cls(SOURCE_COMMIT, None, parent_hash, group_id, leaf_index)

    @classmethod
    def for_update(cls, group_id: bytes, leaf_index: int) -> LeafPlace:
        """In an Update proposal."""
        return cls(SOURCE_UPDATE, None, b"", group_id, leaf_index)


def make_signer(suite: Suite, leaf: OwnLeaf) -> Signer:
    """The signer of a leaf."""
    return Signer(suite.signature_name, leaf.signer)


def make_leaf(suite: Suite, own: OwnLeaf, signer: Signer, encryption_key: bytes, place: LeafPlace) -> LeafNode:
    """A signed leaf node."""
    capabilities = own.capabilities
    if suite.code not in capabilities.suites:
        capabilities = replace(capabilities, suites=(*capabilities.suites, suite.code))
    leaf = LeafNode(
        encryption_key, signer.public, own.credential, capabilities, place.source,
        place.lifetime, place.parent_hash, own.extensions, b"",
    )  # fmt: skip
    signature = sign_with_label(signer, b"LeafNodeTBS", leaf.to_be_signed(place.group_id, place.leaf_index))
    return replace(leaf, signature=signature, raw=leaf.encode_unsigned() + vector(signature))


@dataclass(frozen=True, slots=True)
class KeyPackageSecrets:
    """A KeyPackage with its private keys.

    `public` is the MLSMessage to publish. The secrets must be deleted once a Welcome was opened with them.
    """

    package: KeyPackage
    own: OwnLeaf
    init_private: SecretBytes = field(repr=False)
    leaf_private: SecretBytes = field(repr=False)

    @property
    def public(self) -> bytes:
        """The KeyPackage as an MLSMessage."""
        return encode_message(self.package)

    @property
    def reference(self) -> bytes:
        """The KeyPackageRef, by which Welcomes name it."""
        return key_package_ref(get_suite(self.package.suite), self.package.encode())

    def save(self) -> bytes:
        """For the vault: holds secrets."""
        keys = vector(self.init_private.reveal()) + vector(self.leaf_private.reveal())
        return u8(_SAVE_VERSION) + self.package.encode() + self.own.encode() + keys

    @classmethod
    def load(cls, blob: bytes) -> KeyPackageSecrets:
        """What `save` made. Raises: Malformed."""
        return decode(blob, cls._read)

    @classmethod
    def _read(cls, reader: Reader) -> KeyPackageSecrets:
        if reader.u8() != _SAVE_VERSION:
            raise UsageError("saved by another version")
        package, own = KeyPackage.read(reader), OwnLeaf.read(reader)
        return cls(package, own, SecretBytes(reader.vector()), SecretBytes(reader.vector()))


def make_key_package(
    leaf: OwnLeaf, suite: int, lifetime: tuple[int, int], extensions: Extensions = ()
) -> KeyPackageSecrets:
    """A new KeyPackage with fresh keys (section 10).

    Args: `suite` the cipher suite's code; `lifetime` (not_before, not_after) in unix seconds.
    Raises: RuleBroken when the suite is not known.
    """
    kind = get_suite(suite)
    signer = make_signer(kind, leaf)
    init_private, init_public = hpke.generate_key_pair(kind.hpke.kem)
    leaf_private, leaf_public = hpke.generate_key_pair(kind.hpke.kem)
    node = make_leaf(kind, leaf, signer, leaf_public, LeafPlace(SOURCE_KEY_PACKAGE, Lifetime(*lifetime)))
    package = KeyPackage(MLS10, suite, init_public, node, extensions, b"")
    unsigned = package.encode_unsigned()
    signature = sign_with_label(signer, b"KeyPackageTBS", unsigned)
    package = replace(package, signature=signature, raw=unsigned + vector(signature))
    return KeyPackageSecrets(package, leaf, SecretBytes(init_private), SecretBytes(leaf_private))
