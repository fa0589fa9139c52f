"""Pictures: drawn anew and bounded before they leave, checked by content and drawn anew before they are shown.

Nothing of the original file but its pixels survives: no EXIF, no place, no serial number, no embedded preview.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageOps

from curbside.errors import Malformed, TooLarge

PIXELS: Final = 40_000_000
"""Largest picture that is decoded (REQUIREMENTS AT-02: decompression bombs)."""
LONG_SIDE: Final = 2048
THUMBNAIL_SIDE: Final = 96
QUALITY: Final = 85
FORMATS: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


@dataclass(frozen=True)
class Picture:
    """A picture as JPEG. width and height in pixels; thumbnail: a small JPEG."""

    data: bytes
    width: int
    height: int
    thumbnail: bytes


def redraw_picture(data: bytes) -> Picture:
    """The pixels of `data`, turned upright, at most 2,048 on the long side, as a JPEG without metadata.

    Raises: Malformed (not a JPEG, PNG or WebP picture), TooLarge (over 40 megapixels).
    """
    image = _decode(data)
    image.thumbnail((LONG_SIDE, LONG_SIDE))
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return Picture(_jpeg(image, QUALITY), image.width, image.height, _jpeg(small, 60))


def _decode(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=list(FORMATS)) as source:
                if source.width * source.height > PIXELS:
                    raise TooLarge("the picture has too many pixels", limit=PIXELS)
                source.load()
                upright = ImageOps.exif_transpose(source)
                return _flatten(upright)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise TooLarge("the picture has too many pixels", limit=PIXELS) from error
        except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
            raise Malformed("this is not a picture that can be shown") from error


def _flatten(image: Image.Image) -> Image.Image:
    """Without transparency, on white; a fresh image that carries no metadata."""
    canvas = Image.new("RGB", image.size, (255, 255, 255))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas.paste(layer, mask=layer.getchannel("A"))
    else:
        canvas.paste(image.convert("RGB"))
    return canvas


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()
