"""Uploads that cost a decoder far more than pictures of their size: parts without end, many scans of many pixels."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from PIL import Image

from tests.model.exif_blocks import chunk, jpeg_with, segment


@cache
def saved(image_format: str, side: int = 64, **options: Any) -> bytes:
    """A gray picture, square, as a file."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 90).save(buffer, image_format, **options)
    return buffer.getvalue()


def jpeg_of_segments(size: int, marker: int, data: bytes) -> bytes:
    """About so many bytes of one segment, again and again."""
    part = segment(data, marker)
    return jpeg_with(saved("JPEG"), part * (size // len(part)))


def jpeg_of_scans(scans: int, side: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    file = saved("JPEG", side, progressive=True)
    last = file.rindex(b"\xff\xda")
    return file[:last] + (scans - file.count(b"\xff\xda") + 1) * file[last:-2] + b"\xff\xd9"


def png_of_chunks(size: int, kind: bytes, data: bytes) -> bytes:
    """About so many bytes of one chunk before the pixels, again and again."""
    file, part = saved("PNG"), chunk(kind, data)
    pixels = file.index(b"IDAT") - 4
    return file[:pixels] + part * (size // len(part)) + file[pixels:]


def webp_of_chunks(size: int) -> bytes:
    """About so many bytes of empty EXIF chunks."""
    body = saved("WEBP")[12:] + b"EXIF\0\0\0\0" * (size // 8)
    return b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body


# Each by its name, of about so many bytes; those of scans have fewer.
BOMBS: Mapping[str, Callable[[int], bytes]] = {
    "jpeg of fill bytes": lambda size: jpeg_with(saved("JPEG"), b"\xff" * size),
    "jpeg of EXIF segments": lambda size: jpeg_of_segments(size, 0xE1, b"Exif\0\0"),
    "jpeg of Photoshop segments": lambda size: jpeg_of_segments(size, 0xED, b""),
    "jpeg of 25,000 scans": lambda size: jpeg_of_scans(25_000, 64),
    "jpeg of 100 scans of 49 megapixels": lambda size: jpeg_of_scans(100, 7000),
    "png of profiles": lambda size: png_of_chunks(size, b"iCCP", b"p\0\0" + zlib.compress(bytes(2**20))),
    "png of empty pixels": lambda size: png_of_chunks(size, b"IDAT", b""),
    "png of texts": lambda size: png_of_chunks(size, b"tEXt", b"a\0b"),
    "webp of EXIF chunks": webp_of_chunks,
}
