"""Pictures: nothing but the pixels leaves, and nothing that is no picture is drawn."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from curbside.client.media import LONG_SIDE, THUMBNAIL_SIDE, redraw_picture
from curbside.errors import Malformed, TooLarge

GPS_IFD, ORIENTATION, MAKE = 0x8825, 0x0112, 0x010F
CANARY = "CANARYcamera77"


def picture(form: str = "JPEG", size: tuple[int, int] = (64, 32), mode: str = "RGB", **options: Any) -> bytes:
    """A picture whose left half is red, the rest blue."""
    image = Image.new(mode, size, (0, 0, 255) if mode == "RGB" else (0, 0, 255, 255))
    image.paste((255, 0, 0) if mode == "RGB" else (255, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def exif(**tags: Any) -> Image.Exif:
    made = Image.Exif()
    made[MAKE] = CANARY
    made[ORIENTATION] = tags.get("orientation", 1)
    made.get_ifd(GPS_IFD)[1] = "N"
    made.get_ifd(GPS_IFD)[2] = (52.0, 31.0, 12.0)
    made.get_ifd(GPS_IFD)[29] = CANARY
    return made


def test_place_and_camera_are_gone() -> None:
    data = picture(exif=exif(), comment=CANARY.encode(), icc_profile=CANARY.encode() * 20)
    assert CANARY.encode() in data
    made = redraw_picture(data)
    for part in (made.data, made.thumbnail):
        assert CANARY.encode() not in part
        again = Image.open(io.BytesIO(part))
        assert again.format == "JPEG"
        assert not again.getexif()
        assert not {"comment", "icc_profile", "exif", "xmp"} & set(again.info)


def test_text_chunks_of_a_png_are_gone() -> None:
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text("Comment", CANARY)
    notes.add_itxt("XML:com.adobe.xmp", CANARY)
    data = picture("PNG", pnginfo=notes)
    assert CANARY.encode() in data
    assert CANARY.encode() not in redraw_picture(data).data


@pytest.mark.parametrize(("orientation", "where"), [(1, "left"), (3, "right"), (6, "top"), (8, "bottom")])
def test_a_turned_picture_stands_upright(orientation: int, where: str) -> None:
    made = redraw_picture(picture(exif=exif(orientation=orientation)))
    assert (made.width, made.height) == ((64, 32) if orientation in (1, 3) else (32, 64))
    image = Image.open(io.BytesIO(made.data)).convert("RGB")
    points = {
        "left": (4, made.height // 2),
        "right": (made.width - 4, made.height // 2),
        "top": (made.width // 2, 4),
        "bottom": (made.width // 2, made.height - 4),
    }
    red, _, blue = image.getpixel(points[where])  # type: ignore[misc]
    assert red > 200 > 100 > blue


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_kinds_that_are_taken_all_become_jpeg(form: str) -> None:
    assert redraw_picture(picture(form)).data[:3] == b"\xff\xd8\xff"


def test_large_pictures_become_smaller_and_thumbnails_small() -> None:
    made = redraw_picture(picture(size=(4000, 1000)))
    assert (made.width, made.height) == (LONG_SIDE, 512)
    assert max(Image.open(io.BytesIO(made.thumbnail)).size) == THUMBNAIL_SIDE


def test_what_is_transparent_becomes_white() -> None:
    made = Image.open(io.BytesIO(redraw_picture(picture("PNG", mode="RGBA")).data)).convert("RGB")
    assert min(made.getpixel((4, 16))) > 240  # type: ignore[arg-type]


def png_that_says(width: int, height: int) -> bytes:
    """A small PNG file that claims a size, and would unpack to it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * 1000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(50_000, 50_000), (8_000, 5_001), (40_001, 1_000)])
def test_a_bomb_is_refused_before_it_is_unpacked(size: tuple[int, int]) -> None:
    with pytest.raises(TooLarge) as refusal:
        redraw_picture(png_that_says(*size))
    assert refusal.value.members["limit"] == 40_000_000


HTML = b"<html><script>alert(1)</script></html>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    "data",
    [
        HTML,
        SVG,
        b"",
        b"%PDF-1.7",
        b"MZ" + bytes(400),
        b"\x7fELF" + bytes(400),
        b"PK\x03\x04" + bytes(400),
        b"\xff\xd8\xff",
        picture()[:200],
        picture("GIF"),
        picture("BMP"),
        picture("TIFF"),
    ],
    ids=["html", "svg", "empty", "pdf", "exe", "elf", "zip", "head", "cut", "gif", "bmp", "tiff"],
)
def test_what_is_no_picture_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        redraw_picture(data)


def test_what_hangs_on_a_picture_does_not_survive() -> None:
    """A polyglot: a good picture before or around something else keeps its pixels only."""
    made = redraw_picture(picture() + HTML + b"PK\x03\x04" + SVG)
    assert b"script" not in made.data
    assert b"PK\x03\x04" not in made.data
    with pytest.raises(Malformed):
        redraw_picture(HTML + picture())
