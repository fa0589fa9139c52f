"""Attachments (docs/protocol.md "Blobs"): AES-256-GCM in chunks, the STREAM construction of Hoang et al. 2015.

    file  = nonce prefix (7) ‖ chunk 0 ‖ chunk 1 ‖ …
    chunk = 64 KiB of plaintext (the last may be less), sealed, and its tag (16)
    nonce = nonce prefix (7) ‖ chunk number (4, big-endian) ‖ 1 for the last chunk, else 0

The plaintext is padded with zeros to a size bucket. Whoever opens knows the real size from the message, and so the
length of the file: cut, joined, reordered or changed bytes are all BlobCorrupt. `web/src/core/crypto/stream_aead.ts` is
the twin.
"""

from __future__ import annotations

from typing import Final, final

from curbside.crypto import aead
from curbside.crypto.kdf import compute_hash
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import BlobCorrupt, DecryptionFailed, TooLarge, UsageError

CHUNK_BYTES: Final = 64 * 1024
SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + aead.TAG_LENGTH
PREFIX_BYTES: Final = 7
KEY_BYTES: Final = 32
MAX_BYTES: Final = 2**40
_BUCKETS: Final = (4096, 4871, 5793, 6889)
"""4 KiB · 2^(n/4), rounded up; the next four are these doubled, and so on."""


def pad_size(size: int) -> int:
    """The size bucket of a plaintext of `size` bytes.

    Raises: TooLarge.
    """
    if not 0 <= size <= MAX_BYTES:
        raise TooLarge("an attachment is over its size limit", limit=MAX_BYTES)
    octave = 0
    while _BUCKETS[3] << octave < size:
        octave += 1
    return next(bucket << octave for bucket in _BUCKETS if bucket << octave >= size)


