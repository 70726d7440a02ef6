"""The masks of instance annotations: polygons or run lengths, checked when read and turned into pixels when needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from model.data.formats.coco_files import ImageRecord
from model.data.formats.json_fields import field_of, number_from, wrong

# Polygons of at least three corners, each float64 [2 * corners] as x, y, x, y, ...; or COCO's compressed run lengths,
# `size` and `counts`.
MaskAnnotation = tuple[NDArray[np.float64], ...] | dict[str, Any]

# The rasterizer takes memory in proportion to an outline's length, so one mistyped coordinate could take all of it.
_FARTHEST_PIXEL = 1e5


class NoMaskError(ValueError):
    """An annotation has a box only."""


def read_segmentation(entry: dict[str, Any], record: ImageRecord, where: str) -> MaskAnnotation:
    """What an annotation says of its mask. Polygons of fewer than three corners enclose nothing and are left out.

    Raises NoMaskError if it says nothing, ValueError if it says what cannot be decoded for this picture; both begin
    with `where`.
    """
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, dict) and segmentation:
        return _checked_run_lengths(segmentation, record, where)
    if segmentation in (None, [], {}, "", [[]]):
        raise NoMaskError(f"{where} has no segmentation, which masks need: polygons or run lengths")
    if not isinstance(segmentation, list):
        raise wrong(where, "segmentation", segmentation, "polygons or run lengths")
    if not any(isinstance(part, list) for part in segmentation):
        segmentation = [segmentation]  # some tools write the one polygon without the list around it
    polygons = tuple(_polygon(points, where) for points in segmentation)
    return tuple(points for points in polygons if len(points) >= 6)


def _polygon(points: Any, where: str) -> NDArray[np.float64]:
    numbers = [number_from(value) for value in points] if isinstance(points, list) else [None]
    corners = np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
    # A comparison with NaN is false.
    if corners.ndim != 1 or len(corners) % 2 or not bool((np.abs(corners) < _FARTHEST_PIXEL).all()):
        raise ValueError(f"{where} has a polygon that is not a list of pixel coordinates x, y, x, y, ...")
    return corners


def _checked_run_lengths(rle: dict[str, Any], record: ImageRecord, where: str) -> dict[str, Any]:
    size, counts = (field_of(rle, name, f"{where} has a segmentation that") for name in ("size", "counts"))
    wanted = [record.height, record.width]
    if not isinstance(size, list) or [number_from(side) for side in size] != wanted:
        raise ValueError(f"{where} has run lengths for size {size!r}, but its picture is {wanted} (height, width)")
    if isinstance(counts, list):
        pixels = record.height * record.width
        runs = [number_from(count) for count in counts]
        if any(run is None or run < 0 or run % 1 for run in runs) or sum(map(int, filter(None, runs))) != pixels:
            raise ValueError(f"{where} has run lengths that do not add up to the {pixels} pixels of its picture")
        encoded = coco_mask.frPyObjects({"size": wanted, "counts": [int(run or 0) for run in runs]}, *wanted)
        return {"size": wanted, "counts": encoded["counts"].decode("ascii")}
    if not isinstance(counts, str):
        raise wrong(f"{where} has a segmentation that", "counts", counts, "a list or a string of run lengths")
    return {"size": wanted, "counts": counts}


def box_as_mask(box_xywh: tuple[float, float, float, float], record: ImageRecord) -> MaskAnnotation:
    """The part of a box that is in its picture, as a polygon."""
    left, top, width, height = box_xywh
    x1, x2 = np.clip([left, left + width], 0, record.width)
    y1, y2 = np.clip([top, top + height], 0, record.height)
    return (np.array([x1, y1, x2, y1, x2, y2, x1, y2], dtype=np.float64),)


def decode_mask(segmentation: MaskAnnotation, record: ImageRecord) -> NDArray[np.uint8]:
    """A mask, uint8 [height, width] of 0 and 1. Raises what `run_lengths` does."""
    decoded: NDArray[np.uint8] = coco_mask.decode(run_lengths(segmentation, record))
    return decoded


def run_lengths(segmentation: MaskAnnotation, record: ImageRecord) -> dict[str, Any]:
    """A mask as pycocotools takes it. Raises ValueError for compressed run lengths that are broken."""
    if not segmentation:
        empty: dict[str, Any] = coco_mask.encode(np.zeros((record.height, record.width), np.uint8, order="F"))
        return empty
    if isinstance(segmentation, tuple):
        # One object may be several polygons, where something in front of it cuts it apart.
        merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(list(segmentation), record.height, record.width))
        return merged
    # The decoder leaves memory that no run covers as it was: noise, seen as a mask.
    if sum(_runs(segmentation["counts"])) != record.height * record.width:
        raise ValueError(f"its run lengths do not add up to {record.height * record.width} pixels")
    return segmentation


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
