"""The nearest-neighbour resize from the network's size of an image to the original one, as indices.

Two roundings are in use, each where the published code uses it: Pillow's for panoptic masks, torch's for instances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.answers.id_map import IdMap


def pillow_nearest(length: int, new_length: int) -> NDArray[np.intp]:
    """The source pixel of each pixel along an axis in Pillow's nearest-neighbour resize, intp [new_length].

    Pillow itself is asked, because it steps through the axis by repeated addition: a formula would differ
    where the position falls on the border of two pixels.
    """
    axis = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    index: NDArray[np.intp] = np.asarray(axis.resize((new_length, 1), Image.Resampling.NEAREST))[0].astype(np.intp)
    return index


def torch_nearest(length: int, new_length: int) -> NDArray[np.intp]:
    """The same in torch's interpolate(mode="nearest"), which takes a pixel's left edge for its place, in float32."""
    scale = np.float32(length) / np.float32(new_length)
    index: NDArray[np.intp] = np.floor(np.arange(new_length, dtype=np.float32) * scale).astype(np.intp)
    return index.clip(max=length - 1)


@dataclass(frozen=True)
class Sampling:
    """A nearest-neighbour resize: the rows and columns it takes, and how often it takes each. The others need not be
    computed.
    """

    size: tuple[int, int]  # (h, w), the network's
    rows: NDArray[np.intp]  # [r]
    columns: NDArray[np.intp]  # [c]
    row_copies: NDArray[np.intp]  # [r]
    column_copies: NDArray[np.intp]  # [c]

    @classmethod
    def of(
        cls, size: tuple[int, int], orig_size: tuple[int, int], nearest: Callable[[int, int], NDArray[np.intp]]
    ) -> Sampling:
        """The resize from one (height, width) to another, by one of the two roundings."""
        rows, row_copies = np.unique(nearest(size[0], orig_size[0]), return_counts=True)
        columns, column_copies = np.unique(nearest(size[1], orig_size[1]), return_counts=True)
        return cls(size, rows, columns, row_copies, column_copies)

    def enlarged(self, ids: NDArray[np.integer]) -> IdMap:
        """Ids [r, c] at the original size."""
        return IdMap(ids, self.row_copies, self.column_copies)

    def placed(self, ids: NDArray[np.integer], ys: slice, xs: slice) -> IdMap:
        """Ids of some rows and columns at the original size; everything around them is 0."""
        rows, above, below = _around(self.row_copies, ys)
        columns, left, right = _around(self.column_copies, xs)
        return IdMap(np.pad(ids, ((above, below), (left, right))), rows, columns)


def _around(copies: NDArray[np.intp], part: slice) -> tuple[NDArray[np.intp], int, int]:
    """The copies of a part, with all before it as one and all behind it as another, and whether there are such."""
    before, behind = int(copies[: part.start].sum()), int(copies[part.stop :].sum())
    kept = np.concatenate([[before], copies[part], [behind]]).astype(np.intp)
    return kept[kept > 0], int(before > 0), int(behind > 0)
