"""Credentials, leaf nodes, parent nodes and KeyPackages (RFC 9420 sections 5.3, 7.1, 7.2 and 10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from curbside.errors import Malformed
from curbside.mls.checks import Check, require
from curbside.mls.codec import Reader, u8, u16, u16s, u32, u32s, u64, vector, vector_of

MLS10: Final = 1

CREDENTIAL_BASIC: Final = 1
CREDENTIAL_X509: Final = 2

SOURCE_KEY_PACKAGE: Final = 1
SOURCE_UPDATE: Final = 2
SOURCE_COMMIT: Final = 3


@dataclass(frozen=True, slots=True)
class Credential:
    """A basic credential (`identity`) or an X.509 chain in DER, end entity first (`certificates`)."""

    kind: int
    identity: bytes = b""
    certificates: tuple[bytes, ...] = ()

    @classmethod
    def basic(cls, identity: bytes) -> Credential:
        """A bare assertion of an identity."""
        return cls(CREDENTIAL_BASIC, identity)

    @classmethod
    def x509(cls, *certificates: bytes) -> Credential:
        """A certificate chain."""
        return cls(CREDENTIAL_X509, b"", certificates)

    def encode(self) -> bytes:
        """Wire form."""
        if self.kind == CREDENTIAL_BASIC:
            return u16(CREDENTIAL_BASIC) + vector(self.identity)
        return u16(self.kind) + vector_of(map(vector, self.certificates))

    @classmethod
    def read(cls, reader: Reader) -> Credential:
        """Decode. Raises: Malformed, for other credential types too."""
        kind = reader.u16()
        if kind == CREDENTIAL_BASIC:
            return cls(kind, reader.vector())
        if kind == CREDENTIAL_X509:
            chain = reader.items(Reader.vector)
            if not chain:
                raise Malformed("a certificate chain is empty")
            return cls(kind, b"", chain)
        raise Malformed(f"credential type {kind} is not known")


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension as it stands on the wire; `extensions.py` reads the bodies we know."""

    kind: int
    body: bytes

    def encode(self) -> bytes:
        """Wire form."""
        return u16(self.kind) + vector(self.body)

    @classmethod
    def read(cls, reader: Reader) -> Extension:
        """Decode. Raises: Malformed."""
        return cls(reader.u16(), reader.vector())


Extensions = tuple[Extension, ...]


def encode_extensions(extensions: Iterable[Extension]) -> bytes:
    """Extension<V>."""
    return vector_of(extension.encode() for extension in extensions)


