"""The [blobs] table: what is refused, where secrets come from, that they are shown nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curbside.crypto.secret import SecretBytes
from curbside.errors import ConfigError, StorageFull, StoreUnavailable
from curbside.server.blob_settings import BlobSettings
from curbside.server.blob_store import map_object_error
from curbside.server.blob_store_s3 import RequestToSign, sign_request
from curbside.server.config import load_config

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
S3: dict[str, Any] = {
    "endpoint": "https://s3.example.org",
    "bucket": "attachments",
    "access_key_id": "AKIAIOSFODNN7EXAMPLE",
    "secret_access_key": SecretBytes(SECRET.encode()),
}


def test_without_a_bucket_attachments_lie_on_this_machine() -> None:
    settings = BlobSettings()
    assert not settings.is_s3
    assert settings.links_origin is None
    assert settings.presign_seconds == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"bucket": None}, "need a bucket"),
        ({"bucket": None, "endpoint": None, "presign_seconds": 60}, "need a bucket"),
        ({"access_key_id": None}, "access_key_id"),
        ({"secret_access_key": None}, "secret_access_key"),
        ({"secret_access_key_file": Path("/key")}, "secret_access_key"),
        ({"endpoint": "http://s3.example.org"}, "https"),
        ({"endpoint": "http://127.0.0.1.example.org"}, "https"),
        ({"endpoint": "ftp://127.0.0.1"}, "URL"),
        ({"endpoint": "https://user:word@s3.example.org"}, "URL"),
        ({"endpoint": "s3.example.org"}, "URL"),
        ({"presign_seconds": -1}, "presign_seconds"),
        ({"presign_seconds": 901}, "presign_seconds"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"orphan_seconds": 60}, "orphan_seconds"),
    ],
)
def test_what_is_not_usable_is_named(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as refused:
        BlobSettings(**(S3 | changes))
    assert word in refused.value.detail
    assert "user:word" not in refused.value.detail


def test_plain_http_is_for_this_machine_only() -> None:
    for near in ("http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000"):
        assert BlobSettings(**(S3 | {"endpoint": near})).is_s3


def test_urls_by_style() -> None:
    assert BlobSettings(**S3).base_url == "https://s3.example.org/attachments"
    assert BlobSettings(**S3, path_style=False).base_url == "https://attachments.s3.example.org"
    amazon = BlobSettings(**(S3 | {"endpoint": None}), region="eu-central-1")
    assert amazon.base_url == "https://s3.eu-central-1.amazonaws.com/attachments"
    assert amazon.links_origin is None
    assert BlobSettings(**S3, presign_seconds=60).links_origin == "https://s3.example.org"
    linked = BlobSettings(**S3, presign_seconds=60, path_style=False)
    assert linked.links_origin == "https://attachments.s3.example.org"


def test_the_secret_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    environment = {
        "CURBSIDE_DATA_FOLDER": str(tmp_path),
        "CURBSIDE_PUBLIC_URLS": "https://curbside.example.org",
        "CURBSIDE_DATABASE_KEY_FILE": "/elsewhere/key",
        "CURBSIDE_BLOBS_FOLDER": str(tmp_path / "folder"),
        "CURBSIDE_BLOBS_ENDPOINT": "https://s3.example.org",
        "CURBSIDE_BLOBS_BUCKET": "attachments",
        "CURBSIDE_BLOBS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "CURBSIDE_BLOBS_SECRET_ACCESS_KEY": SECRET,
        "CURBSIDE_BLOBS_PATH_STYLE": "false",
        "CURBSIDE_BLOBS_PRESIGN_SECONDS": "60",
    }
    config = load_config(None, environment)
    assert config.blobs.read_secret().reveal() == SECRET.encode()
    assert (config.blobs.path_style, config.blobs.presign_seconds) == (False, 60)
    assert config.blobs_path == tmp_path / "folder"
    assert SECRET not in repr(config) + str(config)
    key = tmp_path / "key"
    settings = BlobSettings(**(S3 | {"secret_access_key": None, "secret_access_key_file": key}))
    with pytest.raises(ConfigError):
        settings.read_secret()
    key.write_text("\n")
    with pytest.raises(ConfigError):
        settings.read_secret()
    key.write_text(SECRET + "\n")
    assert settings.read_secret().reveal() == SECRET.encode()


def test_requests_are_signed_as_amazon_s_example_shows() -> None:
    # Amazon S3 API reference, "Signature calculations: transferring a payload in a single chunk", example
    # "GET Bucket Lifecycle": no body, and no headers but those that we send.
    request = RequestToSign("GET", "https://examplebucket.s3.amazonaws.com", "lifecycle=", "20130524T000000Z")
    headers = sign_request(request, "AKIAIOSFODNN7EXAMPLE", SecretBytes(SECRET.encode()), "us-east-1")
    assert headers["authorization"].endswith(
        "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    )
    assert headers["x-amz-date"] == "20130524T000000Z"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Generic LocalFileSystem error: ... (os error 28)", StorageFull),
        ("Server returned non-2xx status code: 507 Insufficient Storage", StorageFull),
        ("<Error><Code>XMinioStorageFull</Code><Message>", StorageFull),
        ("<Error><Code>QuotaExceeded</Code>", StorageFull),
        ("Server returned error response: 503 SlowDown", StoreUnavailable),
        ("error sending request for url (os error 111)", StoreUnavailable),
        ("operation timed out (os error 280)", StoreUnavailable),
    ],
)
def test_no_room_is_told_from_no_answer(text: str, kind: type[Exception]) -> None:
    assert type(map_object_error(OSError(text))) is kind
