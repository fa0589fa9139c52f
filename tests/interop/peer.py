"""One MLS client in a driver, and what several of them do together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from curbside.crypto.random import random_bytes

from .driver import CannotExpress, Driver

_NUMBERS = count()
Answer = dict[str, Any]


class Peer:
    """A client with an identity of its own. Bytes are hex, as the drivers take them."""

    def __init__(self, driver: Driver, name: str, extensions: Sequence[int] = ()) -> None:
        self.driver = driver
        self.identity = f"{name}-{next(_NUMBERS)}"
        self._extra = {"extensions": list(extensions)} if extensions else {}
        driver.call("new_client", client=self.identity, identity=self.identity)

    def call(self, op: str, **arguments: Any) -> Answer:
        return self.driver.call(op, client=self.identity, **arguments)

    def key_package(self) -> str:
        return str(self.call("key_package", **self._extra)["kp"])

    def create(self, group_extensions: list[Answer] | None = None, group_id: str | None = None) -> None:
        extensions = {} if group_extensions is None else {"group_extensions": group_extensions}
        self.call("create_group", group_id=group_id or random_bytes(16).hex(), **extensions, **self._extra)

    def commit(self, adds: Sequence[Peer] = (), removes: Sequence[Peer] = (), **arguments: Any) -> Answer:
        if adds:
            arguments["adds"] = [peer.key_package() for peer in adds]
        if removes:
            arguments["remove_ids"] = [peer.identity for peer in removes]
            arguments["removes"] = [self.leaf_of(peer) for peer in removes]
        return self.call("commit", **arguments)

    def leaf_of(self, peer: Peer) -> int:
        """The leaf of another member as we see it, or as it says itself when we cannot see leaves."""
        try:
            members = self.call("state")["members"]
        except CannotExpress:
            try:
                return int(peer.call("state")["own"])
            except CannotExpress:
                return -1  # both sides go by identity
        return next(leaf for leaf, name in members if bytes.fromhex(name).decode() == peer.identity)

    def propose(self, adds: Sequence[Peer] = (), removes: Sequence[Peer] = (), **arguments: Any) -> str:
        if adds:
            arguments["adds"] = [peer.key_package() for peer in adds]
        if removes:
            arguments["remove_ids"] = [peer.identity for peer in removes]
            arguments["removes"] = [self.leaf_of(peer) for peer in removes]
        return str(self.call("propose", **arguments)["msg"])

    def join(self, welcome: str, **arguments: Any) -> None:
        self.call("join", welcome=welcome, **arguments)

    def join_external(self, group_info: str, **arguments: Any) -> str:
        return str(self.call("external_commit", group_info=group_info, **self._extra, **arguments)["commit"])

    def group_info(self) -> str:
        return str(self.call("group_info")["group_info"])

    def encrypt(self, text: bytes, **arguments: Any) -> str:
        return str(self.call("encrypt", data=text.hex(), **arguments)["msg"])

    def process(self, message: str, by: Peer | None = None) -> Answer:
        return self.call("process", msg=message, by=by.identity if by else None)


def say(sender: Peer, receivers: Sequence[Peer], text: bytes = b"hello", **arguments: Any) -> list[Answer]:
    """A message from one to others; everybody must read the same."""
    message = sender.encrypt(text, **arguments)
    answers = [receiver.process(message, by=sender) for receiver in receivers]
    for answer in answers:
        assert bytes.fromhex(answer["data"]) == text
    return answers


def tell(sender: Peer, members: Sequence[Peer], message: str) -> None:
    """Hand a handshake message to everybody but its sender."""
    for member in members:
        if member is not sender:
            member.process(message, by=sender)


def agree(*members: Peer) -> None:
    """All are in one epoch: the same authenticator where it is known, and each reads each."""
    authenticators = set()
    for member in members:
        try:
            authenticators.add(member.call("state")["auth"])
        except CannotExpress:
            continue
    assert len(authenticators) <= 1, "epoch authenticators differ"
    for member in members:
        say(member, [other for other in members if other is not member])


def gather(creator: Peer, *others: Peer, group_extensions: list[Answer] | None = None) -> None:
    """A new group with everybody in it, added by one commit, where everybody has spoken once."""
    creator.create(group_extensions)
    welcome = creator.commit(adds=others)["welcome"]
    for peer in others:
        peer.join(welcome)
    agree(creator, *others)


def refresh(committer: Peer, members: Sequence[Peer], **arguments: Any) -> None:
    """A commit without proposals, seen by all."""
    tell(committer, members, committer.commit(**arguments)["commit"])
