"""Our MLS core against ts-mls (the browser's), mls-rs and itself, over unchanged wire bytes, in both directions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .driver import CURBSIDE, MLS_RS, TS_MLS, CannotExpress, Driver
from .limits import CANNOT_EXPRESS
from .scenarios import SCENARIOS
from .walk import Walk

PAIRS = [(CURBSIDE, TS_MLS), (TS_MLS, CURBSIDE), (CURBSIDE, MLS_RS), (MLS_RS, CURBSIDE), (CURBSIDE, CURBSIDE)]
CASES = [(name, *pair) for name in SCENARIOS for pair in PAIRS]
WORKING = [case for case in CASES if case not in CANNOT_EXPRESS]
STEPS = 60


@pytest.mark.parametrize(("name", "a", "b"), WORKING)
def test_scenario(driver: Callable[[str], Driver], name: str, a: str, b: str) -> None:
    SCENARIOS[name](driver(a), driver(b))


@pytest.mark.parametrize("case", CANNOT_EXPRESS, ids="-".join)
def test_what_an_api_cannot_express(driver: Callable[[str], Driver], case: tuple[str, str, str]) -> None:
    """Fails when a listed scenario starts to work, or stops for another reason than the one in the table."""
    name, a, b = case
    with pytest.raises(CannotExpress) as missing:
        SCENARIOS[name](driver(a), driver(b))
    assert str(missing.value) == CANNOT_EXPRESS[case]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_random_walk(driver: Callable[[str], Driver], a: str, b: str, seed: int) -> None:
    walk = Walk(driver(a), driver(b), seed)
    for step in range(STEPS):
        walk.step()
        if step % 10 == 9:
            walk.finish()
    assert len(walk.done) >= 6, walk.done


def test_the_tables_name_existing_cases_once_and_never_ours_alone() -> None:
    listed = list(CANNOT_EXPRESS)
    assert set(listed) <= set(CASES)
    assert len(set(listed)) == len(listed)
    assert not [case for case in listed if case[1] == case[2] == CURBSIDE]
    assert len(WORKING) > 4 * len(listed)
