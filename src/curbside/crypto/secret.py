"""SecretBytes: key material that cannot be printed, compared, pickled or logged by accident."""

from __future__ import annotations

import hmac
from typing import Any, Final, NoReturn, final


@final
class SecretBytes:
    """Bytes that must not leak. `reveal()` is the only way in, and is easy to search for.

    The value is held in a bytearray so that `wipe()` can overwrite it; Python may have made copies
    elsewhere, so wiping lowers the risk and does not end it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self._value: Final = bytearray(value)

    def reveal(self) -> bytes:
        """The secret bytes; the caller must not store, print or log them."""
        return bytes(self._value)

    def wipe(self) -> None:
        """Overwrite the value with zeros."""
        for i in range(len(self._value)):
            self._value[i] = 0

    def is_same(self, other: SecretBytes) -> bool:
        """Whether both hold the same bytes, in constant time."""
        return hmac.compare_digest(self._value, other._value)

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return "<SecretBytes>"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secrets are compared with is_same(), never with ==")

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("secrets cannot be pickled or copied")
