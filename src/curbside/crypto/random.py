"""The one source of randomness."""

from __future__ import annotations

import secrets


def random_bytes(length: int) -> bytes:
    """`length` bytes from the operating system's generator."""
    return secrets.token_bytes(length)
