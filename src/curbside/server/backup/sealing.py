"""What a backup consists of, and how it is sealed.

    object    = HPKE output (32) ‖ ciphertext            named by SHA-256 of these bytes
    manifest  = MessagePack [head, sealed body, sealed index, signature]
    head      = who, which number, when, the manifest before, all objects by name       (readable by anybody)
    body      = tables, attachments, counters, what a cold start needs                  (to the recipient, HPKE)
    index     = which content lies in which object, by a keyed hash                     (to the server itself)

The signature, by the organisation's audit key, covers head, body and index; the body says which objects, in which
order, make up which table or attachment. So an object is bound to its place by a signed list of hashes, and what was
swapped, cut or changed is seen before anything is decrypted. The index lets the server write increments without being
able to open what it wrote: it names content by HMAC under a key derived from the database key, and holds no key of an
object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from curbside.audit.checkpoint import VerifierKey, parse_verifier_key
from curbside.crypto import aead
from curbside.crypto.kdf import compute_hash, compute_mac, expand
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, verify_signature
from curbside.errors import BackupRefused, DecryptionFailed, InvalidMessage
from curbside.server.backup.recipient import HPKE, BackupKey

FORMAT: Final = "curbside-backup/1"
HASH_BYTES: Final = 32
_LABEL: Final = b"curbside backup manifest 1\x00"
_OBJECT_INFO: Final = b"curbside backup object 1\x00"
_BODY_INFO: Final = b"curbside backup body 1\x00"
_NAMES: Final = b"curbside backup names of content 1"
_INDEX: Final = b"curbside backup index 1"


class Head(msgspec.Struct, array_like=True, frozen=True):
    """Readable by anybody who has the backup.

    place_id: 16 random bytes, the same for all backups of a place. number: 1, 2, 3… created_at: Unix seconds.
    previous: SHA-256 of the manifest before, empty for the first. recipient: the public key's print.
    signer: verifier key. objects: SHA-256 of each object that this backup consists of, rising.
    """

    format: str
    place_id: bytes
    number: int
    created_at: int
    previous: bytes
    recipient: bytes
    signer: str
    objects: list[bytes]


class TablePart(msgspec.Struct, array_like=True, frozen=True):
    """A table. rows and sum: see store.tables.RowSum. objects: places in Head.objects, in the order of the rows."""

    name: str
    columns: list[str]
    rows: int
    sum: bytes
    objects: list[int]


class BlobPart(msgspec.Struct, array_like=True, frozen=True):
    """An attachment's ciphertext. objects: places in Head.objects, in order."""

    blob_id: str
    size: int
    sha256: bytes
    objects: list[int]


class Body(msgspec.Struct, array_like=True, frozen=True):
    """What only the recipient reads.

    engine, schema: of the database it was made from. taken_at_ms: when its state was looked at. newest_ms: when the
    newest entry of any conversation was accepted; 0: there is none. counters: last numbers given, by table.
    authority: the organisation's certificate, DER. settings: TOML for the new configuration, without secrets.
    missing: attachments that were damaged or not there already.
    """

    program: str
    engine: str
    schema: int
    taken_at_ms: int
    newest_ms: int
    tables: list[TablePart]
    blobs: list[BlobPart]
    counters: dict[str, int]
    authority: bytes
    settings: str
    missing: list[str]


