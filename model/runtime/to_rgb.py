"""From a picture in any mode to RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

from model.runtime.picture_memory import white


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of an image in any mode, with as few copies as a large one can afford."""
    if image.mode.startswith("I"):
        image = _scale_gray(image)
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        image = white(rgba.size)
        image.paste(rgba, mask=rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_gray(gray: Image.Image) -> Image.Image:
    """16-bit gray to 8 bits; Pillow's own conversion would clip at 255."""
    values = np.asarray(gray).clip(0, 65_535).astype(np.uint16, copy=False)
    return Image.fromarray(_EIGHT_BIT[values])


# What each 16-bit value is in 8 bits, rounded.
_EIGHT_BIT = ((np.arange(65_536, dtype=np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)
