"""How a test says which check it breaks. tools/checks_table.py reads it from the source for docs/checks.md."""

from __future__ import annotations

import pytest

from curbside.mls.checks import Check


def breaks(check: Check) -> pytest.MarkDecorator:
    """Marks a test that makes input which breaks this check and no other; conftest.py looks that it did."""
    return pytest.mark.breaks(check.value)