def read_extensions(reader: Reader) -> Extensions:
    """Extension<V>. Raises: Malformed; RuleBroken when a type is there twice (section 13.4)."""
    found = reader.items(Extension.read)
    if len(found) > 1:
        require(len({extension.kind for extension in found}) == len(found), Check.EXTENSION_UNIQUE)
    return found


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a client supports (section 7.2); default extensions and proposals are not listed."""

    versions: tuple[int, ...] = (MLS10,)
    suites: tuple[int, ...] = (1,)
    extensions: tuple[int, ...] = ()
    proposals: tuple[int, ...] = ()
    credentials: tuple[int, ...] = (CREDENTIAL_BASIC, CREDENTIAL_X509)

    def encode(self) -> bytes:
        """Wire form."""
        lists = (self.versions, self.suites, self.extensions, self.proposals, self.credentials)
        return b"".join(map(u16s, lists))

    @classmethod
    def read(cls, reader: Reader) -> Capabilities:
        """Decode. Raises: Malformed."""
        return cls(reader.u16s(), reader.u16s(), reader.u16s(), reader.u16s(), reader.u16s())


@dataclass(frozen=True, slots=True)
class Lifetime:
    """From when and until when a KeyPackage may be used, in seconds since 1970."""

    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True, eq=False)
class LeafNode:
    """A member's leaf. `raw` is its encoding; two leaves are the same when `raw` is."""

    encryption_key: bytes
    signature_key: bytes
    credential: Credential
    capabilities: Capabilities
    source: int
    lifetime: Lifetime | None
    parent_hash: bytes
    extensions: Extensions
    signature: bytes
    raw: bytes = field(repr=False, default=b"")

    def encode_unsigned(self) -> bytes:
        """The fields above the signature."""
        parts = [
            vector(self.encryption_key),
            vector(self.signature_key),
            self.credential.encode(),
            self.capabilities.encode(),
            u8(self.source),
        ]
        if self.source == SOURCE_KEY_PACKAGE and self.lifetime is not None:
            parts.append(u64(self.lifetime.not_before) + u64(self.lifetime.not_after))
        elif self.source == SOURCE_COMMIT:
            parts.append(vector(self.parent_hash))
        parts.append(encode_extensions(self.extensions))
        return b"".join(parts)

    def encode(self) -> bytes:
        """Wire form."""
        return self.raw or self.encode_unsigned() + vector(self.signature)

    def to_be_signed(self, group_id: bytes, leaf_index: int) -> bytes:
        """LeafNodeTBS (section 7.2); group id and index count for updates and commits only."""
        unsigned = self.raw[: -len(vector(self.signature))] if self.raw else self.encode_unsigned()
        if self.source == SOURCE_KEY_PACKAGE:
            return unsigned
        return unsigned + vector(group_id) + u32(leaf_index)

    @classmethod
    def read(cls, reader: Reader) -> LeafNode:
        """Decode. Raises: Malformed; RuleBroken."""
        start = reader.position
        encryption_key, signature_key = reader.vector(), reader.vector()
        credential, capabilities = Credential.read(reader), Capabilities.read(reader)
        source = reader.u8()
        lifetime, parent_hash = None, b""
        if source == SOURCE_KEY_PACKAGE:
            lifetime = Lifetime(reader.u64(), reader.u64())
        elif source == SOURCE_COMMIT:
            parent_hash = reader.vector()
        elif source != SOURCE_UPDATE:
            raise Malformed("the source of a leaf is not known")
        extensions, signature = read_extensions(reader), reader.vector()
        return cls(
            encryption_key, signature_key, credential, capabilities, source,
            lifetime, parent_hash, extensions, signature, reader.since(start),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ParentNode:
    """An inner node; `unmerged` are the leaf indices below that do not hold its private key."""

    encryption_key: bytes
    parent_hash: bytes
    unmerged: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """Wire form."""
        return vector(self.encryption_key) + vector(self.parent_hash) + u32s(self.unmerged)

    @classmethod
    def read(cls, reader: Reader) -> ParentNode:
        """Decode. Raises: Malformed; RuleBroken when unmerged leaves are not sorted (section 7.1)."""
        node = cls(reader.vector(), reader.vector(), reader.u32s())
        pairs = zip(node.unmerged, node.unmerged[1:], strict=False)
        require(all(low < high for low, high in pairs), Check.TREE_UNMERGED)
        return node


@dataclass(frozen=True, slots=True, eq=False)
class KeyPackage:
    """What a client publishes so that others can add it (section 10)."""

    version: int
    suite: int
    init_key: bytes
    leaf: LeafNode
    extensions: Extensions
    signature: bytes
    raw: bytes = field(repr=False, default=b"")

    def encode_unsigned(self) -> bytes:
        """KeyPackageTBS."""
        if self.raw:
            return self.raw[: -len(vector(self.signature))]
        head = u16(self.version) + u16(self.suite) + vector(self.init_key)
        return head + self.leaf.encode() + encode_extensions(self.extensions)

    def encode(self) -> bytes:
        """Wire form."""
        return self.raw or self.encode_unsigned() + vector(self.signature)

    @classmethod
    def read(cls, reader: Reader) -> KeyPackage:
        """Decode. Raises: Malformed; RuleBroken."""
        start = reader.position
        version, suite, init_key = reader.u16(), reader.u16(), reader.vector()
        leaf, extensions, signature = LeafNode.read(reader), read_extensions(reader), reader.vector()
        return cls(version, suite, init_key, leaf, extensions, signature, reader.since(start))
