"""Which mask wins each pixel: bilinear upsampling and argmax in one pass.

A hundred masks at 800 x 1333 are 400 MB of floats. Here a band of rows is upsampled mask by mask against a
running maximum, so that the working set stays in the processor's cache whatever the number of masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BAND = 48  # rows; a band of 1333 float32 columns is 256 KB


@dataclass(frozen=True)
class _Taps:
    """The two source cells of each target pixel along one axis, and their weights."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    low_weight: NDArray[np.float32]
    high_weight: NDArray[np.float32]


def winners(masks: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint16]:
    """Index of the mask with the highest logit at each pixel; the first of equals.

    Masks float32 [k, m, n], k >= 1, are upsampled to (height, width) as torch does with align_corners=False:
    pixel centres lie at halves, and the outermost cells extend to the edge. Returns uint16 [height, width].
    """
    rows, columns = _taps(masks.shape[1], size[0]), _taps(masks.shape[2], size[1])
    winner = np.zeros(size, dtype=np.uint16)
    for start in range(0, size[0], _BAND):
        _fill_band(masks, rows, columns, slice(start, start + _BAND), winner)
    return winner


def winners_at(
    masks: NDArray[np.float32], size: tuple[int, int], ys: NDArray[np.intp], xs: NDArray[np.intp]
) -> NDArray[np.uint16]:
    """What `winners` holds at the pixels (ys, xs): uint16, one for each."""
    rows, columns = _taps(masks.shape[1], size[0]), _taps(masks.shape[2], size[1])
    best = np.full(ys.shape, -np.inf, dtype=np.float32)
    winner = np.zeros(ys.shape, dtype=np.uint16)
    for index, mask in enumerate(masks):
        upper, lower = (
            mask[y, columns.low[xs]] * columns.low_weight[xs] + mask[y, columns.high[xs]] * columns.high_weight[xs]
            for y in (rows.low[ys], rows.high[ys])
        )
        value = upper * rows.low_weight[ys] + lower * rows.high_weight[ys]
        winner[value > best] = index
        np.maximum(best, value, out=best)
    return winner


def nearest_index(length: int, new_length: int) -> NDArray[np.intp]:
    """The source pixel of each pixel along an axis in Pillow's nearest-neighbour resize, intp [new_length].

    Pillow itself is asked, because it steps through the axis by repeated addition: a formula would differ
    where the position falls on the border of two pixels.
    """
    axis = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    index: NDArray[np.intp] = np.asarray(axis.resize((new_length, 1), Image.Resampling.NEAREST))[0].astype(np.intp)
    return index


def _fill_band(
    masks: NDArray[np.float32], rows: _Taps, columns: _Taps, band: slice, winner: NDArray[np.uint16]
) -> None:
    """Write the winners of the rows of one band."""
    low, high = rows.low[band], rows.high[band]
    first, last = low[0], high[-1] + 1
    low_weight, high_weight = rows.low_weight[band, None], rows.high_weight[band, None]
    best = np.full(winner[band].shape, -np.inf, dtype=np.float32)
    value, lower, better = np.empty_like(best), np.empty_like(best), np.empty(best.shape, dtype=np.bool_)
    for index, mask in enumerate(masks):
        cells = mask[first:last]
        wide = cells[:, columns.low] * columns.low_weight + cells[:, columns.high] * columns.high_weight
        np.multiply(wide[low - first], low_weight, out=value)
        np.multiply(wide[high - first], high_weight, out=lower)
        np.add(value, lower, out=value)
        np.greater(value, best, out=better)
        np.copyto(winner[band], index, where=better)
        np.maximum(best, value, out=best)


def _taps(length: int, new_length: int) -> _Taps:
    """Source cells and weights for resizing an axis of `length` cells to `new_length` pixels."""
    position = (np.arange(new_length, dtype=np.float64) + 0.5) * (length / new_length) - 0.5
    position = np.clip(position, 0.0, length - 1)
    low = position.astype(np.intp)
    high_weight = (position - low).astype(np.float32)
    return _Taps(low, np.minimum(low + 1, length - 1), 1 - high_weight, high_weight)
