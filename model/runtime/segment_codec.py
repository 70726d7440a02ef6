"""COCO's two ways to write segments: run lengths for one mask, and a PNG of ids for a whole panoptic image.

Formats: cocodataset.org/#format-results and github.com/cocodataset/panopticapi.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray
from PIL import Image

_LARGEST_ID = 256**3 - 1


class RLE(TypedDict):
    """A compressed run-length mask, as pycocotools reads it."""

    size: list[int]  # [height, width]
    counts: str  # runs of zeros and ones in turn, down the columns


def encode_rle(mask: NDArray[np.bool_]) -> RLE:
    """Run lengths of one mask, bool [H, W]."""
    return _as_text(pycocotools.mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def encode_rles(id_map: NDArray[np.int32], ids: Sequence[int]) -> list[RLE]:
    """Run lengths of several segments of an id map, int32 [H, W]: what `encode_rle(id_map == id)` gives for
    each.

    The map is walked once for all of them, where a mask each would take a pass each: a second, for the
    segments of a 12-megapixel image.
    """
    height, width = id_map.shape
    pixels = id_map.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1]).astype(np.int64)
    ends = np.append(starts[1:], pixels.size)
    owners = pixels[starts]
    rles = []
    for number in ids:
        own = owners == number
        # Borders of this segment's runs, in order; neighbouring runs have other owners, so no two borders
        # coincide.
        borders = np.stack([starts[own], ends[own]], axis=1).ravel()
        counts = np.diff(borders, prepend=0, append=pixels.size)
        if counts[-1] == 0:
            counts = counts[:-1]
        runs = {"size": [height, width], "counts": counts.tolist()}
        rles.append(_as_text(pycocotools.mask.frPyObjects(runs, height, width)))
    return rles


def id_png(id_map: NDArray[np.int32]) -> bytes:
    """A PNG whose colour of each pixel is its id: id = R + 256 G + 65536 B.

    Raises ValueError if an id is negative or does not fit.
    """
    if id_map.min() < 0 or id_map.max() > _LARGEST_ID:
        raise ValueError(f"ids in a PNG go from 0 to {_LARGEST_ID}")
    # The low three bytes of a little-endian number are R, G and B; Pillow skips the fourth as it reads them.
    height, width = id_map.shape
    pixels = np.ascontiguousarray(id_map, dtype="<u4").tobytes()
    image = Image.frombytes("RGB", (width, height), pixels, "raw", "RGBX")
    buffer = io.BytesIO()
    # Ids make long runs of equal bytes; zlib's run-length strategy packs those better than its default, and
    # faster.
    image.save(buffer, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def read_id_png(data: bytes) -> NDArray[np.int32]:
    """The id map, int32 [H, W], of a PNG that `id_png` or COCO's tools wrote. Raises what Pillow does if it
    is none.
    """
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        rgb = np.asarray(image.convert("RGB")).astype(np.int32)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def _as_text(encoded: dict[str, Any]) -> RLE:
    height, width = encoded["size"]
    return {"size": [int(height), int(width)], "counts": encoded["counts"].decode("ascii")}
