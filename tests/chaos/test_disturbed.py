"""A line that is cut, a disk that is slow, a clock that jumps, a server that is drained: under load, again and again.

CHAOS_KILLS says how often, CHAOS_SEED at which moments.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from lines import Line
from serving_process import SERVE, ServingProcess
from stepped_server import SteppedClock
from trial import KILLS, run_trial

SLOW = (str(Path(__file__).with_name("slow_server.py")),)
STEPPED = (str(Path(__file__).with_name("stepped_server.py")),)
MINUTE = 60


@contextmanager
def serving(folder: Path, serve: tuple[str, ...] = SERVE, line: Line | None = None) -> Iterator[ServingProcess]:
    """A server that runs."""
    with closing(ServingProcess(folder, serve, line)) as server:
        server.start()
        yield server


async def test_a_line_that_is_cut_in_the_middle_of_anything(tmp_path: Path) -> None:
    with closing(Line()) as line, serving(tmp_path / "ward", line=line) as server:

        async def cut(dice: random.Random) -> None:
            await asyncio.sleep(dice.random() * 0.3)
            line.cut()
            await asyncio.sleep(dice.random() * 0.3)
            line.mend()

        await run_trial(server, cut)
        assert len(line.overheard) > KILLS, "people came back after each cut"


async def test_kills_while_the_disk_is_slow(tmp_path: Path) -> None:
    with serving(tmp_path / "ward", SLOW) as server:

        async def kill(dice: random.Random) -> None:
            await asyncio.sleep(dice.random() * 0.8)
            server.kill()
            await asyncio.to_thread(server.start)

        await run_trial(server, kill)
        assert server.kills == KILLS


async def test_a_clock_that_is_put_forward_and_back(tmp_path: Path) -> None:
    """By minutes; the people's clocks go with it, so that their proofs stay good."""
    with serving(tmp_path / "ward", STEPPED) as server:
        server.clock = clock = SteppedClock(server.folder / "clock-offset")
        steps = []

        async def step(dice: random.Random) -> None:
            steps.append(dice.randint(-10 * MINUTE, 10 * MINUTE))
            clock.step(steps[-1])

        await run_trial(server, step)
        assert min(steps) < 0 < max(steps)


async def test_a_server_that_is_drained_and_comes_back(tmp_path: Path) -> None:
    with serving(tmp_path / "ward") as server:

        async def drain(dice: random.Random) -> None:
            await asyncio.sleep(dice.random() * 0.3)
            assert await asyncio.to_thread(server.stop) == 0
            await asyncio.to_thread(server.start)

        load = await run_trial(server, drain)
        assert {closing.code for sender in load.senders for closing in sender.closings} <= {"draining"}
