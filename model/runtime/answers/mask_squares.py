"""The pixels along outlines of masks, upsampled and given to the highest.

What lies between four cells of the masks is a square, whose pixels all come from these. So the masks that may win there
are found once for a square, and all squares are upsampled together.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.answers.upsampling import Taps

Marks = NDArray[np.unsignedinteger[Any]]
_TOGETHER = 2**15  # pixels that are decided at once


@dataclass(frozen=True)
class _Squares:
    """Pixels between four cells each, along one axis: n squares, of which each gets as many pixels as the largest has;
    in smaller ones the last is there several times.
    """

    pixels: NDArray[np.intp]  # [most, n]
    low_weight: NDArray[np.float32]  # [most, n]
    high_weight: NDArray[np.float32]  # [most, n]

    @classmethod
    def of(cls, taps: Taps, first: NDArray[np.intp], end: NDArray[np.intp]) -> _Squares:
        """The pixels from the first of each square [n] to the end of it."""
        pixels = np.minimum(first + np.arange(int((end - first).max()))[:, None], end - 1)
        return cls(pixels, taps.low_weight[pixels], taps.high_weight[pixels])

    def some(self, squares: NDArray[np.intp]) -> _Squares:
        """Those of some of the squares."""
        return _Squares(self.pixels[:, squares], self.low_weight[:, squares], self.high_weight[:, squares])


def mark_squares(
    masks: NDArray[np.float32],
    margin: float,
    squares: NDArray[np.intp],
    rows: Taps,
    columns: Taps,
    marks: Marks,
    marked: Marks,
) -> None:
    """Write marks at the pixels of some squares: of the mask with the highest logit there, the first of equals.

    Args:
        masks: float32 [k, m, n], finite.
        margin: what rounding may move an upsampled logit by, at most.
        squares: each named by the cell at its upper left, as the index of that among m * n.
        rows: where rows of pixels come from.
        columns: where columns do.
        marks: [k], of the masks.
        marked: [rows, columns], contiguous; what is written to.
    """
    y, x = np.divmod(squares, masks.shape[2])
    top, bottom, usual_height = _pixels_between(rows, masks.shape[1], y)
    left, right, usual_width = _pixels_between(columns, masks.shape[2], x)
    height, width = bottom - top, right - left
    # Those along the edges of the image have more pixels than others, and are done apart.
    is_usual = (height <= usual_height) & (width <= usual_width)
    for chosen in (is_usual, ~is_usual):
        some = np.flatnonzero(chosen & (height > 0) & (width > 0))
        step = max(1, _TOGETHER // int(height[some].max(initial=1) * width[some].max(initial=1)))
        for begin in range(0, len(some), step):
            here = some[begin : begin + step]
            vertical = _Squares.of(rows, top[here], bottom[here])
            horizontal = _Squares.of(columns, left[here], right[here])
            place = vertical.pixels[:, None] * marked.shape[1] + horizontal.pixels
            corners = _corners(masks, squares[here])
            marked.reshape(-1)[place] = _marks_of_winners(corners, margin, vertical, horizontal, marks)


def _pixels_between(taps: Taps, length: int, cells: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    """Of an axis of so many cells: the first pixel that comes from each of some cells and the next one, the end of
    these pixels, and how many there usually are.
    """
    ends = np.searchsorted(taps.low, np.arange(length + 1))
    return ends[cells], ends[cells + 1], -(-len(taps.low) // length)


def _marks_of_winners(
    corners: NDArray[np.float32], margin: float, rows: _Squares, columns: _Squares, marks: Marks
) -> Marks:
    """The marks of the masks that win the pixels of n squares, [rows, columns, n], from all masks' logits [4, k, n] at
    the corners.
    """
    rivals, count = _rivals_by_square(corners, margin)
    every = np.arange(corners.shape[2])
    best = _value(corners[:, rivals[0], every], rows, columns)
    marked = np.broadcast_to(marks.take(rivals[0]), best.shape).copy()
    for place, rival in enumerate(rivals[1:], start=1):
        if place == 1:  # of which few have only one, and for these it is that one again
            value = _value(corners[:, rival, every], rows, columns)
            np.copyto(marked, marks.take(rival), where=value > best)
            np.maximum(best, value, out=best)
        else:
            some = np.flatnonzero(count > place)
            value, before = _value(corners[:, rival[some], some], rows.some(some), columns.some(some)), best[:, :, some]
            marked[:, :, some] = np.where(value > before, marks.take(rival[some]), marked[:, :, some])
            best[:, :, some] = np.maximum(before, value)
    return marked


def _value(corners: NDArray[np.float32], rows: _Squares, columns: _Squares) -> NDArray[np.float32]:
    """The logits [rows, columns, n] at the pixels of n squares, of one mask each, from its logits [4, n] at the
    corners.
    """
    upper_left, upper_right, lower_left, lower_right = corners
    upper = upper_left * columns.low_weight + upper_right * columns.high_weight
    lower = lower_left * columns.low_weight + lower_right * columns.high_weight
    value: NDArray[np.float32] = upper * rows.low_weight[:, None]
    value += lower * rows.high_weight[:, None]
    return value


def _corners(masks: NDArray[np.float32], squares: NDArray[np.intp]) -> NDArray[np.float32]:
    """The logits [4, k, n] of all masks at the corners of squares, which are named by the cell at their upper left."""
    count, height, width = masks.shape
    y, x = np.divmod(squares, width)
    low_y, low_x = np.minimum(y + 1, height - 1), np.minimum(x + 1, width - 1)
    flat = masks.reshape(count, -1)
    corners = np.empty((4, count, len(squares)), dtype=np.float32)
    for corner, (cell_y, cell_x) in zip(corners, product((y, low_y), (x, low_x)), strict=True):
        flat.take(cell_y * width + cell_x, axis=1, out=corner, mode="clip")  # in place; else it is buffered
    return corners


def _rivals_by_square(corners: NDArray[np.float32], margin: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The masks that may win a pixel in each square, in order, [most, n], and how many, [n]. Where there are fewer than
    the most, the first stands there again.

    A mask that is below another at all four corners is below it in every pixel. The other is the one that is highest
    on average.
    """
    count = corners.shape[2]
    with np.errstate(over="ignore", invalid="ignore"):
        leader = corners.sum(axis=0).argmax(axis=0)
        may_win = np.zeros(corners.shape[1:], dtype=np.bool_)
        for corner in corners:
            may_win |= corner[leader, np.arange(count)] - corner <= margin
    number = np.count_nonzero(may_win, axis=0)
    first = np.cumsum(number) - number  # of a square's rivals among all, square after square
    square, mask = np.divmod(np.flatnonzero(may_win.T), len(may_win))
    rivals = np.broadcast_to(mask[first], (int(number.max()), count)).copy()
    rivals[np.arange(len(square)) - first[square], square] = mask
    return rivals, number
