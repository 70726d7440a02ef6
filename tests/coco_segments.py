"""COCO's two ways to write segments, read and written plainly: what the runtime's own are compared with."""

from __future__ import annotations

import io

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray
from PIL import Image

from model.runtime.answers.segment_codec import RLE


def read_id_png(data: bytes) -> NDArray[np.int32]:
    """The id map, int32 [H, W], of a PNG of ids."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        rgb = np.asarray(image.convert("RGB")).astype(np.int32)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def encode_rle(mask: NDArray[np.bool_]) -> RLE:
    """Run lengths of one mask, bool [H, W], by pycocotools."""
    encoded = pycocotools.mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
