"""One cluster of two nodes for all tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    shared_cluster.settle()
    return shared_cluster


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """For a cluster of the test's own, which it may break."""
    return tmp_path / "own"