class Index(msgspec.Struct, array_like=True, frozen=True):
    """contents: object by keyed name of its content. blobs: objects of a whole attachment, by its keyed name."""

    contents: dict[bytes, bytes]
    blobs: dict[bytes, list[bytes]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a manifest is made of."""

    head: Head
    body: Body
    index: Index


class _Manifest(msgspec.Struct, array_like=True, frozen=True):
    head: bytes
    kem_output: bytes
    body: bytes
    index: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was read; not verified yet. digest: SHA-256 of the file."""

    head: Head
    digest: bytes
    raw: _Manifest


class IndexKeys:
    """What the server derives from the database key: names of content, and the key of the index."""

    def __init__(self, database_key: SecretBytes) -> None:
        self._names = expand("sha256", database_key.reveal(), _NAMES, 32)
        self._index = expand("sha256", database_key.reveal(), _INDEX, 32)

    def name(self, kind: bytes, digest: bytes) -> bytes:
        """The keyed name of content. kind: what it is. digest: SHA-256 of it."""
        return compute_mac("sha256", self._names, kind + b"\x00" + digest)

    def seal(self, index: Index, head: bytes) -> bytes:
        """The index, bound to its manifest's head."""
        nonce = random_bytes(aead.NONCE_LENGTH)
        return nonce + aead.seal("aes256gcm", self._index, nonce, msgspec.msgpack.encode(index), head)

    def open(self, manifest: Manifest) -> Index | None:
        """The index of a manifest; None when another database key sealed it."""
        sealed = manifest.raw.index
        nonce, ciphertext = sealed[: aead.NONCE_LENGTH], sealed[aead.NONCE_LENGTH :]
        try:
            opened = aead.open_sealed("aes256gcm", self._index, nonce, ciphertext, manifest.raw.head)
        except DecryptionFailed:
            return None
        return msgspec.msgpack.decode(opened, type=Index)


def seal_object(recipient: bytes, place_id: bytes, content: bytes) -> bytes:
    """The bytes of an object."""
    kem_output, ciphertext = HPKE.seal(recipient, _OBJECT_INFO + place_id, b"", content)
    return kem_output + ciphertext


def open_object(key: BackupKey, place_id: bytes, digest: bytes, sealed: bytes) -> bytes:
    """The content of the object that a manifest lists under this hash. Raises: BackupRefused."""
    check_object(digest, sealed)
    kem_output, ciphertext = sealed[: HPKE.kem.private_length], sealed[HPKE.kem.private_length :]
    try:
        return HPKE.open(key.private.reveal(), kem_output, _OBJECT_INFO + place_id, b"", ciphertext)
    except DecryptionFailed:
        raise BackupRefused("an object does not open with this key") from None


def check_object(digest: bytes, sealed: bytes) -> None:
    """Raises: BackupRefused when the bytes are not those that were written."""
    if compute_hash("sha256", sealed) != digest:
        raise BackupRefused("an object was changed, cut or put in another's place", object=digest.hex())


def build_manifest(parts: Parts, recipient: bytes, keys: IndexKeys, signer: Signer) -> bytes:
    """The bytes of a manifest. signer: the organisation's audit key."""
    raw, body = msgspec.msgpack.encode(parts.head), msgspec.msgpack.encode(parts.body)
    kem_output, sealed = HPKE.seal(recipient, _BODY_INFO + parts.head.place_id, raw, body)
    unsigned = _Manifest(raw, kem_output, sealed, keys.seal(parts.index, raw), b"")
    return msgspec.msgpack.encode(msgspec.structs.replace(unsigned, signature=signer.sign(_signed(unsigned))))


def parse_manifest(data: bytes) -> Manifest:
    """Raises: BackupRefused when it is none."""
    try:
        raw = msgspec.msgpack.decode(data, type=_Manifest)
        head = msgspec.msgpack.decode(raw.head, type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BackupRefused("a manifest cannot be read") from None
    if head.format != FORMAT:
        raise BackupRefused("a manifest is of another format; use a newer curbside")
    if any(len(each) != HASH_BYTES for each in head.objects) or sorted(set(head.objects)) != head.objects:
        raise BackupRefused("a manifest's objects are not in order")
    return Manifest(head, compute_hash("sha256", data), raw)


def verify_manifest(manifest: Manifest, pinned: VerifierKey | None) -> VerifierKey:
    """Verify the signature; the key that made it. pinned: the only one that may have; None: the one it names itself.

    Raises: BackupRefused.
    """
    try:
        signer = parse_verifier_key(manifest.head.signer)
        verify_signature("ed25519", signer.public, _signed(manifest.raw), manifest.raw.signature)
    except InvalidMessage:
        raise BackupRefused("a manifest's signature does not verify") from None
    if pinned is not None and pinned != signer:
        raise BackupRefused("the backup is signed by another organisation's key")
    return signer


def open_body(key: BackupKey, manifest: Manifest) -> Body:
    """What is in a backup. Raises: BackupRefused."""
    raw, head = manifest.raw, manifest.head
    try:
        opened = HPKE.open(key.private.reveal(), raw.kem_output, _BODY_INFO + head.place_id, raw.head, raw.body)
        body = msgspec.msgpack.decode(opened, type=Body)
    except DecryptionFailed:
        raise BackupRefused("the backup does not open with this key") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BackupRefused("a backup's list of contents cannot be read") from None
    lists = [*(table.objects for table in body.tables), *(blob.objects for blob in body.blobs)]
    if any(not 0 <= place < len(head.objects) for places in lists for place in places):
        raise BackupRefused("a backup's list of contents names objects that it does not have")
    return body


def _signed(manifest: _Manifest) -> bytes:
    parts = (manifest.head, manifest.kem_output, manifest.body, manifest.index)
    return _LABEL + b"".join(compute_hash("sha256", part) for part in parts)
