"""EXIF data byte by byte, also such as no camera writes, and files that carry it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

# How a file has to hold a picture for its orientation to turn it upright (EXIF 2.32, 4.6.4).
ORIENTATIONS: dict[int, Image.Transpose | None] = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATION, EXIF_DIRECTORY = 0x0112, 0x8769
BYTE, SHORT, LONG, SIGNED_LONG = 1, 3, 4, 9  # types of values


@dataclass(frozen=True)
class Entry:
    """An entry of a directory."""

    value: int
    tag: int = ORIENTATION
    kind: int = SHORT
    count: int = 1


def as_stored(image: Image.Image, orientation: int) -> Image.Image:
    """An upright picture as a file of this orientation holds it."""
    method = ORIENTATIONS[orientation]
    return image if method is None else image.transpose(method)


def exif(*entries: Entry, byte_order: str = "<", start: int = 8, inner: Sequence[Entry] = ()) -> bytes:
    """EXIF data from the TIFF header on: a directory that begins at `start`, and another behind it."""
    magic = {"<": b"II*\0", ">": b"MM\0*"}[byte_order]
    header = magic + struct.pack(f"{byte_order}I", start) + bytes(start - 8)
    return header + _directory(entries, byte_order) + (_directory(inner, byte_order) if inner else b"")


def inner_start(entries: int, start: int = 8) -> int:
    """Where the second directory begins behind a first of so many entries."""
    return start + 2 + 12 * entries + 4


def _directory(entries: Sequence[Entry], byte_order: str) -> bytes:
    packed = [struct.pack(f"{byte_order}HHI", e.tag, e.kind, e.count) + _value(e, byte_order) for e in entries]
    return struct.pack(f"{byte_order}H", len(entries)) + b"".join(packed) + bytes(4)


def _value(entry: Entry, byte_order: str) -> bytes:
    """Four bytes, of which a short value takes the first two."""
    if entry.kind in (LONG, SIGNED_LONG):
        return struct.pack(f"{byte_order}I", entry.value)
    return struct.pack(f"{byte_order}HH", entry.value, 0)


def segment(data: bytes, marker: int = 0xE1) -> bytes:
    """A segment of a JPEG; the default marker is APP1."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG that begins with these segments."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def chunk(kind: bytes, data: bytes, *, is_sound: bool = True) -> bytes:
    """A chunk of a PNG, with a right or a wrong checksum."""
    checksum = zlib.crc32(kind + data) ^ (not is_sound)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png_with(png: bytes, *chunks: bytes, behind_pixels: bool = False) -> bytes:
    """A PNG with these chunks right behind its header, or before its end."""
    at = len(png) - 12 if behind_pixels else 33
    return png[:at] + b"".join(chunks) + png[at:]
