"""Who may read /metrics: counts name nobody, and still tell how busy a hospital is."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from curbside.crypto.kdf import is_same
from curbside.errors import ConfigError, Malformed
from curbside.server.config import Config
from curbside.server.origins import find_header
from curbside.server.proxy import ClientAddresses, is_spoken_for, is_within, parse_networks

TOKEN_CHARS: Final = 16
_SCHEME: Final = "Bearer "


class MetricsAccess:
    """Decides by the client's address and, if one is set, a token.

    [Note: a proxy on this machine] Whatever such a proxy hands on comes from a loopback address. So a client of a
    loopback address must also call this server by a loopback name, without any sign of a proxy between.
    """

    def __init__(self, config: Config, addresses: ClientAddresses) -> None:
        """Raises: ConfigError when the token file cannot be read."""
        settings = config.telemetry
        self._is_on = config.metrics
        self._addresses = addresses
        self._networks = parse_networks(settings.metrics_networks, "telemetry.metrics_networks")
        file = settings.metrics_token_file
        self._token = read_token(file, "telemetry.metrics_token_file") if file is not None else b""

    def is_allowed(self, scope: Mapping[str, Any]) -> bool:
        """Whether the request may read the counts."""
        client = self._addresses.find_client(scope)
        if not self._is_on or client is None or not is_within(client, self._networks):
            return False
        if client.is_loopback and not _is_of_this_machine(scope):
            return False
        return not self._token or self._shows_token(scope)

    def _shows_token(self, scope: Mapping[str, Any]) -> bool:
        try:
            shown = find_header(scope, b"authorization") or ""
        except Malformed:
            return False
        return shown.startswith(_SCHEME) and is_same(shown[len(_SCHEME) :].encode("latin-1"), self._token)


def read_token(path: Path, setting: str) -> bytes:
    """The first line of a file.

    Raises: ConfigError, without any part of the token.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{setting} cannot be read: {error.strerror}") from error
    token = lines[0].strip() if lines else b""
    if len(token) < TOKEN_CHARS or not token.isascii() or not token.decode("ascii").isprintable():
        raise ConfigError(f"{setting}: its first line is not a token of {TOKEN_CHARS} characters or more")
    return token


def _is_of_this_machine(scope: Mapping[str, Any]) -> bool:
    try:
        host = find_header(scope, b"host") or ""
    except Malformed:
        return False
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return not is_spoken_for(scope) and (name == "localhost" or _is_loopback(name.strip("[]")))


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
