"""Errors as RFC 9457 problems: the one place where an error becomes something that leaves the server."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from curbside.errors import CurbsideError, IntegrityError, TooMany, Unavailable, UsageError

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:curbside:problem:"
_encoder: Final = msgspec.json.Encoder()


def hide_internal(error: CurbsideError) -> CurbsideError:
    """What may be said of an error: our own mistakes and damage keep their reasons to themselves."""
    if isinstance(error, UsageError):
        return UsageError()
    if type(error) is IntegrityError:
        return IntegrityError()
    return error


def build_problem(error: CurbsideError, request_id: str, status: int = 0) -> dict[str, Any]:
    """The problem's members; an extension member never hides a standard one. status: in place of the class's own."""
    shown = hide_internal(error)
    kind = type(shown)
    return {
        **shown.members,
        "type": TYPE_PREFIX + kind.code,
        "title": kind.title,
        "status": status or kind.status,
        "detail": shown.detail,
        "next_step": kind.next_step,
        "instance": request_id,
    }


def encode_problem(error: CurbsideError, request_id: str, status: int = 0) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of a problem. status: in place of the class's own."""
    headers = {"content-type": MEDIA_TYPE}
    if isinstance(error, TooMany):
        headers["retry-after"] = str(error.members.get("retry_after", 1))
    elif isinstance(error, Unavailable):
        headers["retry-after"] = "2"
    if type(error).status == 401:
        headers["www-authenticate"] = 'DPoP algs="EdDSA"'
    found = status or type(error).status
    return found, headers, _encoder.encode(build_problem(error, request_id, found))
