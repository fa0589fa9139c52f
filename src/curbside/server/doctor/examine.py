"""The whole examination, in the order in which things depend on one another."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curbside.clock import Clock
from curbside.server.config import Config
from curbside.server.doctor.files import check_files
from curbside.server.doctor.findings import Finding, Verdict, ok
from curbside.server.doctor.network import check_network
from curbside.server.doctor.stored import check_stored

EARLIEST = 1_790_000_000
"""Before this (September 2026) no machine runs this program with the right time."""


@dataclass(frozen=True, slots=True)
class Examination:
    """config_file: looked at too, if it is known. is_quick: does not read everything that is stored. is_offline: asks
    nobody over the network. make_tls: what to trust."""

    config: Config
    config_file: Path | None
    is_quick: bool = False
    is_offline: bool = False
    make_tls: Callable[[], ssl.SSLContext] = ssl.create_default_context


async def examine(what: Examination, clock: Clock) -> list[Finding]:
    """Everything that there is to find. Changes nothing."""
    found = [ok("configuration", "The configuration can be read."), *check_files(what.config, what.config_file, clock)]
    if clock.now() < EARLIEST:
        found.append(Finding("clock", Verdict.FAIL, "This machine's clock is years behind.", "Set it by NTP."))
    if all(finding.verdict is not Verdict.FAIL for finding in found if finding.check == "keys.database"):
        found += await check_stored(what.config, clock, is_quick=what.is_quick)
    if not what.is_offline:
        found += await check_network(what.config, clock, what.make_tls)
    return found
