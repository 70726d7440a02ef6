"""The masks of instance annotations: polygons or run lengths, checked when read and decoded when needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from model.data.coco_files import ImageRecord, field_of

# Polygons of at least three corners, each float64 [2 * corners] as x, y, x, y, ...; or COCO's run lengths.
MaskAnnotation = tuple[NDArray[np.float64], ...] | dict[str, Any]

# The rasterizer takes memory in proportion to an outline's length, so one mistyped coordinate could take all of it.
_FARTHEST_PIXEL = 1e5


def read_segmentation(entry: dict[str, Any], record: ImageRecord, where: str) -> MaskAnnotation:
    """What an annotation says of its mask. Polygons of fewer than three corners enclose nothing and are left out.

    Raises ValueError, which begins with `where`, if it says nothing or what cannot be decoded for this picture.
    """
    segmentation = field_of(entry, "segmentation", where)
    if isinstance(segmentation, dict):
        return _checked_run_lengths(segmentation, record, where)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"{where} has no segmentation: masks are learnt from polygons or run lengths")
    polygons = tuple(_polygon(points, where) for points in segmentation)
    return tuple(points for points in polygons if len(points) >= 6)


def _polygon(points: Any, where: str) -> NDArray[np.float64]:
    try:
        corners = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        corners = np.full(2, np.nan)
    # A comparison with NaN is false.
    if corners.ndim != 1 or len(corners) % 2 or not bool((np.abs(corners) < _FARTHEST_PIXEL).all()):
        raise ValueError(f"{where} has a polygon that is not a list of pixel coordinates x, y, x, y, ...")
    return corners


def _checked_run_lengths(rle: dict[str, Any], record: ImageRecord, where: str) -> dict[str, Any]:
    size, counts = list(field_of(rle, "size", where)), field_of(rle, "counts", where)
    if size != [record.height, record.width]:
        wanted = [record.height, record.width]
        raise ValueError(f"{where} has run lengths for size {size}, but its picture is {wanted} (height, width)")
    if isinstance(counts, list):
        pixels = record.height * record.width
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != pixels:
            raise ValueError(f"{where} has run lengths that do not add up to the {pixels} pixels of its picture")
    elif not isinstance(counts, str):
        raise ValueError(f"{where} has run lengths that are neither a list nor a string")
    return rle


def decode_mask(segmentation: MaskAnnotation, record: ImageRecord) -> NDArray[np.uint8]:
    """A mask, uint8 [height, width] of 0 and 1. Raises ValueError for compressed run lengths that are broken."""
    if not segmentation:
        return np.zeros((record.height, record.width), np.uint8)
    if isinstance(segmentation, tuple):
        # One object may be several polygons, where something in front of it cuts it apart.
        rle = coco_mask.merge(coco_mask.frPyObjects(list(segmentation), record.height, record.width))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, record.height, record.width)
    else:
        rle = segmentation
        # The decoder leaves memory that no run covers as it was: noise, seen as a mask.
        if sum(_runs(segmentation["counts"])) != record.height * record.width:
            raise ValueError(f"its run lengths do not add up to {record.height * record.width} pixels")
    decoded: NDArray[np.uint8] = coco_mask.decode(rle)
    return decoded


def _runs(counts: str) -> list[int]:
    """Run lengths of COCO's string: 5 bits a character, low ones first, each run from the third relative to two before.

    Format: cocodataset/cocoapi, common/maskApi.c, rleToString.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode():
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # nothing follows
            value -= (bits & 16) << shift - 4  # the highest bit is the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
