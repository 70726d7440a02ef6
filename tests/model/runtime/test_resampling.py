from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.runtime import resampling
from model.runtime.picture_memory import picture_in
from model.runtime.preprocess import resize_to
from model.runtime.resampling import CropBox, resample, resampler

SIDES = st.one_of(st.integers(1, 4), st.integers(1, 90), st.integers(200, 700))
SIZES = st.tuples(SIDES, SIDES)  # (height, width)


def picture(size: tuple[int, int], seed: int, levels: int = 256) -> Image.Image:
    """Noise, of few levels at the extremes: the worst there is for rounding."""
    values = np.random.default_rng(seed).integers(0, levels, (*size, 3)) * (255 // (levels - 1))
    return Image.fromarray(values.astype(np.uint8))


def pillows(image: Image.Image, size: tuple[int, int], box: CropBox | None = None) -> NDArray[np.uint8]:
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))


@settings(deadline=None)
@given(SIZES, SIZES, st.sampled_from([2, 256]), st.integers(0, 1000))
def test_no_value_is_more_than_a_level_from_pillows(
    size: tuple[int, int], new_size: tuple[int, int], levels: int, seed: int
) -> None:
    image = picture(size, seed, levels)
    found = resize_to(image, new_size)
    assert np.abs(found.astype(int) - pillows(image, new_size)).max() <= 1


@settings(deadline=None)
@given(SIZES, SIZES, st.tuples(*[st.floats(0, 1)] * 4))
def test_nor_in_a_box(size: tuple[int, int], new_size: tuple[int, int], at: tuple[float, float, float, float]) -> None:
    height, width = size
    left, top = at[0] * (width - 0.5), at[1] * (height - 0.5)
    right, bottom = left + max(0.5, at[2] * (width - left)), top + max(0.5, at[3] * (height - top))
    box = (left, top, min(right, width), min(bottom, height))
    image = picture(size, 1)
    assert np.abs(resize_to(image, new_size, box).astype(int) - pillows(image, new_size, box)).max() <= 1


@pytest.mark.parametrize(
    ("size", "new_size"), [((480, 640), (800, 1066)), ((1080, 1920), (750, 1333)), ((1500, 2000), (400, 533))]
)
def test_nearly_all_values_are_pillows(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    image = picture(size, 2)
    assert (resize_to(image, new_size) != pillows(image, new_size)).mean() < 0.02


@pytest.mark.parametrize("new_size", [(90, 50), (20, 50)])  # of both ways to get rid of the fourth byte
def test_what_pillow_keeps_beside_the_colours_counts_for_nothing(new_size: tuple[int, int]) -> None:
    with_rest = np.random.default_rng(6).integers(0, 256, (70, 60, 4), dtype=np.uint8)
    image = Image.frombytes("RGB", (60, 70), with_rest.tobytes(), "raw", "RGBX")
    assert np.abs(resize_to(image, new_size).astype(int) - pillows(image, new_size)).max() <= 1


def test_the_canvas_stays_as_it_is_beside_the_picture() -> None:
    for height in (20, 200):  # of both ways to get rid of the fourth byte
        canvas = np.full((64, 96, 3), 7, dtype=np.uint8)
        image = picture((height, 30), 3)
        resample(image, canvas, (40, 50), (0, 0, 30, height))
        assert (canvas[40:] == 7).all()
        assert (canvas[:, 50:] == 7).all()
        np.testing.assert_array_equal(canvas[:40, :50], resize_to(image, (40, 50)))


def test_a_picture_is_resized_alike_whatever_its_canvas() -> None:
    image = picture((37, 41), 4)
    alone = resize_to(image, (50, 60))
    np.testing.assert_array_equal(alone, resize_to(image, (50, 60), multiple=128))


def test_without_the_library_pillow_resizes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resampler() == "cykooz-resizer"
    monkeypatch.setattr(resampling, "_library", lambda: None)
    assert resampler() == "Pillow"
    image = picture((60, 90), 5)
    for box in (None, (0.5, 1.0, 80.25, 60.0)):
        np.testing.assert_array_equal(resize_to(image, (33, 80), box), pillows(image, (33, 80), box))


@pytest.mark.parametrize("has_library", [True, False])
def test_pixels_of_four_bytes_are_resized_where_they_lie(has_library: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_library:
        monkeypatch.setattr(resampling, "_library", lambda: None)
    pixels = np.random.default_rng(7).integers(0, 256, (70, 60, 4), dtype=np.uint8)
    picture, same = picture_in(pixels), Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    for size in ((90, 50), (20, 50), (70, 60)):
        np.testing.assert_array_equal(resize_to(picture, size), resize_to(same, size))
    assert picture.mode == "RGBX"
    pixels[0, 0] = 255
    assert picture.getpixel((0, 0)) == (255, 255, 255, 255)
