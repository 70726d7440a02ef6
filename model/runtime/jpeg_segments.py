"""A JPEG without its metadata: to read them is work for nothing, and a file can have a million of them.

JPEG (ITU-T T.81), annex B: markers begin with 0xFF, any number of which may stand before one; most begin a segment
whose length follows. Pillow reads each of them in Python up to the first scan, and libjpeg the rest.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.runtime.python_lock import LockTurns, joined

_START_OF_IMAGE = b"\xff\xd8"
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_APP0, _APP1, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
# Markers without a segment: TEM, restarts, and the start of an image.
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
# The next marker behind whatever lies before it, which is passed once and never gone back over: to look for it again
# from each of 16 million fill bytes would keep Python's lock for a third of a second.
_MARKER = re.compile(rb"[^\xff]*+\xff++(?:\x00[^\xff]*+\xff++)*+([^\x00\xff])")
_EXIF = b"Exif\0"
_HEADER = struct.Struct(">BBH")  # of a segment: 0xFF, marker, and length from itself on
# Bytes that are looked through at a time, so that it takes little memory, and Python's lock for a millisecond.
_PIECE = 2**18
# Places behind an image's end that look like the begin of a scan. Other data have one in 64 KiB.
_MOST_LOOKALIKES = 10_000


class SplitJpeg(NamedTuple):
    """The two parts of a JPEG that count, and what it takes to read it."""

    picture: bytes | bytearray  # a JPEG of those segments that the picture is made of
    exif: bytes  # EXIF data from the TIFF header on; empty where there is none
    segments: int  # before the first scan; no more than one beyond the given bound
    tables: int  # of these, the ones that stay; no more than one beyond their bound
    # Up to what looks like the image's end, which data between scans may do, too; of a file that has many more places
    # which look like the begin of one than other data have, all that were found, more than the given bound.
    scans: int
    scan_starts: Sequence[int]  # all places of the picture where a scan begins, or what looks so, ascending


def split_jpeg(data: bytes | bytearray, max_segments: int, max_tables: int, max_scans: int) -> SplitJpeg:
    """Take a JPEG apart, up to its first scan, with which all that follows stays in. All of it stays beyond a bound.

    What lies between two segments is no part of either, and decoders skip it, Pillow at half a microsecond a byte. What
    cannot be a segment ends the JPEG, which is broken then.

    What tells how colours are stored (the first JFIF and Adobe segments) belongs to the picture. As in browsers, the
    first EXIF segment counts.
    """
    view = memoryview(data)
    kept = [memoryview(_START_OF_IMAGE)]
    exif, known, count = b"", set[int](), 0
    start, scans_from = len(_START_OF_IMAGE), len(data)
    turns = LockTurns()
    while True:
        turns.give_way()
        start, more = _skip_known(data, start, known, max_segments + 1 - count)
        count += more
        tables = len(kept) - 1
        if count > max_segments or tables > max_tables:
            return SplitJpeg(data, exif, count, tables, 0, [])
        if (found := _next_marker(data, start, turns)) is None:
            break
        marker, after = found[1][0], found.end()
        count += 1
        if marker in _ALONE:
            start = after
            continue
        if marker == _START_OF_SCAN:
            scans_from = found.start(1) - 1
            break
        length = int.from_bytes(view[after : after + 2])
        if marker == _END_OF_IMAGE or length < 2 or after + length > len(view):
            break
        segment, start = view[after - 2 : after + length], after + length
        if marker == _APP1 and not exif and bytes(segment[4:9]) == _EXIF:
            exif = bytes(segment[10:])
        if _makes_picture(marker, segment, known):
            kept.append(segment)
        if _is_metadata(marker):
            known.add(marker)
    # In the pixels' data both markers are what they seem. Behind the image anything may follow, such as a film.
    rest = view[scans_from:]
    most = max_scans + _MOST_LOOKALIKES
    begins, end = _scans_and_end(rest, most, turns)
    scans = int(np.searchsorted(begins, end)) if len(begins) <= most else len(begins)
    head = sum(map(len, kept))
    picture = data if head == scans_from else joined([*kept, rest])  # where all is kept there is nothing to copy
    return SplitJpeg(picture, exif, count, tables, scans, (begins + head).tolist())


def _skip_known(data: bytes | bytearray, start: int, known: set[int], most: int) -> tuple[int, int]:
    """Where segments with known markers end that follow one another from a place on, no more than `most`, and how many.

    Files that are hardly more than that are to keep Python's lock for a short time.
    """
    count, last = 0, len(data) - _HEADER.size
    while start <= last and count < most:
        begin, marker, length = _HEADER.unpack_from(data, start)
        end = start + 2 + length
        if begin != 0xFF or marker not in known or length < 2 or end > len(data):
            break
        if marker == _APP1 and data.startswith(_EXIF, start + _HEADER.size):
            break
        start, count = end, count + 1
    return start, count


def _next_marker(data: bytes | bytearray, start: int, turns: LockTurns) -> re.Match[bytes] | None:
    """The first marker from a place on, behind whatever lies before it."""
    while start < len(data):
        if found := _MARKER.match(data, start, start + _PIECE + 1):
            return found
        turns.give_way()
        start += _PIECE  # to the last byte, which may begin one
    return None


def _scans_and_end(data: memoryview, most: int, turns: LockTurns) -> tuple[NDArray[np.intp], int]:
    """Where scans begin in an image's data, ascending, and where it ends, or what looks so; but not all beyond `most`.

    Python's own search takes a third of the time of decoding the picture: pixels' data are full of 0xFF.
    """
    octets = np.asarray(data)
    begins, count, end = [np.zeros(0, dtype=np.intp)], 0, len(data)
    for start in range(0, len(octets), _PIECE):
        turns.give_way()
        piece = octets[start : start + _PIECE + 1]
        places = np.flatnonzero(piece[:-1] == 0xFF)  # of which few are neither data nor a restart
        markers = piece[places + 1]
        begins.append(start + places[markers == _START_OF_SCAN])
        count += len(begins[-1])
        if count > most:
            break
        if end == len(data) and (ends := places[markers == _END_OF_IMAGE]).size:
            end = start + int(ends[0])
    return np.concatenate(begins), end


def _is_metadata(marker: int) -> bool:
    return _APP0 <= marker <= _APP15 or marker == _COMMENT


def _makes_picture(marker: int, segment: memoryview, known: set[int]) -> bool:
    """Whether a segment is not metadata, or says how colours are stored."""
    if not _is_metadata(marker):
        return True
    return marker not in known and (marker, bytes(segment[4:9])) in ((_APP0, b"JFIF\0"), (_APP14, b"Adobe"))
