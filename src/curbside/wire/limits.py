"""Sizes and counts that both sides keep. Bytes unless the name says otherwise."""

from __future__ import annotations

from typing import Final

ENVELOPE_BYTES: Final = 96 * 1024
"""An application message on the wire: 64 KiB of content, padding and MLS framing."""
HANDSHAKE_BYTES: Final = 1024 * 1024
"""A commit, Welcome or GroupInfo."""
FRAME_BYTES: Final = 2 * 1024 * 1024
"""One WebSocket frame."""
BODY_BYTES: Final = 4 * 1024 * 1024
"""One JSON request body."""
BLOB_BYTES: Final = 32 * 1024 * 1024
"""One attachment's ciphertext: 25 MB of file and its padding."""
BLOB_CHUNK_BYTES: Final = 1024 * 1024
"""One request of an upload."""
KEY_PACKAGES_PER_DEVICE: Final = 100
GROUP_MEMBERS: Final = 256
"""Leaves of one conversation."""
CURSORS_PER_SYNC: Final = 20_000
ENTRIES_PER_FRAME: Final = 256
DEVICES_PER_USER: Final = 4
DISPLAY_NAME_CHARS: Final = 64
DEVICE_LABEL_CHARS: Final = 64
