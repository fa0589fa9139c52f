"""A real server for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from running import Person, Running


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    server = Running(tmp_path).start()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def alice(running: Running) -> AsyncIterator[Person]:
    person = await Person.join(running, "Alice Ang")
    yield person
    await person.close()


@pytest_asyncio.fixture
async def bob(running: Running) -> AsyncIterator[Person]:
    person = await Person.join(running, "Bob Berg")
    yield person
    await person.close()
