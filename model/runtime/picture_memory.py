"""Pictures of Pillow whose pixels lie in memory of ours, of which none is written before it is needed.

Pillow fills a new picture with zeros or a colour while no other thread can run: of 49 megapixels for 80 to 170 ms, in
which a service answers nobody. Numpy lets others run, and of zeros the system makes each page where it is written to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.kept_blocks import PICTURE_BLOCKS

_FOUR_BYTES = frozenset({"RGB", "RGBA", "CMYK"})  # modes of pictures of which Pillow keeps four bytes a pixel
_WRITES_ALL = frozenset({"JPEG", "MPO"})  # whose decoder writes each pixel, or there is no picture
_LARGE = 8 * 2**20  # bytes, from which on malloc takes memory from the system, where the service does not wait for it


def picture_in(pixels: NDArray[np.uint8], mode: str = "RGBX") -> Image.Image:
    """A picture in the memory of an image [H, W, 4], which is contiguous, of a mode with four bytes a pixel: RGBX, RGB,
    RGBA or CMYK. Four are what Pillow keeps of RGB, too, so that nothing is copied.
    """
    return Image.Image()._new(_core_in(pixels, mode))


def new_pixels(height: int, width: int, *, zeroed: bool = False) -> NDArray[np.uint8]:
    """[height, width, 4], all zeros or holding anything; large ones in memory that is kept, where that is wanted.

    Raises MemoryError.
    """
    if 4 * height * width >= _LARGE:
        return PICTURE_BLOCKS.array(height, width, 4, zeroed=zeroed)
    return (np.zeros if zeroed else np.empty)((height, width, 4), dtype=np.uint8)


def give_memory(image: Image.Image) -> None:
    """Have a picture, which was opened and has no pixels yet, decoded into memory of ours, where that is worth it."""
    width, height = image.size
    # A file that ends before its pixels has no tiles, and `load` says so only of a picture without memory.
    if image.mode not in _FOUR_BYTES or not getattr(image, "tile", ()):
        return
    writes_all = image.format in _WRITES_ALL
    if writes_all or 4 * width * height >= _LARGE:
        image.im = _core_in(new_pixels(height, width, zeroed=not writes_all), image.mode)


def white(size: tuple[int, int]) -> Image.Image:
    """A white RGB picture of (width, height)."""
    width, height = size
    pixels = new_pixels(height, width)
    pixels.fill(255)
    return picture_in(pixels, "RGB")


def _core_in(pixels: NDArray[np.uint8], mode: str) -> Any:
    height, width = pixels.shape[:2]
    layout = (mode, 4 * width, 1)
    return Image.core.map_buffer(pixels, (width, height), "raw", 0, layout)  # type: ignore[attr-defined]
