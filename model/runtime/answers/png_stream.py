"""The id map as a PNG, written for what it is: few colours in large regions, and rows that repeat.

PNG (w3.org/TR/png-3) compresses the rows' bytes, each row after a filter of its choice, as one zlib stream. Here every
row is written as its difference from the row above it (filter "up"), so that nearly all bytes are zeros: within a
region, and in the rows that an enlarged map repeats. Only the others are computed, and zlib-ng passes over zeros at
gigabytes a second, for which zlib takes up to eight times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from model.runtime.answers.id_map import IdMap, starts

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = bytes([8, 2, 0, 0, 0])  # bits, colour type, then the only compression, filters and no interlacing
_UP = 2  # the filter's number
_TOGETHER = 2**12  # changes of the map, about, whose differences are found at once
# Of a large picture nearly all is zeros, with which zlib-ng's level 3 is done in three quarters of level 6's time, for
# 5 % more bytes; of a small one the file would be up to a sixth larger, and half a millisecond matters less.
_LARGE, _LEVEL, _LEVEL_OF_LARGE = 4_000_000, 6, 3  # pixels
_BLOCK_BYTES = 2**18  # of the image's rows that are compressed at once, so that they stay in the processor's cache


def write_png(ids: IdMap) -> bytes:
    """An 8-bit RGB PNG whose colour of each pixel is its id: id = R + 256 G + 65536 B, 0 <= id < 256**3."""
    height, width = ids.shape
    deflate = zlib_ng.compressobj(_LEVEL if height * width < _LARGE else _LEVEL_OF_LARGE)
    parts = [deflate.compress(rows) for rows in _filtered_rows(ids)]
    header = struct.pack(">II", width, height) + _EIGHT_BIT_RGB
    stream = b"".join([*parts, deflate.flush()])
    return b"".join([_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", stream), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib_ng.crc32(data, zlib_ng.crc32(kind))
    return b"".join([struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)])


def _filtered_rows(ids: IdMap) -> Iterator[memoryview]:
    """The image's rows after the filter, some at a time; what comes next takes the place of what came before."""
    row_bytes = 1 + 3 * ids.shape[1]
    most = max(1, _BLOCK_BYTES // row_bytes)
    rows = np.zeros((min(most, ids.shape[0]), row_bytes), dtype=np.uint8)
    rows[:, 0] = _UP
    flat = rows.reshape(-1)
    tops, width = starts(ids.row_copies), ids.ids.shape[1]
    step = max(1, _TOGETHER * len(ids.ids) // len(ids.changes))  # rows
    for start in range(0, len(ids.ids), step):
        end = min(start + step, len(ids.ids))
        place, value = _differences(ids, slice(*np.searchsorted(ids.changes, [start * width, end * width])))
        for top in range(int(tops[start]), int(tops[end]), most):
            begin, behind = top * row_bytes, min(top + most, int(tops[end])) * row_bytes
            here = slice(*np.searchsorted(place, [begin, behind]))
            flat[place[here] - begin] = value[here]
            yield flat[: behind - begin].data
            flat[place[here] - begin] = 0


def _differences(ids: IdMap, part: slice) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Where the bytes of the image differ from those of the row above, and by what, modulo 256, at a part of the map's
    changes. The places are those of the rows after the filter, and ascend from row to row; above the first is 0.
    """
    cells = ids.changes[part]
    flat, width = ids.ids.reshape(-1), ids.ids.shape[1]
    own, above = flat[cells].astype(np.uint32), np.where(cells < width, 0, flat[cells - width]).astype(np.uint32)
    octets = [(own >> bits) - (above >> bits) for bits in (0, 8, 16)]
    changes = np.stack(octets, axis=1).astype(np.uint8)
    changed, channel = np.nonzero(changes)
    y, x = np.divmod(cells[changed], width)
    top, left = starts(ids.row_copies), starts(ids.column_copies)
    first = top[y] * (1 + 3 * left[-1]) + 1 + 3 * left[x] + channel
    value, times = changes[changed, channel], ids.column_copies[x]
    # The byte comes again in each pixel of its column.
    number = np.arange(times.sum()) - (np.cumsum(times) - times).repeat(times)
    return first.repeat(times) + 3 * number, value.repeat(times)
