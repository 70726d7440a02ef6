"""Which mask wins each pixel: bilinear upsampling and argmax in one pass.

A hundred masks at 800 x 1333 are 400 MB of floats. Here a tile of the image is upsampled mask by mask against a
running maximum, so that the working set stays in the processor's cache whatever the number of masks, and of the masks
only those that can win there: upsampling keeps the order of two masks where it is the same in all cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TILE = (96, 128)  # rows, columns; small enough that few masks meet in one, large enough to be worth a step
# How far rounding may move an upsampled value, relative to the largest; a few operations on float32 stay below a tenth.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class _Taps:
    """The two source cells of target pixels along one axis, and their weights."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    low_weight: NDArray[np.float32]
    high_weight: NDArray[np.float32]

    def tiles(self, length: int) -> Iterator[tuple[slice, slice, _Taps]]:
        """Each tile's pixels, the cells they come from, and the taps into those."""
        for start in range(0, len(self.low), length):
            pixels = slice(start, start + length)
            low, high = self.low[pixels], self.high[pixels]
            cells = slice(int(low[0]), int(high[-1]) + 1)
            taps = _Taps(low - cells.start, high - cells.start, self.low_weight[pixels], self.high_weight[pixels])
            yield pixels, cells, taps


def winners(
    masks: NDArray[np.float32],
    size: tuple[int, int],
    rows: NDArray[np.intp] | None = None,
    columns: NDArray[np.intp] | None = None,
) -> NDArray[np.uint16]:
    """Index of the mask with the highest logit at each pixel; the first of equals.

    Masks float32 [k, m, n], k >= 1, finite, are upsampled to (height, width) as torch does with
    align_corners=False: pixel centres lie at halves, and the outermost cells extend to the edge. Returns uint16
    [height, width], or of that only some rows and columns, each in ascending order.
    """
    vertical, horizontal = _taps(masks.shape[1], size[0], rows), _taps(masks.shape[2], size[1], columns)
    winner = np.empty((len(vertical.low), len(horizontal.low)), dtype=np.uint16)
    for ys, cell_rows, row_taps in vertical.tiles(_TILE[0]):
        for xs, cell_columns, column_taps in horizontal.tiles(_TILE[1]):
            _fill_tile(masks[:, cell_rows, cell_columns], row_taps, column_taps, winner[ys, xs])
    return winner


def winners_at(
    masks: NDArray[np.float32], size: tuple[int, int], ys: NDArray[np.intp], xs: NDArray[np.intp]
) -> NDArray[np.uint16]:
    """What `winners` holds at the pixels (ys, xs): uint16, one for each."""
    rows, columns = _taps(masks.shape[1], size[0], ys), _taps(masks.shape[2], size[1], xs)
    best = np.full(ys.shape, -np.inf, dtype=np.float32)
    winner = np.zeros(ys.shape, dtype=np.uint16)
    for index, mask in enumerate(masks):
        upper, lower = (
            mask[y, columns.low] * columns.low_weight + mask[y, columns.high] * columns.high_weight
            for y in (rows.low, rows.high)
        )
        value = upper * rows.low_weight + lower * rows.high_weight
        winner[value > best] = index
        np.maximum(best, value, out=best)
    return winner


def above_zero(
    mask: NDArray[np.float32], size: tuple[int, int], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Where one mask, upsampled as in `winners`, is above zero.

    Only what may be is computed: a pixel is above zero where one of its four cells is.

    Args:
        mask: float32 [m, n], finite.
        size: (height, width) in pixels, of the upsampled mask.
        rows: those of its rows that are wanted, ascending.
        columns: those of its columns that are wanted, ascending.

    Returns:
        A slice of `rows` and one of `columns`, outside of which nothing is above zero, and what is inside: bool.
    """
    positive = mask > 0
    vertical, ys = _taps_near(positive, size[0], rows)
    horizontal, xs = _taps_near(positive.T, size[1], columns)
    wide = mask[:, horizontal.low] * horizontal.low_weight + mask[:, horizontal.high] * horizontal.high_weight
    value = wide[vertical.low] * vertical.low_weight[:, None] + wide[vertical.high] * vertical.high_weight[:, None]
    return ys, xs, value > 0


def _taps_near(cells: NDArray[np.bool_], new_length: int, at: NDArray[np.intp]) -> tuple[_Taps, slice]:
    """The taps, along the rows of these cells, of those positions that come from marked rows or from between them, and
    which positions these are.
    """
    marked = np.flatnonzero(cells.any(axis=1))
    if not len(marked):
        return _taps(len(cells), new_length, at[:0]), slice(0, 0)
    taps = _taps(len(cells), new_length, at)
    near = np.flatnonzero((taps.high >= marked[0]) & (taps.low <= marked[-1]))
    here = slice(int(near[0]), int(near[-1]) + 1) if len(near) else slice(0, 0)
    return _taps(len(cells), new_length, at[here]), here


def _fill_tile(cells: NDArray[np.float32], rows: _Taps, columns: _Taps, winner: NDArray[np.uint16]) -> None:
    """Write the winners of one tile, which comes from these cells [k, r, c]."""
    rivals = _rivals(cells)
    winner[...] = rivals[0]
    if len(rivals) == 1:
        return
    best = np.full(winner.shape, -np.inf, dtype=np.float32)
    value, lower, better = np.empty_like(best), np.empty_like(best), np.empty(best.shape, dtype=np.bool_)
    low_weight, high_weight = rows.low_weight[:, None], rows.high_weight[:, None]
    for index in rivals:
        mask = cells[index]
        wide = mask[:, columns.low] * columns.low_weight + mask[:, columns.high] * columns.high_weight
        np.multiply(wide[rows.low], low_weight, out=value)
        np.multiply(wide[rows.high], high_weight, out=lower)
        np.add(value, lower, out=value)
        np.greater(value, best, out=better)
        np.copyto(winner, index, where=better)
        np.maximum(best, value, out=best)


def _rivals(cells: NDArray[np.float32]) -> list[int]:
    """The masks that may win a pixel that comes from these cells [k, r, c], in order; at least one.

    A mask that is below another in every cell is below it in every pixel. The other is the one that is highest on
    average, which leaves few.
    """
    # Any mask will do for the other, so it does not matter if the sum of enormous logits overflows; and a difference
    # overflows to the infinity of the right sign.
    with np.errstate(over="ignore", invalid="ignore"):
        leader = cells[cells.mean(axis=(1, 2)).argmax()]
        lead = (leader - cells).min(axis=(1, 2))
    margin = _ROUNDING * float(np.abs(cells).max())
    return np.flatnonzero(lead <= margin).tolist()


def _taps(length: int, new_length: int, at: NDArray[np.intp] | None = None) -> _Taps:
    """Source cells and weights for resizing an axis of `length` cells to `new_length` pixels: all of these, or
    those at some positions.
    """
    pixels = np.arange(new_length) if at is None else at
    position = (pixels.astype(np.float64) + 0.5) * (length / new_length) - 0.5
    position = np.clip(position, 0.0, length - 1)
    low = position.astype(np.intp)
    high_weight = (position - low).astype(np.float32)
    return _Taps(low, np.minimum(low + 1, length - 1), 1 - high_weight, high_weight)
