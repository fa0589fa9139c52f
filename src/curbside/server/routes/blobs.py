"""Routes of blobs: POST /v1/blobs; PATCH, HEAD, GET /v1/blobs/{blob_id}; GET /v1/blobs/{blob_id}/location."""

from __future__ import annotations

import re
from typing import Any, Final

from litestar import Request, get, head, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.response import Response, Stream

from curbside.errors import Malformed, TooLarge
from curbside.policy.access import Subject
from curbside.server.blobs import BlobService
from curbside.server.ranges import parse_range
from curbside.wire import bodies
from curbside.wire.limits import BLOB_CHUNK_BYTES

_OFFSET: Final = re.compile(r"\d{1,12}\Z")
_BYTES: Final = "application/octet-stream"


@post("/v1/blobs", status_code=200, opt={"rule": "R-blob-create"})
async def create_blob(
    data: JSONBody[bodies.NewBlob], subject: NamedDependency[Subject], blobs: NamedDependency[BlobService]
) -> bodies.BlobUpload:
    """Begin an upload."""
    return await blobs.create(subject, data)


@patch("/v1/blobs/{blob_id:str}", status_code=200, opt={"rule": "R-blob-upload"})
async def append_blob(
    blob_id: FromPath[str],
    request: Request[Any, Any, Any],
    subject: NamedDependency[Subject],
    blobs: NamedDependency[BlobService],
) -> bodies.BlobUpload:
    """Add the body's bytes at header Upload-Offset."""
    offset = request.headers.get("upload-offset", "")
    if not _OFFSET.match(offset):
        raise Malformed("header Upload-Offset is missing")
    return await blobs.append(subject, blob_id, int(offset), await _read_part(request))


@head("/v1/blobs/{blob_id:str}", opt={"rule": "R-blob-upload"})
async def get_blob_offset(
    blob_id: FromPath[str], subject: NamedDependency[Subject], blobs: NamedDependency[BlobService]
) -> Response[None]:
    """How far the asking device's own upload is."""
    upload, length = await blobs.get_upload(subject, blob_id)
    return Response(None, headers={"upload-offset": str(upload.offset), "upload-length": str(length)})


@get("/v1/blobs/{blob_id:str}", opt={"rule": "R-blob-read"})
async def get_blob(
    blob_id: FromPath[str],
    request: Request[Any, Any, Any],
    subject: NamedDependency[Subject],
    blobs: NamedDependency[BlobService],
) -> Stream:
    """The ciphertext, or the part that header Range names. A Range that cannot be met is ignored (RFC 9110 14.2).

    Header Curbside-Location says that what is left may be had by a link.
    """
    header = "" if "if-range" in request.headers else request.headers.get("range", "")
    found = await blobs.open(subject, blob_id, parse_range(header))
    is_part = (found.first, found.last) != (0, found.size - 1)
    headers = {
        "accept-ranges": "bytes",
        "content-length": str(found.last - found.first + 1),
        "content-disposition": "attachment",
    }
    if found.has_location:
        headers["curbside-location"] = "1"
    if is_part:
        headers["content-range"] = f"bytes {found.first}-{found.last}/{found.size}"
    return Stream(found.body, media_type=_BYTES, headers=headers, status_code=206 if is_part else 200)


@get("/v1/blobs/{blob_id:str}/location", opt={"rule": "R-blob-read"})
async def get_blob_location(
    blob_id: FromPath[str], subject: NamedDependency[Subject], blobs: NamedDependency[BlobService]
) -> bodies.BlobLocation:
    """A link of short life to the ciphertext, where the organisation has switched that on."""
    return await blobs.locate(subject, blob_id)


async def _read_part(request: Request[Any, Any, Any]) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BLOB_CHUNK_BYTES:
            raise TooLarge(limit=BLOB_CHUNK_BYTES)
        parts.append(part)
    return b"".join(parts)
