"""An id map that keeps no row and no column twice.

A panoptic result is the map at the network's size, enlarged to the photo by nearest neighbour: of a 12-megapixel
photo, 14 pixels of 15 are copies. What is made of a result (areas, boxes, run lengths, a PNG) follows from the map
without the copies and from how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of one id down the columns of a map, of the [h, w] cells that it consists of."""

    column: NDArray[np.intp]  # [n], ascending
    begin: NDArray[np.intp]  # [n], the first row
    end: NDArray[np.intp]  # [n], the row behind the last
    owner: NDArray[np.integer]  # [n], the id


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

    @cached_property
    def changes(self) -> NDArray[np.intp]:
        """Where an id is not the one above it, as indices of the map's [h, w] cells, ascending; the first row counts as
        changed. They are few, and all that is made of a map is made of them.
        """
        changed = np.ones(self.ids.shape, dtype=np.bool_)
        np.not_equal(self.ids[1:], self.ids[:-1], out=changed[1:])
        return np.flatnonzero(changed)

    @cached_property
    def runs(self) -> Runs:
        """The runs of one id down the columns, one column after the other."""
        height, width = self.ids.shape
        row = self.changes // width
        column = self.changes - row * width
        # Of small numbers the sort is a linear one.
        order = np.argsort(column.astype(np.min_scalar_type(width)), kind="stable")
        begin = row[order]
        end = np.append(begin[1:], 0)
        end[end == 0] = height  # where the next run begins a column
        return Runs(column[order], begin, end, self.ids.reshape(-1)[self.changes[order]])

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

    Each run is a rectangle of the image. An id without a pixel has area 0 and the box (W, H, 0, 0), which adds nothing
    to another.
    """
    runs, left, top = ids.runs, starts(ids.column_copies), starts(ids.row_copies)
    x1, y1, x2, y2 = left[runs.column], top[runs.begin], left[runs.column + 1], top[runs.end]
    areas = np.bincount(runs.owner, weights=(x2 - x1) * (y2 - y1), minlength=count).astype(np.int64)
    boxes = np.repeat(np.array([[left[-1], top[-1], 0, 0]]), count, axis=0)
    for place, (edge, widest) in enumerate(((x1, np.minimum), (y1, np.minimum), (x2, np.maximum), (y2, np.maximum))):
        widest.at(boxes[:, place], runs.owner, edge)
    return areas, boxes
