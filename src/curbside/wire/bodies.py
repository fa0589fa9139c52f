"""JSON bodies of the HTTP routes. Every `bytes` is base64url without padding on the wire (type Base64).

Errors are `application/problem+json` (RFC 9457): type `urn:curbside:problem:<code>`, title, status, detail, next_step,
instance (the request's id) and the members that the error's class names (curbside.errors).
"""

from __future__ import annotations

import msgspec

Base64 = str
"""Bytes as unpadded base64url; `curbside.ids.decode_base64url` opens it."""


class Organization(msgspec.Struct, frozen=True):
    """GET /v1/organization. external_sender: TLS-encoded ExternalSender of this server's delivery service."""

    name: str
    authority_certificate: Base64
    external_sender: Base64
    protocol: int


class Invite(msgspec.Struct, frozen=True):
    """GET /v1/invites/{invite_id}. expires_at: Unix seconds."""

    invite_id: str
    organization: str
    authority_certificate: Base64
    enrolment_certificate: Base64
    user_id: str
    role: str
    expires_at: int


class NewInvite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/invites. The enrolment certificate, signed by the authority, is the permission."""

    invite_id: str
    enrolment_certificate: Base64


class SignupStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/signup/start."""

    invite_id: str
    opaque_request: Base64


class SignupStarted(msgspec.Struct, frozen=True):
    """opaque_response: RegistrationResponse (RFC 9807)."""

    opaque_response: Base64


class NewDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """api_key: Ed25519 public key of DPoP proofs. api_key_signature: by the device key, see docs/trust.md."""

    device_id: str
    device_certificate: Base64
    api_key: Base64
    api_key_signature: Base64


class SignupFinish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/signup/finish, with a DPoP proof by the new api key. key_packages: MLSMessages."""

    invite_id: str
    opaque_record: Base64
    user_certificate: Base64
    device: NewDevice
    key_packages: list[Base64]
    last_resort_key_package: Base64


class Session(msgspec.Struct, frozen=True):
    """token: use with `Authorization: DPoP <token>`. expires_at: Unix seconds."""

    token: str
    user_id: str
    device_id: str
    expires_at: int


class SigninStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/signin/start. An unknown user gets an answer that looks the same."""

    user_id: str
    device_id: str
    opaque_request: Base64


class SigninStarted(msgspec.Struct, frozen=True):
    """signin_id: valid for one minute and one finish."""

    signin_id: str
    opaque_response: Base64


class SigninFinish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/signin/finish, with a DPoP proof by the device's api key."""

    signin_id: str
    opaque_finalization: Base64


class Person(msgspec.Struct, frozen=True):
    """GET /v1/people, /v1/people/{user_id}. user_certificate and enrolment_certificate carry name and role."""

    user_id: str
    name: str
    role: str
    user_certificate: Base64
    enrolment_certificate: Base64


class People(msgspec.Struct, frozen=True):
    """GET /v1/people?query=…&after=…; next is "" on the last page."""

    people: list[Person]
    next: str


class KeyPackages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/key-packages: more of this device's key packages (MLSMessages)."""

    key_packages: list[Base64]
    last_resort_key_package: Base64 | None = None


class KeyPackageCount(msgspec.Struct, frozen=True):
    """GET /v1/key-packages: how many of this device's are left (the last-resort one not counted)."""

    available: int


class ClaimedKeyPackage(msgspec.Struct, frozen=True):
    """One device's key package."""

    device_id: str
    key_package: Base64


class ClaimedKeyPackages(msgspec.Struct, frozen=True):
    """POST /v1/people/{user_id}/key-packages/claim: one for each active device; each is handed out once."""

    user_id: str
    devices: list[ClaimedKeyPackage]


class NewConversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/conversations. group_info: GroupInfo of epoch 0 with ratchet tree, whose group_id is the conversation's
    id. Repeating the same request is harmless."""

    conversation_id: str
    group_info: Base64


class NewCommit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/conversations/{conversation_id}/commits. message_id: 16 bytes, the same on a retry. epoch: that the
    commit ends. commit: PublicMessage. welcome: one Welcome for all devices the commit adds."""

    message_id: Base64
    epoch: int
    commit: Base64
    welcome: Base64 | None = None


class Appended(msgspec.Struct, frozen=True):
    """sequence: in the conversation's log. epoch: now current. received_at: Unix milliseconds."""

    sequence: int
    epoch: int
    received_at: int


class ConversationState(msgspec.Struct, frozen=True):
    """GET /v1/conversations/{conversation_id}: what the server holds. members: device ids by leaf index."""

    conversation_id: str
    epoch: int
    last_sequence: int
    members: dict[int, str]


class ConversationList(msgspec.Struct, frozen=True):
    """GET /v1/conversations: those this device is a member of."""

    conversations: list[ConversationState]


class NewBlob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/blobs. size: ciphertext bytes. sha256: of the whole ciphertext. Bound to one conversation's members."""

    conversation_id: str
    size: int
    sha256: Base64


class BlobUpload(msgspec.Struct, frozen=True):
    """The answer to POST /v1/blobs and to each PATCH /v1/blobs/{blob_id}. offset: bytes held. complete: all there and
    the hash fits. The bytes of a PATCH begin at header `Upload-Offset`; another offset is answered with
    offset_conflict."""

    blob_id: str
    offset: int
    chunk_bytes: int
    complete: bool


class BlobLocation(msgspec.Struct, frozen=True):
    """GET /v1/blobs/{blob_id}/location: where the ciphertext may be read without proof until expires_at (Unix seconds),
    by ranges too. url: "" when there are no such links. size: bytes of the whole."""

    url: str
    size: int
    expires_at: int


class DeviceInfo(msgspec.Struct, frozen=True):
    """GET /v1/devices: the user's own devices. last_seen_at: Unix seconds."""

    device_id: str
    label: str
    created_at: int
    last_seen_at: int
    revoked: bool
    current: bool


class DeviceList(msgspec.Struct, frozen=True):
    """All devices of the signed-in user."""

    devices: list[DeviceInfo]


class Health(msgspec.Struct, frozen=True):
    """GET /v1/health/live and /v1/health/ready. checks: engine to "ok" or the reason it is not."""

    status: str
    checks: dict[str, str]
