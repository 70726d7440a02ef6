"""What AVIFs and HEICs code is held against the limits, and not what they announce."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import pytest
from PIL import Image

from model.runtime.coded_frames import StrangeLayoutError, coded_frames
from model.runtime.decode import LARGEST, ImageTooComplexError, ImageTooLargeError, decode
from model.runtime.decode_budget import LargeWorkError
from model.runtime.image_formats import OPTIONAL, open_formats
from tests.model.runtime.media_boxes import Item, av1_frame, av1_sequence, hevc_sps, hvcc, still

pytest.importorskip("pillow_heif")
LIMITS = replace(LARGEST, formats=open_formats(tuple(OPTIONAL)), max_pixels=100_000)


def encoded(word: str, mode: str = "RGB") -> bytes:
    """A picture of 640 x 480."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((640, 480)).convert(mode).save(file, OPTIONAL[word])
    return file.getvalue()


@pytest.mark.parametrize("word", ["avif", "heic"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_frames_of_real_files_are_found(word: str, mode: str) -> None:
    data = encoded(word, mode)
    assert set(coded_frames(data).sizes) == {(640, 480)}
    assert coded_frames(data).most_pixels == 640 * 480
    assert decode(data, replace(LIMITS, max_pixels=640 * 480)).shape == (480, 640, 3)


@pytest.mark.parametrize("word", ["avif", "heic"])
def test_a_file_that_announces_less_than_it_codes_is_refused_or_put_off(word: str) -> None:
    data = encoded(word)
    announced = struct.pack(">II", 640, 480)
    assert announced in data
    small = data.replace(announced, struct.pack(">II", 64, 48))
    with pytest.raises(ImageTooLargeError):
        decode(small, LIMITS)
    with pytest.raises(LargeWorkError):
        decode(small, replace(LIMITS, max_pixels=640 * 480, work_now=640 * 480))


def test_a_frame_of_av1_is_found_wherever_it_is_in_the_data() -> None:
    small, large = av1_sequence(64, 48), av1_sequence(20_000, 16_000)
    for content in (
        large,
        small + large,
        av1_sequence(64, 48, is_reduced=False) + av1_frame(has_own_size=False) + large,
    ):
        frames = coded_frames(still(b"avif", {1: Item(b"av01", content)}))
        assert frames.most_pixels == 20_000 * 16_000
    with_own = av1_sequence(300, 200, is_reduced=False) + av1_frame(has_own_size=True)
    assert coded_frames(still(b"avif", {1: Item(b"av01", with_own)})).sizes == [(300, 200), (512, 256)]


def test_a_frame_of_hevc_is_found_in_the_configuration_and_in_the_data() -> None:
    small, large = hevc_sps(64, 48), hevc_sps(20_000, 16_000)
    within = struct.pack(">I", len(large)) + large
    for item in (Item(b"hvc1", b"", hvcc(small, large)), Item(b"hvc1", within, hvcc(small))):
        assert coded_frames(still(b"heic", {1: item})).sizes == [(64, 48), (20_000, 16_000)]


def test_all_tiles_of_a_grid_count_however_often_one_is_named() -> None:
    tile = Item(b"av01", av1_sequence(512, 512))
    grid = still(b"avif", {1: Item(b"grid", b"\0\0\1\1\0\x40\0\x30", derived_from=[2] * 1000), 2: tile})
    assert coded_frames(grid).most_pixels == 1000 * 512 * 512
    with pytest.raises(ImageTooLargeError):
        decode(grid, replace(LIMITS, max_pixels=10_000_000))


@pytest.mark.parametrize("kind", [b"iovl", b"iden"])
def test_other_derivations_are_refused_and_grids_of_grids(kind: bytes) -> None:
    tile = Item(b"av01", av1_sequence(64, 48))
    for items in (
        {1: Item(kind, derived_from=[2]), 2: tile},
        {1: Item(b"grid", derived_from=[2]), 2: Item(b"grid", derived_from=[3]), 3: tile},
    ):
        with pytest.raises(StrangeLayoutError):
            coded_frames(still(b"avif", items))
        with pytest.raises(ImageTooComplexError, match="laid out in a way"):
            decode(still(b"avif", items), LIMITS)


def test_what_is_there_twice_or_in_endless_parts_is_refused() -> None:
    whole = still(b"avif", {1: Item(b"av01", av1_sequence(64, 48))})
    begin = whole.index(b"meta") - 4
    twice = whole[:begin] + whole[begin : whole.index(b"mdat") - 4] + whole[begin:]
    with pytest.raises(ValueError, match="twice"):
        coded_frames(twice)
    many = still(b"avif", {1: Item(b"av01", b"\x12\x00" * 30_000)})
    with pytest.raises(StrangeLayoutError):
        coded_frames(many)
