"""The server's own keys and the organisation it serves, kept in the encrypted database.

Made at the first start: the OPAQUE setup (whoever has it can try passphrases offline), the key with which the delivery
service signs its proposals (an MLS external sender), the audit key that signs checkpoints, and a key that blinds
directory queries in the audit log. The organisation authority's private key is never here; only its certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from curbside.audit.checkpoint import VerifierKey
from curbside.crypto.kdf import compute_hash, compute_mac
from curbside.crypto.opaque import make_server_setup
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.x509 import Certificate
from curbside.errors import ConfigError, UntrustedDevice
from curbside.mls.extensions import ExternalSender
from curbside.mls.nodes import Credential
from curbside.policy.chain import parse_authority
from curbside.server.store.ports import Change, IdentityView, Store

SENDER_IDENTITY: Final = b"curbside delivery service"
"""Identity in the basic credential of the delivery service as external sender."""
AUTHORITY: Final = "organization.authority_certificate"
"""Setting: the organisation authority's certificate, DER."""
_OPAQUE: Final = "identity.opaque_setup"
_SENDER: Final = "delivery.sender_key"
_AUDIT: Final = "audit.signing_key"
_QUERY: Final = "audit.query_key"


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What a running server signs and answers with. authority: the organisation authority's certificate."""

    authority: Certificate
    opaque_setup: SecretBytes
    sender: Signer
    audit: Signer
    query_key: SecretBytes

    @property
    def organization(self) -> str:
        """The organisation's name, as its certificate says it."""
        return self.authority.subject.organization

    @property
    def external_sender(self) -> ExternalSender:
        """The delivery service as an MLS external sender (RFC 9420 section 12.1.8.1)."""
        return ExternalSender(self.sender.public, Credential.basic(SENDER_IDENTITY))

    @property
    def audit_key(self) -> VerifierKey:
        """The audit key's public half."""
        return build_audit_key(self.authority, self.audit)

    def hash_query(self, query: str) -> str:
        """A directory query as the audit log keeps it: equal queries look equal, and nobody else can guess them."""
        return compute_mac("sha256", self.query_key.reveal(), query.casefold().encode())[:12].hex()


async def prepare_keys(store: Store, authority_certificate: bytes | None) -> ServerKeys:
    """The server's keys, made if this is the first start.

    authority_certificate: DER, from the configuration; None: the one the database holds.

    Raises: ConfigError when there is no certificate, or the database belongs to another organisation.
    """
    return await store.write(lambda tx: _load_or_make(tx, authority_certificate))


def find_audit_key(identity: IdentityView) -> VerifierKey | None:
    """The audit key's public half, if the store has keys already."""
    signing, authority = identity.find_setting(_AUDIT), identity.find_setting(AUTHORITY)
    if signing is None or authority is None:
        return None
    return build_audit_key(_parse(authority), Signer("ed25519", SecretBytes(signing)))


def build_audit_key(authority: Certificate, audit: Signer) -> VerifierKey:
    """The public half of an audit key, under an origin that is the same for the life of the organisation."""
    digest = compute_hash("sha256", authority.public_key)[:8]
    return VerifierKey(f"curbside.audit/{digest.hex()}", audit.public)


def _load_or_make(tx: Change, given: bytes | None) -> ServerKeys:
    held = tx.identity.find_setting(AUTHORITY)
    if held is None and given is None:
        raise ConfigError("authority_certificate must be set for the first start")
    if held is not None and given is not None and held != given:
        raise ConfigError("the database belongs to another organisation than the authority certificate")
    authority = _parse(held or given or b"")
    if held is None:
        tx.identity.put_setting(AUTHORITY, authority.raw)
    return ServerKeys(
        authority=authority,
        opaque_setup=SecretBytes(_keep(tx, _OPAQUE, lambda: make_server_setup().reveal())),
        sender=_keep_signer(tx, _SENDER),
        audit=_keep_signer(tx, _AUDIT),
        query_key=SecretBytes(_keep(tx, _QUERY, lambda: random_bytes(32))),
    )


def _parse(raw: bytes) -> Certificate:
    try:
        return parse_authority(raw)
    except UntrustedDevice as error:
        raise ConfigError("the authority certificate is not one") from error


def _keep(tx: Change, name: str, make: Callable[[], bytes]) -> bytes:
    value = tx.identity.find_setting(name)
    if value is None:
        value = make()
        tx.identity.put_setting(name, value)
    return value


def _keep_signer(tx: Change, name: str) -> Signer:
    return Signer("ed25519", SecretBytes(_keep(tx, name, lambda: generate_signature_key("ed25519").reveal())))
