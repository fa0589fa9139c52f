"""A test that is marked with a check must have seen exactly that check refuse something."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .people import OBSERVED

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "breaks(check): the id of the check that this test's input breaks")


@pytest.fixture(autouse=True)
def watch_checks(request: pytest.FixtureRequest) -> Iterator[None]:
    OBSERVED.clear()
    yield
    wanted = {marker.args[0] for marker in request.node.iter_markers("breaks")}
    assert not wanted or wanted == OBSERVED, f"marked with {sorted(wanted)}, saw {sorted(OBSERVED)}"
