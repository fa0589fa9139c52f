"""The table of budgets with what was measured, as a page of the documentation and a picture.

    python -m bench --publish                   measures, then writes docs/budgets.{json,md,svg}, docs/scale.md
    python -m bench.budgets FILE.json …         writes them from figures that were measured before; works that are in no
                                                file stay as they are in docs

The peers' figures were measured with another load generator that does the same works, on the same kind of machine (two
cores, server and database on one of them) on another day. They say where others stand; only what stands in one run may
be divided.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import scale
from bench.plot import Bar, draw_bars
from bench.target import BACKENDS, CLUSTER, DURABILITY, EMBEDDED, POSTGRES, RELAY

DOCS = Path(__file__).resolve().parent.parent / "docs"
NAME = "budgets"
PEERS = ("Synapse, PostgreSQL", "Prosody, SQLite", "ejabberd, PostgreSQL", "NATS JetStream, fsync")
NOISY_PERCENT = 20.0
_NONE = "–"


@dataclass(frozen=True)
class Row:
    """A line of the table. name: of the figure. peers: what they came to, in the order of PEERS."""

    label: str
    work: str
    name: str
    budget: str
    peers: tuple[str, ...] = ("", "", "", "")


ROWS = (
    Row("w1, 100 pairs, k=1, messages/s", "sends", "100 pairs, k=1: acknowledged and delivered", "≥ 5,000",
        ("25", "498", "752", "822")),
    Row("w1, k=4, messages/s", "sends", "100 pairs, k=4: acknowledged and delivered", "≥ 8,000, aim 10,000",
        ("", "431", "611", "1,055")),
    Row("w2, group of 50, k=4, deliveries/s", "group", "group of 50, k=4: deliveries", "≥ 35,000",
        ("97", "2,980", "5,547", "17,843")),
    Row("w3, 200 messages/s, p50, ms", "steady", "200 msg/s: p50", "≤ 2", ("68 at 10/s", "2.6", "2.7", "1.5")),
    Row("w3, p99, ms", "steady", "200 msg/s: p99", "≤ 10", ("115 at 10/s", "53", "69", "6.4")),
    Row("w4, 10,000 missed messages, s", "catch-up", "10,000 messages in 100 conversations: from connect to the last",
        "≤ 0.4", ("", "4.27", "1.82", "0.09")),
    Row("w5, start to first answer, s", "idle", "from start to the first answer", "≤ 1",
        ("2.7", "0.12", "2.0", "0.04")),
    Row("w5, KiB of an idle connection", "idle", "memory of each idle connection", "≤ 30",
        ("60", "59", "41", "87")),
    Row("w6, acknowledged and lost, 3 × kill -9", "crash", "acknowledged, then missing after 3 kills", "0",
        ("0", "0", "5–11 of 3,100", "0")),
    Row("w6, doubled or out of order", "crash", "doubled or out of order", "0"),
)  # fmt: skip


class Results:
    """Figures of a JSON file."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.machine: dict[str, Any] = body["machine"]
        self.figures: list[dict[str, Any]] = body["figures"]

    def find(self, work: str, name: str, backend: str) -> dict[str, Any] | None:
        """One figure."""
        for each in self.figures:
            if (each["work"], each["name"], each["backend"]) == (work, name, backend):
                return each
        return None

    def value(self, row: Row, backend: str) -> float | None:
        """The median; of the relay, that of the reference beside the embedded backend."""
        found = self.find(row.work, row.name, EMBEDDED if backend == RELAY else backend)
        if found is None:
            return None
        if backend == RELAY:
            return statistics.median_low(found["reference"]) if found["reference"] else None
        return float(found["median"])


def render(results: Results) -> str:
    """The page."""
    machine = results.machine
    lines = [
        "# Budgets",
        "",
        "Written by `python -m bench --publish`; do not edit. What each work is, what is held constant and where the",
        "limits are: [bench/README.md](../bench/README.md). All figures, every run: [budgets.json](budgets.json).",
        "",
        f"Measured with {machine['cores']} cores and Python {machine['python']}.",
        "Server and database on one core, the load generator on another. The budget is the embedded backend's.",
        "",
        *_table(results),
        "",
        "Peers: medians of the same works on the same kind of machine, measured on another day by another load",
        "generator. The relay (`bench/relay.py`) was measured beside ours in this run: same frames, one fsync for all",
        "that waits, no log-in, no rights, no audit, no encryption at rest. It is the room that Python leaves.",
        "",
        f"![What each backend did, by work]({NAME}.svg)",
        "",
        "## Costs and quality of the measurement",
        "",
        *_quality(results),
        "",
        *_dates(results),
        "",
        "## What an acknowledgement is worth",
        "",
        *(f"- **{name}**: {DURABILITY[name]}." for name in BACKENDS),
        "",
        "w6 kills every process of a backend, its database too. What the kernel has survives that; for a power cut it",
        "is the fsync before the acknowledgement that counts, and that is the same code.",
        "",
        "## MLS core, SDK, restore, growth",
        "",
        *_others(results),
        "",
    ]
    return "\n".join(lines)


