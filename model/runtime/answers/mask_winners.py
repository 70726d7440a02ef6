"""Which mask wins each pixel: bilinear upsampling and argmax in one pass.

A hundred masks at 800 x 1333 are 400 MB of floats, of which hardly any need be computed: upsampling keeps the order of
two masks where it is the same in all cells that a pixel comes from. So most pixels go to the mask that leads in all
four of their cells, and only those at outlines are upsampled, from the masks that can win there.

Where outlines are everywhere, as in noise, a tile of the image is upsampled mask by mask against a running maximum, so
that the working set stays in the processor's cache whatever the number of masks. Both ways compute a pixel alike, to
the last bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.runtime.answers.mask_squares import Marks, mark_squares
from model.runtime.answers.upsampling import Taps, rounding_margin, taps_of

_TILE = (96, 128)  # rows, columns; small enough that few masks meet in one, large enough to be worth a step
# To decide square by square takes about three times as long for each pixel; and its memory is bounded by this.
_MOSTLY_CLEAR = 0.85


def winners(
    masks: NDArray[np.float32],
    size: tuple[int, int],
    rows: NDArray[np.intp] | None = None,
    columns: NDArray[np.intp] | None = None,
    marks: Marks | None = None,
) -> Marks:
    """The mark of the mask with the highest logit at each pixel; of the first of equals.

    Masks float32 [k, m, n], k >= 1, finite, are upsampled to (height, width) as torch does with
    align_corners=False: pixel centres lie at halves, and the outermost cells extend to the edge. Marks are unsigned
    integers [k], by default the masks' indices. Returns marks [height, width], or of that only some rows and columns,
    each in ascending order.
    """
    if marks is None:
        marks = np.arange(len(masks), dtype=np.min_scalar_type(len(masks) - 1))
    vertical, horizontal = taps_of(masks.shape[1], size[0], rows), taps_of(masks.shape[2], size[1], columns)
    margin = rounding_margin(masks)
    leader, is_clear = _leaders(masks, margin)
    if is_clear.mean() >= _MOSTLY_CLEAR:
        # The columns first, so that the rows, of which there are more then, are copied whole.
        marked = marks.take(leader).take(horizontal.low, axis=1).take(vertical.low, axis=0)
        if not is_clear.all():
            mark_squares(masks, margin, np.flatnonzero(~is_clear), vertical, horizontal, marks, marked)
        return marked
    winner = np.empty((len(vertical.low), len(horizontal.low)), dtype=np.uint16)
    for ys, cell_rows, row_taps in vertical.tiles(_TILE[0]):
        for xs, cell_columns, column_taps in horizontal.tiles(_TILE[1]):
            _fill_tile(masks[:, cell_rows, cell_columns], row_taps, column_taps, winner[ys, xs])
    return marks.take(winner)


def _leaders(masks: NDArray[np.float32], margin: float) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
    """Of each cell [m, n] the mask that is highest there, and whether every pixel between it and its neighbours to the
    right and below goes to that mask. Where it does not, the mask may be another.
    """
    kind = np.min_scalar_type(len(masks))
    with np.errstate(over="ignore"):  # to the infinity of the right sign
        least = masks.max(axis=0) - np.float32(margin)
    leader, rivals = np.zeros(least.shape, dtype=kind), np.zeros(least.shape, dtype=kind)
    for index, mask in enumerate(masks):
        is_near = mask >= least
        rivals += is_near
        np.maximum(leader, is_near * kind.type(index), out=leader)
    leader[rivals > 1] = len(masks)  # which is nobody's
    is_clear = leader < len(masks)
    is_clear[:, :-1] &= leader[:, 1:] == leader[:, :-1]
    is_clear[:-1] &= leader[1:] == leader[:-1]
    is_clear[:-1, :-1] &= leader[1:, 1:] == leader[:-1, :-1]
    return np.where(is_clear, leader, 0), is_clear


def winners_at(
    masks: NDArray[np.float32], size: tuple[int, int], ys: NDArray[np.intp], xs: NDArray[np.intp]
) -> NDArray[np.uint16]:
    """What `winners` holds at the pixels (ys, xs): uint16, one for each."""
    rows, columns = taps_of(masks.shape[1], size[0], ys), taps_of(masks.shape[2], size[1], xs)
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


def _taps_near(cells: NDArray[np.bool_], new_length: int, at: NDArray[np.intp]) -> tuple[Taps, slice]:
    """The taps, along the rows of these cells, of those positions that come from marked rows or from between them, and
    which positions these are.
    """
    marked = np.flatnonzero(cells.any(axis=1))
    if not len(marked):
        return taps_of(len(cells), new_length, at[:0]), slice(0, 0)
    taps = taps_of(len(cells), new_length, at)
    near = np.flatnonzero((taps.high >= marked[0]) & (taps.low <= marked[-1]))
    here = slice(int(near[0]), int(near[-1]) + 1) if len(near) else slice(0, 0)
    return taps_of(len(cells), new_length, at[here]), here


def _fill_tile(cells: NDArray[np.float32], rows: Taps, columns: Taps, winner: NDArray[np.uint16]) -> None:
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
    return np.flatnonzero(lead <= rounding_margin(cells)).tolist()
