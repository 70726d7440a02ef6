"""How an image has to be turned to be upright, by its EXIF orientation."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from model.runtime.preprocess import CropBox

_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Turn:
    """One of the eight ways in which an image can lie."""

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


_AS_STORED = Turn(None)
# EXIF 2.32, 4.6.4; 1 is as stored.
_TURNS = {
    2: Turn(Image.Transpose.FLIP_LEFT_RIGHT, mirrors_x=True),
    3: Turn(Image.Transpose.ROTATE_180, mirrors_x=True, mirrors_y=True),
    4: Turn(Image.Transpose.FLIP_TOP_BOTTOM, mirrors_y=True),
    5: Turn(Image.Transpose.TRANSPOSE, exchanges_axes=True),
    6: Turn(Image.Transpose.ROTATE_270, exchanges_axes=True, mirrors_x=True),
    7: Turn(Image.Transpose.TRANSVERSE, exchanges_axes=True, mirrors_x=True, mirrors_y=True),
    8: Turn(Image.Transpose.ROTATE_90, exchanges_axes=True, mirrors_y=True),
}


def turn_of(image: Image.Image) -> Turn:
    """The turn that makes the image upright; none without a usable orientation."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # a broken EXIF block does not make the picture unusable
        return _AS_STORED
    return _TURNS.get(orientation, _AS_STORED) if isinstance(orientation, int) else _AS_STORED
