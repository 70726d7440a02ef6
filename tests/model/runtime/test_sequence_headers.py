"""Sizes of frames in the headers of AV1 and HEVC, held against headers that are written by the specifications."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.runtime.sequence_headers import Av1Sequence, Bits, leb128, size_in_sps
from tests.model.runtime.media_boxes import av1_frame, av1_sequence, hevc_sps

SIDES = st.integers(1, 65_536)


@given(SIDES, SIDES, st.booleans(), st.booleans())
def test_the_size_is_read_from_any_sequence_header_of_av1(
    width: int, height: int, is_reduced: bool, is_timed: bool
) -> None:
    header = av1_sequence(width, height, is_reduced=is_reduced, is_timed=is_timed)
    assert Av1Sequence.read(Bits(header[2:])).size == (width, height)


@pytest.mark.parametrize("is_timed", [False, True])
def test_a_frame_with_a_size_of_its_own_may_have_any_that_it_can_say(is_timed: bool) -> None:
    header = av1_sequence(64, 48, is_reduced=False, is_timed=is_timed)
    sequence = Av1Sequence.read(Bits(header[2:]))
    for has_own_size, sizes in ((False, []), (True, [(64, 64)])):
        frame = av1_frame(has_own_size=has_own_size, is_timed=is_timed)
        assert list(sequence.other_size(Bits(frame[2:]))) == sizes


@given(SIDES, SIDES, st.integers(0, 6), st.integers(0, 3))
def test_the_size_is_read_from_any_parameter_set_of_hevc(width: int, height: int, layers: int, chroma: int) -> None:
    unit = hevc_sps(width, height, sub_layers=layers, chroma=chroma)
    assert size_in_sps(unit[2:].replace(b"\0\0\3", b"\0\0")) == (width, height)


def test_a_header_that_ends_early_is_an_error() -> None:
    for length in range(8):
        with pytest.raises(ValueError, match="ends early"):
            Av1Sequence.read(Bits(av1_sequence(70, 70)[2 : 2 + length][:3]))
    with pytest.raises(ValueError, match="ends early"):
        size_in_sps(hevc_sps(64, 64)[2:12])


def test_lengths_in_pieces_are_read() -> None:
    assert leb128(b"x\xe5\x8e\x26", 1) == (624_485, 4)
    with pytest.raises(ValueError, match="does not end"):
        leb128(b"\xff" * 9, 0)
