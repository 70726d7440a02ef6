import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from model.runtime.answers.id_map import IdMap, starts
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
