"""Proposals and PSK ids (RFC 9420 sections 8.4 and 12.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from curbside.errors import Malformed
from curbside.mls.codec import Reader, u8, u16, u32, u64, vector
from curbside.mls.nodes import Extensions, KeyPackage, LeafNode, encode_extensions, read_extensions

PSK_EXTERNAL: Final = 1
PSK_RESUMPTION: Final = 2
USAGE_APPLICATION: Final = 1
USAGE_REINIT: Final = 2
USAGE_BRANCH: Final = 3


@dataclass(frozen=True, slots=True)
class PskId:
    """Names a pre-shared key: an external one by `psk_id`, a resumption one by usage, group and epoch."""

    kind: int
    nonce: bytes
    psk_id: bytes = b""
    usage: int = 0
    group_id: bytes = b""
    epoch: int = 0

    def encode(self) -> bytes:
        """Wire form."""
        if self.kind == PSK_EXTERNAL:
            return u8(self.kind) + vector(self.psk_id) + vector(self.nonce)
        return u8(self.kind) + u8(self.usage) + vector(self.group_id) + u64(self.epoch) + vector(self.nonce)

    @classmethod
    def read(cls, reader: Reader) -> PskId:
        """Decode. Raises: Malformed."""
        kind = reader.u8()
        if kind == PSK_EXTERNAL:
            psk_id = reader.vector()
            return cls(kind, reader.vector(), psk_id)
        if kind != PSK_RESUMPTION:
            raise Malformed("the type of a PSK is not known")
        usage, group_id, epoch = reader.u8(), reader.vector(), reader.u64()
        if not USAGE_APPLICATION <= usage <= USAGE_BRANCH:
            raise Malformed("the usage of a PSK is not known")
        return cls(kind, reader.vector(), b"", usage, group_id, epoch)


@dataclass(frozen=True, slots=True)
class Add:
    """Add the client of a KeyPackage."""

    code = 1
    name = "add"
    key_package: KeyPackage

    def encode(self) -> bytes:
        """Body in wire form."""
        return self.key_package.encode()


@dataclass(frozen=True, slots=True)
class Update:
    """Replace the sender's leaf."""

    code = 2
    name = "update"
    leaf: LeafNode

    def encode(self) -> bytes:
        """Body in wire form."""
        return self.leaf.encode()


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the member at a leaf index."""

    code = 3
    name = "remove"
    removed: int

    def encode(self) -> bytes:
        """Body in wire form."""
        return u32(self.removed)


@dataclass(frozen=True, slots=True)
class PreSharedKey:
    """Mix a PSK into the next epoch."""

    code = 4
    name = "psk"
    psk: PskId

    def encode(self) -> bytes:
        """Body in wire form."""
        return self.psk.encode()


@dataclass(frozen=True, slots=True)
class ReInit:
    """Close the group and go on in a new one."""

    code = 5
    name = "reinit"
    group_id: bytes
    version: int
    suite: int
    extensions: Extensions

    def encode(self) -> bytes:
        """Body in wire form."""
        return vector(self.group_id) + u16(self.version) + u16(self.suite) + encode_extensions(self.extensions)


@dataclass(frozen=True, slots=True)
class ExternalInit:
    """Start the next epoch from the external key (external commits)."""

    code = 6
    name = "external_init"
    kem_output: bytes

    def encode(self) -> bytes:
        """Body in wire form."""
        return vector(self.kem_output)


@dataclass(frozen=True, slots=True)
class GroupContextExtensions:
    """Replace all extensions of the group context."""

    code = 7
    name = "group_context_extensions"
    extensions: Extensions

    def encode(self) -> bytes:
        """Body in wire form."""
        return encode_extensions(self.extensions)


Proposal = Add | Update | Remove | PreSharedKey | ReInit | ExternalInit | GroupContextExtensions


def encode_proposal(proposal: Proposal) -> bytes:
    """Wire form of a Proposal."""
    return u16(proposal.code) + proposal.encode()


def read_proposal(reader: Reader) -> Proposal:
    """Decode a Proposal.

    Raises: Malformed, for types we do not know too: without a length nothing after them could be read.
    """
    match reader.u16():
        case 1:
            return Add(KeyPackage.read(reader))
        case 2:
            return Update(LeafNode.read(reader))
        case 3:
            return Remove(reader.u32())
        case 4:
            return PreSharedKey(PskId.read(reader))
        case 5:
            return ReInit(reader.vector(), reader.u16(), reader.u16(), read_extensions(reader))
        case 6:
            return ExternalInit(reader.vector())
        case 7:
            return GroupContextExtensions(read_extensions(reader))
    raise Malformed("the type of a proposal is not known")
