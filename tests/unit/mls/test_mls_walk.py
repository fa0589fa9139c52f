"""A long random walk: any operation by anybody, each member saved and loaded at every step."""

from __future__ import annotations

import os
import random

import pytest
from mls_people import NOW, SETTINGS, TRUST, assert_agree, external_sender, own_leaf, package_of

from curbside.crypto.secret import SecretBytes
from curbside.errors import CurbsideError, PendingProposals
from curbside.mls.group import (
    Application,
    CommitReceived,
    CommitRequest,
    ExternalPsk,
    Group,
    JoinOptions,
    ResumptionPsk,
)
from curbside.mls.proposals import Remove
from curbside.mls.public import PublicGroup

STEPS = int(os.environ.get("CURBSIDE_WALK_STEPS", "2000"))
PSK = ExternalPsk(b"shared", SecretBytes(b"p" * 32))
PSKS = {PSK.psk_id: PSK.secret}


class Walk:
    """A group, its server, and messages that are still under way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sender = external_sender()
        self.names = 0
        self.first_keys: dict[bytes, bytes] = {}  # key in use now, key at first
        first = Group.create(b"walk", own_leaf("first"), 1, (self.sender.extension,), SETTINGS, TRUST, NOW)
        self.server = PublicGroup.from_group_info(first.group_info(), TRUST, NOW)
        self.groups = [first]
        self.late: list[tuple[bytes, bytes, set[bytes]]] = []  # message, text, keys of those who did not read it

    def name(self) -> str:
        self.names += 1
        return f"member {self.names}"

    def reload(self) -> None:
        for place, group in enumerate(self.groups):
            blob = group.save()
            self.groups[place] = Group.load(blob, TRUST)
            assert self.groups[place].save() == blob
        self.server = PublicGroup.load(self.server.save(), TRUST)

    def person(self, group: Group) -> bytes:
        """Who it is, whatever key is in use now."""
        key = group.state.current.leaf.signer.reveal()
        return self.first_keys.get(key, key)

    def step(self) -> None:
        actor = self.random.choice(self.groups)
        actions = [self.talk, self.talk, self.commit, self.commit, self.propose, self.read_late]
        if self.random.random() < 0.1:
            actions = [self.external, self.server_removes, self.lose_race]
        self.random.choice(actions)(actor)

    def talk(self, actor: Group) -> None:
        text = self.random.randbytes(self.random.randrange(300))
        try:
            message = actor.encrypt(text, b"walk")
        except PendingProposals:
            self.commit(actor)
            return
        self.server.check_application(message)
        waiting = set()
        for group in self.groups:
            if group is actor:
                continue
            if self.random.random() < 0.2:
                waiting.add(self.person(group))
                continue
            got = group.receive(message, NOW)
            assert isinstance(got, Application)
            assert (got.data, got.sender.leaf_index) == (text, actor.own_leaf)
        if waiting:
            self.late.append((message, text, waiting))

    def read_late(self, actor: Group) -> None:
        self.random.shuffle(self.late)
        me = self.person(actor)
        for message, text, waiting in self.late[-5:]:
            before = actor.save()
            try:
                got = actor.receive(message, NOW)
            except CurbsideError:
                assert actor.save() == before
                waiting.discard(me)
                continue
            assert isinstance(got, Application)
            assert got.data == text
            assert me in waiting
            waiting.discard(me)
        self.late = self.late[-40:]

    def request(self, actor: Group) -> tuple[CommitRequest, list[str]]:
        others = [g.own_leaf for g in self.groups if g is not actor]
        adds = [self.name() for _ in range(self.random.choice([0, 0, 0, 1, 1, 2]) if len(self.groups) < 14 else 0)]
        count = self.random.choice([0, 0, 0, 1, 2]) if len(others) > 3 else 0
        return (
            CommitRequest(
                removes=tuple(self.random.sample(others, count)),
                update=self.random.random() < 0.8,
                psks=self.random.choice([(), (), (PSK,), (ResumptionPsk(actor.epoch),)]),
                extensions=(self.sender.extension,) if self.random.random() < 0.1 else None,
                leaf=own_leaf(self.name()) if self.random.random() < 0.1 else None,
            ),
            adds,
        )

    def commit(self, actor: Group) -> None:
        request, names = self.request(actor)
        removed = {p.proposal.removed for p in actor.pending if p.kind == "remove"}  # type: ignore[union-attr]
        if actor.own_leaf in removed:
            return
        packages = [package_of(name) for name in names]
        request = CommitRequest(
            adds=tuple(p.public for p in packages), removes=request.removes, update=request.update,
            psks=request.psks, extensions=request.extensions, leaf=request.leaf,
        )  # fmt: skip
        if request.leaf is not None:
            self.first_keys[request.leaf.signer.reveal()] = self.person(actor)
        staged = actor.stage_commit(request, NOW, PSKS)
        self.reload()
        actor = next(g for g in self.groups if g.staged and g.staged.commit == staged.commit)
        assert self.server.apply(staged.commit, NOW) == staged.diff
        actor.commit_accepted(staged)
        self.deliver(staged.commit, actor)
        for package in packages:
            options = JoinOptions(psks=PSKS, earlier=(actor.state,))
            self.groups.append(Group.join(staged.welcome or b"", [package], TRUST, NOW, SETTINGS, options))

    def deliver(self, message: bytes, actor: Group | None) -> None:
        stay = []
        for group in self.groups:
            if group is not actor:
                knows = all(epoch != group.epoch for epoch, _ in group.state.resumption)
                assert not knows
                got = group.receive(message, NOW, PSKS)
                if isinstance(got, CommitReceived) and got.removed_me:
                    continue
            stay.append(group)
        self.groups = stay

    def propose(self, actor: Group) -> None:
        others = [g.own_leaf for g in self.groups if g is not actor]
        if len(self.groups) < 4 or len(actor.pending) > 3:
            return
        choice = self.random.randrange(3)
        if choice == 0:
            message = actor.propose_update(NOW)
        elif choice == 1:
            leaf = self.random.choice(others)
            if self.is_proposed(actor, leaf):
                return
            message = actor.propose_remove(leaf, NOW)
        else:
            message = actor.propose_psk(PSK, NOW)
        self.server.receive_proposal(message, NOW)
        self.deliver(message, actor)

    def is_proposed(self, by: Group | None, leaf: int) -> bool:
        """Whether the same sender proposed this removal already: the same bytes would come out."""
        sender = None if by is None else by.members[[m.leaf_index for m in by.members].index(by.own_leaf)]
        return any(p.proposal == Remove(leaf) and p.member == sender for p in self.server.pending)

    def server_removes(self, actor: Group) -> None:
        if len(self.groups) > 4 and not self.is_proposed(None, actor.own_leaf):
            message = self.server.propose_remove(actor.own_leaf, self.sender.key)
            self.server.receive_proposal(message, NOW)
            self.deliver(message, None)

    def external(self, actor: Group) -> None:
        resync = self.random.random() < 0.5 and len(self.groups) > 2
        options = JoinOptions(resync=resync, replaces=actor.own_leaf)
        teller = self.random.choice([g for g in self.groups if g is not actor] or [actor])
        fresh, message = Group.join_external(teller.group_info(), own_leaf(self.name()), TRUST, NOW, SETTINGS, options)
        self.server.apply(message, NOW)
        self.deliver(message, None)
        self.groups.append(fresh)

    def lose_race(self, actor: Group) -> None:
        """Somebody else's commit comes first: ours is dropped."""
        others = [g for g in self.groups if g is not actor]
        if others and not actor.pending:
            actor.stage_commit(CommitRequest(), NOW)
            self.commit(self.random.choice(others))
            assert all(group.staged is None for group in self.groups)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [int(s) for s in os.environ.get("CURBSIDE_WALK_SEEDS", "1 2").split()])
def test_random_walk(seed: int) -> None:
    walk = Walk(seed)
    for number in range(STEPS // 2):
        try:
            walk.step()
            walk.reload()
            if number % 10 == 0:
                assert_agree(walk.groups)
                assert walk.server.members == walk.groups[0].members
        except Exception as error:
            error.add_note(f"seed {seed}, step {number}: CURBSIDE_WALK_SEEDS={seed} repeats it")
            raise
    assert walk.groups[0].epoch > STEPS // 8
