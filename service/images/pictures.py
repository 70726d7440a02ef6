"""Pictures as they are answered: with what was found on them, in the format that the client wants or in PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.answers.attention import Explanation
from model.runtime.answers.detections import Detections
from model.runtime.answers.instances import Instances
from model.runtime.answers.overlay import draw_detections, draw_explanation, draw_panoptic
from model.runtime.answers.panoptic import PanopticResult
from model.runtime.categories import Category

FoundInImage = Detections | PanopticResult | Instances | Explanation
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


def draw_found(image: NDArray[np.uint8], found: FoundInImage, categories: Sequence[Category]) -> NDArray[np.uint8]:
    """An image, RGB [height, width, 3], with boxes on it or segments painted over it, or what was looked at."""
    if isinstance(found, Detections):
        return draw_detections(image, found, categories)
    if isinstance(found, Explanation):
        return draw_explanation(image, found, categories)
    return draw_panoptic(image, found.on_top() if isinstance(found, Instances) else found, categories)


def encode_picture(image: NDArray[np.uint8], picture: PictureFormat) -> tuple[bytes, str]:
    """An RGB image [height, width, 3] as a file, and its media type; a PNG where the format cannot hold its sides."""
    if max(image.shape) > _LONGEST_SIDE.get(picture, max(image.shape)):
        picture = "png"
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=picture, **_OPTIONS[picture])
    return buffer.getvalue(), f"image/{picture}"
