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
_TOGETHER = 128  # rows of the map whose differences are found at once
_BLOCK_BYTES = 2**18  # of the image's rows that are compressed at once, so that they stay in the processor's cache


def write_png(ids: IdMap) -> bytes:
    """An 8-bit RGB PNG whose colour of each pixel is its id: id = R + 256 G + 65536 B, 0 <= id < 256**3."""
    height, width = ids.shape
    deflate = zlib_ng.compressobj()
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
    channels = max(1, -(-int(ids.ids.max()).bit_length() // 8))
    above = np.zeros_like(ids.ids[:1])  # the first row
    for start in range(0, len(ids.ids), _TOGETHER):
        own, copies = ids.ids[start : start + _TOGETHER], ids.row_copies[start : start + _TOGETHER]
        place, value = _differences(np.concatenate([above, own]), copies, ids.column_copies, channels)
        above = own[-1:]
        height = int(copies.sum())
        for top in range(0, height, most):
            begin, end = top * row_bytes, min(top + most, height) * row_bytes
            here = slice(*np.searchsorted(place, [begin, end]))
            flat[place[here] - begin] = value[here]
            yield flat[: end - begin].data
            flat[place[here] - begin] = 0


def _differences(
    rows: NDArray[np.integer], copies: NDArray[np.intp], column_copies: NDArray[np.intp], channels: int
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Where the bytes of some rows [1 + n, w] differ from those of the row above, and by what, modulo 256: the first
    row is above all. The places are in the n rows, each as often as it comes, and ascend from row to row.
    """
    octets = np.stack([(rows >> (8 * channel)).astype(np.uint8) for channel in range(channels)], axis=-1)
    changes = np.diff(octets, axis=0)
    changed = np.flatnonzero(changes != 0)
    cell, channel = np.divmod(changed, channels)
    y, x = np.divmod(cell, rows.shape[1])
    top, left = starts(copies), starts(column_copies)
    first = top[y] * (1 + 3 * left[-1]) + 1 + 3 * left[x] + channel
    value, times = changes.ravel()[changed], column_copies[x]
    # The byte comes again in each pixel of its column.
    number = np.arange(times.sum()) - (np.cumsum(times) - times).repeat(times)
    return first.repeat(times) + 3 * number, value.repeat(times)
