"""Masks in the run lengths that Label Studio's brush has.

They are those of @thi.ng/rle-pack, over the RGBA bytes of the mask row by row: a head (32 bits for the number of bytes,
5 for the bits of a value less one, four times 4 for how many bits the lengths of each kind have, less one), and for
each run a 1, the kind of its length in 2 bits, its length less one, and its value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHANNELS = 4  # of each pixel, all of them alike
_LENGTH_BITS = np.array([3, 4, 8, 16])
_HEAD_BITS = 32 + 5 + 4 * 4
_VALUE_BITS = 8
_LONGEST = 2**16  # bytes of a run; a longer one is several
_MOST_BITS = 1 + 2 + 16 + _VALUE_BITS  # of a run


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """The bytes of a mask [H, W] that is 255 where it is true."""
    flat = mask.ravel()
    begins = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(begins, append=flat.size) * _CHANNELS
    values = np.where(flat[begins], 255, 0)
    pieces = -(-lengths // _LONGEST)
    last = np.cumsum(pieces) - 1
    values, lengths_left = values.repeat(pieces), lengths - (pieces - 1) * _LONGEST
    lengths = np.full(len(values), _LONGEST)
    lengths[last] = lengths_left
    kind = np.searchsorted(2**_LENGTH_BITS, lengths)  # the first whose longest run is not shorter
    length_bits = _LENGTH_BITS[kind]
    code = (((4 | kind) << length_bits | (lengths - 1)) << _VALUE_BITS) | values
    bits = np.concatenate(
        [
            _bits(np.array([_head(flat.size)]), np.array([_HEAD_BITS]), _HEAD_BITS),
            _bits(code, 3 + length_bits + _VALUE_BITS, _MOST_BITS),
        ]
    )
    return np.packbits(bits).tolist()


def _head(pixels: int) -> int:
    sizes = 0
    for bits in _LENGTH_BITS.tolist():
        sizes = sizes << 4 | (bits - 1)
    return (pixels * _CHANNELS << 5 | (_VALUE_BITS - 1)) << 16 | sizes


def _bits(numbers: NDArray[np.int64], counts: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """The lowest so many bits of each number, the highest first, one number after the other."""
    places = np.arange(most - 1, -1, -1)
    return (numbers[:, None] >> places & 1).astype(np.bool_)[places < counts[:, None]]
