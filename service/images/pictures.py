"""Pictures as they are answered: with what was found on them, in the format that the client wants or in PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import MappingProxyType
from typing import Literal

from PIL import Image

from model.runtime.answers.attention import Explanation
from model.runtime.answers.canvas import Canvas
from model.runtime.answers.detections import Detections
from model.runtime.answers.instances import Instances
from model.runtime.answers.overlay import paint_detections, paint_explanation, paint_panoptic
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


def draw_found(canvas: Canvas, found: FoundInImage, categories: Sequence[Category]) -> None:
    """Draw boxes on an image, paint segments over it, or paint what was looked at."""
    if isinstance(found, Detections):
        paint_detections(canvas, found, categories)
    elif isinstance(found, Explanation):
        paint_explanation(canvas, found, categories)
    else:
        paint_panoptic(canvas, found.on_top() if isinstance(found, Instances) else found, categories)


def encode_picture(image: Image.Image, picture: PictureFormat) -> tuple[bytes, str]:
    """An RGB image as a file, and its media type; a PNG where the format cannot hold its sides."""
    if max(image.size) > _LONGEST_SIDE.get(picture, max(image.size)):
        picture = "png"
    buffer = io.BytesIO()
    image.save(buffer, format=picture, **_OPTIONS[picture])
    return buffer.getvalue(), f"image/{picture}"
