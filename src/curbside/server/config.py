"""The configuration: one frozen value, read once at start from a TOML file and the environment.

Every field but three has a default, and each default is the safe choice. A key that is not listed here is an error, so
that a misspelt setting cannot fall back to its default unseen. `CURBSIDE_<KEY>` overrides the file's `<key>`, and
`CURBSIDE_<TABLE>_<KEY>` a key of one of its tables (limits, audit, sessions, tls, proxy, telemetry).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError
from curbside.server.backup_settings import Backup
from curbside.server.blob_settings import BlobSettings
from curbside.server.node_settings import Bus, Drain, Signals
from curbside.server.proxy import ClientAddresses, parse_networks
from curbside.wire import limits as sizes

PREFIX: Final = "CURBSIDE_"
_DATABASE_URLS: Final = (b"postgres://", b"postgresql://")
_TABLES: Final = (
    "blobs",
    "limits",
    "audit",
    "sessions",
    "tls",
    "proxy",
    "telemetry",
    "bus",
    "signals",
    "drain",
    "backup",
)
_LISTS: Final = frozenset(
    {"public_urls", "suites", "database_key_command", "proxy_trusted", "telemetry_metrics_networks"}
)


class KeySource:
    """Where the database key comes from: a KeyFile, a KeyCommand or a KeyGiven."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class KeyFile(KeySource):
    """The database key is in a file that its owner alone can read, outside the data folder; 64 hex digits."""

    path: Path


@dataclass(frozen=True, slots=True)
class KeyCommand(KeySource):
    """The database key is what a command prints: 64 hex digits. No shell takes part."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyGiven(KeySource):
    """The database key itself, taken from an environment variable at start (or made by a test)."""

    key: SecretBytes


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rates and sizes. Rates are per second with a burst that may be spent at once."""

    sends_per_second: float = 50.0
    """Sends of one device."""
    sends_burst: int = 400
    requests_per_second: float = 20.0
    """HTTP requests of one device or, without a session, of one client address."""
    requests_burst: int = 200
    attempts_per_second: float = 1.0
    """Requests of sign-in, sign-up and invites from one client address; accounts have stricter limits."""
    attempts_burst: int = 100
    connects_per_second: float = 5.0
    """Stream connections of one client address."""
    connects_burst: int = 100
    streams: int = 20_000
    """Open streams; more are refused."""
    unproven_streams: int = 1_000
    """Open streams that have not yet proven a session."""
    handshake_seconds: float = 10.0
    """From a stream's opening to its proof."""
    head_seconds: float = 10.0
    """For the head of an HTTP request."""
    idle_seconds: float = 30.0
    """For the next part of a request's body."""
    ping_seconds: float = 20.0
    """Silence after which a stream's peer is asked whether it lives; after as much again it is hung up on."""
    pending_bytes: int = 1024 * 1024
    """Live entries that wait for one slow connection; above this they are read from the log later."""
    requests_in_flight: int = 512
    """Sends of one connection that wait for their answer; above this its frames wait."""
    cursors_per_second: float = 500.0
    """Conversations that one device names in its Sync and Acknowledge frames."""
    cursors_burst: int = 2 * sizes.CURSORS_PER_SYNC
    claims_per_second: float = 0.01
    """Claims of one person's key packages by one other person; each takes one package of each device."""
    claims_burst: int = 20
    conversations: int = sizes.CURSORS_PER_SYNC // 2
    """Conversations of one device at a time: nobody can begin more, nor be added to more than it could follow."""
    conversation_blob_bytes: int = 8 * 1024 * 1024 * 1024
    """Blobs of one conversation, incomplete ones counted whole."""
    blob_bytes: int = sizes.BLOB_BYTES
    upload_seconds: int = 24 * 3600
    """An incomplete upload that nobody continues for this long is removed."""


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files for TLS in this process; leave out behind a proxy that ends TLS."""

    certificate: Path
    key: Path


class Audit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the audit log gets a signed checkpoint, and where a copy of each goes."""

    checkpoint_seconds: int = 300
    checkpoint_events: int = 10_000
    checkpoint_file: Path | None = None
    """Each checkpoint is appended here; best on another machine's share."""


