"""The sizes of frames in the sequence headers of AV1 (its specification, sections 5.5 and 5.9) and of HEVC (H.265,
section 7.3.2.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FrameSize = tuple[int, int]  # (width, height) in pixels


@dataclass(frozen=True)
class Av1Sequence:
    """What an AV1 sequence header says of the frames behind it."""

    size: FrameSize
    size_bits: FrameSize  # of the numbers by which a frame says its own size
    is_reduced: bool  # frames have the size of the sequence, and next to no header
    time_bits: int  # of the time at which a frame is shown
    id_bits: int  # of a frame's number
    screen_content: int  # whether there are tools for it; 2: each frame says so
    integer_mv: int  # the same of motion vectors

    @classmethod
    def read(cls, bits: Bits) -> Av1Sequence:
        """Read one. Raises ValueError where it ends early."""
        bits.skip(3)
        _, is_reduced = bits.read(1), bool(bits.read(1))
        time_bits = 0
        if is_reduced:
            bits.skip(5)
        else:
            time_bits = _operating_points(bits)
        width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
        size = bits.read(width_bits) + 1, bits.read(height_bits) + 1
        id_bits, screen_content, integer_mv = 0, 2, 2
        if not is_reduced:
            if bits.read(1):
                id_bits = bits.read(4) + 2 + bits.read(3) + 1
            bits.skip(3 + 4)
            if bits.read(1):
                bits.skip(2)
            screen_content = 2 if bits.read(1) else bits.read(1)
            integer_mv = 2 if not screen_content or bits.read(1) else bits.read(1)
        return cls(size, (width_bits, height_bits), is_reduced, time_bits, id_bits, screen_content, integer_mv)

    def other_size(self, bits: Bits) -> Iterator[FrameSize]:
        """The largest size that a frame can have by its header, where it has one of its own."""
        if self.is_reduced or bits.read(1):  # or is one that there is already
            return
        kind, is_shown = bits.read(2), bits.read(1)
        bits.skip(self.time_bits if is_shown else 1)
        is_switch, is_shown_key = kind == 3, kind == 0 and is_shown
        bits.skip(1 if is_switch or is_shown_key else 2)
        if (bits.read(1) if self.screen_content == 2 else self.screen_content) and self.integer_mv == 2:
            bits.skip(1)
        bits.skip(self.id_bits)
        if is_switch or bits.read(1):
            yield 1 << self.size_bits[0], 1 << self.size_bits[1]


def _operating_points(bits: Bits) -> int:
    """Read on behind them, and return the bits of the time at which a frame is shown, which it says where it must."""
    time_bits, delay_bits, is_equal = 0, 0, 0
    if bits.read(1):
        bits.skip(64)
        is_equal = bits.read(1)
        if is_equal:
            bits.exponential_golomb()
        if bits.read(1):
            delay_bits = bits.read(5) + 1
            bits.skip(32 + 5)
            time_bits = bits.read(5) + 1
    is_delayed = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.skip(12)
        if bits.read(5) > 7:
            bits.skip(1)
        if delay_bits and bits.read(1):
            bits.skip(2 * delay_bits + 1)
        if is_delayed and bits.read(1):
            bits.skip(4)
    return 0 if is_equal else time_bits


def size_in_sps(content: bytes) -> FrameSize:
    """The coded size by one of HEVC's sequence parameter sets, without its NAL header and emulation prevention."""
    bits = Bits(content)
    bits.skip(4)
    layers = bits.read(3)
    bits.skip(1 + 96)
    present = [(bits.read(1), bits.read(1)) for _ in range(layers)]
    bits.skip(2 * (8 - layers) if layers else 0)
    bits.skip(sum(88 * profile + 8 * level for profile, level in present))
    bits.exponential_golomb()
    if bits.exponential_golomb() == 3:
        bits.skip(1)
    return bits.exponential_golomb(), bits.exponential_golomb()


class Bits:
    """Bits from the highest on; raises ValueError where there are no more."""

    def __init__(self, content: bytes) -> None:
        self._all, self._left = int.from_bytes(content, "big"), 8 * len(content)

    def read(self, count: int) -> int:
        """The next bits as a number."""
        self.skip(count)
        return self._all >> self._left & ((1 << count) - 1)

    def skip(self, count: int) -> None:
        """Leave out the next bits."""
        self._left -= count
        if self._left < 0:
            raise ValueError("a header ends early")

    def exponential_golomb(self) -> int:
        """Which AV1 calls uvlc, and HEVC ue."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


def leb128(content: bytes, at: int) -> tuple[int, int]:
    """A number in pieces of seven bits, the lowest first, and where it ends."""
    value = 0
    for count in range(8):
        value |= (content[at + count] & 127) << 7 * count
        if content[at + count] < 128:
            return value, at + count + 1
    raise ValueError("a length does not end")
