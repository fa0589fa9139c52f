"""The web client's files: read once, served from memory, compressed on first use.

Only what was found in the folder at start is ever served, so a path cannot lead anywhere else.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from curbside.errors import ConfigError
from curbside.server.headers import Headers
from curbside.server.origins import find_header

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webp": "image/webp",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
"""Files of other types are not served."""
_COMPRESSED: Final = frozenset({".html", ".js", ".mjs", ".css", ".json", ".webmanifest", ".svg", ".wasm", ".txt"})
_FOREVER: Final = "public, max-age=31536000, immutable"
_REVALIDATE: Final = "no-cache"


@dataclass(slots=True)
class _File:
    """A file of the web client. packed: its gzip form; None until it is asked for."""

    raw: bytes
    suffix: str
    etag: str
    cache_control: str
    packed: bytes | None = None

    def pack(self) -> bytes:
        """The gzip form."""
        if self.packed is None:
            self.packed = gzip.compress(self.raw, 9, mtime=0)
        return self.packed


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """status, headers and body of an answer."""

    status: int
    headers: Headers
    body: bytes


class WebClient:
    """The files below a folder; `/` is index.html. An absent folder serves nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._files: dict[str, _File] = {}
        if folder is not None:
            self._read(folder)

    def find(self, scope: Mapping[str, Any]) -> WebAnswer | None:
        """The answer to GET or HEAD of a file; None when there is no such file."""
        path = scope["path"]
        file = self._files.get("/index.html" if path == "/" else path)
        if file is None:
            return None
        headers: Headers = [
            (b"content-type", TYPES[file.suffix].encode()),
            (b"cache-control", file.cache_control.encode()),
            (b"etag", file.etag.encode()),
            (b"vary", b"accept-encoding"),
        ]
        if find_header(scope, b"if-none-match") == file.etag:
            return WebAnswer(304, headers, b"")
        body = file.raw
        if file.suffix in _COMPRESSED and "gzip" in (find_header(scope, b"accept-encoding") or ""):
            body = file.pack()
            headers.append((b"content-encoding", b"gzip"))
        headers.append((b"content-length", str(len(body)).encode()))
        return WebAnswer(200, headers, b"" if scope["method"] == "HEAD" else body)

    def _read(self, folder: Path) -> None:
        root = folder.resolve()
        if not (root / "index.html").is_file():
            raise ConfigError("the static folder holds no index.html: build the web client first")
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root)
            is_hidden = any(part.startswith(".") for part in name.parts)
            if not path.is_file() or path.is_symlink() or is_hidden or path.suffix not in TYPES:
                continue
            raw = path.read_bytes()
            cache_control = _FOREVER if name.parts[0] == "assets" else _REVALIDATE
            etag = f'"{hashlib.sha256(raw).hexdigest()[:32]}"'
            self._files["/" + name.as_posix()] = _File(raw, path.suffix, etag, cache_control)
