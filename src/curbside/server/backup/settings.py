"""What of a configuration a cold start needs: settings that are neither secret nor of one machine, as TOML."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from curbside.crypto.secret import SecretBytes
from curbside.errors import BackupRefused
from curbside.server.config import Config
from curbside.server.organization import AUTHORITY_CERTIFICATE, CHECKPOINTS, DATA, DATABASE_KEY

_PLAIN: Final = ("public_urls", "host", "port", "suites", "metrics", "log_level")
_TABLES: Final = ("limits", "sessions", "audit", "proxy", "drain")


def describe_settings(config: Config) -> str:
    """Lines of TOML; only what differs from the default, paths and secrets left out. Tables come last."""
    found = msgspec.structs.asdict(config)
    defaults = {field.name: field.default for field in msgspec.structs.fields(Config)}
    lines = [f"{name} = {_show(found[name])}" for name in _PLAIN if found[name] != defaults[name]]
    for table in _TABLES:
        values = msgspec.structs.asdict(found[table])
        usual = msgspec.structs.asdict(type(found[table])())
        differing = {
            name: value
            for name, value in values.items()
            if isinstance(value, bool | int | float | str | tuple) and value != usual[name]
        }
        if differing:
            lines += ["", f"[{table}]", *(f"{name} = {_show(value)}" for name, value in differing.items())]
    return "\n".join(lines) + "\n"


def _show(value: object) -> str:
    """TOML's basic strings, numbers, truth values and arrays of them look as in JSON."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def build_config(settings: str, folder: Path, database_url: SecretBytes | None) -> str:
    """The configuration of a restored organisation. settings: what `describe_settings` wrote.

    Raises: BackupRefused when the settings are no TOML of ours.
    """
    try:
        told = tomllib.loads(settings)
    except tomllib.TOMLDecodeError as error:
        raise BackupRefused("the settings in the backup cannot be read") from error
    plain = {name: value for name, value in told.items() if not isinstance(value, dict)}
    plain |= {
        "data_folder": str(folder / DATA),
        "database_key_file": str(folder / DATABASE_KEY),
        "authority_certificate": str(folder / AUTHORITY_CERTIFICATE),
    }
    if database_url is not None:
        plain["database_url"] = database_url.reveal().decode()
    tables = {name: value for name, value in told.items() if isinstance(value, dict)}
    tables["audit"] = tables.get("audit", {}) | {"checkpoint_file": str(folder / CHECKPOINTS)}
    lines = ["# Made by a restore. Settings that are not here have the safe default. Check: curbside serve --check"]
    lines += [f"{name} = {_show(value)}" for name, value in plain.items()]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(f"{name} = {_show(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"
