"""Which storage the configuration asks for."""

from __future__ import annotations

from curbside.clock import SystemClock
from curbside.server.blob_store import BlobStore
from curbside.server.blob_store_disk import DiskMedium
from curbside.server.blob_store_s3 import S3Medium
from curbside.server.config import Config


def open_blob_store(config: Config) -> BlobStore:
    """The storage of attachments; nothing is asked of it yet.

    Raises: ConfigError when a key or a certificate cannot be read.
    """
    if config.blobs.is_s3:
        # Signatures hold for minutes around the storage's own time, whatever clock the services have.
        return BlobStore(S3Medium(config.blobs, SystemClock()))
    return BlobStore(DiskMedium(config.blobs_path))
