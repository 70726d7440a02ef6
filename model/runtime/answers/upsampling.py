"""Bilinear upsampling along one axis, as torch does it with align_corners=False: which cells a pixel comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# How far rounding may move an upsampled value, relative to the largest; a few operations on float32 stay below a tenth.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Taps:
    """The two source cells of target pixels along one axis, and their weights."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    low_weight: NDArray[np.float32]
    high_weight: NDArray[np.float32]

    def tiles(self, length: int) -> Iterator[tuple[slice, slice, Taps]]:
        """Each tile's pixels, the cells they come from, and the taps into those."""
        for start in range(0, len(self.low), length):
            pixels = slice(start, start + length)
            low, high = self.low[pixels], self.high[pixels]
            cells = slice(int(low[0]), int(high[-1]) + 1)
            taps = Taps(low - cells.start, high - cells.start, self.low_weight[pixels], self.high_weight[pixels])
            yield pixels, cells, taps


def taps_of(length: int, new_length: int, at: NDArray[np.intp] | None = None) -> Taps:
    """Source cells and weights for resizing an axis of `length` cells to `new_length` pixels: all of these, or
    those at some positions.
    """
    pixels = np.arange(new_length) if at is None else at
    position = (pixels.astype(np.float64) + 0.5) * (length / new_length) - 0.5
    position = np.clip(position, 0.0, length - 1)
    low = position.astype(np.intp)
    high_weight = (position - low).astype(np.float32)
    return Taps(low, np.minimum(low + 1, length - 1), 1 - high_weight, high_weight)


def rounding_margin(cells: NDArray[np.float32]) -> float:
    """What rounding may move a pixel that comes from these cells by, at most."""
    return _ROUNDING * max(float(cells.max()), -float(cells.min()))
