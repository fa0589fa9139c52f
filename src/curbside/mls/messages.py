"""Commits, framing, Welcome and GroupInfo (RFC 9420 sections 6, 7.6, 8.1, 12.4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from curbside.errors import Malformed
from curbside.mls.checks import Check, require
from curbside.mls.codec import MAX_BYTES, Reader, decode, optional, u8, u16, u32, u64, vector, vector_of
from curbside.mls.nodes import MLS10, Extensions, KeyPackage, LeafNode, encode_extensions, read_extensions
from curbside.mls.proposals import Proposal, PskId, encode_proposal, read_proposal

WIRE_PUBLIC: Final = 1
WIRE_PRIVATE: Final = 2
WIRE_WELCOME: Final = 3
WIRE_GROUP_INFO: Final = 4
WIRE_KEY_PACKAGE: Final = 5

APPLICATION: Final = 1
PROPOSAL: Final = 2
COMMIT: Final = 3

MEMBER: Final = 1
EXTERNAL: Final = 2
NEW_MEMBER_PROPOSAL: Final = 3
NEW_MEMBER_COMMIT: Final = 4


@dataclass(frozen=True, slots=True)
class GroupContext:
    """What all members agree on in an epoch (section 8.1)."""

    suite: int
    group_id: bytes
    epoch: int
    tree_hash: bytes
    transcript_hash: bytes
    extensions: Extensions

    def encode(self) -> bytes:
        """Wire form."""
        return b"".join(
            (
                u16(MLS10), u16(self.suite), vector(self.group_id), u64(self.epoch),
                vector(self.tree_hash), vector(self.transcript_hash), encode_extensions(self.extensions),
            )
        )  # fmt: skip

    @classmethod
    def read(cls, reader: Reader) -> GroupContext:
        """Decode. Raises: Malformed; RuleBroken."""
        require(reader.u16() == MLS10, Check.VERSION)
        suite, group_id, epoch = reader.u16(), reader.vector(), reader.u64()
        return cls(suite, group_id, epoch, reader.vector(), reader.vector(), read_extensions(reader))


@dataclass(frozen=True, slots=True)
class HpkeCiphertext:
    """HPKECiphertext (section 7.6)."""

    kem_output: bytes
    ciphertext: bytes

    def encode(self) -> bytes:
        """Wire form."""
        return vector(self.kem_output) + vector(self.ciphertext)

    @classmethod
    def read(cls, reader: Reader) -> HpkeCiphertext:
        """Decode. Raises: Malformed."""
        return cls(reader.vector(), reader.vector())


@dataclass(frozen=True, slots=True)
class UpdatePathNode:
    """A new public key and its path secret, encrypted to the resolution of the copath node.

    `ciphertexts` stay encoded (HPKECiphertext<V>, form checked) because a receiver needs one of them.
    """

    encryption_key: bytes
    sealed: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Wire form."""
        return vector(self.encryption_key) + vector_of(self.sealed)

    def sealed_at(self, position: int) -> HpkeCiphertext:
        """The ciphertext at a position of the resolution."""
        return decode(self.sealed[position], HpkeCiphertext.read)

    @classmethod
    def read(cls, reader: Reader) -> UpdatePathNode:
        """Decode. Raises: Malformed."""
        return cls(reader.vector(), reader.items(_read_sealed))


def _read_sealed(reader: Reader) -> bytes:
    start = reader.position
    reader.take(reader.varint())
    reader.take(reader.varint())
    return reader.since(start)


@dataclass(frozen=True, slots=True)
class UpdatePath:
    """New keys along the committer's filtered direct path (section 7.6)."""

    leaf: LeafNode
    nodes: tuple[UpdatePathNode, ...]

    def encode(self) -> bytes:
        """Wire form."""
        return self.leaf.encode() + vector_of(node.encode() for node in self.nodes)

    @classmethod
    def read(cls, reader: Reader) -> UpdatePath:
        """Decode. Raises: Malformed; RuleBroken."""
        return cls(LeafNode.read(reader), reader.items(UpdatePathNode.read))


ProposalOrRef = Proposal | bytes


def _encode_proposal_or_ref(item: ProposalOrRef) -> bytes:
    if isinstance(item, bytes):
        return u8(2) + vector(item)
    return u8(1) + encode_proposal(item)


def _read_proposal_or_ref(reader: Reader) -> ProposalOrRef:
    kind = reader.u8()
    if kind == 1:
        return read_proposal(reader)
    if kind == 2:
        return reader.vector()
    raise Malformed("neither a proposal nor a reference")


