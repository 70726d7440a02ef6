import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from model.runtime.answers.id_map import IdMap, areas_and_boxes, starts
from tests.model.runtime.answers.id_maps import ID_MAPS

COPIES = arrays(np.intp, st.integers(1, 9), elements=st.integers(1, 5))


@given(ID_MAPS)
def test_the_array_repeats_each_row_and_column(ids: IdMap) -> None:
    array = ids.array()
    assert array.dtype == np.int32
    assert array.shape == ids.shape
    rows, columns = starts(ids.row_copies), starts(ids.column_copies)
    for y in range(len(ids.row_copies)):
        for x in range(len(ids.column_copies)):
            assert (array[rows[y] : rows[y + 1], columns[x] : columns[x + 1]] == ids.ids[y, x]).all()


@given(COPIES)
def test_rows_begin_where_the_ones_before_them_end(copies: NDArray[np.intp]) -> None:
    assert starts(copies).tolist() == [sum(copies[:n]) for n in range(len(copies) + 1)]


def test_a_map_of_an_array_is_that_array() -> None:
    array = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(IdMap.of(array).array(), array)


def test_a_uniform_map_has_one_id_everywhere() -> None:
    np.testing.assert_array_equal(IdMap.uniform((3, 5)).array(), np.zeros((3, 5)))
    np.testing.assert_array_equal(IdMap.uniform((2, 1), 7).array(), np.full((2, 1), 7))


@given(ID_MAPS, st.data())
def test_a_region_is_a_part_of_the_array(ids: IdMap, data: st.DataObject) -> None:
    height, width = ids.shape
    (y1, y2), (x1, x2) = (sorted(data.draw(st.tuples(*[st.integers(0, side)] * 2))) for side in (height, width))
    np.testing.assert_array_equal(ids.region((x1, y1, x2, y2)), ids.array()[y1:y2, x1:x2])


@given(ID_MAPS)
def test_an_id_is_another_than_the_one_above_it_where_the_map_changes(ids: IdMap) -> None:
    above = np.pad(ids.ids, ((1, 0), (0, 0)), constant_values=-1)[:-1]
    np.testing.assert_array_equal(ids.changes, np.flatnonzero(ids.ids != above))


@given(ID_MAPS)
def test_runs_cover_each_column_from_top_to_bottom(ids: IdMap) -> None:
    runs, covered = ids.runs, np.full(ids.ids.shape, -1)
    last = (-1, 0)
    for column, begin, end, owner in zip(runs.column, runs.begin, runs.end, runs.owner, strict=True):
        assert (column, begin) > last
        last = (column, begin)
        assert (covered[begin:end, column] == -1).all()
        covered[begin:end, column] = owner
        if end < len(covered):
            assert ids.ids[end, column] != owner
    np.testing.assert_array_equal(covered, ids.ids)


@given(ID_MAPS)
def test_areas_and_boxes_are_those_of_the_pixels(ids: IdMap) -> None:
    array, count = ids.array(), int(ids.ids.max()) + 2
    areas, boxes = areas_and_boxes(ids, count)
    for number in range(count):
        ys, xs = np.nonzero(array == number)
        assert areas[number] == len(ys)
        height, width = ids.shape
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(ys) else [width, height, 0, 0]
        assert boxes[number].tolist() == box
