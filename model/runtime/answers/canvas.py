"""Pictures that are drawn on: RGB in four bytes a pixel, as Pillow keeps it, in memory that NumPy sees as well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.picture_memory import new_pixels, picture_in


@dataclass(frozen=True, eq=False)
class Canvas:
    """A picture to draw on. The fourth byte of a pixel says nothing."""

    pixels: NDArray[np.uint8]  # [H, W, 4]
    picture: Image.Image  # of mode RGBX, in the same memory

    @classmethod
    def on(cls, pixels: NDArray[np.uint8]) -> Canvas:
        """One that draws in an image [H, W, 4], which is contiguous."""
        picture = picture_in(pixels)
        picture.readonly = 0  # or Pillow would draw on a copy
        return cls(pixels, picture)

    @classmethod
    def of(cls, image: NDArray[np.uint8]) -> Canvas:
        """One that draws on a copy of an image [H, W, 3]."""
        height, width = image.shape[:2]
        canvas = cls.on(new_pixels(height, width))
        packed = np.ascontiguousarray(image)
        canvas.picture.paste(Image.frombuffer("RGBX", (width, height), packed, "raw", "RGB", 0, 1))
        return canvas

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.picture.height, self.picture.width

    @property
    def words(self) -> NDArray[np.uint32]:
        """The same memory [H, W] with the four bytes of each pixel taken together."""
        return self.pixels.view(np.uint32)[..., 0]

    def rgb(self) -> NDArray[np.uint8]:
        """A copy of what is drawn, [H, W, 3]."""
        return np.asarray(self.picture.convert("RGB"))
