"""Nearest-neighbour resizes as Pillow and torch do them."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.runtime.answers.sampling import Sampling, pillow_nearest, torch_nearest

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


@given(st.integers(1, 400), st.integers(1, 900))
def test_the_index_is_pillows_nearest_neighbour(length: int, new_length: int) -> None:
    index = pillow_nearest(length, new_length)
    assert index.shape == (new_length,)
    for axis in (0, 1):
        line = np.arange(length, dtype=np.int32).reshape((-1, 1) if axis == 0 else (1, -1))
        size = (1, new_length) if axis == 0 else (new_length, 1)  # (width, height)
        expected = np.asarray(Image.fromarray(line).resize(size, Image.Resampling.NEAREST)).ravel()
        np.testing.assert_array_equal(index, expected)


@given(SIZES, SIZES, st.integers(0, 100))
def test_rows_and_columns_together_are_pillows_resize(
    size: tuple[int, int], new_size: tuple[int, int], seed: int
) -> None:
    id_map = np.random.default_rng(seed).integers(0, 50, size, dtype=np.int32)
    expected = Image.fromarray(id_map).resize(new_size[::-1], Image.Resampling.NEAREST)
    rows, columns = pillow_nearest(size[0], new_size[0]), pillow_nearest(size[1], new_size[1])
    np.testing.assert_array_equal(id_map[rows][:, columns], np.asarray(expected))


@given(st.integers(1, 1400), st.integers(1, 5000))
def test_the_other_index_is_torchs_nearest_neighbour(length: int, new_length: int) -> None:
    line = torch.arange(length, dtype=torch.float32)[None, None]
    expected = torch.nn.functional.interpolate(line, size=new_length, mode="nearest")[0, 0].numpy()
    np.testing.assert_array_equal(torch_nearest(length, new_length), expected.astype(int))


@given(SIZES, SIZES, st.data())
def test_a_part_is_placed_where_it_was_taken_from(
    size: tuple[int, int], new_size: tuple[int, int], data: st.DataObject
) -> None:
    sampling = Sampling.of(size, new_size, pillow_nearest)
    shape = (len(sampling.rows), len(sampling.columns))
    (top, bottom), (left, right) = (
        sorted(data.draw(st.tuples(st.integers(0, side), st.integers(0, side)))) for side in shape
    )
    ys, xs = slice(top, bottom), slice(left, right)
    ids = np.zeros(shape, dtype=np.uint8)
    ids[ys, xs] = np.random.default_rng(0).integers(1, 9, (bottom - top, right - left))
    placed = sampling.placed(ids[ys, xs], ys, xs)
    assert placed.shape == new_size
    np.testing.assert_array_equal(placed.array(), sampling.enlarged(ids).array())
