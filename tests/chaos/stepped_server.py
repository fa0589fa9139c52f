"""A server whose machine's clock is put forward and back: by the seconds in the file `clock-offset` of its folder.

python stepped_server.py --folder FOLDER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from curbside import clock
from curbside.cli.main import run


class SteppedClock:
    """The machine's clock and an offset that may change at any moment."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> int:
        """Unix time in whole seconds."""
        return self.now_ms() // 1000

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        offset = int(self._file.read_text("ascii")) if self._file.exists() else 0
        return int(time.time() * 1000) + offset * 1000

    def step(self, seconds: int) -> None:
        """Put the clock off by so much; in one step."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds), "ascii")
        new.replace(self._file)


if __name__ == "__main__":
    place = Path(sys.argv[sys.argv.index("--folder") + 1])
    stepped = SteppedClock(place / "clock-offset")
    clock.SystemClock.now = lambda _: stepped.now()  # type: ignore[method-assign]
    clock.SystemClock.now_ms = lambda _: stepped.now_ms()  # type: ignore[method-assign]
    sys.exit(run(["serve", *sys.argv[1:]]))
