"""Id PNGs: every byte counts, and nothing is turned or made white as in a picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.data.formats.coco_files import ImageRecord
from model.data.formats.id_png import check_id_png, read_ids


def record(height: int, width: int) -> ImageRecord:
    return ImageRecord(1, "ids.png", height, width)


@settings(max_examples=50, deadline=None)
@given(
    ids=st.lists(st.lists(st.integers(0, 2**24 - 1), min_size=3, max_size=3), min_size=1, max_size=5)  # rows of three
)
def test_ids_are_decoded_from_the_bytes_that_encode_them(
    tmp_path_factory: pytest.TempPathFactory, ids: list[list[int]]
) -> None:
    wanted, folder = np.array(ids), tmp_path_factory.getbasetemp()
    pixels = np.stack([wanted & 255, wanted >> 8 & 255, wanted >> 16], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "ids.png")
    found = read_ids(folder, record(len(ids), 3))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, wanted)


def test_what_would_turn_or_whiten_a_picture_leaves_ids_as_they_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.array([[[1, 2, 3, 0], [4, 5, 6, 0]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "ids.png", exif=exif)
    check_id_png(tmp_path, record(1, 2))
    assert read_ids(tmp_path, record(1, 2)).tolist() == [[0x030201, 0x060504]]


@settings(max_examples=60)
@given(cut=st.floats(0, 0.999))
def test_a_png_that_is_cut_short_is_found_without_decoding_it(
    tmp_path_factory: pytest.TempPathFactory, cut: float
) -> None:
    folder = tmp_path_factory.getbasetemp()
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 63, 3), dtype=np.uint8)).save(file, "PNG")
    whole = file.getvalue()[:-12]  # without the end mark, which no pixel needs
    (folder / "ids.png").write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(ValueError, match="cannot be decoded"):
        check_id_png(folder, record(45, 63))
