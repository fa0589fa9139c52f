"""What two implementations do together over unchanged wire bytes. `a` creates the group, `b` is the other side.

Where the two sides of a scenario differ in what they can express, there is one scenario for each side.
"""

from __future__ import annotations

from collections.abc import Callable

from .driver import CannotExpress, Driver
from .peer import Peer, agree, gather, refresh, say, tell

Scenario = Callable[[Driver, Driver], None]
SCENARIOS: dict[str, Scenario] = {}
CUSTOM_EXTENSION = 0xF123
EXTERNAL_SENDERS = 5


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def pair(a: Driver, b: Driver) -> tuple[Peer, Peer]:
    alice, bob = Peer(a, "alice"), Peer(b, "bob")
    gather(alice, bob)
    return alice, bob


def trio(a: Driver, b: Driver, c: Driver) -> tuple[Peer, Peer, Peer]:
    alice, bob, carol = Peer(a, "alice"), Peer(b, "bob"), Peer(c, "carol")
    gather(alice, bob, carol)
    return alice, bob, carol


# --- adding ---------------------------------------------------------------------------------------


@scenario
def add_join_talk(a: Driver, b: Driver) -> None:
    agree(*pair(a, b))


@scenario
def three_added_by_one_commit(a: Driver, b: Driver) -> None:
    members = (Peer(a, "alice"), Peer(b, "bob"), Peer(b, "carol"), Peer(a, "dave"))
    gather(*members)
    agree(*members)


