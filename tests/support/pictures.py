"""Pictures for tests: plain ones, and ones that tell more than they show."""

from __future__ import annotations

import io

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

GPS_IFD = 0x8825
DESCRIPTION = 0x010E
ARTIST = 0x013B
EXIF_IFD = 0x8769
USER_COMMENT = 0x9286


def draw_picture(
    colour: tuple[int, int, int], exif: Image.Exif | None = None, size: tuple[int, int] = (640, 480)
) -> bytes:
    """A JPEG of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG", quality=90, exif=exif or Image.Exif(), comment=_comment(exif))
    return out.getvalue()


def _comment(exif: Image.Exif | None) -> bytes:
    return str(exif[DESCRIPTION]).encode() if exif is not None and DESCRIPTION in exif else b""


def make_exif(words: str) -> Image.Exif:
    """EXIF with a place on earth, and with these words in every field for words, JPEG comment included."""
    exif = Image.Exif()
    exif[DESCRIPTION] = words
    exif[ARTIST] = words
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"ASCII\0\0\0" + words.encode()
    place = exif.get_ifd(GPS_IFD)
    place[1], place[2] = "N", (IFDRational(52), IFDRational(31), IFDRational(12))
    place[3], place[4] = "E", (IFDRational(13), IFDRational(24), IFDRational(36))
    return exif
