"""What an administrator has to know of a TLS certificate. Trust is decided by the TLS library, never here."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509 import DNSName, IPAddress, SubjectAlternativeName

from curbside.errors import Malformed


@dataclass(frozen=True, slots=True)
class TlsCertificate:
    """The first certificate of a chain. not_before, not_after: Unix seconds. names: hosts and addresses it is for."""

    not_before: int
    not_after: int
    names: tuple[str, ...]


def parse_tls_certificate(pem: bytes) -> TlsCertificate:
    """The first certificate of a PEM file.

    Raises: Malformed.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)[0]
        names = _list_names(found)
    except (ValueError, IndexError) as error:
        raise Malformed("not a PEM certificate") from error
    return TlsCertificate(
        int(found.not_valid_before_utc.timestamp()), int(found.not_valid_after_utc.timestamp()), tuple(names)
    )


def _list_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(DNSName), *(str(each) for each in names.get_values_for_type(IPAddress))]
