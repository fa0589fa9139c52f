"""EVIL: answers of a server that make no sense. The device says so, and is there again as soon as they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evil import Evil
from ward import Ward, sees

from curbside.wire import frames


async def test_a_refusal_that_makes_no_sense_ends_nothing_for_good(tmp_path: Path) -> None:
    evil = Evil()
    async with Ward.new(tmp_path / "ward", evil.middleman) as ward:
        for name in ("alice", "bob"):
            await ward.sign_up(name)
        alice, bob = await ward.open_all(("alice", "bob"))
        conversation = await alice.start_conversation([bob.user_id])

        def refuse(who: str, frame: Any) -> list[Any]:
            if who != "alice" or not isinstance(frame, frames.Stored):
                return [frame]
            members: dict[str, Any] = {"retry_after": "soon"}
            return [frames.Refused(item.request, "too_many", "", members) for item in frame.items]

        evil.down = refuse
        await alice.send_text(conversation, "give 5 mg")
        await sees(bob, conversation, "give 5 mg")
        evil.be_honest()
        await bob.send_text(conversation, "given")
        await sees(alice, conversation, "given")
        assert [m.delivery in ("sent", "delivered") for m in alice.messages(conversation) if m.is_mine] == [True]
