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

from model.runtime.answers.id_map import IdMap

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = bytes([8, 2, 0, 0, 0])  # bits, colour type, then the only compression, filters and no interlacing
_UP = 2  # the filter's number
_ZLIB_HEADER = b"\x78\x9c"  # RFC 1950: deflate with a window of 32 KB, default level
_ADLER = 65521
_BLOCK = 64  # rows that are made at once
# Bytes of repeated rows: to compress so many takes 50 us, and to paste them costs about 100 bytes of seams.
_WORTH_PASTING = 20_000


def write_png(ids: IdMap) -> bytes:
    """An 8-bit RGB PNG whose colour of each pixel is its id: id = R + 256 G + 65536 B, 0 <= id < 256**3."""
    height, width = ids.shape
    stream = _Stream(1 + 3 * width)
    for row, copies in zip(_filtered_rows(ids), ids.row_copies.tolist(), strict=True):
        stream.add(row)
        stream.repeat(copies - 1)
    header = struct.pack(">II", width, height) + _EIGHT_BIT_RGB
    return b"".join([_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", stream.finish()), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join([struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))])


def _filtered_rows(ids: IdMap) -> Iterator[memoryview]:
    """The bytes of each row of `ids.ids`, as wide as the image, after the filter; the row above the first is zero."""
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
        for row in block:
            yield row.data


class _Stream:
    """A zlib stream of filtered rows."""

    def __init__(self, row_bytes: int) -> None:
        self._row_bytes = row_bytes
        self._same = bytes([_UP]) + bytes(row_bytes - 1)  # a row like the one above it
        self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._parts = [_ZLIB_HEADER]
        self._checksum = zlib.adler32(b"")
        self._pasted: dict[int, bytes] = {}  # by the number of rows

    def add(self, row: bytes | memoryview) -> None:
        """Append a row."""
        self._parts.append(self._deflate.compress(row))
        self._checksum = zlib.adler32(row, self._checksum)

    def repeat(self, count: int) -> None:
        """Append as many rows like the last one."""
        if count * self._row_bytes < _WORTH_PASTING:
            for _ in range(count):
                self.add(self._same)
            return
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
