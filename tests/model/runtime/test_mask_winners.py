import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.runtime.mask_winners import nearest_index, winners, winners_at

Floats = NDArray[np.float32]
SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))
CELLS = st.tuples(st.integers(1, 12), st.integers(1, 12))


def masks_of(count: int, cells: tuple[int, int], seed: int) -> Floats:
    return np.random.default_rng(seed).normal(0, 5, (count, *cells)).astype(np.float32)


def upsampled(masks: Floats, size: tuple[int, int]) -> Floats:
    """All masks at full size, by torch."""
    planes = torch.from_numpy(masks)[:, None]
    result: Floats = torch.nn.functional.interpolate(planes, size, mode="bilinear", align_corners=False)[:, 0].numpy()
    return result


@given(st.integers(1, 6), CELLS, SIZES, st.integers(0, 1000))
def test_winners_are_the_argmax_of_torchs_bilinear_upsampling(
    count: int, cells: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    masks = masks_of(count, cells, seed)
    planes = upsampled(masks, size)
    found = winners(masks, size)
    assert found.shape == size
    # Where two masks are equal to within rounding, either may win.
    value = np.take_along_axis(planes, found[None].astype(np.intp), axis=0)[0]
    np.testing.assert_allclose(value, planes.max(axis=0), atol=1e-4)
    if count > 1:
        second, first = np.partition(planes, -2, axis=0)[-2:]
        clear = first - second > 1e-4
        np.testing.assert_array_equal(found[clear], planes.argmax(axis=0)[clear])


@given(st.integers(1, 6), CELLS, SIZES, st.integers(0, 1000))
def test_single_pixels_get_the_winners_of_the_whole(
    count: int, cells: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    masks = masks_of(count, cells, seed)
    rng = np.random.default_rng(seed)
    ys, xs = rng.integers(0, size[0], 20), rng.integers(0, size[1], 20)
    np.testing.assert_array_equal(winners_at(masks, size, ys, xs), winners(masks, size)[ys, xs])


def test_the_first_of_equals_wins() -> None:
    masks = np.zeros((3, 4, 4), dtype=np.float32)
    assert not winners(masks, (10, 10)).any()


def test_more_masks_than_a_byte_counts() -> None:
    masks = np.zeros((300, 2, 2), dtype=np.float32)
    masks[299] = 1
    assert (winners(masks, (5, 5)) == 299).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (47, 5), (48, 5), (49, 5), (96, 5), (97, 5)])
def test_sizes_around_the_height_of_a_band(size: tuple[int, int]) -> None:
    masks = masks_of(4, (7, 5), 0)
    np.testing.assert_array_equal(winners(masks, size), upsampled(masks, size).argmax(axis=0))


def test_memory_does_not_grow_with_the_number_of_masks() -> None:
    size = (400, 500)

    def peak(count: int) -> int:
        masks = masks_of(count, (100, 125), 0)
        tracemalloc.start()
        try:
            winners(masks, size)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(40) < 1.1 * peak(2)
    assert peak(40) < 4 * size[0] * size[1] * 4  # four full planes of floats, where forty masks are upsampled


@given(st.integers(1, 400), st.integers(1, 900))
def test_the_index_is_pillows_nearest_neighbour(length: int, new_length: int) -> None:
    index = nearest_index(length, new_length)
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
    rows, columns = nearest_index(size[0], new_size[0]), nearest_index(size[1], new_size[1])
    np.testing.assert_array_equal(id_map[rows][:, columns], np.asarray(expected))
