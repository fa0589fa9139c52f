"""Settings of the [blobs] table: whether attachments lie on this machine's disk or in S3-compatible storage."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
LONGEST_LINK_SECONDS: Final = 900


class BlobSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where attachments' ciphertext lies. Without an endpoint and a bucket: in the blobs folder."""

    endpoint: str | None = None
    """https://s3.example.org; plain http for this machine only. None with a bucket: Amazon's own of the region."""
    bucket: str | None = None
    """One for each installation; nothing else may lie in it."""
    region: str = "us-east-1"
    access_key_id: str | None = None
    secret_access_key: SecretBytes | None = None
    """Best left to the environment: CURBSIDE_BLOBS_SECRET_ACCESS_KEY."""
    secret_access_key_file: Path | None = None
    """In place of secret_access_key."""
    path_style: bool = True
    """Whether the bucket's name is part of the path, not of the host."""
    certificate_authority: Path | None = None
    """PEM: trusted for the endpoint, besides the system's."""
    timeout_seconds: float = 10.0
    """For one request to the storage, its retries included."""
    presign_seconds: int = 0
    """Above 0: members download large attachments from the storage itself, by links that live this long."""
    orphan_seconds: int = 7 * 24 * 3600
    """An object that belongs to no upload and no attachment is removed at this age."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def is_s3(self) -> bool:
        """Whether blobs lie in a bucket."""
        return self.bucket is not None

    @property
    def links_origin(self) -> str | None:
        """The origin that links to attachments point to; None: there are no such links."""
        if not self.presign_seconds or self.bucket is None:
            return None
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def base_url(self) -> str:
        """The bucket's own URL, without a slash at its end."""
        endpoint = (self.endpoint or f"https://s3.{self.region}.amazonaws.com").rstrip("/")
        if self.path_style:
            return f"{endpoint}/{self.bucket}"
        scheme, _, host = endpoint.partition("://")
        return f"{scheme}://{self.bucket}.{host}"

    def read_secret(self) -> SecretBytes:
        """The secret access key. Raises: ConfigError."""
        if self.secret_access_key is not None:
            return self.secret_access_key
        if self.secret_access_key_file is None:
            raise ConfigError("blobs: there is no secret access key")
        try:
            text = self.secret_access_key_file.read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"blobs: secret_access_key_file cannot be read: {error.strerror}") from error
        if not text:
            raise ConfigError("blobs: secret_access_key_file is empty")
        return SecretBytes(text)


def _check(settings: BlobSettings) -> None:
    if not 0 <= settings.presign_seconds <= LONGEST_LINK_SECONDS:
        raise ConfigError(f"blobs: presign_seconds must be between 0 and {LONGEST_LINK_SECONDS}")
    if not 0 < settings.timeout_seconds <= 60 or settings.orphan_seconds < 3600:
        raise ConfigError("blobs: timeout_seconds must be up to 60, orphan_seconds at least 3600")
    if settings.bucket is None:
        if settings.endpoint is not None or settings.presign_seconds:
            raise ConfigError("blobs: endpoint and presign_seconds need a bucket")
        return
    if not settings.access_key_id or (settings.secret_access_key is None) == (settings.secret_access_key_file is None):
        raise ConfigError("blobs: access_key_id and one of secret_access_key, secret_access_key_file must be set")
    if settings.endpoint is not None:
        parts = urlsplit(settings.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ConfigError("blobs: endpoint must be a URL such as https://s3.example.org")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ConfigError("blobs: endpoint must be https; plain http is for this machine only")
