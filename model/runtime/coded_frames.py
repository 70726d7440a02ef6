"""How large the frames in an AVIF or HEIC are that its decoder will make, read before it makes any.

What such a file announces of its size (the property `ispe`) need not be what it codes: a few hundred bytes that
announce a thumbnail can code a frame of gigabytes, which the decoder makes, in one call, before it looks. And one frame
can be asked for any number of times by a derived image. So the sizes are read where the decoders read them, in the
sequence headers of AV1 and HEVC. The boxes around them are those of ISO 14496-12 and 23008-12.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from model.runtime.sequence_headers import Av1Sequence, Bits, FrameSize, leb128, size_in_sps

_MOST_UNITS = 20_000  # OBUs or NAL units that are looked at, of all frames together
_CODED = frozenset({b"av01", b"hvc1", b"hev1"})
_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6  # OBU types of AV1
_SPS = 33  # the NAL unit type of HEVC's sequence parameter sets


class StrangeLayoutError(Exception):
    """The file derives its image in a way that could ask for any amount of work."""


@dataclass(frozen=True)
class CodedFrames:
    """What a file's decoder may be made to decode."""

    sizes: list[FrameSize]  # of all frames
    most_pixels: int  # of one image: a frame, or all tiles of a grid


def coded_frames(data: bytes | bytearray) -> CodedFrames:
    """The frames in an AVIF or HEIC, of the first sample of its tracks as well.

    Raises:
        StrangeLayoutError: one image is derived from others, and not as a grid of frames; or there are too many parts.
        Exception: of any kind, where it is broken.
    """
    top = dict(_once(_boxes(data, 0, len(data), may_end_early=True), {b"meta", b"moov"}))
    file = _File(data)
    if b"meta" in top:
        begin, end = top[b"meta"]
        file.read_meta(begin + 4, end)
    frames = {item: list(file.frames_of(item)) for item, kind in file.kinds.items() if kind in _CODED}
    pixels = {item: max((width * height for width, height in sizes), default=0) for item, sizes in frames.items()}
    for item, kind in file.kinds.items():
        tiles = file.derived_from.get(item, [])
        if kind in (b"iovl", b"iden") or (kind == b"grid" and not set(tiles) <= frames.keys()):
            raise StrangeLayoutError
        if kind == b"grid":
            pixels[item] = sum(pixels[tile] for tile in tiles)
    sizes = [size for found in frames.values() for size in found]
    if b"moov" in top:
        sizes += file.frames_of_tracks(*top[b"moov"])
    return CodedFrames(sizes, max([*pixels.values(), *(width * height for width, height in sizes)], default=0))


