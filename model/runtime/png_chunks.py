"""A PNG without its metadata: damage in there damages no picture, and to unpack it would be work for nothing.

PNG specification, third edition, section 5: a file is a signature and a row of chunks, each with a checksum.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from model.runtime.python_lock import LockTurns, joined

_SIGNATURE_BYTES = 8
_HEADER = struct.Struct(">I4s")  # length of the data, and type
_CHECKSUM = struct.Struct(">I")  # of type and data
_AROUND_DATA = 12  # bytes: the header before a chunk's data and the checksum behind


class SplitPng(NamedTuple):
    """The two parts of a PNG that count, and in how many chunks it came."""

    picture: bytes | bytearray  # a PNG of those chunks that the picture is made of; all of it beyond a bound
    exif: bytes  # EXIF data from the TIFF header on; empty where there is none
    chunks: int  # no more than one beyond the given bound
    tables: int  # of these, the ones that stay and hold no pixels; no more than one beyond their bound


def split_png(data: bytes | bytearray, max_chunks: int, max_tables: int) -> SplitPng:
    """Take a PNG apart. From the first thing on that is no chunk, everything stays in for the decoder to judge.

    As in Chromium, of several EXIF chunks the first counts whose checksum is right, and none behind the pixels. The
    frames of an animation are metadata: a decoder that knows nothing of them shows the picture they begin with.

    Raises ValueError where the checksum of a chunk is wrong that the picture is made of, or anything interrupts the
    pixels.
    """
    view = memoryview(data)
    kept: list[memoryview] = []  # of what lies before `kept_from`
    exif: bytes | None = None
    kept_from = start = _SIGNATURE_BYTES
    previous, has_pixels, count, tables = b"", False, 0, 0
    turns = LockTurns()
    while start + _AROUND_DATA <= len(view) and count <= max_chunks and tables <= max_tables:
        turns.give_way()
        length, kind = _HEADER.unpack_from(view, start)
        end = start + _AROUND_DATA + length
        if not kind.isalpha():
            break
        count += 1
        if _makes_picture(kind):
            if not _is_sound(view, start, end):
                raise ValueError(f"the {kind.decode()} chunk is damaged")
            if kind == b"IDAT" and has_pixels and previous != kind:
                raise ValueError("the pixels are interrupted")
            has_pixels = has_pixels or kind == b"IDAT"
            tables += kind != b"IDAT"
        else:
            if kind == b"eXIf" and exif is None and not has_pixels and _is_sound(view, start, end):
                exif = bytes(view[start + _HEADER.size : end - 4])
            if start > kept_from:  # else it follows another that is left out
                kept.append(view[kept_from:start])
            kept_from = end
        if kind == b"IEND":
            break
        start, previous = end, kind
    if kept_from == _SIGNATURE_BYTES or count > max_chunks or tables > max_tables:  # nothing was left out
        return SplitPng(data, exif or b"", count, tables)
    return SplitPng(joined([view[:_SIGNATURE_BYTES], *kept, view[kept_from:]]), exif or b"", count, tables)


def _makes_picture(kind: bytes) -> bool:
    """Whether a chunk is critical, which the case of its type's first letter says, or tells what is transparent."""
    return kind[:1].isupper() or kind == b"tRNS"


def _is_sound(data: memoryview, start: int, end: int) -> bool:
    """Whether a chunk is whole, and its checksum right."""
    checked = end - _CHECKSUM.size
    return end <= len(data) and (zlib.crc32(data[start + 4 : checked]),) == _CHECKSUM.unpack_from(data, checked)
