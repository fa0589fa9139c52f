"""What senders were told, held against what the log says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """One conversation. wanted: ids in the order they were first sent. told: sequence by id, as the server said it."""

    wanted: dict[bytes, None] = field(default_factory=dict)
    told: dict[bytes, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def sent(self, message_id: bytes) -> None:
        """A message leaves for the first time."""
        self.wanted[message_id] = None

    def stored(self, message_id: bytes, sequence: int) -> None:
        """The server said Stored."""
        before = self.told.setdefault(message_id, sequence)
        if before != sequence:
            self.faults.append(f"{message_id.hex()} was stored as {before}, then as {sequence}")

    def missing(self) -> list[bytes]:
        """What was never acknowledged."""
        return [message_id for message_id in self.wanted if message_id not in self.told]

    def snapshot(self) -> Ledger:
        """What has been told so far."""
        return Ledger(dict(self.wanted), dict(self.told), list(self.faults))

    def check(self, log: Sequence[tuple[int, bytes]], *, first: int, complete: bool) -> list[str]:
        """What is wrong with a log of (sequence, message id) from `first` on. complete: nothing may be missing."""
        faults = list(self.faults)
        numbers = [sequence for sequence, _ in log]
        if numbers != list(range(first, first + len(numbers))):
            faults.append(f"the log has gaps or repeats: {numbers[:5]}… of {len(numbers)}")
        place: dict[bytes, int] = {}
        for sequence, message_id in log:
            place.setdefault(message_id, sequence)
        counts = Counter(message_id for _, message_id in log)
        faults += [f"{m.hex()} is there {n} times" for m, n in counts.items() if n > 1]
        faults += [f"{m.hex()} was never sent" for m in place if m not in self.wanted]
        faults += [f"{m.hex()} was acknowledged as {at} and is lost" for m, at in self.told.items() if m not in place]
        faults += [
            f"{m.hex()} was acknowledged as {at} and is {place[m]}"
            for m, at in self.told.items()
            if m in place and place[m] != at
        ]
        if complete:
            faults += [f"{m.hex()} never arrived" for m in self.wanted if m not in place]
        return faults