class Sessions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a session lasts, and how long without any sign of its device."""

    max_seconds: int = 12 * 3600
    idle_seconds: int = 15 * 60


class Proxy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reverse proxies of ours, whose word about a client's address is believed. None: the peer is the client."""

    trusted: tuple[str, ...] = ()
    """Addresses or networks the proxies connect from."""
    header: str = "x-forwarded-for"
    """Where they write it: x-forwarded-for, or forwarded (RFC 7239). They must replace or append, never pass it on."""
    hops: int = 1
    """How many of them a request passes."""

    def build_addresses(self) -> ClientAddresses:
        """What finds the client's address. Raises: ConfigError."""
        return ClientAddresses(self.trusted, self.header, self.hops)


class Telemetry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may read /metrics, and the OpenTelemetry collector that counts and traces are sent to, if any."""

    metrics_networks: tuple[str, ...] = ("127.0.0.0/8", "::1")
    """Clients that may read /metrics. One of this machine must come without a proxy between."""
    metrics_token_file: Path | None = None
    """A file whose first line they must show as well, as `Authorization: Bearer …`."""
    endpoint: str = ""
    """OTLP over HTTP, such as http://127.0.0.1:4318; "" sends nothing. Needs the packages of requirements/otlp.txt."""
    token_file: Path | None = None
    """A file whose first line is shown to the collector as a bearer token."""
    trace_ratio: float = 0.05
    """Part of requests that are traced; those that a trusted proxy traces are traced or not as it says."""
    export_seconds: int = 30
    """Between two sendings of counts."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. public_urls: the origins under which clients reach this server, the canonical one first."""

    data_folder: Path
    public_urls: tuple[str, ...]
    database_key: KeySource
    database_url: SecretBytes | None = None
    """postgres://… of a PostgreSQL database; None: an encrypted SQLite file in the data folder."""
    host: str = "127.0.0.1"
    port: int = 8443
    tls: Tls | None = None
    authority_certificate: Path | None = None
    """DER; None: `authority.der` in the data folder."""
    blobs_folder: Path | None = None
    """None: `blobs` in the data folder."""
    static_folder: Path | None = None
    """The built web client; None serves none."""
    suites: tuple[int, ...] = (1,)
    """MLS cipher suites a conversation may use."""
    metrics: bool = False
    """Serve /metrics, to the clients that [telemetry] allows; by default those on this machine."""
    log_level: str = "info"
    limits: Limits = msgspec.field(default_factory=Limits)
    sessions: Sessions = msgspec.field(default_factory=Sessions)
    audit: Audit = msgspec.field(default_factory=Audit)
    blobs: BlobSettings = msgspec.field(default_factory=BlobSettings)
    backup: Backup = msgspec.field(default_factory=Backup)
    bus: Bus = msgspec.field(default_factory=Bus)
    signals: Signals = msgspec.field(default_factory=Signals)
    drain: Drain = msgspec.field(default_factory=Drain)
    proxy: Proxy = msgspec.field(default_factory=Proxy)
    telemetry: Telemetry = msgspec.field(default_factory=Telemetry)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def database_path(self) -> Path:
        """The encrypted database's file, unless there is a `database_url`."""
        return self.data_folder / "curbside.db"

    @property
    def authority_path(self) -> Path:
        """The organisation authority's certificate, DER."""
        return self.authority_certificate or self.data_folder / "authority.der"

    @property
    def blobs_path(self) -> Path:
        """The folder of attachments' ciphertexts."""
        return self.blobs_folder or self.data_folder / "blobs"

    @property
    def is_https(self) -> bool:
        """Whether the canonical origin is served under TLS, here or by a proxy."""
        return self.public_urls[0].startswith("https://")


def load_config(path: Path | None, environment: Mapping[str, str]) -> Config:
    """The configuration of a TOML file (None: no file) and of the environment's CURBSIDE_ variables.

    Raises: ConfigError naming the setting.
    """
    settings = _read_file(path) if path is not None else {}
    _apply_environment(settings, environment)
    source = _take_key_source(settings, environment)
    if "data_folder" not in settings or "public_urls" not in settings:
        raise ConfigError("data_folder and public_urls must be set")
    try:
        return msgspec.convert({**settings, "database_key": source}, Config, strict=False, dec_hook=_decode_special)
    except msgspec.ValidationError as error:
        raise ConfigError(f"configuration: {error}") from error


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the configuration file cannot be read: {error}") from error


