"""A random walk: members of two implementations come, go, update, talk and restart in one group."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from .driver import Driver
from .peer import Peer, agree, gather, refresh, say, tell

MOST_MEMBERS = 6


class Walk:
    """One group and what happens to it; every choice follows from the seed."""

    def __init__(self, a: Driver, b: Driver, seed: int) -> None:
        self.random = random.Random(seed)
        self.drivers = (a, b)
        self.complete = all("external_commit" in driver.call("hello")["ops"] for driver in (a, b))
        self.members = [Peer(a, "alice"), Peer(b, "bob")]
        gather(*self.members)
        self.done: dict[str, int] = {}

    def step(self) -> None:
        """One operation that fits the size of the group."""
        growing: list[Callable[[], None]] = [self.add, self.add_by_reference, self.refresh, self.talk, self.restart]
        shrinking: list[Callable[[], None]] = [self.remove, self.remove_by_reference, self.refresh, self.talk]
        if self.complete:
            growing += [self.join_from_outside, self.refresh_privately]
        choices = growing if len(self.members) < 3 else [*growing, *shrinking]
        if len(self.members) >= MOST_MEMBERS:
            choices = shrinking
        chosen = self.random.choice(choices)
        chosen()
        self.done[chosen.__name__] = self.done.get(chosen.__name__, 0) + 1

    def _someone(self, besides: Sequence[Peer] = ()) -> Peer:
        return self.random.choice([member for member in self.members if member not in besides])

    def _newcomer(self) -> Peer:
        return Peer(self.random.choice(self.drivers), "new")

    def _welcome(self, newcomer: Peer) -> None:
        self.members.append(newcomer)
        say(newcomer, self.members[:-1])

    def _follow(self, committer: Peer, message: str, gone: Peer | None = None) -> None:
        tell(committer, [member for member in self.members if member is not gone], message)
        if gone is not None:
            assert gone.process(message, by=committer)["removed"]
            self.members.remove(gone)

    def _introduce(self, member: Peer) -> None:
        """mls-rs can name only those whom it has heard."""
        say(member, [other for other in self.members if other is not member])

    def add(self) -> None:
        committer, newcomer = self._someone(), self._newcomer()
        made = committer.commit(adds=[newcomer])
        self._follow(committer, made["commit"])
        newcomer.join(made["welcome"])
        self._welcome(newcomer)

    def add_by_reference(self) -> None:
        proposer, newcomer = self._someone(), self._newcomer()
        committer = self._someone(besides=[proposer])
        tell(proposer, self.members, proposer.propose(adds=[newcomer]))
        made = committer.commit()
        self._follow(committer, made["commit"])
        newcomer.join(made["welcome"])
        self._welcome(newcomer)

    def join_from_outside(self) -> None:
        newcomer = self._newcomer()
        message = newcomer.join_external(self._someone().group_info())
        tell(newcomer, self.members, message)
        self._welcome(newcomer)

    def remove(self) -> None:
        committer = self._someone()
        gone = self._someone(besides=[committer])
        self._introduce(gone)
        self._follow(committer, committer.commit(removes=[gone])["commit"], gone)

    def remove_by_reference(self) -> None:
        proposer = self._someone()
        committer = self._someone(besides=[proposer])
        gone = self._someone(besides=[proposer, committer])
        self._introduce(gone)
        tell(proposer, self.members, proposer.propose(removes=[gone]))
        self._follow(committer, committer.commit()["commit"], gone)

    def refresh(self) -> None:
        refresh(self._someone(), self.members)

    def refresh_privately(self) -> None:
        refresh(self._someone(), self.members, wire="private")

    def talk(self) -> None:
        """Three messages of one member, read in another order."""
        sender = self._someone()
        messages = [(text, sender.encrypt(text)) for text in (b"one", b"two", b"three")]
        for receiver in self.members:
            if receiver is not sender:
                for text, message in self.random.sample(messages, 3):
                    assert receiver.process(message, by=sender)["data"] == text.hex()

    def restart(self) -> None:
        member = self._someone()
        member.call("load", blob=member.call("save")["blob"])

    def finish(self) -> None:
        agree(*self.members)
