"""Origins: under which of the public URLs a request came, and whether a foreign page sent it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curbside.errors import Malformed


def find_header(scope: Mapping[str, Any], name: bytes) -> str | None:
    """The header's value; None when it is absent.

    Raises: Malformed when it is there more than once.
    """
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        raise Malformed("a header is there twice")
    return found[0].decode("latin-1") if found else None


def find_origin(scope: Mapping[str, Any], public_urls: Sequence[str]) -> str:
    """The public URL whose host the request names.

    Raises: Malformed for another host, which nobody has sent here on purpose (DNS rebinding).
    """
    host = find_header(scope, b"host")
    for url in public_urls:
        if host is not None and url.partition("://")[2] == host.lower():
            return url
    raise Malformed("this server is not known by that host name")


def is_foreign(scope: Mapping[str, Any], public_urls: Sequence[str]) -> bool:
    """Whether a browser says that a page of another origin sent this."""
    origin = find_header(scope, b"origin")
    site = find_header(scope, b"sec-fetch-site")
    return (origin is not None and origin not in public_urls) or site not in (None, "same-origin", "none")
