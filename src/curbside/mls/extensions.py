"""The bodies of the extensions that RFC 9420 defines (section 17.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from curbside.mls.codec import Reader, decode, u16s, vector, vector_of
from curbside.mls.nodes import Credential, Extension, Extensions

APPLICATION_ID: Final = 1
RATCHET_TREE: Final = 2
REQUIRED_CAPABILITIES: Final = 3
EXTERNAL_PUB: Final = 4
EXTERNAL_SENDERS: Final = 5
DEFAULT_EXTENSIONS: Final = frozenset(range(1, 6))
DEFAULT_PROPOSALS: Final = frozenset(range(1, 8))


def find_extension(extensions: Extensions, kind: int) -> bytes | None:
    """The body of the extension of a type, if there is one."""
    for extension in extensions:
        if extension.kind == kind:
            return extension.body
    return None


@dataclass(frozen=True, slots=True)
class RequiredCapabilities:
    """What every member must support (section 11.1)."""

    extensions: tuple[int, ...] = ()
    proposals: tuple[int, ...] = ()
    credentials: tuple[int, ...] = ()

    def encode(self) -> Extension:
        """As a group context extension."""
        body = u16s(self.extensions) + u16s(self.proposals) + u16s(self.credentials)
        return Extension(REQUIRED_CAPABILITIES, body)

    @classmethod
    def read(cls, reader: Reader) -> RequiredCapabilities:
        """Decode. Raises: Malformed."""
        return cls(reader.u16s(), reader.u16s(), reader.u16s())


@dataclass(frozen=True, slots=True)
class ExternalSender:
    """Somebody outside the group who may send proposals (section 12.1.8.1)."""

    signature_key: bytes
    credential: Credential

    def encode(self) -> bytes:
        """Wire form."""
        return vector(self.signature_key) + self.credential.encode()

    @classmethod
    def read(cls, reader: Reader) -> ExternalSender:
        """Decode. Raises: Malformed."""
        return cls(reader.vector(), Credential.read(reader))


def find_required(extensions: Extensions) -> RequiredCapabilities | None:
    """The group's required capabilities. Raises: Malformed."""
    body = find_extension(extensions, REQUIRED_CAPABILITIES)
    return None if body is None else decode(body, RequiredCapabilities.read)


def find_external_senders(extensions: Extensions) -> tuple[ExternalSender, ...]:
    """The group's external senders, in the order of their index. Raises: Malformed."""
    body = find_extension(extensions, EXTERNAL_SENDERS)
    return () if body is None else decode(body, lambda reader: reader.items(ExternalSender.read))


def encode_external_senders(*senders: ExternalSender) -> Extension:
    """The group context extension that names external senders."""
    return Extension(EXTERNAL_SENDERS, vector_of(sender.encode() for sender in senders))


def find_external_pub(extensions: Extensions) -> bytes | None:
    """The public key for external commits. Raises: Malformed."""
    body = find_extension(extensions, EXTERNAL_PUB)
    return None if body is None else decode(body, Reader.vector)
