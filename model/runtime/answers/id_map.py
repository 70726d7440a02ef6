"""An id map that keeps no row and no column twice.

A panoptic result is the map at the network's size, enlarged to the photo by nearest neighbour: of a 12-megapixel
photo, 14 pixels of 15 are copies. What is made of a result (areas, boxes, run lengths, a PNG) follows from the map
without the copies and from how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class IdMap:
    """Ids of an image's pixels, [H, W], as the [h, w] rows and columns that it consists of."""

    ids: NDArray[np.integer]  # [h, w], from 0
    row_copies: NDArray[np.intp]  # [h], at least 1 each; they add up to H
    column_copies: NDArray[np.intp]  # [w], at least 1 each; they add up to W

    @classmethod
    def of(cls, ids: NDArray[np.integer]) -> IdMap:
        """The map of an array [H, W] as it is, every row and column once."""
        height, width = ids.shape
        return cls(ids, np.ones(height, dtype=np.intp), np.ones(width, dtype=np.intp))

    @classmethod
    def uniform(cls, shape: tuple[int, int], number: int = 0) -> IdMap:
        """A map (H, W) of one id."""
        return cls(np.full((1, 1), number), np.array([shape[0]]), np.array([shape[1]]))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return int(self.row_copies.sum()), int(self.column_copies.sum())

    def array(self) -> NDArray[np.int32]:
        """Every pixel's id, int32 [H, W]."""
        wide = self.ids.astype(np.int32).repeat(self.column_copies, axis=1)
        return wide.repeat(self.row_copies, axis=0)


def starts(copies: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where each row (or column) begins among all, in pixels, and where the last one ends: [n] -> [n + 1]."""
    return np.concatenate([[0], np.cumsum(copies)])