@dataclass(frozen=True, slots=True)
class Commit:
    """Proposals by value, or by reference as bytes, and the path (section 12.4)."""

    proposals: tuple[ProposalOrRef, ...]
    path: UpdatePath | None

    def encode(self) -> bytes:
        """Wire form."""
        path = None if self.path is None else self.path.encode()
        return vector_of(map(_encode_proposal_or_ref, self.proposals)) + optional(path)

    @classmethod
    def read(cls, reader: Reader) -> Commit:
        """Decode. Raises: Malformed; RuleBroken."""
        proposals = reader.items(_read_proposal_or_ref)
        return cls(proposals, UpdatePath.read(reader) if reader.present() else None)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent: a leaf index (`MEMBER`), an index of external_senders (`EXTERNAL`), or a newcomer."""

    kind: int
    index: int = 0

    def encode(self) -> bytes:
        """Wire form."""
        return u8(self.kind) + (u32(self.index) if self.kind <= EXTERNAL else b"")

    @classmethod
    def read(cls, reader: Reader) -> Sender:
        """Decode. Raises: Malformed."""
        kind = reader.u8()
        if not MEMBER <= kind <= NEW_MEMBER_COMMIT:
            raise Malformed("the type of a sender is not known")
        return cls(kind, reader.u32() if kind <= EXTERNAL else 0)


Body = bytes | Proposal | Commit


def encode_body(content_type: int, body: Body) -> bytes:
    """The content that the type selects (sections 6 and 6.3.1)."""
    if isinstance(body, bytes):
        return vector(body)
    return body.encode() if isinstance(body, Commit) else encode_proposal(body)


def read_body(content_type: int, reader: Reader) -> Body:
    """Decode the content that the type selects. Raises: Malformed; RuleBroken."""
    if content_type == APPLICATION:
        return reader.vector()
    if content_type == PROPOSAL:
        return read_proposal(reader)
    if content_type == COMMIT:
        return Commit.read(reader)
    raise Malformed("the type of a content is not known")


@dataclass(frozen=True, slots=True, eq=False)
class FramedContent:
    """Content with its group, epoch and sender (section 6). `raw` is its encoding."""

    group_id: bytes
    epoch: int
    sender: Sender
    aad: bytes
    content_type: int
    body: Body
    raw: bytes = field(repr=False)

    @classmethod
    def make(cls, group: tuple[bytes, int], sender: Sender, aad: bytes, content_type: int, body: Body) -> FramedContent:
        """Content of a group and epoch, encoded."""
        return cls.from_encoded(group, sender, aad, content_type, (body, encode_body(content_type, body)))

    @classmethod
    def from_encoded(
        cls, group: tuple[bytes, int], sender: Sender, aad: bytes, content_type: int, body: tuple[Body, bytes]
    ) -> FramedContent:
        """The same, with the encoding of the body at hand."""
        head = vector(group[0]) + u64(group[1]) + sender.encode() + vector(aad) + u8(content_type)
        return cls(group[0], group[1], sender, aad, content_type, body[0], head + body[1])

    @classmethod
    def read(cls, reader: Reader) -> FramedContent:
        """Decode. Raises: Malformed; RuleBroken."""
        start = reader.position
        group_id, epoch, sender = reader.vector(), reader.u64(), Sender.read(reader)
        aad, content_type = reader.vector(), reader.u8()
        body = read_body(content_type, reader)
        return cls(group_id, epoch, sender, aad, content_type, body, reader.since(start))


@dataclass(frozen=True, slots=True, eq=False)
class AuthenticatedContent:
    """Content with its signature and, for commits, confirmation tag (section 6.1)."""

    wire: int
    content: FramedContent
    signature: bytes
    confirmation_tag: bytes = b""

    def encode_auth(self) -> bytes:
        """FramedContentAuthData."""
        tag = vector(self.confirmation_tag) if self.content.content_type == COMMIT else b""
        return vector(self.signature) + tag

    def encode(self) -> bytes:
        """Wire form, the input of proposal references."""
        return u16(self.wire) + self.content.raw + self.encode_auth()

    def encode_confirmed(self) -> bytes:
        """ConfirmedTranscriptHashInput (section 8.2)."""
        return u16(self.wire) + self.content.raw + vector(self.signature)

    def to_be_signed(self, context: bytes) -> bytes:
        """FramedContentTBS; `context` is the encoded group context."""
        head = u16(MLS10) + u16(self.wire) + self.content.raw
        return head + context if self.content.sender.kind in (MEMBER, NEW_MEMBER_COMMIT) else head

    @classmethod
    def read(cls, reader: Reader) -> AuthenticatedContent:
        """Decode. Raises: Malformed; RuleBroken."""
        wire, content = reader.u16(), FramedContent.read(reader)
        return cls(wire, content, *read_auth(content.content_type, reader))


def read_auth(content_type: int, reader: Reader) -> tuple[bytes, bytes]:
    """FramedContentAuthData: (signature, confirmation tag). Raises: Malformed."""
    return reader.vector(), reader.vector() if content_type == COMMIT else b""


@dataclass(frozen=True, slots=True, eq=False)
class PublicMessage:
    """Signed, not encrypted (section 6.2)."""

    authenticated: AuthenticatedContent
    membership_tag: bytes = b""

    def encode(self) -> bytes:
        """Wire form."""
        signed = self.authenticated
        tag = vector(self.membership_tag) if signed.content.sender.kind == MEMBER else b""
        return signed.content.raw + signed.encode_auth() + tag

    @classmethod
    def read(cls, reader: Reader) -> PublicMessage:
        """Decode. Raises: Malformed; RuleBroken."""
        content = FramedContent.read(reader)
        signed = AuthenticatedContent(WIRE_PUBLIC, content, *read_auth(content.content_type, reader))
        return cls(signed, reader.vector() if content.sender.kind == MEMBER else b"")


@dataclass(frozen=True, slots=True)
class PrivateMessage:
    """Signed and encrypted (section 6.3)."""

    group_id: bytes
    epoch: int
    content_type: int
    aad: bytes
    sender_data: bytes
    ciphertext: bytes

    def encode_head(self) -> bytes:
        """SenderDataAAD: the first three fields."""
        return vector(self.group_id) + u64(self.epoch) + u8(self.content_type)

    def encode(self) -> bytes:
        """Wire form."""
        return self.encode_head() + vector(self.aad) + vector(self.sender_data) + vector(self.ciphertext)

    @classmethod
    def read(cls, reader: Reader) -> PrivateMessage:
        """Decode. Raises: Malformed."""
        group_id, epoch, content_type = reader.vector(), reader.u64(), reader.u8()
        if not APPLICATION <= content_type <= COMMIT:
            raise Malformed("the type of a content is not known")
        return cls(group_id, epoch, content_type, reader.vector(), reader.vector(), reader.vector())


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """What a newcomer needs to know of a group (section 12.4.3)."""

    context: GroupContext
    extensions: Extensions
    confirmation_tag: bytes
    signer: int
    signature: bytes = b""

    def encode_unsigned(self) -> bytes:
        """GroupInfoTBS."""
        head = self.context.encode() + encode_extensions(self.extensions)
        return head + vector(self.confirmation_tag) + u32(self.signer)

    def encode(self) -> bytes:
        """Wire form."""
        return self.encode_unsigned() + vector(self.signature)

    @classmethod
    def read(cls, reader: Reader) -> GroupInfo:
        """Decode. Raises: Malformed; RuleBroken."""
        context, extensions = GroupContext.read(reader), read_extensions(reader)
        return cls(context, extensions, reader.vector(), reader.u32(), reader.vector())


@dataclass(frozen=True, slots=True)
class GroupSecrets:
    """What a Welcome tells one newcomer in secret (section 12.4.3.1)."""

    joiner_secret: bytes = field(repr=False)
    path_secret: bytes | None = field(repr=False)
    psks: tuple[PskId, ...]

    def encode(self) -> bytes:
        """Wire form."""
        path = None if self.path_secret is None else vector(self.path_secret)
        return vector(self.joiner_secret) + optional(path) + vector_of(psk.encode() for psk in self.psks)

    @classmethod
    def read(cls, reader: Reader) -> GroupSecrets:
        """Decode. Raises: Malformed."""
        joiner = reader.vector()
        return cls(joiner, reader.vector() if reader.present() else None, reader.items(PskId.read))


@dataclass(frozen=True, slots=True)
class EncryptedGroupSecrets:
    """GroupSecrets sealed to one KeyPackage."""

    new_member: bytes
    sealed: HpkeCiphertext

    def encode(self) -> bytes:
        """Wire form."""
        return vector(self.new_member) + self.sealed.encode()

    @classmethod
    def read(cls, reader: Reader) -> EncryptedGroupSecrets:
        """Decode. Raises: Malformed."""
        return cls(reader.vector(), HpkeCiphertext.read(reader))


@dataclass(frozen=True, slots=True)
class Welcome:
    """Invites newcomers (section 12.4.3.1)."""

    suite: int
    secrets: tuple[EncryptedGroupSecrets, ...]
    group_info: bytes

    def encode(self) -> bytes:
        """Wire form."""
        return u16(self.suite) + vector_of(item.encode() for item in self.secrets) + vector(self.group_info)

    @classmethod
    def read(cls, reader: Reader) -> Welcome:
        """Decode. Raises: Malformed."""
        return cls(reader.u16(), reader.items(EncryptedGroupSecrets.read), reader.vector())


Message = PublicMessage | PrivateMessage | Welcome | GroupInfo | KeyPackage
_WIRES: Final[dict[int, type[Message]]] = {
    WIRE_PUBLIC: PublicMessage,
    WIRE_PRIVATE: PrivateMessage,
    WIRE_WELCOME: Welcome,
    WIRE_GROUP_INFO: GroupInfo,
    WIRE_KEY_PACKAGE: KeyPackage,
}


def _read_message(reader: Reader) -> Message:
    require(reader.u16() == MLS10, Check.VERSION)
    kind = _WIRES.get(reader.u16())
    if kind is None:
        raise Malformed("the wire format is not known")
    message = kind.read(reader)
    if isinstance(message, KeyPackage):
        require(message.version == MLS10, Check.VERSION)
    return message


def parse_message(data: bytes, limit: int = MAX_BYTES) -> Message:
    """Decode an MLSMessage of at most `limit` bytes (section 6).

    Raises: Malformed; TooLarge; RuleBroken when a rule on the form is broken.
    """
    return decode(data, _read_message, limit)


def encode_message(message: Message) -> bytes:
    """An MLSMessage around a message."""
    for wire, kind in _WIRES.items():
        if isinstance(message, kind):
            return u16(MLS10) + u16(wire) + message.encode()
    raise Malformed("no message")
