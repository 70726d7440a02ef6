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

    def region(self, box_xyxy: tuple[int, int, int, int]) -> NDArray[np.integer]:
        """The ids of the pixels in a box (right and bottom exclusive), [y2 - y1, x2 - x1]."""
        x1, y1, x2, y2 = box_xyxy
        rows = np.arange(len(self.row_copies)).repeat(self.row_copies)[y1:y2]
        columns = np.arange(len(self.column_copies)).repeat(self.column_copies)[x1:x2]
        return self.ids[rows[:, None], columns]


def starts(copies: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where each row (or column) begins among all, in pixels, and where the last one ends: [n] -> [n + 1]."""
    return np.concatenate([[0], np.cumsum(copies)])


def areas_and_boxes(ids: IdMap, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Area [count] and tight box [count, 4] (x1, y1, x2, y2) of each id below `count`, in pixels.

    The map is taken apart into horizontal runs of one id, which are few; each is a rectangle of the image. An id
    without a pixel has area 0 and the box (W, H, 0, 0), which adds nothing to another.
    """
    height, width = ids.ids.shape
    begins = np.ones((height, width), dtype=np.bool_)
    np.not_equal(ids.ids[:, 1:], ids.ids[:, :-1], out=begins[:, 1:])
    start = np.flatnonzero(begins)
    owner = ids.ids.ravel()[start]
    y, x = start // width, start % width
    x_end = np.append(start[1:], begins.size) - y * width
    left, top = starts(ids.column_copies), starts(ids.row_copies)
    rectangles = np.stack([left[x], top[y], left[x_end], top[y + 1]], axis=1)
    area = (rectangles[:, 2] - rectangles[:, 0]) * (rectangles[:, 3] - rectangles[:, 1])
    areas = np.bincount(owner, weights=area, minlength=count).astype(np.int64)
    boxes = np.repeat(np.array([[left[-1], top[-1], 0, 0]]), count, axis=0)
    np.minimum.at(boxes[:, :2], owner, rectangles[:, :2])
    np.maximum.at(boxes[:, 2:], owner, rectangles[:, 2:])
    return areas, boxes
