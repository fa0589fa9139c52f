"""Drivers are started once per session, each when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .driver import Driver, start


@pytest.fixture(scope="session")
def driver() -> Iterator[Callable[[str], Driver]]:
    running: dict[str, Driver] = {}

    def get(name: str) -> Driver:
        if name not in running:
            running[name] = start(name)
        return running[name]

    yield get
    for process in running.values():
        process.close()
