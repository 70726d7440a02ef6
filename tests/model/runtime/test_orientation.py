"""Which way up an image is, and that a box which is turned with its image still holds the same pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.runtime.orientation import AS_STORED, plugin_exif, turn_of
from tests.model.exif_blocks import (
    BYTE,
    EXIF_DIRECTORY,
    LONG,
    SIGNED_LONG,
    Entry,
    exif,
    inner_start,
)

SIX = exif(Entry(6))
WIDTH = Entry(640, tag=0x0100)


def saved(image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8), "teal").save(buffer, image_format, **options)
    return buffer.getvalue()


JPEG = saved("JPEG")


@given(st.integers(1, 8), st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(5, 9), st.integers(4, 7)))
def test_a_turned_box_holds_what_it_held(orientation: int, box: tuple[int, int, int, int]) -> None:
    image = Image.fromarray(np.arange(9 * 7, dtype=np.uint8).reshape(7, 9))
    turn = turn_of(exif(Entry(orientation)))
    upright = turn.apply(image)
    assert upright.size == turn.apply_to_size(image.size)
    turned = turn.apply_to_box(box, *upright.size)
    np.testing.assert_array_equal(
        np.asarray(upright.crop(turned)),
        np.asarray(turn.apply(image.crop(box))),
    )


def test_without_an_orientation_an_image_stays_as_it_is() -> None:
    image = Image.new("RGB", (9, 7))
    assert turn_of(b"") is AS_STORED
    assert AS_STORED.apply(image) is image


# What Chromium 156 makes of them.
ODD = {
    "big endian": (exif(Entry(6), byte_order=">"), 6),
    "no orientation": (exif(WIDTH), 1),
    "0": (exif(Entry(0)), 1),
    "9": (exif(Entry(9)), 1),
    "65535": (exif(Entry(65_535)), 1),
    "of bytes": (exif(Entry(6, kind=BYTE)), 1),
    "of long values": (exif(Entry(6, kind=LONG)), 1),
    "of signed long values": (exif(Entry(6, kind=SIGNED_LONG)), 1),
    "of a type that does not exist": (exif(Entry(6, kind=77)), 1),
    "two values": (exif(Entry(6, count=2)), 1),
    "no value": (exif(Entry(6, count=0)), 1),
    "first of two": (exif(Entry(3), Entry(6)), 3),
    "first valid one of two": (exif(Entry(9), Entry(6)), 6),
    "first of a valid type": (exif(Entry(3, kind=SIGNED_LONG), Entry(6)), 6),
    "behind many": (exif(*[WIDTH] * 5000, Entry(6)), 6),
    "a directory farther behind": (exif(Entry(6), start=100), 6),
    "a directory at an odd place": (exif(Entry(6), start=9), 6),
    "a directory behind the end": (SIX[:4] + b"\xf0\xff\xff\xff" + SIX[8:], 1),
    "a directory in the header": (SIX[:4] + bytes(4) + SIX[8:], 1),
    "no next directory": (SIX[:-4], 6),
    "fewer entries than counted": (SIX[:8] + b"\x32\0" + SIX[10:-4], 6),
    "cut in its value": (SIX[:-6], 1),
    "no entries": (SIX[:8] + bytes(2) + SIX[10:], 1),
    "another version": (SIX[:2] + b"+\0" + SIX[4:], 1),
    "another byte order than said": (b"MM\0*" + SIX[4:], 1),
    "the header alone": (SIX[:8], 1),
    "half of the header": (SIX[:6], 1),
    "garbage": (b"garbage garbage", 1),
    "in the camera's directory": (exif(Entry(inner_start(1), EXIF_DIRECTORY, LONG), inner=[Entry(6)]), 6),
    "behind the camera's directory": (
        exif(Entry(inner_start(2), EXIF_DIRECTORY, LONG), Entry(3), inner=[Entry(6)]), 6,
    ),
    "before the camera's directory": (
        exif(Entry(3), Entry(inner_start(2), EXIF_DIRECTORY, LONG), inner=[Entry(6)]), 3,
    ),
    "in a second camera's directory": (
        exif(Entry(8, EXIF_DIRECTORY, LONG), Entry(inner_start(2), EXIF_DIRECTORY, LONG), inner=[Entry(6)]), 1,
    ),
    "a directory that is its own": (exif(Entry(8, EXIF_DIRECTORY, LONG), Entry(6)), 6),
    "in the next directory, of the thumbnail": (
        exif(WIDTH)[:-4] + inner_start(1).to_bytes(4, "little") + exif(Entry(6))[8:], 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_exif_is_read_as_chromium_reads_it(name: str) -> None:
    data, orientation = ODD[name]
    assert turn_of(data).orientation == orientation


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_no_more_entries_count_than_fit_into_a_jpeg(byte_order: str) -> None:
    def behind(others: int) -> bytes:
        return exif(*(others * [WIDTH]), Entry(6), byte_order=byte_order)

    most = 2**16 // 12
    assert turn_of(behind(most - 1)).orientation == 6
    assert turn_of(behind(most)) is AS_STORED


@given(st.binary(max_size=80), st.sampled_from([b"II*\0", b"MM\0*", b""]))
def test_any_bytes_have_an_orientation(data: bytes, magic: bytes) -> None:
    assert 1 <= turn_of(magic + data).orientation <= 8


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_the_plugin_exif_a_webp_may_begin_like_that_of_a_jpeg(prefix: bytes) -> None:
    with Image.open(io.BytesIO(saved("WEBP", exif=b"Exif\0\0" + prefix + SIX))) as image:
        assert turn_of(plugin_exif(image)).orientation == 6


def test_xmp_turns_no_webp() -> None:
    with Image.open(io.BytesIO(saved("WEBP", xmp=b'<x tiff:Orientation="6"/>'))) as image:
        assert plugin_exif(image) == b""
