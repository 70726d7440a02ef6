"""An end to the work that decoding an image may take, whatever the image is made of.

The number of its parts is bounded before the decoder sees it. What the parts cost is only known while they are decoded:
a decoder cannot be interrupted, but it asks for its file piece by piece, and gets no more of it once its time is spent.
"""

from __future__ import annotations

import io
import math
import time
from bisect import bisect_left
from collections.abc import Sequence

from model.runtime.python_lock import give_way

# Pixels, times the scans that each may have: of a large image, from which on it takes 0.3 to 5 seconds of CPU time.
# Cameras' pictures of 12 and 24 megapixels have one scan, and are below.
LARGE_WORK = 32_000_000
# Segments or chunks, from which on they take milliseconds. Pictures with as many are PNGs of 8 MiB, whose pixels come
# in pieces of 8 KiB.
MANY_PARTS = 1_000

_PIECE = 64 * 2**10  # bytes, which Pillow asks for at a time
_LEAST_PIECE = 256
# So many times a few bytes are read without asking for the time, which takes longer than to read them: a JPEG's tables
# are read in about forty pieces.
_FREE_READS = 64
# After so many Python's lock is given away, which a reader of many parts has for about a millisecond by then.
_READS_IN_A_TURN = 256
# CPU seconds after which the decoder should ask again. A scan of a progressive JPEG can take a hundred bytes and, with
# 50 megapixels, a tenth of a second.
_PACE = 0.05


class LargeWorkError(Exception):
    """The image may well be decoded, but takes more work than was asked for now."""


class MeteredFile(io.BytesIO):
    """A file in memory that ends when its reader has spent a time, as CPU time of the thread that reads."""

    def __init__(
        self, data: bytes | bytearray, scan_starts: Sequence[int] = (), most_small_reads: float = math.inf
    ) -> None:
        """Count from now on; there is no limit to the time yet.

        Args:
            data: of the file.
            scan_starts: of a JPEG, where its scans begin, ascending.
            most_small_reads: of a few bytes each, which are all work in Python; at more `read` raises LargeWorkError.
        """
        super().__init__(data)
        self.is_spent = False
        self._scans = [*scan_starts, len(data)]
        self._in_small_pieces = False
        self._piece = _PIECE
        self._small_reads, self._most_small_reads = 0, most_small_reads
        self._began = self._asked = time.thread_time()
        self._limit: float | None = None

    def limit(self, seconds: float, *, in_small_pieces: bool) -> None:
        """End when so many seconds have been spent since the file was made.

        In small pieces, a reader gets no more than one scan of a JPEG at a time, and one that takes long for what it
        got gets less the next time. Not all of Pillow's readers can live with less than they asked for.
        """
        self._limit, self._in_small_pieces = seconds, in_small_pieces

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes, or none when the time is spent. Raises LargeWorkError."""
        if size is not None and 0 <= size <= _LEAST_PIECE:
            self._small_reads += 1
            if self._small_reads > self._most_small_reads:
                raise LargeWorkError
            if self._small_reads <= _FREE_READS:
                return super().read(size)
            if self._small_reads % _READS_IN_A_TURN == 0:
                give_way()
        now = time.thread_time()
        if self._limit is not None and now - self._began > self._limit:
            self.is_spent = True
            return b""
        if self._in_small_pieces and size is not None and size > _LEAST_PIECE:
            self._adapt(now - self._asked)
            size = min(size, self._piece)
        self._asked = now
        data = super().read(size)
        return self._one_scan_of(data) if self._in_small_pieces else data

    def _one_scan_of(self, data: bytes) -> bytes:
        """The data up to where the next scan begins; the rest comes next.

        A hundred bytes can be a scan of all pixels, so that even a small piece could be many seconds of work.
        """
        begin = self.tell() - len(data)
        # A marker that begins here is of the scan that is given.
        end = self._scans[bisect_left(self._scans, begin + 2)] if len(data) > 2 else self.tell()
        if end + 2 > self.tell():
            return data
        self.seek(end)
        return data[: end - begin]

    def _adapt(self, seconds: float) -> None:
        """Choose how much to give, by what it took to decode the last piece."""
        if seconds > _PACE:
            self._piece = max(_LEAST_PIECE, self._piece // 4)
        elif seconds < _PACE / 8:
            self._piece = min(_PIECE, 2 * self._piece)
