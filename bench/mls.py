"""Speed of the MLS core, without vault, network or server. Times in milliseconds, each the lower median of its runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bench.figures import Figure
from bench.plan import Plan
from curbside.crypto.sign import generate_signature_key
from curbside.mls.group import CommitRequest, Group, GroupSettings, KeyPackageSecrets, OwnLeaf, make_key_package
from curbside.mls.nodes import Credential
from curbside.mls.public import PublicGroup
from curbside.mls.trust import UnsafeAcceptAll

NOW = 1_800_000_000
DAY = 24 * 3600
TRUST = UnsafeAcceptAll()
BUDGETS: dict[str, dict[str, float]] = {
    "message_encrypt_and_decrypt": {"100": 0.8, "1000": 0.8},
    "process_worst_commit": {"100": 10, "1000": 60},
    "join": {"100": 60},
}


def own(name: str) -> OwnLeaf:
    """A leaf with a fresh key."""
    return OwnLeaf(Credential.basic(name.encode()), generate_signature_key("ed25519"))


def package(name: str) -> KeyPackageSecrets:
    """A KeyPackage of a new client."""
    return make_key_package(own(name), 1, (NOW - DAY, NOW + 80 * DAY))


def timed(work: Callable[[], object], times: int) -> float:
    """The lower median of several runs, in milliseconds."""
    spans = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        spans.append((time.perf_counter() - start) * 1000)
    return statistics.median_low(spans)


def measure(size: int, times: int) -> dict[str, float]:
    """All figures for a group of one size; after adding everybody at once the tree is blank, the worst case."""
    alice = Group.create(b"bench", own("alice"), 1, (), GroupSettings(), TRUST, NOW)
    packages = [package(f"member {number}") for number in range(size - 1)]
    request = CommitRequest(adds=tuple(p.public for p in packages), update=False)
    start = time.perf_counter()
    staged = alice.stage_commit(request, NOW)
    found = {"add_all_in_one_commit": (time.perf_counter() - start) * 1000}
    alice.commit_accepted(staged)
    welcome = staged.welcome or b""
    found["join"] = timed(lambda: Group.join(welcome, [packages[0]], TRUST, NOW), max(1, times // 5))
    bob = Group.join(welcome, [packages[0]], TRUST, NOW)
    found["make_worst_commit"] = timed(lambda: alice.stage_commit(CommitRequest(), NOW), 1)
    staged = alice.stage_commit(CommitRequest(), NOW)
    saved, spans = bob.save(), []
    for _ in range(max(3, times // 5)):
        bob = Group.load(saved, TRUST)
        bob.ratchet_tree(), bob._state.current.public.tree.tree_hash()
        start = time.perf_counter()
        bob.receive(staged.commit, NOW)
        spans.append((time.perf_counter() - start) * 1000)
    found["process_worst_commit"] = statistics.median_low(spans)
    server = PublicGroup.from_group_info(alice.group_info(), TRUST, NOW)
    found["server_check_worst_commit"] = timed(lambda: server.check_commit(staged.commit, NOW), max(3, times // 5))
    alice.commit_accepted(staged)
    data, spans = bytes(256), []
    for _ in range(times * 20):
        start = time.perf_counter()
        bob.receive(alice.encrypt(data), NOW)
        spans.append((time.perf_counter() - start) * 1000)
    found["message_encrypt_and_decrypt"] = statistics.median_low(spans)
    found["save"] = timed(bob.save, times)
    blob = bob.save()
    found["load"] = timed(lambda: Group.load(blob, TRUST), times)
    found["saved_kilobytes"] = len(blob) / 1000
    return {name: round(value, 3) for name, value in found.items()}


async def measure_figures(plan: Plan) -> list[Figure]:
    """Encrypt, decrypt, commit, join, save and load in groups of several sizes."""
    found = []
    for size in (10,) if plan.is_quick else (10, 100, 1000):
        for name, value in measure(size, 3 if plan.is_quick else 15).items():
            unit = "kB" if name == "saved_kilobytes" else "ms"
            budget = None if plan.is_quick else BUDGETS.get(name, {}).get(str(size))
            found.append(Figure("mls", f"{name.replace('_', ' ')}, {size:,} members", unit, [value], (), budget))
    return found
