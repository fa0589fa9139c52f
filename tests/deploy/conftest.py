"""What the deployment files are tried with: a real server, a certificate, and a real proxy in front."""

from __future__ import annotations

from pathlib import Path

import pytest
from self_signed import Certificate, make_certificate


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)