def _table(results: Results) -> Iterator[str]:
    heads = ["work", *PEERS, "bare relay", *(f"**{name}**" for name in (EMBEDDED, POSTGRES, CLUSTER)), "budget", ""]
    yield _line(heads)
    yield _line(["---", *["--:"] * (len(heads) - 1)])
    for row in ROWS:
        ours = results.find(row.work, row.name, EMBEDDED)
        kept = None if ours is None else ours["kept"]
        verdict = {True: "kept", False: "**missed**", None: "not measured"}[kept]
        values = [_write(results.value(row, name)) for name in BACKENDS]
        yield _line([row.label, *(each or _NONE for each in row.peers), *values, row.budget, verdict])


def _quality(results: Results) -> Iterator[str]:
    names = ("processor time of the server", "the load generator's core in use", "the server's core used by others")
    yield _line(
        ["work", "backend", "server, µs a message", "load generator's core, %", "others on the server's core, %"]
    )
    yield _line(["---", "---", "--:", "--:", "--:"])
    noisy = False
    for each in results.figures:
        prefix, _, what = each["name"].rpartition(": ")
        if what != names[0]:
            continue
        cells = [results.find(each["work"], f"{prefix}: {name}", each["backend"]) for name in names]
        values = [None if cell is None else float(cell["median"]) for cell in cells]
        noisy |= (values[2] or 0.0) > NOISY_PERCENT
        yield _line([f"{each['work']}, {prefix}", each["backend"], *map(_write, values)])
    yield ""
    if noisy:
        yield "**Others used more than a fifth of the server's core in some runs: there, rates are too low and times"
        yield "too long.**"
    else:
        yield "Others left the server's core alone: at most a fifth of it, in every run that counts."


def _dates(results: Results) -> Iterator[str]:
    """When each work was measured, works of one time together."""
    works: dict[str, list[str]] = {}
    for each in results.figures:
        named = works.setdefault(each["when"], [])
        if each["work"] not in named:
            named.append(each["work"])
    for when, named in works.items():
        yield f"- {', '.join(named)}: {when} at the end"


def _others(results: Results) -> Iterator[str]:
    yield _line(["work", "figure", "median", "unit", "budget", ""])
    yield _line(["---", "---", "--:", "---", "--:", "---"])
    for each in results.figures:
        if each["work"] in ("mls", "client", "restore", "growth"):
            budget = "" if each["budget"] is None else f"≤ {_write(each['budget'])}"
            verdict = {True: "kept", False: "**missed**", None: ""}[each["kept"]]
            name = " ".join(part for part in (each["backend"], each["name"]) if part)
            yield _line([each["work"], name, _write(each["median"]), each["unit"], budget, verdict])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _write(value: float | None) -> str:
    if value is None:
        return _NONE
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def draw(results: Results) -> str:
    """The picture: what each backend did, row by row, on one logarithmic scale for each row."""
    groups = []
    for row in ROWS:
        if row.work != "crash":
            bars = [Bar(name, value) for name in BACKENDS if (value := results.value(row, name))]
            groups.append((f"{row.label} ({row.budget})", bars))
    return draw_bars("Measured by work; the budget in brackets", groups)


def write_table(source: Path) -> str:
    """The table of budgets, "" when nothing in it was measured."""
    results = Results(json.loads(source.read_text("utf-8")))
    is_measured = any(results.find(row.work, row.name, name) for row in ROWS for name in (EMBEDDED, POSTGRES, CLUSTER))
    return "\n".join(_table(results)) if is_measured else ""


def publish(*sources: Path) -> None:
    """Write pages, picture and figures into docs. A work that is in several sources counts as in the last one; one that
    is in none stays as it stood in docs."""
    former = DOCS / f"{NAME}.json"
    chosen: dict[str, list[dict[str, Any]]] = {}
    for source in (*([former] if former.exists() else []), *sources):
        body = json.loads(source.read_text("utf-8"))
        machine, measured = body["machine"], {}
        for each in body["figures"]:
            when = f"{machine['when']}, commit {machine['commit']}, load average {machine['load']:.1f}"
            measured.setdefault(each["work"], []).append({**each, "when": each.get("when", when)})
        chosen |= measured
    body = {"machine": machine, "figures": [each for figures in chosen.values() for each in figures]}
    results, page = Results(body), DOCS / "scale.md"
    former.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (DOCS / f"{NAME}.md").write_text(render(results), "utf-8")
    (DOCS / f"{NAME}.svg").write_text(draw(results), "utf-8")
    page.write_text(scale.replace(page.read_text("utf-8"), results.figures), "utf-8")


if __name__ == "__main__":
    publish(*(Path(argument) for argument in sys.argv[1:]))
