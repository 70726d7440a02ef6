"""The id map as a PNG, written for what it is: few colours in large regions, and rows that repeat.

PNG (w3.org/TR/png-3) compresses the rows' bytes, each row after a filter of its choice, as one zlib stream. Here every
row is written as its difference from the row above it (filter "up"), so that a row like the one above is zeros; and a
run of such rows, which is most of an enlarged map, is compressed once and then pasted in as often as it comes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from model.runtime.answers.id_map import IdMap

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = bytes([8, 2, 0, 0, 0])  # bits, colour type, then the only compression, filters and no interlacing
_UP = 2  # the filter's number
_ZLIB_HEADER = b"\x78\x9c"  # RFC 1950: deflate with a window of 32 KB, default level
_ADLER = 65521
_BLOCK = 32  # rows that are made at once
# Bytes of repeated rows: to compress so many takes 50 us, and to paste them costs about 100 bytes of seams.
_WORTH_PASTING = 20_000


def write_png(ids: IdMap) -> bytes:
    """An 8-bit RGB PNG whose colour of each pixel is its id: id = R + 256 G + 65536 B, 0 <= id < 256**3."""
    height, width = ids.shape
    stream = _Stream(1 + 3 * width)
    for start, block in zip(range(0, len(ids.ids), _BLOCK), _filtered_blocks(ids), strict=True):
        stream.add_block(block, ids.row_copies[start : start + _BLOCK])
    header = struct.pack(">II", width, height) + _EIGHT_BIT_RGB
    return b"".join([_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", stream.finish()), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join([struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))])


def _filtered_blocks(ids: IdMap) -> Iterator[NDArray[np.uint8]]:
    """The rows of `ids.ids`, some at a time, as wide as the image, after the filter; above the first is zero."""
    shape = ids.shape
    channels = max(1, -(-int(ids.ids.max()).bit_length() // 8))
    above = np.zeros((1, ids.ids.shape[1]), dtype=ids.ids.dtype)
    for start in range(0, len(ids.ids), _BLOCK):
        rows = np.concatenate([above, ids.ids[start : start + _BLOCK]])
        above = rows[-1:]
        block = np.zeros((len(rows) - 1, 1 + 3 * shape[1]), dtype=np.uint8)
        block[:, 0] = _UP
        for channel in range(channels):
            difference = np.diff((rows >> (8 * channel)).astype(np.uint8), axis=0)  # modulo 256, as the filter is
            block[:, 1 + channel :: 3] = difference.repeat(ids.column_copies, axis=1)
        yield block


class _Stream:
    """A zlib stream of filtered rows."""

    def __init__(self, row_bytes: int) -> None:
        self._row_bytes = row_bytes
        self._same = bytes([_UP]) + bytes(row_bytes - 1)  # a row like the one above it
        self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._parts = [_ZLIB_HEADER]
        self._checksum = zlib.adler32(b"")
        self._pasted: dict[int, bytes] = {}  # by the number of rows

    def add_block(self, rows: NDArray[np.uint8], copies: NDArray[np.intp]) -> None:
        """Append rows, and behind each as many like it as make `copies` of it."""
        pasted = np.flatnonzero((copies - 1) * self._row_bytes >= _WORTH_PASTING).tolist()
        begin = 0
        for end in [*pasted, len(rows) - 1]:
            if begin <= end:
                is_pasted = end in pasted
                own = copies[begin : end + 1].copy()
                own[-1] = 1 if is_pasted else own[-1]
                self._add(_with_repeats(rows[begin : end + 1], own))
                if is_pasted:
                    self._paste(int(copies[end]) - 1)
            begin = end + 1

    def _add(self, rows: NDArray[np.uint8]) -> None:
        self._parts.append(self._deflate.compress(rows.data))
        self._checksum = zlib.adler32(rows.data, self._checksum)

    def _paste(self, count: int) -> None:
        """Append as many rows like the last one."""
        if count not in self._pasted:
            self._pasted[count] = self._compressed(count)
        # A full flush ends at a whole byte, and what comes after it refers to nothing before it.
        self._parts += [self._deflate.flush(zlib.Z_FULL_FLUSH), self._pasted[count]]
        self._checksum = self._checksum_after(count)

    def finish(self) -> bytes:
        """The whole stream."""
        return b"".join([*self._parts, self._deflate.flush(), struct.pack(">I", self._checksum)])

    def _compressed(self, count: int) -> bytes:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        parts = [deflate.compress(self._same) for _ in range(count)]
        return b"".join([*parts, deflate.flush(zlib.Z_FULL_FLUSH)])

    def _checksum_after(self, count: int) -> int:
        """Adler-32 (RFC 1950, 8.2) after `count` repeated rows: the sum of all bytes grows by a row's first byte, which
        is its only one that is not zero, and the sum of those sums by the new sum for every byte of the row.
        """
        low, high = self._checksum & 0xFFFF, self._checksum >> 16
        for _ in range(count):
            low = (low + _UP) % _ADLER
            high = (high + self._row_bytes * low) % _ADLER
        return high << 16 | low


def _with_repeats(rows: NDArray[np.uint8], copies: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Filtered rows, each followed by those like it: of their bytes only the filter's number is not zero."""
    if (copies == 1).all():
        return np.ascontiguousarray(rows)
    written = np.zeros((int(copies.sum()), rows.shape[1]), dtype=np.uint8)
    written[:, 0] = _UP
    written[np.cumsum(copies) - copies] = rows
    return written