def _apply_environment(settings: dict[str, Any], environment: Mapping[str, str]) -> None:
    named_by_setting = environment.get(PREFIX + "DATABASE_KEY_VARIABLE", settings.get("database_key_variable"))
    for variable, value in environment.items():
        if not variable.startswith(PREFIX) or variable in (named_by_setting, PREFIX + "CONFIG"):
            continue
        name = variable.removeprefix(PREFIX)
        key = name.lower()
        table, _, rest = key.partition("_")
        if table in _TABLES and rest and key not in Config.__struct_fields__:
            settings.setdefault(table, {})[rest] = value.split() if key in _LISTS else value
        else:
            settings[key] = value.split() if key in _LISTS else value


def _take_key_source(settings: dict[str, Any], environment: Mapping[str, str]) -> KeySource:
    names = ("database_key_file", "database_key_variable", "database_key_command")
    given = {name: settings.pop(name) for name in names if name in settings}
    if len(given) != 1 or "database_key" in settings:
        raise ConfigError(f"exactly one of {', '.join(names)} must be set")
    match given:
        case {"database_key_file": str(path)}:
            return KeyFile(Path(path))
        case {"database_key_variable": str(variable)}:
            return KeyGiven(parse_key(environment.get(variable, ""), f"variable {variable}"))
        case {"database_key_command": [str(), *_] as command} if all(isinstance(word, str) for word in command):
            return KeyCommand(tuple(command))
    raise ConfigError(f"{next(iter(given))} has the wrong form")


def parse_key(text: str, origin: str) -> SecretBytes:
    """A database key of 64 hex digits. origin: where it came from, for the message.

    Raises: ConfigError, without any part of the key.
    """
    digits = text.strip()
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        raw = b""
    if len(raw) != 32 or len(digits) != 64:
        raise ConfigError(f"the database key from {origin} is not 64 hex digits")
    return SecretBytes(raw)


def _decode_special(wanted: type, value: Any) -> Any:
    if wanted is Path:
        return Path(value).expanduser()
    if wanted is SecretBytes and isinstance(value, str):
        return SecretBytes(value.encode())
    if isinstance(value, KeySource):
        return value
    raise ConfigError(f"configuration: {wanted.__name__} is not a setting's type")


def _check(config: Config) -> None:
    if not config.public_urls:
        raise ConfigError("public_urls must name at least one origin")
    for url in config.public_urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or url != f"{parts.scheme}://{parts.netloc}":
            raise ConfigError(f"public_urls: {url} is not an origin such as https://curbside.example.org")
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ConfigError(f"public_urls: {url} must be https; plain http is for this machine only")
    if not 0 <= config.port <= 65535:
        raise ConfigError("port must be between 0 and 65535")
    if not config.suites or not set(config.suites) <= {1, 2}:
        raise ConfigError("suites may hold 1 and 2")
    if config.log_level not in ("debug", "info", "warning", "error"):
        raise ConfigError("log_level must be debug, info, warning or error")
    if config.database_url is not None and not config.database_url.reveal().startswith(_DATABASE_URLS):
        raise ConfigError("database_url must start with postgres://")
    _check_front(config)
    _check_nodes(config)
    if isinstance(config.database_key, KeyFile):
        key, data = config.database_key.path.resolve(), config.data_folder.resolve()
        if key.is_relative_to(data) or key.is_relative_to(config.blobs_path.resolve()):
            raise ConfigError("the database key must not lie in the data folder: a copy of the folder would hold both")


def _check_nodes(config: Config) -> None:
    """Settings of a server that is one of several."""
    config.bus.check()
    if not config.bus.is_shared:
        return
    if config.database_url is None:
        raise ConfigError("bus: several servers need a PostgreSQL database; set database_url")
    if config.blobs_folder is None and not config.blobs.is_s3:
        raise ConfigError(
            "bus: several servers need attachments where all of them see them; set blobs_folder to a folder that they"
            " share, or blobs.bucket"
        )


def _check_front(config: Config) -> None:
    """Settings of proxies and telemetry that their types cannot check."""
    config.proxy.build_addresses()
    parse_networks(config.telemetry.metrics_networks, "telemetry.metrics_networks")
    endpoint = urlsplit(config.telemetry.endpoint)
    if config.telemetry.endpoint and (endpoint.scheme not in ("http", "https") or not endpoint.hostname):
        raise ConfigError("telemetry.endpoint must be an address such as http://127.0.0.1:4318")
    if endpoint.username or endpoint.password:
        raise ConfigError("telemetry.endpoint must not hold a password; use telemetry.token_file")
    if not 0 <= config.telemetry.trace_ratio <= 1 or config.telemetry.export_seconds < 1:
        raise ConfigError("telemetry.trace_ratio must be between 0 and 1, and telemetry.export_seconds 1 or more")
