"""curbside doctor: check the whole installation, and say what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import click

from curbside.cli.folder_options import config_options, read_config
from curbside.cli.output import ExitCode, emit, progress_line
from curbside.clock import SystemClock
from curbside.errors import ConfigError
from curbside.server.doctor.examine import Examination, examine
from curbside.server.doctor.findings import Finding, Verdict, fail, find_worst
from curbside.server.organization import CONFIG

EXAMPLES = """\b
Examples:
  curbside doctor --folder ./ward
  curbside doctor --folder ./ward --quick --json
  curbside doctor --config /etc/curbside/curbside.toml --strict    # from a timer: 1 on warnings too
"""
_SIGNS: Final = {Verdict.OK: ("ok  ", "green"), Verdict.WARN: ("warn", "yellow"), Verdict.FAIL: ("FAIL", "red")}


@click.command("doctor", epilog=EXAMPLES)
@click.option("--quick", is_flag=True, help="Do not read the whole database and audit log.")
@click.option("--offline", is_flag=True, help="Ask nobody over the network.")
@click.option("--strict", is_flag=True, help="End with 1 on warnings too.")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def doctor(quick: bool, offline: bool, strict: bool, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Check configuration, keys, permissions, database, audit log, backups, disks, clock, certificates and the network.

    Changes nothing, and may run while the server does; run it as the server's user. Ends with 1 when something fails.
    """
    progress_line("Looking", quiet=as_json)
    try:
        config = read_config(folder, config_file)
    except ConfigError as error:
        found = [fail("configuration", f"The configuration is not usable: {error.detail}.", error.next_step)]
    else:
        file = config_file or folder / CONFIG
        found = asyncio.run(examine(Examination(config, file, is_quick=quick, is_offline=offline), SystemClock()))
    worst = find_worst(found)
    emit({"worst": worst, "findings": found}, "\n".join(map(_line, found)), as_json=as_json)
    is_bad = worst is Verdict.FAIL or (strict and worst is Verdict.WARN)
    return ExitCode.REFUSED if is_bad else ExitCode.OK


def _line(finding: Finding) -> str:
    sign, color = _SIGNS[finding.verdict]
    text = f"{click.style(sign, fg=color)}  {finding.check:<18} {finding.text}"
    return text if not finding.next_step else f"{text}\n      {'':<18} Next: {finding.next_step}"
