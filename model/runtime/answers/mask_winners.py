"""Which mask wins each pixel: bilinear upsampling and argmax in one pass.

A hundred masks at 800 x 1333 are 400 MB of floats, of which hardly any need be computed: upsampling keeps the order of
two masks where it is the same in all cells that a pixel comes from. So most pixels go to the mask that leads in all
four of their cells, and only those at outlines are upsampled, from the masks that can win there.

Where outlines are everywhere, as in noise, a tile of the image is upsampled mask by mask against a running maximum, so
that the working set stays in the processor's cache whatever the number of masks. Both ways compute a pixel alike, to
the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

_TILE = (96, 128)  # rows, columns; small enough that few masks meet in one, large enough to be worth a step
# How far rounding may move an upsampled value, relative to the largest; a few operations on float32 stay below a tenth.
_ROUNDING = 1e-5
# To decide pixel by pixel takes about ten times as long for each; and its memory is bounded by this.
_MOSTLY_CLEAR = 0.85
_TOGETHER = 2**14  # pixels that are decided at once


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
    margin = _margin(masks)
    leader, is_clear = _leaders(masks, margin)
    if is_clear.mean() >= _MOSTLY_CLEAR:
        winner = leader.take(vertical.low, axis=0).take(horizontal.low, axis=1)
        if not is_clear.all():
            _decide(masks, margin, ~is_clear, vertical, horizontal, winner)
        return winner
    winner = np.empty((len(vertical.low), len(horizontal.low)), dtype=np.uint16)
    for ys, cell_rows, row_taps in vertical.tiles(_TILE[0]):
        for xs, cell_columns, column_taps in horizontal.tiles(_TILE[1]):
            _fill_tile(masks[:, cell_rows, cell_columns], row_taps, column_taps, winner[ys, xs])
    return winner


def _leaders(masks: NDArray[np.float32], margin: float) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Of each cell [m, n] the mask that is highest there, and whether every pixel between it and its neighbours to the
    right and below goes to that mask.
    """
    best, second = masks[0].copy(), np.full(masks.shape[1:], -np.inf, dtype=np.float32)
    leader = np.zeros(best.shape, dtype=np.uint16)
    lower, better = np.empty_like(best), np.empty(best.shape, dtype=np.bool_)
    for index, mask in enumerate(masks[1:], start=1):
        np.minimum(best, mask, out=lower)
        np.maximum(second, lower, out=second)
        np.greater(mask, best, out=better)
        np.copyto(leader, index, where=better)
        np.maximum(best, mask, out=best)
    with np.errstate(over="ignore"):  # to the infinity of the right sign
        is_close = best - second <= margin
    code = np.where(is_close, len(masks), leader)  # which is nobody's
    corners = np.pad(code, ((0, 1), (0, 1)), mode="edge")
    is_same = (corners[:-1, 1:] == code) & (corners[1:, :-1] == code) & (corners[1:, 1:] == code)
    return leader, is_same & ~is_close


def _decide(
    masks: NDArray[np.float32],
    margin: float,
    is_open: NDArray[np.bool_],
    rows: _Taps,
    columns: _Taps,
    winner: NDArray[np.uint16],
) -> None:
    """Write the winners of the pixels of open cells [m, n], each from the masks that may win in its cell's square."""
    squares = np.flatnonzero(is_open)
    corners = _corners(masks, squares)
    rivals, count = _rivals_by_square(corners, margin)
    flat = corners.reshape(4, -1)
    number = np.empty(is_open.size, dtype=np.intp)
    number[squares] = np.arange(len(squares))
    open_pixels = np.flatnonzero(is_open.take(rows.low, axis=0).take(columns.low, axis=1))
    won = winner.reshape(-1)  # which it is a view of, being new
    for start in range(0, len(open_pixels), _TOGETHER):
        pixels = open_pixels[start : start + _TOGETHER]
        ys, xs = np.divmod(pixels, winner.shape[1])
        square = number[rows.low[ys] * is_open.shape[1] + columns.low[xs]]  # of each pixel
        taps = columns.low_weight[xs], columns.high_weight[xs], rows.low_weight[ys], rows.high_weight[ys]
        # Every square has a first rival; most have two.
        best, won[pixels] = _value(flat, rivals[0], square, taps), rivals[0][square]
        for place, masks_here in enumerate(rivals[1:], start=1):
            some = np.flatnonzero(count[square] > place)
            value = _value(flat, masks_here, square[some], [tap[some] for tap in taps])
            better = value > best[some]
            rising = some[better]
            won[pixels[rising]], best[rising] = masks_here[square[rising]], value[better]


def _value(
    corners: NDArray[np.float32], masks: NDArray[np.intp], square: NDArray[np.intp], taps: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The logits of pixels, each of the mask of its square.

    From corners [4, masks x squares], and the weights of those on the left, on the right, above and below.
    """
    at = masks[square] * len(masks) + square
    left, right, above, below = taps
    upper = corners[0].take(at) * left + corners[1].take(at) * right
    lower = corners[2].take(at) * left + corners[3].take(at) * right
    value: NDArray[np.float32] = upper * above + lower * below
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
    """The masks that may win a pixel in each square, in order, [most, n], and how many, [n]; see `_rivals`."""
    count = corners.shape[2]
    with np.errstate(over="ignore", invalid="ignore"):
        leader = corners.sum(axis=0).argmax(axis=0)
        may_win = np.zeros(corners.shape[1:], dtype=np.bool_)
        for corner in corners:
            may_win |= corner[leader, np.arange(count)] - corner <= margin
    mask, square = np.nonzero(may_win)
    place = may_win.cumsum(axis=0, dtype=np.intp)[mask, square] - 1
    number = may_win.sum(axis=0)
    rivals = np.zeros((int(number.max()), count), dtype=np.intp)
    rivals[place, square] = mask
    return rivals, number


def _margin(cells: NDArray[np.float32]) -> float:
    """What rounding may move a pixel that comes from these cells by, at most."""
    return _ROUNDING * max(float(cells.max()), -float(cells.min()))


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
    return np.flatnonzero(lead <= _margin(cells)).tolist()


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
