"""The outline of a segment: polygons along the edges of its pixels, which enclose these pixels and no others.

The corners of a mask's border are found at once: where one or three of the four pixels around a point are the
segment's, there is a corner, and where two are that touch only there, there are two. In each row of points, corners
are the ends of horizontal lines, the first and second of one, the third and fourth of the next; likewise in each
column. What is left is to walk from line to line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.answers.id_map import IdMap, starts

Ring = list[tuple[int, int]]  # (x, y) of each corner in pixels, the first once more at the end
Polygon = list[Ring]  # the outer ring, then the holes
MAX_CORNERS = 500_000  # of all outlines of one answer: about 6 MB of JSON, and half a second


class TooManyCornersError(Exception):
    """The outlines have more corners than are walked around."""


def outlines(ids: IdMap, number: int, max_corners: int = MAX_CORNERS) -> tuple[list[Polygon], int]:
    """The polygons of the mask `ids.array() == number`, from top to bottom, and how many corners they have.

    Pixels that touch at a corner only belong to different polygons. No ring crosses or touches itself. With y pointing
    down, outer rings go clockwise and holes the other way.

    Raises:
        TooManyCornersError: there are more than `max_corners`.
    """
    own = ids.ids == number
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    if not len(rows):
        return [], 0
    top, left = rows[0], columns[0]
    mask = np.pad(own[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    corners = _Corners.of(mask)
    if len(corners.y) > max_corners:
        raise TooManyCornersError
    x, y = starts(ids.column_copies)[corners.x + left].tolist(), starts(ids.row_copies)[corners.y + top].tolist()
    rings = corners.rings()
    polygons = [
        [[(x[corner], y[corner]) for corner in (*ring, ring[0])] for ring in polygon]
        for polygon in corners.nested(rings, mask)
    ]
    return polygons, len(corners.y)


@dataclass(frozen=True)
class _Corners:
    """The corners of a mask's border, in rows from left to right; where two are at one point, the first is the one at
    the end of the line on the left.
    """

    y: NDArray[np.intp]  # [n], between 0 and the mask's height
    x: NDArray[np.intp]  # [n]
    at_crossing: NDArray[np.bool_]  # [n], whether two are there
    fills_below: NDArray[np.bool_]  # [n], of the horizontal line that ends there: whether the segment is below it
    by_column: NDArray[np.intp]  # [n], their indices in columns from top to bottom
    across: NDArray[np.intp]  # [n], the corner at the other end of the vertical line

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> _Corners:
        """Those of a mask that is surrounded by one pixel that is not the segment's."""
        upper_left, upper_right, lower_left, lower_right = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]
        crossing = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
        single = upper_left ^ upper_right ^ lower_left ^ lower_right
        count = (single + 2 * crossing).ravel()
        point = np.flatnonzero(count)
        point = point.repeat(count[point])
        y, x = point // crossing.shape[1], point % crossing.shape[1]
        at_crossing = crossing.ravel()[point]
        second = np.append(False, point[1:] == point[:-1])
        # A line goes left from every second corner of its row.
        goes_left = np.arange(len(point)) % 2 == 1
        fills_below = np.where(goes_left, mask[y + 1, x], mask[y + 1, x + 1])
        # At a crossing each corner turns around a pixel of the segment: up and left, or up and right.
        goes_up = second == ~upper_left[y, x]
        by_column = np.lexsort((at_crossing & ~goes_up, y, x))
        across = np.empty_like(by_column)
        across[by_column[0::2]], across[by_column[1::2]] = by_column[1::2], by_column[0::2]
        return cls(y, x, at_crossing, fills_below, by_column, across)

    def rings(self) -> list[list[int]]:
        """The corners in the order of a walk along each ring with the segment on the right; none passes a point
        twice.
        """
        across, fills_below = self.across.tolist(), self.fills_below.tolist()
        is_crossing = self.at_crossing.tolist()
        waiting = [fills_below[corner] == (corner % 2 == 0) for corner in range(len(across))]
        rings = []
        for first in range(len(waiting)):
            if not waiting[first]:
                continue
            ring: list[int] = []
            corner, crossings = first, 0
            while waiting[corner]:
                waiting[corner] = False
                ring += [corner, corner ^ 1]
                crossings += is_crossing[corner] + is_crossing[corner ^ 1]
                corner = across[corner ^ 1]
            rings += self._apart(ring) if crossings > 1 else [ring]
        return rings

    def _apart(self, ring: list[int]) -> list[list[int]]:
        """A ring that may pass points twice as rings that do not."""
        apart: list[list[int]] = []
        path: list[tuple[tuple[int, int], int]] = []  # points, and the corners there
        place: dict[tuple[int, int], int] = {}  # of points, in the path
        points = zip(self.x[ring].tolist(), self.y[ring].tolist(), strict=True)
        for point, corner in zip(points, ring, strict=True):
            if (begin := place.get(point)) is not None:
                loop = path[begin:]
                del path[begin:]
                for passed, _ in loop:
                    del place[passed]
                apart.append([passed for _, passed in loop])
            place[point] = len(path)
            path.append((point, corner))
        return [*apart, [passed for _, passed in path]]

    def nested(self, rings: list[list[int]], mask: NDArray[np.bool_]) -> list[list[list[int]]]:
        """Each outer ring with its holes, in the order of their topmost corners."""
        rings = [self._from_the_top(ring) for ring in rings]
        rings.sort(key=lambda ring: ring[0])
        ring_of = np.empty(len(self.y), dtype=np.intp)
        for index, ring in enumerate(rings):
            ring_of[ring] = index
        row_begin = _row_begin(mask) if len(rings) > 1 else None
        height = mask.shape[0]
        column_key = (self.x * height + self.y)[self.by_column]
        polygons: dict[int, list[list[int]]] = {}
        outer: list[int] = []
        for index, ring in enumerate(rings):
            top = ring[0]
            y, x = int(self.y[top]), int(self.x[top])
            if mask[y + 1, x + 1]:
                outer.append(index)
                polygons[index] = [ring]
                continue
            # Above a hole's top is its polygon; the line where that begins, to the left, is a ring's that was here.
            assert row_begin is not None
            left = int(row_begin[y, x + 1]) - 1
            line = int(np.searchsorted(column_key, left * height + y - 1, side="right")) - 1
            # It is walked upwards, so it is the ring's that has its lower end.
            outer.append(outer[ring_of[self.by_column[line + 1]]])
            polygons[outer[index]].append(ring)
        return list(polygons.values())

    def _from_the_top(self, ring: list[int]) -> list[int]:
        """The ring from its topmost corner on, the leftmost of these."""
        begin = ring.index(min(ring))
        return ring[begin:] + ring[:begin]


def _row_begin(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Where the run of pixels of one kind that each pixel belongs to begins in its row: [h, w] -> [h, w]."""
    begins = np.where(mask[:, 1:] != mask[:, :-1], np.arange(1, mask.shape[1]), 0)
    return np.maximum.accumulate(np.pad(begins, ((0, 0), (1, 0))), axis=1)