def count_chunks(size: int) -> int:
    """How many chunks the file of a plaintext of `size` bytes has."""
    return -(-pad_size(size) // CHUNK_BYTES)


def sealed_size(size: int) -> int:
    """The length of the file of a plaintext of `size` bytes."""
    return PREFIX_BYTES + pad_size(size) + count_chunks(size) * aead.TAG_LENGTH


def make_key() -> SecretBytes:
    """A new key, for one attachment only."""
    return SecretBytes(random_bytes(KEY_BYTES))


def hash_file(sealed: bytes) -> bytes:
    """SHA-256 of a whole file, as the message carries it."""
    return compute_hash("sha256", sealed)


def seal_bytes(key: SecretBytes, plaintext: bytes) -> bytes:
    """The file of a plaintext. A key is used for one plaintext only."""
    sealer = Sealer(key, len(plaintext))
    return sealer.update(plaintext) + sealer.finish()


def open_bytes(key: SecretBytes, size: int, sealed: bytes) -> bytes:
    """The plaintext of `size` bytes.

    Raises: BlobCorrupt.
    """
    opener = Opener(key, size)
    return opener.update(sealed) + opener.finish()


def open_chunk(key: SecretBytes, size: int, prefix: bytes, number: int, sealed: bytes) -> bytes:
    """The plaintext of one chunk without its padding, for reading from the middle of a file.

    Raises: BlobCorrupt.
    """
    count = count_chunks(size)
    if not 0 <= number < count:
        raise UsageError("an attachment has no such chunk")
    try:
        padded = aead.open_sealed("aes256gcm", key.reveal(), _nonce(prefix, number, count), sealed, b"")
    except DecryptionFailed:
        raise BlobCorrupt from None
    expected = CHUNK_BYTES if number < count - 1 else pad_size(size) - number * CHUNK_BYTES
    real = min(max(size - number * CHUNK_BYTES, 0), CHUNK_BYTES)
    if len(padded) != expected or any(padded[real:]):
        raise BlobCorrupt
    return padded[:real]


def _nonce(prefix: bytes, number: int, count: int) -> bytes:
    return prefix + number.to_bytes(4, "big") + (b"\x01" if number == count - 1 else b"\x00")


@final
class Sealer:
    """Seals a plaintext of known size piece by piece; what `update` and `finish` return, joined, is the file."""

    __slots__ = ("_buffer", "_count", "_done", "_key", "_left", "_number", "_padding", "_prefix")

    def __init__(self, key: SecretBytes, size: int, prefix: bytes = b"") -> None:
        """prefix: 7 bytes, random unless given (given by test vectors only).

        Raises: UsageError; TooLarge.
        """
        if len(key) != KEY_BYTES:
            raise UsageError("an attachment's key has 32 bytes")
        self._key = key
        self._prefix = prefix or random_bytes(PREFIX_BYTES)
        self._left = size
        self._padding = pad_size(size) - size
        self._count = count_chunks(size)
        self._number = 0
        self._buffer = bytearray()
        self._done = False

    def update(self, plaintext: bytes) -> bytes:
        """Take the next piece. Raises: UsageError when it is more than the size that was named."""
        if len(plaintext) > self._left:
            raise UsageError("more plaintext than was named")
        self._left -= len(plaintext)
        self._buffer += plaintext
        return self._emit()

    def finish(self) -> bytes:
        """The rest of the file. Raises: UsageError when plaintext is missing."""
        if self._left or self._done:
            raise UsageError("less plaintext than was named, or finished before")
        self._done = True
        out = bytearray()
        while self._padding:
            zeros = min(self._padding, CHUNK_BYTES)
            self._buffer += bytes(zeros)
            self._padding -= zeros
            out += self._emit()
        return bytes(out + self._seal(self._buffer)) if self._number < self._count else bytes(out)

    def _emit(self) -> bytes:
        out = bytearray()
        while len(self._buffer) >= CHUNK_BYTES:
            out += self._seal(self._buffer[:CHUNK_BYTES])
            del self._buffer[:CHUNK_BYTES]
        return bytes(out)

    def _seal(self, chunk: bytearray) -> bytes:
        nonce = _nonce(self._prefix, self._number, self._count)
        head = b"" if self._number else self._prefix
        self._number += 1
        return head + aead.seal("aes256gcm", self._key.reveal(), nonce, bytes(chunk), b"")


@final
class Opener:
    """Opens a file piece by piece. Each byte it returns is authentic; that none is missing is known after `finish`."""

    __slots__ = ("_buffer", "_count", "_key", "_left", "_number", "_prefix", "_size")

    def __init__(self, key: SecretBytes, size: int) -> None:
        """size: of the plaintext, from the message. Raises: UsageError; TooLarge."""
        if len(key) != KEY_BYTES:
            raise UsageError("an attachment's key has 32 bytes")
        self._key = key
        self._size = size
        self._count = count_chunks(size)
        self._left = sealed_size(size)
        self._number = 0
        self._prefix = b""
        self._buffer = bytearray()

    def update(self, sealed: bytes) -> bytes:
        """Take the next piece of the file. Raises: BlobCorrupt."""
        if len(sealed) > self._left:
            raise BlobCorrupt
        self._left -= len(sealed)
        self._buffer += sealed
        if not self._prefix and len(self._buffer) >= PREFIX_BYTES:
            self._prefix = bytes(self._buffer[:PREFIX_BYTES])
            del self._buffer[:PREFIX_BYTES]
        out = bytearray()
        while self._prefix and (len(self._buffer) >= SEALED_CHUNK_BYTES or (not self._left and self._buffer)):
            chunk = bytes(self._buffer[:SEALED_CHUNK_BYTES])
            del self._buffer[:SEALED_CHUNK_BYTES]
            out += open_chunk(self._key, self._size, self._prefix, self._number, chunk)
            self._number += 1
        return bytes(out)

    def finish(self) -> bytes:
        """Check that the file is whole; returns b"". Raises: BlobCorrupt."""
        if self._left or self._number != self._count:
            raise BlobCorrupt
        return b""
