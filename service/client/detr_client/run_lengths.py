"""COCO's compressed run lengths, read without pycocotools."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_OFFSET = 48  # of the characters, each of which has six bits
_MORE = 0x20  # the number goes on in the next character
_NEGATIVE = 0x10  # in a number's last character
_BITS = 5  # of the number in each character


def mask_of_counts(counts: str | bytes, height: int, width: int) -> NDArray[np.bool_]:
    """A mask, bool [height, width], of its run lengths in COCO's compressed form (`rleFrString` of pycocotools).

    Raises:
        ValueError: they are not run lengths of a mask of this size.
    """
    text = counts.encode("ascii", errors="replace") if isinstance(counts, str) else counts
    runs = _undone(_numbers(text))
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"the run lengths are not those of a mask of {width} x {height} pixels")
    inside = np.arange(len(runs)) % 2 == 1  # runs of zeros and ones in turn, down the columns
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)


def _numbers(text: bytes) -> NDArray[np.int64]:
    """The signed numbers in a text: five bits a character, the lowest first."""
    bits = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - _OFFSET
    if len(bits) == 0:
        return bits
    last = (bits & _MORE) == 0
    if not last[-1] or (bits < 0).any() or (bits > 63).any():
        raise ValueError("these are not compressed run lengths")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:  # more than 60 bits
        raise ValueError("a run length is too large")
    position = np.arange(len(bits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((bits & 0x1F) << (_BITS * position), starts)
    negative = (bits[ends] & _NEGATIVE) != 0
    return np.where(negative, values - (np.int64(1) << (_BITS * lengths)), values)


def _undone(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Run lengths of which, from the fourth on, only the difference to the one before the last was written."""
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs
