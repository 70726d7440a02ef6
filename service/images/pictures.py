"""Pictures as they are answered: in the format that the client wants, or in PNG."""

from __future__ import annotations

import io
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PictureFormat = Literal["png", "jpeg", "webp"]
PICTURE_TYPES: dict[str, PictureFormat] = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}  # best first

# Fast rather than small; a lossy picture keeps its captions sharp.
_OPTIONS = MappingProxyType(
    {
        "png": {"compress_level": 1},
        "jpeg": {"quality": 92, "subsampling": 0},
        "webp": {"quality": 90, "method": 0},
    }
)
_LONGEST_SIDE: dict[PictureFormat, int] = {"jpeg": 65_500, "webp": 16_383}  # pixels; what the formats can hold


def encode_picture(image: NDArray[np.uint8], picture: PictureFormat) -> tuple[bytes, str]:
    """An RGB image [height, width, 3] as a file, and its media type; a PNG where the format cannot hold its sides."""
    if max(image.shape) > _LONGEST_SIDE.get(picture, max(image.shape)):
        picture = "png"
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=picture, **_OPTIONS[picture])
    return buffer.getvalue(), f"image/{picture}"
