"""How an image has to be turned to be upright, and where that is written: the orientation of EXIF.

EXIF 2.32, 4.6.4, tag 0x0112. What is invalid counts as none. Which entry counts where a file has several, or odd ones,
is not written down anywhere; here it is the one that Chromium takes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from PIL import Image

from model.runtime.resampling import CropBox

_ORIENTATION, _EXIF_DIRECTORY = 0x0112, 0x8769  # tags
_SHORT, _LONG = 3, 4  # types: two and four bytes, unsigned
# Entries of a directory that are looked at: a JPEG has room for no more. Others may have twelve times as many, which
# takes longer than to decode a photo.
_MOST_ENTRIES = 2**16 // 12
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}  # by how the file begins, as struct has them


@dataclass(frozen=True)
class Turn:
    """One of the eight ways in which an image can lie."""

    orientation: int  # as EXIF numbers it, 1 to 8
    method: Image.Transpose | None  # None is as it is
    # The same in three steps, taken in this order.
    exchanges_axes: bool = False
    mirrors_x: bool = False
    mirrors_y: bool = False

    def apply(self, image: Image.Image) -> Image.Image:
        """The image turned; the image itself where there is nothing to do."""
        return image if self.method is None else image.transpose(self.method)

    def apply_to_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size of the turned image, of an image of this size."""
        return (size[1], size[0]) if self.exchanges_axes else size

    def apply_to_box(self, box: CropBox, width: int, height: int) -> CropBox:
        """Where a box of an image lies in the turned image, whose size in pixels is given."""
        left, top, right, bottom = box
        if self.exchanges_axes:
            left, top, right, bottom = top, left, bottom, right
        if self.mirrors_x:
            left, right = width - right, width - left
        if self.mirrors_y:
            top, bottom = height - bottom, height - top
        return left, top, right, bottom


AS_STORED = Turn(1, None)
_TURNS = (
    AS_STORED,
    Turn(2, Image.Transpose.FLIP_LEFT_RIGHT, mirrors_x=True),
    Turn(3, Image.Transpose.ROTATE_180, mirrors_x=True, mirrors_y=True),
    Turn(4, Image.Transpose.FLIP_TOP_BOTTOM, mirrors_y=True),
    Turn(5, Image.Transpose.TRANSPOSE, exchanges_axes=True),
    Turn(6, Image.Transpose.ROTATE_270, exchanges_axes=True, mirrors_x=True),
    Turn(7, Image.Transpose.TRANSVERSE, exchanges_axes=True, mirrors_x=True, mirrors_y=True),
    Turn(8, Image.Transpose.ROTATE_90, exchanges_axes=True, mirrors_y=True),
)


def plugin_exif(image: Image.Image) -> bytes:
    """EXIF data of a WebP or AVIF from the TIFF header on, empty if there is none, or of another format.

    Pillow's own `getexif` also finds orientations in XMP, which no browser does. For an AVIF, Pillow writes into
    them how its own properties turn it, which is what counts. A TIFF's or HEIC's decoder has turned it already.
    """
    exif: bytes = image.info.get("exif", b"") if image.format in ("WEBP", "AVIF") else b""
    return exif.removeprefix(b"Exif\0\0")


def turn_of(exif: bytes) -> Turn:
    """The turn that makes an image upright, by its EXIF data from the TIFF header on; none without a valid orientation.

    Of several orientations the first valid one counts. One in the directory of the camera's settings, where none
    belongs, counts as if it stood in the place of the pointer to that directory.
    """
    byte_order = _BYTE_ORDERS.get(exif[:4])
    if byte_order is None or len(exif) < 8:
        return AS_STORED
    (start,) = struct.unpack_from(f"{byte_order}I", exif, 4)
    return _TURNS[(_orientation(exif, byte_order, start, is_root=True) or 1) - 1]


def _orientation(exif: bytes, byte_order: str, start: int, *, is_root: bool) -> int | None:
    """The first valid orientation of a directory: a count of two bytes, and so many entries of twelve."""
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(f"{byte_order}H", exif, start)
    entries = exif[start + 2 : start + 2 + 12 * min(count, _MOST_ENTRIES)]
    whole = len(entries) - len(entries) % 12
    for tag, kind, number, value in struct.iter_unpack(f"{byte_order}HHI4s", entries[:whole]):
        if (tag, kind, number) == (_ORIENTATION, _SHORT, 1):
            (orientation,) = struct.unpack_from(f"{byte_order}H", value)
            if 1 <= orientation <= len(_TURNS):
                return int(orientation)
        elif (tag, kind, number) == (_EXIF_DIRECTORY, _LONG, 1) and is_root:
            is_root = False  # one is followed, and none from there
            (inner,) = struct.unpack(f"{byte_order}I", value)
            if (found := _orientation(exif, byte_order, inner, is_root=False)) is not None:
                return found
    return None
