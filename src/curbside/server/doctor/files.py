"""What lies on this machine: configuration, keys, permissions, room on disks, certificates."""

from __future__ import annotations

import os
import resource
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from curbside.clock import Clock
from curbside.crypto.tls_certificate import parse_tls_certificate
from curbside.errors import ConfigError, Malformed, UntrustedDevice
from curbside.policy.chain import parse_authority
from curbside.server.config import Config, KeyFile
from curbside.server.database_key import load_database_key
from curbside.server.doctor.findings import Finding, fail, ok, warn

LEAST_FREE_BYTES: Final = 1 << 30
FREE_SHARE: Final = 0.10
SOON_SECONDS: Final = 21 * 86400
_DAY: Final = 86400
_SPARE_FILES: Final = 500
"""Files that a server has open besides its streams."""


def check_files(config: Config, config_file: Path | None, clock: Clock) -> Iterator[Finding]:
    """All looks at this machine's files."""
    yield check_database_key(config)
    yield check_authority(config, clock)
    yield from check_permissions(config, config_file)
    yield from check_room(config)
    yield check_open_files(config)
    yield from check_certificate(config, clock)
    yield from check_web_client(config)


def check_database_key(config: Config) -> Finding:
    """Whether the database key can be had, and lies where only its owner reads it."""
    try:
        load_database_key(config.database_key)
    except ConfigError as error:
        return fail("keys.database", f"The database key cannot be used: {error.detail}.", "Put it right: nothing runs.")
    where = config.database_key.path if isinstance(config.database_key, KeyFile) else "its source"
    return ok("keys.database", f"The database key is there, apart from the data ({where}).")


def check_authority(config: Config, clock: Clock) -> Finding:
    """Whether the certificate is one, and whether the private key was taken offline."""
    try:
        authority = parse_authority(config.authority_path.read_bytes())
    except (OSError, UntrustedDevice):
        step = "Copy the authority's certificate there, from `init` or from a backup."
        return fail("keys.authority", f"The authority's certificate cannot be read: {config.authority_path}.", step)
    key = config.authority_path.with_name("authority.key")
    if key.exists():
        step = "Move it to an offline medium, with a second copy; invites can be signed elsewhere (invite --offline)."
        return warn("keys.authority", f"The authority's private key lies on this machine: {key}.", step)
    days = (authority.not_after - clock.now()) // _DAY
    return ok("keys.authority", f"The authority's certificate is good for {days} days; its key is not here.")


def check_permissions(config: Config, config_file: Path | None) -> Iterator[Finding]:
    """Whether others can read or change what they should not."""
    private = [config.data_folder, config.blobs_path, config.database_path]
    for path in filter(Path.exists, private):
        mode = path.stat().st_mode
        if mode & 0o022:
            yield fail("files.permissions", f"{path} can be changed by other users.", f"chmod go-rwx {path}")
            return
        if mode & 0o055:
            yield warn("files.permissions", f"{path} can be read by other users.", f"chmod go-rwx {path}")
            return
    if config_file is not None and (os.stat(config_file).st_mode & 0o022 or _holds_secret(config, config_file)):
        step = f"chmod 600 {config_file}"
        yield fail("files.permissions", f"{config_file} holds secrets or can be changed, and others reach it.", step)
        return
    owner = config.data_folder.stat().st_uid if config.data_folder.exists() else os.geteuid()
    if owner != os.geteuid():
        step = "Run curbside's commands as the user that the server runs as: files that root makes lock it out."
        yield warn("files.permissions", "The data folder belongs to another user than you are now.", step)
        return
    yield ok("files.permissions", "Data and configuration are closed to other users.")


def check_room(config: Config) -> Iterator[Finding]:
    """How much room is left where data is written."""
    places = {"data": config.data_folder, "attachments": config.blobs_path}
    if config.backup.place is not None and "://" not in config.backup.place:
        places["backups"] = Path(config.backup.place)
    seen: set[int] = set()
    for name, folder in places.items():
        if not folder.exists():
            continue
        device = folder.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        usage = shutil.disk_usage(folder)
        text = f"{usage.free / (1 << 30):.1f} GiB are free for {name} ({usage.free / usage.total:.0%})."
        if usage.free < LEAST_FREE_BYTES:
            yield fail("disk.room", text, "Make room: a full disk stops every message.")
        elif usage.free < usage.total * FREE_SHARE:
            yield warn("disk.room", text, "Make room, or add some, before it is gone.")
        else:
            yield ok("disk.room", text)


def check_open_files(config: Config) -> Finding:
    """Whether the process may have as many streams as the configuration promises."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < config.limits.streams + _SPARE_FILES:
        step = f"Raise it (systemd: LimitNOFILE={config.limits.streams + _SPARE_FILES}), or lower limits.streams."
        text = f"At most {hard} files may be open here, but {config.limits.streams} streams are allowed."
        return warn("limits.files", text, step)
    return ok("limits.files", f"{config.limits.streams} streams fit in the limit of open files ({hard}).")


def check_certificate(config: Config, clock: Clock) -> Iterator[Finding]:
    """The TLS certificate of this process, if it has one; one that a proxy has is looked at from outside."""
    if config.tls is None:
        return
    try:
        found = parse_tls_certificate(config.tls.certificate.read_bytes())
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls.certificate, config.tls.key)
    except (OSError, Malformed, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or "certificate and key do not fit"
        yield fail("tls.certificate", f"The TLS certificate cannot be used: {reason}.", "Correct [tls].")
        return
    hosts = {urlsplit(url).hostname or "" for url in config.public_urls if url.startswith("https://")}
    missing = [host for host in hosts if not any(_covers(name, host) for name in found.names)]
    if missing:
        step = "Get a certificate with all hosts of public_urls."
        yield fail("tls.certificate", f"The TLS certificate is not for {missing[0]}.", step)
    yield judge_expiry("tls.certificate", found.not_after, clock)


def judge_expiry(check: str, not_after: int, clock: Clock) -> Finding:
    """How long a certificate is still good."""
    left = not_after - clock.now()
    if left <= 0:
        return fail(check, "The TLS certificate has expired.", "Renew it now: no client connects.")
    text = f"The TLS certificate is good for {left // _DAY} more days."
    if left < SOON_SECONDS:
        return warn(check, text, "Renew it, and see why it was not renewed by itself.")
    return ok(check, text)


def check_web_client(config: Config) -> Iterator[Finding]:
    """Whether the web client that is to be served is there."""
    if config.static_folder is not None and not (config.static_folder / "index.html").is_file():
        text = f"There is no web client in {config.static_folder}."
        yield fail("web.client", text, "Build it (make web), or take static_folder out of the configuration.")


def _holds_secret(config: Config, config_file: Path) -> bool:
    if not os.stat(config_file).st_mode & 0o044 or config.database_url is None:
        return False
    return config.database_url.reveal() in config_file.read_bytes()


def _covers(name: str, host: str) -> bool:
    """RFC 9525 section 6.3: a wildcard stands for one label."""
    if name.startswith("*."):
        return host.partition(".")[2].casefold() == name[2:].casefold()
    return name.casefold() == host.casefold()
