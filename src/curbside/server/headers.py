"""Security headers of every response, errors included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

Headers = list[tuple[bytes, bytes]]

_PERMISSIONS: Final = (
    "accelerometer=(), ambient-light-sensor=(), autoplay=(), bluetooth=(), browsing-topics=(), camera=(self), "
    "display-capture=(), encrypted-media=(), fullscreen=(self), geolocation=(), gyroscope=(), hid=(), "
    "idle-detection=(), interest-cohort=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), "
    "screen-wake-lock=(), serial=(), storage-access=(), usb=(), web-share=(), xr-spatial-tracking=()"
)


def build_content_policy(public_urls: Sequence[str], links_origin: str | None = None) -> str:
    """Content-Security-Policy (CSP 3). The stream's origins are named because not every browser counts wss: as 'self'.
    links_origin: where links to attachments point, if there are such links.

    Trusted Types: `curbside` is the web client's own policy, `svelte-trusted-html` the one of its compiled templates.
    """
    others = ["ws" + url.removeprefix("http") for url in public_urls] + ([links_origin] if links_origin else [])
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self' 'wasm-unsafe-eval'",
            "style-src 'self'",
            "img-src 'self' blob:",
            "media-src 'self' blob:",
            "font-src 'self'",
            f"connect-src 'self' {' '.join(others)}",
            "worker-src 'self'",
            "manifest-src 'self'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types curbside svelte-trusted-html",
        )
    )


def build_security_headers(public_urls: Sequence[str], is_https: bool, links_origin: str | None = None) -> Headers:
    """The headers that no response goes without."""
    headers = {
        "content-security-policy": build_content_policy(public_urls, links_origin),
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": _PERMISSIONS,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "x-robots-tag": "noindex, nofollow",
    }
    if is_https:
        headers["strict-transport-security"] = "max-age=63072000; includeSubDomains"
    return [(name.encode(), value.encode()) for name, value in headers.items()]
