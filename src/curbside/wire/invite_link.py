"""Invite links (docs/trust.md): `<origin>/#/join/<payload>`. What follows # is never sent to a server.

payload = base64url of 0x01 ‖ invite id (16) ‖ enrolment seed (32) ‖ authority public key (32).
`web/src/core/wire/invite_link.ts` is the twin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from curbside.crypto.secret import SecretBytes
from curbside.errors import Malformed, UsageError
from curbside.ids import InviteId, decode_base64url, decode_id, encode_base64url, encode_id

_VERSION: Final = 1
_PAYLOAD_BYTES: Final = 81
_LINK_CHARS: Final = 512
_HOST: Final = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_ORIGIN: Final = rf"https://{_HOST}(?::[0-9]{{1,5}})?|http://(?:localhost|127\.0\.0\.1)(?::[0-9]{{1,5}})?"
_LINK: Final = re.compile(rf"({_ORIGIN})/#/join/([A-Za-z0-9_-]{{108}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class InviteLink:
    """origin: of the server, without a slash at the end; https, or http on this machine. authority_key: Ed25519."""

    origin: str
    invite_id: InviteId
    enrolment_seed: SecretBytes
    authority_key: bytes


def encode_invite_link(link: InviteLink) -> str:
    """The link's text; it is a secret until it was used.

    Raises: UsageError when a part has no form in a link.
    """
    seed = link.enrolment_seed.reveal()
    if len(seed) != 32 or len(link.authority_key) != 32:
        raise UsageError("keys in an invite link have 32 bytes")
    payload = bytes((_VERSION,)) + decode_id(link.invite_id) + seed + link.authority_key
    text = f"{link.origin}/#/join/{encode_base64url(payload)}"
    if len(text) > _LINK_CHARS or not _LINK.fullmatch(text):
        raise UsageError("an origin that has no place in an invite link")
    return text


def parse_invite_link(text: str) -> InviteLink:
    """Read a link; spaces around it are ignored.

    Raises: Malformed.
    """
    found = _LINK.fullmatch(text.strip(" \t\r\n")) if len(text) <= _LINK_CHARS else None
    if found is None:
        raise Malformed("not an invite link")
    payload = decode_base64url(found[2])
    if len(payload) != _PAYLOAD_BYTES or payload[0] != _VERSION:
        raise Malformed("an invite link of another version")
    return InviteLink(found[1], InviteId(encode_id(payload[1:17])), SecretBytes(payload[17:49]), payload[49:])
