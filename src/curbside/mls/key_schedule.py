"""The key schedule, PSKs, tags and the exporter (RFC 9420 section 8). Secret side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curbside.crypto import hpke, kdf
from curbside.crypto.suites import Suite
from curbside.mls.codec import Reader, u16, vector
from curbside.mls.labels import compute_hash, compute_mac, derive_secret, expand_with_label
from curbside.mls.messages import AuthenticatedContent
from curbside.mls.proposals import PskId

_EXTERNAL_INIT_LABEL = b"MLS 1.0 external init secret"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class EpochSecrets:
    """What is kept of an epoch's key schedule: never epoch_secret, joiner_secret or encryption_secret.

    `init` is used up by the next commit and goes with this object.
    """

    sender_data: bytes
    exporter: bytes
    external: bytes
    confirmation: bytes
    membership: bytes
    resumption: bytes
    authenticator: bytes
    init: bytes

    def encode(self) -> bytes:
        """For saved state."""
        return b"".join(vector(getattr(self, name)) for name in self.__slots__)

    @classmethod
    def read(cls, reader: Reader) -> EpochSecrets:
        """Decode. Raises: Malformed."""
        return cls(*(reader.vector() for _ in cls.__slots__))


def derive_psk_secret(suite: Suite, psks: Sequence[tuple[PskId, bytes]]) -> bytes:
    """psk_secret over PSKs in their order (section 8.4)."""
    zero = bytes(suite.hash_length)
    secret, count = zero, len(psks)
    for index, (psk_id, psk) in enumerate(psks):
        extracted = kdf.extract(suite.hash_name, zero, psk)
        label = psk_id.encode() + u16(index) + u16(count)
        part = expand_with_label(suite, extracted, b"derived psk", label, suite.hash_length)
        secret = kdf.extract(suite.hash_name, part, secret)
    return secret


def derive_joiner_secret(suite: Suite, init_secret: bytes, commit_secret: bytes, context: bytes) -> bytes:
    """joiner_secret of the epoch with this encoded group context."""
    extracted = kdf.extract(suite.hash_name, init_secret, commit_secret)
    return expand_with_label(suite, extracted, b"joiner", context, suite.hash_length)


def derive_member_secret(suite: Suite, joiner_secret: bytes, psk_secret: bytes) -> bytes:
    """The value between joiner_secret and epoch_secret."""
    return kdf.extract(suite.hash_name, joiner_secret, psk_secret)


def derive_welcome_secret(suite: Suite, member_secret: bytes) -> bytes:
    """welcome_secret."""
    return derive_secret(suite, member_secret, b"welcome")


def derive_welcome_key(suite: Suite, member_secret: bytes) -> tuple[bytes, bytes]:
    """The key and nonce of a Welcome's GroupInfo (section 12.4.3.1)."""
    secret = derive_welcome_secret(suite, member_secret)
    key = expand_with_label(suite, secret, b"key", b"", suite.key_length)
    return key, expand_with_label(suite, secret, b"nonce", b"", suite.nonce_length)


def derive_epoch(suite: Suite, member_secret: bytes, context: bytes) -> tuple[EpochSecrets, bytes]:
    """The epoch's secrets and its encryption_secret."""
    return split_epoch(suite, expand_with_label(suite, member_secret, b"epoch", context, suite.hash_length))


def split_epoch(suite: Suite, epoch_secret: bytes) -> tuple[EpochSecrets, bytes]:
    """The same from epoch_secret, which a group's creator draws at random (section 11)."""
    labels = (
        b"sender data", b"exporter", b"external", b"confirm",
        b"membership", b"resumption", b"authentication", b"init",
    )  # fmt: skip
    secrets = EpochSecrets(*(derive_secret(suite, epoch_secret, label) for label in labels))
    return secrets, derive_secret(suite, epoch_secret, b"encryption")


def confirmation_tag(suite: Suite, secrets: EpochSecrets, transcript_hash: bytes) -> bytes:
    """The confirmation tag of an epoch (section 6.1)."""
    return compute_mac(suite, secrets.confirmation, transcript_hash)


def membership_tag(suite: Suite, secrets: EpochSecrets, signed: AuthenticatedContent, context: bytes) -> bytes:
    """The membership tag of a PublicMessage (section 6.2)."""
    return compute_mac(suite, secrets.membership, signed.to_be_signed(context) + signed.encode_auth())


def external_key_pair(suite: Suite, secrets: EpochSecrets) -> tuple[bytes, bytes]:
    """The key pair that the whole group holds, for external commits: (private, public)."""
    return hpke.derive_key_pair(suite.hpke.kem, secrets.external)


def make_external_init(suite: Suite, external_pub: bytes) -> tuple[bytes, bytes]:
    """(kem_output, init_secret) of an external commit (section 8.3). Raises: Malformed."""
    return suite.hpke.export_to(external_pub, b"", _EXTERNAL_INIT_LABEL)


def open_external_init(suite: Suite, secrets: EpochSecrets, kem_output: bytes) -> bytes:
    """The init_secret of an external commit. Raises: Malformed."""
    private, _ = external_key_pair(suite, secrets)
    return suite.hpke.export_from(private, kem_output, b"", _EXTERNAL_INIT_LABEL)


def export_secret(suite: Suite, secrets: EpochSecrets, label: bytes, context: bytes, length: int) -> bytes:
    """MLS-Exporter (section 8.5): `length` bytes."""
    derived = derive_secret(suite, secrets.exporter, label)
    return expand_with_label(suite, derived, b"exported", compute_hash(suite, context), length)