@dataclass
class _File:
    """What the box `meta` of a file says."""

    data: bytes | bytearray
    kinds: dict[int, bytes] = field(default_factory=dict)  # by item
    places: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # by item: begin and length of its parts
    derived_from: dict[int, list[int]] = field(default_factory=dict)  # by derived item
    properties: list[tuple[bytes, int, int]] = field(default_factory=list)  # type, begin and end of each
    properties_of: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # by item, from 1
    units: int = 0  # that were looked at

    def number(self, at: int, size: int) -> int:
        """A big-endian number; 0 where it has no bytes."""
        if at + size > len(self.data):
            raise ValueError("a box ends early")
        return int.from_bytes(self.data[at : at + size], "big")

    def read_meta(self, begin: int, end: int) -> None:
        boxes = dict(_once(_boxes(self.data, begin, end), {b"iinf", b"iloc", b"iref", b"iprp", b"idat"}))
        self._read_kinds(*boxes[b"iinf"])
        self._read_places(*boxes[b"iloc"], boxes.get(b"idat", (0, 0))[0])
        if b"iref" in boxes:
            self._read_derivations(*boxes[b"iref"])
        inside = dict(_once(_boxes(self.data, *boxes[b"iprp"]), {b"ipco", b"ipma"}))
        self.properties = [(kind, *place) for kind, place in _boxes(self.data, *inside[b"ipco"])]
        self._read_associations(inside[b"ipma"][0])

    def _read_kinds(self, begin: int, end: int) -> None:
        for kind, (at, _) in _boxes(self.data, begin + (6 if self.data[begin] == 0 else 8), end):
            version = self.data[at]
            if kind == b"infe" and version >= 2:
                wide = 2 if version == 2 else 4
                self.kinds[self.number(at + 4, wide)] = bytes(self.data[at + 6 + wide : at + 10 + wide])

    def _read_places(self, begin: int, end: int, idat: int) -> None:
        version, sizes = self.data[begin], self.number(begin + 4, 2)
        offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        wide = 4 if version == 2 else 2
        at = begin + 6 + wide
        for _ in range(self.number(begin + 6, wide)):
            item, at = self.number(at, wide), at + wide
            is_in_idat = version > 0 and self.number(at, 2) & 15 == 1
            at += 4 if version > 0 else 2
            base, at = self.number(at, base_size), at + base_size
            count, at = self.number(at, 2), at + 2
            parts = self.places[item] = []
            for _ in range(count):
                at += index_size if version > 0 else 0
                start = base + self.number(at, offset_size) + (idat if is_in_idat else 0)
                length = self.number(at + offset_size, length_size) or len(self.data) - start
                parts.append((start, length))
                at += offset_size + length_size
            if at > end or sum(length for _, length in parts) > len(self.data):
                raise ValueError("an item is larger than the file")

    def _read_derivations(self, begin: int, end: int) -> None:
        wide = 2 if self.data[begin] == 0 else 4
        for kind, (at, _) in _boxes(self.data, begin + 4, end):
            if kind == b"dimg":
                count, first = self.number(at + wide, 2), at + wide + 2
                self.derived_from[self.number(at, wide)] = [self.number(first + wide * n, wide) for n in range(count)]

    def _read_associations(self, begin: int) -> None:
        wide = 2 if self.data[begin] == 0 else 4
        size = 2 if self.data[begin + 3] & 1 else 1
        at = begin + 8
        for _ in range(self.number(begin + 4, 4)):
            item, count = self.number(at, wide), self.number(at + wide, 1)
            at += wide + 1
            mask = (1 << 8 * size - 1) - 1  # without the bit that says whether it is essential
            self.properties_of[item] += [self.number(at + size * n, size) & mask for n in range(count)]
            at += size * count

    def frames_of(self, item: int) -> Iterator[FrameSize]:
        """The frames that an item's data code, and those of its decoder's configuration."""
        content = b"".join(self.data[begin : begin + length] for begin, length in self.places.get(item, []))
        if self.kinds[item] == b"av01":
            yield from self._frames_of_av1(content)
            return
        for number in self.properties_of[item]:
            kind, begin, end = self.properties[number - 1] if number else (b"", 0, 0)
            if kind == b"hvcC":
                yield from self._frames_of_hvcc(begin, end)
        at = 0
        while at + 4 < len(content):
            length = int.from_bytes(content[at : at + 4], "big")
            yield from self._frame_of_nal(content[at + 4 : at + 4 + length])
            at += 4 + length

    def _frames_of_hvcc(self, begin: int, end: int) -> Iterator[FrameSize]:
        at = begin + 23
        for _ in range(self.data[begin + 22]):
            count, at = self.number(at + 1, 2), at + 3
            for _ in range(count):
                length, at = self.number(at, 2), at + 2
                yield from self._frame_of_nal(self.data[at : min(end, at + length)])
                at += length

    def _frame_of_nal(self, nal: bytes | bytearray) -> Iterator[FrameSize]:
        self._count()
        header = int.from_bytes(nal[:2], "big")
        if header >> 9 & 63 == _SPS and header >> 3 & 63 == 0:  # of the layer 0, which is the only one that is decoded
            yield size_in_sps(bytes(nal[2:512]).replace(b"\0\0\3", b"\0\0"))

    def _frames_of_av1(self, content: bytes) -> Iterator[FrameSize]:
        sequence, at = None, 0
        while at < len(content):
            self._count()
            head = content[at]
            at += 2 if head & 4 else 1  # with an extension
            length, at = leb128(content, at) if head & 2 else (len(content) - at, at)
            kind, bits = head >> 3 & 15, Bits(content[at : at + min(length, 256)])
            if kind == _SEQUENCE_HEADER:
                sequence = Av1Sequence.read(bits)
                yield sequence.size
            elif kind in (_FRAME_HEADER, _FRAME) and sequence is not None:
                yield from sequence.other_size(bits)
            at += length

    def frames_of_tracks(self, begin: int, end: int) -> Iterator[FrameSize]:
        """The frames of the first sample of each track of AV1."""
        for kind, place in _boxes(self.data, begin, end):
            if kind == b"trak":
                for name in (b"mdia", b"minf", b"stbl"):
                    place = dict(_once(_boxes(self.data, *place), {name}))[name]
                table = dict(_once(_boxes(self.data, *place), {b"stco", b"co64", b"stsz"}))
                wide = 4 if b"stco" in table else 8
                first = self.number(table[b"stco" if wide == 4 else b"co64"][0] + 8, wide)
                size = self.number(table[b"stsz"][0] + 4, 4) or self.number(table[b"stsz"][0] + 12, 4)
                yield from self._frames_of_av1(bytes(self.data[first : first + size]))

    def _count(self) -> None:
        self.units += 1
        if self.units > _MOST_UNITS:
            raise StrangeLayoutError


def _boxes(
    data: bytes | bytearray, begin: int, end: int, *, may_end_early: bool = False
) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """The type of each box, and where its content begins and ends; the last may be cut off where that is allowed."""
    for _ in range(_MOST_UNITS):
        if begin + 8 > end:
            return
        size, kind, head = int.from_bytes(data[begin : begin + 4], "big"), bytes(data[begin + 4 : begin + 8]), 8
        if size == 1:
            size, head = int.from_bytes(data[begin + 8 : begin + 16], "big"), 16
        stop = end if size == 0 else begin + size
        stop = min(stop, end) if may_end_early else stop
        if (size and size < head) or stop > end:
            raise ValueError("a box is larger than what it is in")
        yield kind, (begin + head, stop)
        begin = stop
    raise StrangeLayoutError


def _once(boxes: Iterator[tuple[bytes, tuple[int, int]]], kinds: set[bytes]) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Those of some kinds. Raises ValueError for a second one of a kind, of which the decoder might take the other."""
    found = set[bytes]()
    for kind, place in boxes:
        if kind in kinds:
            if kind in found:
                raise ValueError("a box is there twice")
            found.add(kind)
            yield kind, place
