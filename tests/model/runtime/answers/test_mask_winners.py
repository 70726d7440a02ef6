import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.answers import mask_squares, mask_winners
from model.runtime.answers.mask_winners import above_zero, winners, winners_at

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


def plain_winners(masks: Floats, size: tuple[int, int]) -> NDArray[np.intp]:
    """The same arithmetic as that of `winners`, of all masks everywhere."""
    every = np.indices(size).reshape(2, -1)
    alone = [winners_at(np.stack([mask, other]), size, *every) for mask in masks for other in masks]
    beats = np.array(alone).reshape(len(masks), len(masks), *size)  # 1 where the second is higher
    found: NDArray[np.intp] = beats.max(axis=1).argmin(axis=0)
    return found


@given(st.integers(1, 5), st.integers(0, 1000), st.sampled_from([0, 1, 6]), st.sampled_from([1e-30, 1.0, 1e30]))
def test_to_leave_out_masks_that_cannot_win_changes_no_pixel(
    count: int, seed: int, decimals: int, scale: float
) -> None:
    size = (110, 140)  # two tiles each way
    masks = masks_of(count, (28, 35), seed)
    masks[:, ::7] = masks[:, 1::7]
    masks = (np.round(masks / 5 + 3 * smooth(count, (28, 35), seed), decimals) * scale).astype(np.float32)
    np.testing.assert_array_equal(winners(masks, size), plain_winners(masks, size))


def test_masks_that_are_equal_to_within_rounding_are_all_looked_at() -> None:
    masks = masks_of(1, (28, 35), 0).repeat(2, axis=0)
    masks[1] = np.nextafter(masks[0], np.float32(np.inf))
    found = winners(masks, (110, 140))
    np.testing.assert_array_equal(found, plain_winners(masks, (110, 140)))
    assert 0 < found.mean() < 1, "rounding makes them equal in places, where the first wins"


def smooth(count: int, cells: tuple[int, int], seed: int) -> Floats:
    """Ramps in all directions, so that a mask leads in one tile and is far behind in another."""
    directions = np.random.default_rng(seed).normal(size=(count, 2))
    ys, xs = np.mgrid[-1 : 1 : cells[0] * 1j, -1 : 1 : cells[1] * 1j]
    ramps: Floats = (directions @ np.stack([ys, xs]).reshape(2, -1)).reshape(count, *cells).astype(np.float32)
    return ramps


def test_logits_as_large_as_floats_get_are_compared() -> None:
    masks = np.full((3, 20, 20), -3e38, dtype=np.float32)
    masks[1, :, :10] = 3e38
    masks[2, :, 10:] = 3e38
    found = winners(masks, (80, 80))
    assert (found[:, :36] == 1).all()
    assert (found[:, 44:] == 2).all()


@given(st.integers(1, 4), CELLS, SIZES, st.data())
def test_some_rows_and_columns_are_those_of_the_whole(
    count: int, cells: tuple[int, int], size: tuple[int, int], data: st.DataObject
) -> None:
    masks = masks_of(count, cells, 3)
    rows, columns = (np.array(sorted(data.draw(st.sets(st.integers(0, side - 1), min_size=1)))) for side in size)
    np.testing.assert_array_equal(winners(masks, size, rows, columns), winners(masks, size)[rows][:, columns])


@given(st.integers(1, 6), CELLS, SIZES, st.integers(0, 1000))
def test_single_pixels_get_the_winners_of_the_whole(
    count: int, cells: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    masks = masks_of(count, cells, seed)
    rng = np.random.default_rng(seed)
    ys, xs = rng.integers(0, size[0], 20), rng.integers(0, size[1], 20)
    np.testing.assert_array_equal(winners_at(masks, size, ys, xs), winners(masks, size)[ys, xs])


@given(st.integers(1, 6), CELLS, SIZES, st.integers(0, 1000), st.sampled_from([1e-30, 1.0, 1e30, 3e38]))
def test_both_ways_give_every_pixel_to_the_same_mask(
    count: int, cells: tuple[int, int], size: tuple[int, int], seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    rough = rng.uniform(-1, 1, (count, -(-cells[0] // 4), -(-cells[1] // 4))).astype(np.float32)
    # Regions of a few cells; a third of them equal in all masks.
    masks = (rough * (rng.random(rough.shape[1:]) > 0.3)).repeat(4, axis=1).repeat(4, axis=2)
    masks = np.ascontiguousarray(masks[:, : cells[0], : cells[1]]) * np.float32(scale)
    with patch.object(mask_winners, "_MOSTLY_CLEAR", 2.0):
        by_tile = winners(masks, size)
    with patch.object(mask_winners, "_MOSTLY_CLEAR", 0.0), patch.object(mask_squares, "_TOGETHER", 7):
        np.testing.assert_array_equal(winners(masks, size), by_tile)


def test_the_first_of_equals_wins() -> None:
    masks = np.zeros((3, 4, 4), dtype=np.float32)
    assert not winners(masks, (10, 10)).any()


@given(st.integers(1, 5), CELLS, SIZES, st.integers(0, 1000), st.sampled_from([0.0, 2.0]))
def test_marks_stand_for_the_masks(
    count: int, cells: tuple[int, int], size: tuple[int, int], seed: int, mostly_clear: float
) -> None:
    masks, marks = masks_of(count, cells, seed), np.array([7, 300, 7, 0, 1][:count], dtype=np.uint16)
    with patch.object(mask_winners, "_MOSTLY_CLEAR", mostly_clear):
        found = winners(masks, size, marks=marks)
        np.testing.assert_array_equal(found, marks[winners(masks, size)])
    assert found.dtype == np.uint16


def test_more_masks_than_a_byte_counts() -> None:
    masks = np.zeros((300, 2, 2), dtype=np.float32)
    masks[299] = 1
    assert (winners(masks, (5, 5)) == 299).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 130), (100, 1), (95, 127), (96, 128), (97, 129), (192, 5), (193, 256)])
def test_sizes_around_those_of_a_tile(size: tuple[int, int]) -> None:
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


@given(CELLS, SIZES, st.integers(0, 1000), st.floats(-12, 2))
def test_what_is_above_zero_is_so_in_torchs_bilinear_upsampling(
    cells: tuple[int, int], size: tuple[int, int], seed: int, shift: float
) -> None:
    mask = masks_of(1, cells, seed)[0] + np.float32(shift)
    rows, columns = (np.arange(step % 3, side, 1 + step % 2) for step, side in zip((seed, seed + 1), size, strict=True))
    ys, xs, above = above_zero(mask, size, rows, columns)
    found = np.zeros((len(rows), len(columns)), dtype=bool)
    found[ys, xs] = above
    expected = upsampled(mask[None], size)[0][rows][:, columns]
    unsure = np.abs(expected) < 1e-5 * np.abs(mask).max()
    np.testing.assert_array_equal(found[~unsure], (expected > 0)[~unsure])


def test_only_the_part_of_a_mask_that_may_be_above_zero_is_computed() -> None:
    mask = np.full((40, 60), -1, dtype=np.float32)
    mask[10:12, 20:30] = 1
    ys, xs, above = above_zero(mask, (160, 240), np.arange(160), np.arange(240))
    assert above.shape == (ys.stop - ys.start, xs.stop - xs.start)
    assert above.size < 16 * 48
