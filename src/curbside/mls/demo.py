"""Three members in memory: what `python -m curbside.mls demo` shows."""

from __future__ import annotations

from collections.abc import Iterator

from curbside.crypto.random import random_bytes
from curbside.crypto.sign import generate_signature_key
from curbside.mls.group import Application, CommitRequest, Group, GroupSettings, OwnLeaf, make_key_package
from curbside.mls.nodes import Credential
from curbside.mls.public import PublicGroup
from curbside.mls.trust import UnsafeAcceptAll

_NOW = 1_700_000_000
_DAY = 24 * 3600


def _own(name: str) -> OwnLeaf:
    return OwnLeaf(Credential.basic(name.encode()), generate_signature_key("ed25519"))


def run_demo() -> Iterator[str]:
    """Create, add two, talk, remove one; one line for each step."""
    trust = UnsafeAcceptAll()
    alice = Group.create(random_bytes(16), _own("alice"), 1, (), GroupSettings(), trust, _NOW)
    server = PublicGroup.from_group_info(alice.group_info(), trust, _NOW)
    yield f"alice creates group {alice.group_id.hex()[:8]}, epoch {alice.epoch}; the server follows without secrets"
    packages = [make_key_package(_own(name), 1, (_NOW - _DAY, _NOW + 80 * _DAY)) for name in ("bob", "fiona")]
    staged = alice.stage_commit(CommitRequest(adds=tuple(package.public for package in packages)), _NOW)
    server.apply(staged.commit, _NOW)
    alice.commit_accepted(staged)
    bob, fiona = (Group.join(staged.welcome or b"", [package], trust, _NOW) for package in packages)
    size = len(staged.welcome or b"")
    yield f"alice adds bob and fiona: epoch {bob.epoch}, {len(server.members)} members, a Welcome of {size} bytes"
    message = fiona.encrypt(b"potassium is 6.1", aad=b"demo")
    heard = bob.receive(message, _NOW)
    if isinstance(heard, Application):
        name = heard.sender.credential.identity.decode()
        yield f"{name} says {heard.data.decode()!r} in {len(message)} bytes; bob reads it"
    staged = bob.stage_commit(CommitRequest(removes=(alice.own_leaf,)), _NOW)
    server.apply(staged.commit, _NOW)
    bob.commit_accepted(staged)
    alice.receive(staged.commit, _NOW)
    fiona.receive(staged.commit, _NOW)
    yield f"bob removes alice: epoch {bob.epoch}, alice is a member: {alice.is_active}"
    same = bob.epoch_authenticator() == fiona.epoch_authenticator()
    yield f"bob and fiona agree on the epoch: {same}; saved state of bob: {len(bob.save())} bytes"
