"""The conversation policy: GroupContext extension 0xFA01 (docs/trust.md), deterministic CBOR.

`{1: version, 2: kind, 3: administrators}`. `web/src/core/wire/group_policy.ts` is the twin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from curbside.errors import Malformed
from curbside.ids import UserId, decode_id
from curbside.wire import cbor

GROUP_POLICY: Final = 0xFA01
"""The extension's type, from the range for private use."""
Kind = Literal["direct", "group"]
_BYTES: Final = 8192
_ADMINISTRATORS: Final = 256


@dataclass(frozen=True, slots=True)
class GroupPolicy:
    """version: 1 at first, one more with each change. administrators: user ids, sorted, each once.

    Of a direct conversation they are the two users it is for (or nobody: then its first commit decides), and nobody is
    above the other. A group has one administrator at least.
    """

    version: int
    kind: Kind
    administrators: tuple[UserId, ...]


def make_direct_policy(one: UserId, other: UserId) -> GroupPolicy:
    """The policy of a new direct conversation of two users."""
    return GroupPolicy(1, "direct", tuple(sorted({one, other})))


def make_group_policy(*administrators: UserId) -> GroupPolicy:
    """The policy of a new group."""
    return GroupPolicy(1, "group", tuple(sorted(set(administrators))))


def encode_group_policy(policy: GroupPolicy) -> bytes:
    """The extension's body.

    Raises: Malformed when `decode_group_policy` would refuse it.
    """
    tree: cbor.Value = {1: policy.version, 2: policy.kind, 3: policy.administrators}
    _read(tree)
    return cbor.encode(tree, 2)


def decode_group_policy(body: bytes) -> GroupPolicy:
    """Read the extension's body.

    Raises: Malformed for anything that `encode_group_policy` would not have written.
    """
    if len(body) > _BYTES:
        raise Malformed("group policy: too long")
    return _read(cbor.decode(body, 2))


def _read(tree: cbor.Value) -> GroupPolicy:
    match tree:
        case {1: int() as version, 2: "direct" | "group" as kind, 3: tuple() as administrators, **rest} if not rest:
            pass
        case _:
            raise Malformed("group policy: another form was expected")
    if isinstance(version, bool) or not 1 <= version <= cbor.MAX_SAFE_INTEGER:
        raise Malformed("group policy: not a version")
    users = tuple(_read_user(user) for user in administrators)
    if list(users) != sorted(set(users)):
        raise Malformed("group policy: administrators are sorted and named once")
    fits = len(users) <= 2 if kind == "direct" else 1 <= len(users) <= _ADMINISTRATORS
    if not fits:
        raise Malformed("group policy: too many or too few administrators")
    return GroupPolicy(version, kind, users)


def _read_user(value: object) -> UserId:
    if not isinstance(value, str):
        raise Malformed("group policy: an administrator is a user id")
    decode_id(value)
    return UserId(value)
