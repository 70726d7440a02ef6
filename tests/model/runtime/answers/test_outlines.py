"""Outlines enclose the pixels of their segment and no others."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from model.runtime.answers.id_map import IdMap
from model.runtime.answers.outlines import Polygon, Ring, TooManyCornersError, outlines
from tests.model.runtime.answers.id_maps import ID_MAPS

MASKS = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(lambda shape: arrays(np.bool_, shape))


def rasterised(rings: list[Ring], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose middle is inside an odd number of rings: each vertical side turns over all to its right."""
    mask = np.zeros(shape, dtype=bool)
    for ring in rings:
        for (x, y), (next_x, next_y) in pairwise(ring):
            if x == next_x:
                mask[min(y, next_y) : max(y, next_y), x:] ^= True
    return mask


def twice_the_area(ring: Ring) -> int:
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairwise(ring))


def polygons_of(mask: NDArray[np.bool_]) -> list[Polygon]:
    return outlines(IdMap.of(mask.astype(np.int32)), 1)[0]


@settings(max_examples=300)
@given(MASKS)
def test_each_polygon_is_a_part_that_hangs_together_by_sides(mask: NDArray[np.bool_]) -> None:
    parts, count = ndimage.label(mask)
    polygons = polygons_of(mask)
    assert len(polygons) == count
    seen = set()
    for polygon in polygons:
        part = rasterised(polygon, mask.shape)
        (number,) = np.unique(parts[part])
        np.testing.assert_array_equal(part, parts == number)
        seen.add(int(number))
    assert len(seen) == count


@settings(max_examples=300)
@given(MASKS)
def test_rings_are_closed_simple_and_of_corners_only(mask: NDArray[np.bool_]) -> None:
    for outer, *holes in polygons_of(mask):
        assert twice_the_area(outer) > 0
        assert all(twice_the_area(hole) < 0 for hole in holes)
        assert outer[0] == min(outer, key=lambda corner: corner[::-1])
        for ring in (outer, *holes):
            assert ring[0] == ring[-1]
            assert len(set(ring)) == len(ring) - 1 >= 4
            sides = [(x != next_x, y != next_y) for (x, y), (next_x, next_y) in pairwise(ring)]
            for side, following in zip(sides, [*sides[1:], sides[0]], strict=True):
                assert side in ((True, False), (False, True))
                assert following != side, "two sides in one direction are one side"


@settings(max_examples=200)
@given(ID_MAPS)
def test_outlines_follow_from_the_map_without_its_copies(ids: IdMap) -> None:
    array = ids.array()
    for number in range(5):
        polygons, corners = outlines(ids, number)
        rings = [ring for polygon in polygons for ring in polygon]
        np.testing.assert_array_equal(rasterised(rings, array.shape), array == number)
        assert corners == sum(len(ring) - 1 for ring in rings)


def test_pillow_fills_them_as_they_are_meant() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:30, 10:50] = True
    mask[10:20, 20:30] = False
    ((outer, hole),) = polygons_of(mask)
    # Pillow's corners are middles of pixels, so a ring of pixels' edges is filled at twice the size.
    canvas = Image.new("1", (121, 81))
    draw = ImageDraw.Draw(canvas)
    draw.polygon([(2 * x, 2 * y) for x, y in outer], fill=1)
    draw.polygon([(2 * x, 2 * y) for x, y in hole], fill=0)
    np.testing.assert_array_equal(np.asarray(canvas)[1::2, 1::2], mask)


def test_no_pixel_has_no_outline() -> None:
    assert outlines(IdMap.uniform((30, 40)), 1) == ([], 0)
    assert outlines(IdMap.uniform((30, 40)), 0) == ([[[(0, 0), (40, 0), (40, 30), (0, 30), (0, 0)]]], 4)


def chessboard(side: int) -> IdMap:
    return IdMap.of((np.indices((side, side)).sum(axis=0) % 2).astype(np.int32))


def test_more_corners_than_allowed_are_refused_before_the_walk() -> None:
    assert outlines(chessboard(20), 1, 800)[1] == 800
    with pytest.raises(TooManyCornersError):
        outlines(chessboard(20), 1, 799)


@pytest.mark.parametrize("number", [0, 1], ids=["holes that touch", "squares that touch"])
def test_the_worst_mask_within_the_bound_takes_seconds_at_most(number: int) -> None:
    ids = chessboard(350)
    framed = IdMap.of(np.pad(ids.ids, 1))
    start = time.process_time()
    _, corners = outlines(framed, number)
    assert corners > 240_000
    assert time.process_time() - start < 30  # about 1 s on an idle core
