"""AVIFs and HEICs made by hand, box by box."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def box(kind: bytes, *content: bytes) -> bytes:
    """A box with this content."""
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, version: int, *content: bytes, flags: int = 0) -> bytes:
    """A box that has a version."""
    return box(kind, bytes([version]), flags.to_bytes(3, "big"), *content)


@dataclass(frozen=True)
class Item:
    """An item of a file."""

    kind: bytes
    content: bytes = b""
    configuration: bytes = b""  # the box that its decoder is set up by
    derived_from: Sequence[int] = ()


def still(brand: bytes, items: Mapping[int, Item], size: tuple[int, int] = (64, 48)) -> bytes:
    """A file with these items, each of which announces this (width, height); the first is the primary one."""
    begins = box(b"ftyp", brand, bytes(4), brand, b"mif1")

    def meta(base: int) -> bytes:
        """The box, where the items' data begin there."""
        kinds = [
            full_box(b"infe", 2, struct.pack(">HH4s", number, 0, item.kind), b"\0") for number, item in items.items()
        ]
        places, at = b"", base
        for number, item in items.items():
            places += struct.pack(">HHHII", number, 0, 1, at, len(item.content))
            at += len(item.content)
        dimg = [
            box(
                b"dimg",
                struct.pack(f">HH{len(item.derived_from)}H", number, len(item.derived_from), *item.derived_from),
            )
            for number, item in items.items()
            if item.derived_from
        ]
        properties = [full_box(b"ispe", 0, struct.pack(">II", *size)), *(item.configuration for item in items.values())]
        having = [struct.pack(">HBBB", number, 2, 1, index | 128) for index, number in enumerate(items, start=2)]
        return full_box(
            b"meta",
            0,
            full_box(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", 0, struct.pack(">H", next(iter(items)))),
            full_box(b"iinf", 0, struct.pack(">H", len(items)), *kinds),
            full_box(b"iloc", 0, b"\x44\x00", struct.pack(">H", len(items)), places),
            full_box(b"iref", 0, *dimg),
            box(b"iprp", box(b"ipco", *properties), full_box(b"ipma", 0, struct.pack(">I", len(items)), *having)),
        )

    base = len(begins) + len(meta(0)) + 8
    return begins + meta(base) + box(b"mdat", *(item.content for item in items.values()))


class BitWriter:
    """Bits from the highest on."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def add(self, value: int, count: int) -> BitWriter:
        """Add a number of so many bits."""
        self._bits.append(f"{value:0{count}b}" if count else "")
        return self

    def add_exponential_golomb(self, value: int) -> BitWriter:
        """Add a number as HEVC's ue and AV1's uvlc."""
        return self.add(value + 1, 2 * (value + 1).bit_length() - 1)

    def bytes(self) -> bytes:
        """What was added, filled up with zeros."""
        text = "".join(self._bits)
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def obu(kind: int, content: bytes) -> bytes:
    """A unit of AV1 with its length."""
    length, rest = b"", len(content)
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return bytes([kind << 3 | 2]) + length + bytes([rest]) + content


def av1_sequence(width: int, height: int, *, is_reduced: bool = True, is_timed: bool = False) -> bytes:
    """A sequence header of AV1, for stills or for films."""
    bits = BitWriter().add(0, 3).add(is_reduced, 1).add(is_reduced, 1)
    if is_reduced:
        bits.add(8, 5)
    else:
        bits.add(is_timed, 1)
        if is_timed:
            bits.add(1, 32).add(25, 32).add(0, 1)
            bits.add(1, 1).add(9, 5).add(1, 32).add(9, 5).add(6, 5)
        bits.add(1, 1).add(1, 5)
        for level in (8, 4):
            bits.add(0, 12).add(level, 5)
            if level > 7:
                bits.add(0, 1)
            if is_timed:
                bits.add(1, 1).add(0, 10).add(0, 10).add(0, 1)
            bits.add(1, 1).add(3, 4)
    sides = [(side, max(1, (side - 1).bit_length())) for side in (width, height)]
    for _, count in sides:
        bits.add(count - 1, 4)
    for side, count in sides:
        bits.add(side - 1, count)
    if not is_reduced:
        bits.add(1, 1).add(5, 4).add(2, 3)
    bits.add(0, 3)
    if not is_reduced:
        bits.add(0, 4).add(1, 1).add(0, 2).add(1, 1).add(1, 1).add(3, 3)
    return obu(1, bits.add(0, 32).bytes())


def av1_frame(*, has_own_size: bool, is_timed: bool = False) -> bytes:
    """The begin of a key frame behind a sequence header that is not reduced."""
    bits = BitWriter().add(0, 1).add(0, 2).add(1, 1).add(0, 7 if is_timed else 0)
    return obu(6, bits.add(0, 1).add(0, 1).add(0, 10).add(has_own_size, 1).add(0, 40).bytes())


def hevc_sps(width: int, height: int, *, sub_layers: int = 0, chroma: int = 1) -> bytes:
    """A sequence parameter set of HEVC, as a NAL unit."""
    bits = BitWriter().add(33, 7).add(1, 9).add(0, 4).add(sub_layers, 3).add(1, 1).add(1, 96)
    for _ in range(sub_layers):
        bits.add(3, 2)
    if sub_layers:
        bits.add(0, 2 * (8 - sub_layers))
    bits.add(0, 96 * sub_layers).add_exponential_golomb(0).add_exponential_golomb(chroma)
    if chroma == 3:
        bits.add(0, 1)
    content = bits.add_exponential_golomb(width).add_exponential_golomb(height).add(0, 40).bytes()
    escaped = bytearray()
    for byte in content:  # two zeros and a small number are told from the begin of a unit
        if escaped[-2:] == b"\0\0" and byte <= 3:
            escaped.append(3)
        escaped.append(byte)
    return bytes(escaped)


def hvcc(*units: bytes) -> bytes:
    """The configuration of a decoder of HEVC with these units."""
    inside = b"".join(struct.pack(">H", len(unit)) + unit for unit in units)
    return box(b"hvcC", b"\x01", bytes(20), b"\x03", b"\x01", b"\x21", struct.pack(">H", len(units)), inside)
