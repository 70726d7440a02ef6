"""COCO's two ways to write segments: run lengths for one mask, and a PNG of ids for a whole panoptic image.

Formats: cocodataset.org/#format-results and github.com/cocodataset/panopticapi.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from model.runtime.answers.id_map import IdMap, starts
from model.runtime.answers.png_stream import write_png

_LARGEST_ID = 256**3 - 1


class RLE(TypedDict):
    """A compressed run-length mask, as pycocotools reads it."""

    size: list[int]  # [height, width]
    counts: str  # runs of zeros and ones in turn, down the columns


def encode_rles(ids: IdMap, numbers: Sequence[int]) -> list[RLE]:
    """Run lengths of several segments of an id map [H, W]: of each, those of the mask `ids.array() == number`.

    The map is walked once for all of them, and only its part without copies.
    """
    height, width = ids.shape
    size = height * width
    begins, owners = _runs(ids)
    ends = np.append(begins[1:], size)
    order = np.argsort(owners, kind="stable")  # by owner, and of each in the order of the map
    firsts, lasts = (np.searchsorted(owners[order], numbers, side) for side in ("left", "right"))
    runs = []
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        own = order[first:last]
        # Borders of this segment's runs, in order; neighbouring runs have other owners, so no two borders
        # coincide.
        borders = np.stack([begins[own], ends[own]], axis=1).ravel()
        counts = np.diff(borders, prepend=0, append=size)
        runs.append({"size": [height, width], "counts": counts[:-1] if counts[-1] == 0 else counts})
    encoded = pycocotools.mask.frPyObjects(runs, height, width) if runs else []
    return [{"size": [height, width], "counts": rle["counts"].decode("ascii")} for rle in encoded]


def _runs(ids: IdMap) -> tuple[NDArray[np.int64], NDArray[np.integer]]:
    """Where the runs of one id begin, down the columns of the whole map, one column after the other, and whose they
    are.
    """
    top = starts(ids.row_copies)[ids.runs.begin]
    # The runs of a column follow each other, and come again as often as the column does.
    number = np.bincount(ids.runs.column)
    first = np.cumsum(number) - number
    number, first = number.repeat(ids.column_copies), first.repeat(ids.column_copies)
    run = np.arange(number.sum()) + (first - (np.cumsum(number) - number)).repeat(number)
    height, width = ids.shape
    position, owner = top[run] + (np.arange(width) * height).repeat(number), ids.runs.owner[run]
    # A run that goes on in the next column is one run.
    new = np.ones(len(run), dtype=np.bool_)
    np.not_equal(owner[1:], owner[:-1], out=new[1:])
    return position[new], owner[new]


def id_png(ids: IdMap) -> bytes:
    """A PNG whose colour of each pixel is its id: id = R + 256 G + 65536 B.

    Raises ValueError if an id is negative or does not fit.
    """
    if ids.ids.min() < 0 or ids.ids.max() > _LARGEST_ID:
        raise ValueError(f"ids in a PNG go from 0 to {_LARGEST_ID}")
    return write_png(ids)
