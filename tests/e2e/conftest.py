"""What the journeys share: one build of the web client; a driver of browsers for each file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Playwright, sync_playwright
from serving import copy_build


@pytest.fixture(scope="session")
def built_web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built web client, as it was when the tests began."""
    return copy_build(tmp_path_factory.mktemp("web") / "dist")


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started