@scenario
def joiner_adds_a_third(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    erin = Peer(a, "erin")
    made = bob.commit(adds=[erin])
    alice.process(made["commit"], by=bob)
    erin.join(made["welcome"])
    agree(alice, bob, erin)


@scenario
def tree_beside_the_welcome(a: Driver, b: Driver) -> None:
    alice, bob = Peer(a, "alice"), Peer(b, "bob")
    alice.create()
    welcome = alice.commit(adds=[bob], tree=False)["welcome"]
    bob.join(welcome, tree=alice.call("ratchet_tree")["tree"])
    agree(alice, bob)


# --- fresh keys -----------------------------------------------------------------------------------


@scenario
def creator_updates(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    refresh(alice, [bob])
    agree(alice, bob)


@scenario
def joiner_updates(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    refresh(bob, [alice])
    agree(alice, bob)


@scenario
def updates_back_and_forth(a: Driver, b: Driver) -> None:
    members = trio(a, b, b)
    for turn in range(6):
        refresh(members[turn % 3], members)
        agree(*members)


@scenario
def unmerged_leaf_then_updates(a: Driver, b: Driver) -> None:
    alice, bob, carol = members = trio(a, b, a)
    refresh(alice, members)
    refresh(bob, members)
    erin = Peer(b, "erin")
    made = alice.commit(adds=[erin])
    tell(alice, members, made["commit"])
    erin.join(made["welcome"])
    everybody = (alice, bob, carol, erin)
    agree(*everybody)
    for committer in (carol, erin, bob):
        refresh(committer, everybody)
    agree(*everybody)


# --- removing -------------------------------------------------------------------------------------


@scenario
def creator_removes(a: Driver, b: Driver) -> None:
    alice, bob, carol = trio(a, b, b)
    message = alice.commit(removes=[carol])["commit"]
    bob.process(message, by=alice)
    assert carol.process(message, by=alice)["removed"], "the removed member is not told"
    agree(alice, bob)


@scenario
def joiner_removes(a: Driver, b: Driver) -> None:
    alice, bob, carol = trio(a, b, a)
    message = bob.commit(removes=[carol])["commit"]
    alice.process(message, by=bob)
    assert carol.process(message, by=bob)["removed"], "the removed member is not told"
    agree(alice, bob)


@scenario
def blank_leaf_is_filled_again(a: Driver, b: Driver) -> None:
    alice, bob, carol, dave = Peer(a, "alice"), Peer(b, "bob"), Peer(b, "carol"), Peer(a, "dave")
    gather(alice, bob, carol, dave)
    tell(alice, (bob, dave), alice.commit(removes=[carol])["commit"])
    frank = Peer(b, "frank")
    made = bob.commit(adds=[frank])
    tell(bob, (alice, dave), made["commit"])
    frank.join(made["welcome"])
    agree(alice, bob, dave, frank)


@scenario
def add_and_remove_in_one_commit(a: Driver, b: Driver) -> None:
    alice, bob, carol = trio(a, b, b)
    erin = Peer(b, "erin")
    made = alice.commit(adds=[erin], removes=[carol])
    bob.process(made["commit"], by=alice)
    erin.join(made["welcome"])
    agree(alice, bob, erin)


@scenario
def leaf_filled_by_the_commit_that_removes(a: Driver, b: Driver) -> None:
    """The removed member must see that it is gone although its leaf is not blank after the commit."""
    alice, bob, carol = trio(a, b, a)
    tell(alice, (bob, carol), alice.propose(removes=[carol]))
    erin = Peer(b, "erin")
    tell(alice, (bob, carol), alice.propose(adds=[erin]))
    made = bob.commit()
    alice.process(made["commit"], by=bob)
    erin.join(made["welcome"])
    agree(alice, bob, erin)
    assert carol.process(made["commit"], by=bob)["removed"], "the removed member is not told"


# --- proposals by reference -----------------------------------------------------------------------


def _propose_then_commit(proposer: Peer, committer: Peer, third: Peer, newcomer: Peer) -> None:
    members = (proposer, committer, third)
    tell(proposer, members, proposer.propose(removes=[third]))
    message = committer.commit()["commit"]
    proposer.process(message, by=committer)
    assert third.process(message, by=committer)["removed"], "the removed member is not told"
    committer.process(proposer.propose(adds=[newcomer]), by=proposer)
    made = committer.commit()
    proposer.process(made["commit"], by=committer)
    newcomer.join(made["welcome"])
    agree(proposer, committer, newcomer)


@scenario
def creator_proposes_joiner_commits(a: Driver, b: Driver) -> None:
    alice, bob, carol = trio(a, b, a)
    _propose_then_commit(alice, bob, carol, Peer(b, "erin"))


@scenario
def joiner_proposes_creator_commits(a: Driver, b: Driver) -> None:
    alice, bob, carol = trio(a, b, a)
    _propose_then_commit(bob, alice, carol, Peer(b, "erin"))


@scenario
def update_proposed_by_creator(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    bob.process(alice.propose(update=True), by=alice)
    alice.process(bob.commit()["commit"], by=bob)
    agree(alice, bob)


@scenario
def update_proposed_by_joiner(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    alice.process(bob.propose(update=True), by=bob)
    bob.process(alice.commit()["commit"], by=alice)
    agree(alice, bob)


@scenario
def private_proposal_by_creator(a: Driver, b: Driver) -> None:
    alice, bob, carol = trio(a, b, a)
    tell(alice, (bob, carol), alice.propose(removes=[carol], wire="private"))
    message = bob.commit()["commit"]
    alice.process(message, by=bob)
    assert carol.process(message, by=bob)["removed"]
    agree(alice, bob)


# --- from outside ---------------------------------------------------------------------------------


def _join_from_outside(newcomer: Peer, *members: Peer) -> None:
    message = newcomer.join_external(members[0].group_info())
    for member in members:
        member.process(message, by=newcomer)
    agree(*members, newcomer)


@scenario
def outsider_of_the_joiners_side(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    _join_from_outside(Peer(b, "erin"), alice, bob)


@scenario
def outsider_of_the_creators_side(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    _join_from_outside(Peer(a, "erin"), alice, bob)


@scenario
def outsider_fills_a_blank_leaf(a: Driver, b: Driver) -> None:
    alice, bob, carol = trio(a, b, a)
    message = alice.commit(removes=[bob])["commit"]
    carol.process(message, by=alice)
    _join_from_outside(Peer(b, "erin"), carol, alice)


@scenario
def resync_of_the_joiner(a: Driver, b: Driver) -> None:
    alice, bob, carol = trio(a, b, a)
    message = bob.join_external(alice.group_info(), resync=True)
    tell(bob, (alice, carol), message)
    agree(alice, bob, carol)


@scenario
def device_replaced_by_resync(a: Driver, b: Driver) -> None:
    """What is left of the old state of a device that came back must see that it is gone."""
    alice, bob, carol = trio(a, b, a)
    old = carol.call("save")["blob"]
    message = carol.join_external(alice.group_info(), resync=True)
    tell(carol, (alice, bob), message)
    agree(alice, bob, carol)
    carol.call("load", blob=old)
    assert carol.process(message)["removed"], "the replaced device is not told"


@scenario
def external_sender_removes(a: Driver, b: Driver) -> None:
    signer = a.call("signer_new", identity="server")
    alice, bob, carol = Peer(a, "alice"), Peer(b, "bob"), Peer(b, "carol")
    gather(alice, bob, carol, group_extensions=[{"type": EXTERNAL_SENDERS, "data": signer["extension"]}])
    keys = {"pub": signer["pub"], "priv": signer["priv"]}
    info, leaf = alice.group_info(), alice.leaf_of(carol)
    proposal = a.call("external_remove", group_info=info, leaf=leaf, **keys)["msg"]
    for member in (alice, bob):
        member.process(proposal)
    alice.process(bob.commit()["commit"], by=bob)
    agree(alice, bob)
    assert leaf not in [place for place, _ in alice.call("state")["members"]]


# --- the rest of a commit -------------------------------------------------------------------------


@scenario
def creator_commits_privately(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    refresh(alice, [bob], wire="private")
    agree(alice, bob)


@scenario
def joiner_commits_privately(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    refresh(bob, [alice], wire="private")
    agree(alice, bob)


@scenario
def external_psk(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    for peer in (alice, bob):
        peer.call("psk", id="aa01", psk="55" * 32)
    refresh(alice, [bob], psks=["aa01"])
    agree(alice, bob)


@scenario
def external_psk_in_a_welcome(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    erin = Peer(b, "erin")
    for peer in (alice, bob, erin):
        peer.call("psk", id="aa02", psk="66" * 32)
    made = alice.commit(adds=[erin], psks=["aa02"])
    bob.process(made["commit"], by=alice)
    erin.join(made["welcome"])
    agree(alice, bob, erin)


@scenario
def group_context_extension_of_our_own(a: Driver, b: Driver) -> None:
    alice, bob = Peer(a, "alice", [CUSTOM_EXTENSION]), Peer(b, "bob", [CUSTOM_EXTENSION])
    gather(alice, bob)
    refresh(alice, [bob], gce=[{"type": CUSTOM_EXTENSION, "data": "c0ffee"}])
    agree(alice, bob)
    refresh(bob, [alice])
    agree(alice, bob)


@scenario
def group_context_extension_of_the_rfc(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    signer = a.call("signer_new", identity="server")
    refresh(alice, [bob], gce=[{"type": EXTERNAL_SENDERS, "data": signer["extension"]}])
    agree(alice, bob)
    refresh(bob, [alice])
    agree(alice, bob)


@scenario
def lost_commit_race(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    alice.commit(adds=[Peer(a, "zoe")], apply=False)
    message = bob.commit(adds=[Peer(b, "yan")])["commit"]
    alice.call("drop_pending")
    alice.process(message, by=bob)
    agree(alice, bob)


# --- messages -------------------------------------------------------------------------------------


@scenario
def exporter(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    for label, context in (("x", ""), ("label", "00112233")):
        arguments = {"label": label, "context": context, "length": 32}
        assert alice.call("export", **arguments) == bob.call("export", **arguments)


@scenario
def authenticated_data(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    [answer] = say(alice, [bob], aad="beef01")
    if answer["aad"] is None:
        raise CannotExpress("process: aad")
    assert answer["aad"] == "beef01"


def _out_of_order(sender: Peer, receiver: Peer) -> None:
    messages = [sender.encrypt(bytes((i,))) for i in range(6)]
    for i in (4, 0, 2, 1, 5, 3):
        assert receiver.process(messages[i], by=sender)["data"] == bytes((i,)).hex()


@scenario
def out_of_order(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    _out_of_order(alice, bob)
    _out_of_order(bob, alice)


@scenario
def late_message_of_a_past_epoch(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    messages = [(alice, bob, alice.encrypt(b"late")), (bob, alice, bob.encrypt(b"late too"))]
    bob.process(alice.commit(adds=[Peer(a, "zoe")])["commit"], by=alice)
    for (sender, receiver, message), text in zip(messages, (b"late", b"late too"), strict=True):
        assert receiver.process(message, by=sender)["data"] == text.hex()


@scenario
def save_load_then_go_on(a: Driver, b: Driver) -> None:
    alice, bob = pair(a, b)
    say(bob, [alice])
    say(alice, [bob])
    for peer in (alice, bob):
        peer.call("load", blob=peer.call("save")["blob"])
    say(bob, [alice], b"after")
    say(alice, [bob], b"after, too")
    alice.process(bob.commit(adds=[Peer(a, "zoe")])["commit"], by=bob)
    agree(alice, bob)
