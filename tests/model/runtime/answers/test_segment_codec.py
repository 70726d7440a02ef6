import io
import time
import tracemalloc
import warnings

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from model.runtime.answers.id_map import IdMap
from model.runtime.answers.segment_codec import RLE, encode_rles, id_png
from tests.coco_segments import encode_rle, read_id_png
from tests.model.runtime.answers.id_maps import ID_MAPS

SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def decode(rle: RLE) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        # pycocotools 2.0.11 converts its result in a way that NumPy 2 warns of.
        warnings.simplefilter("ignore", DeprecationWarning)
        mask: NDArray[np.uint8] = pycocotools.mask.decode(rle)
    return mask.astype(np.bool_)


@given(arrays(np.bool_, SIZES))
def test_run_lengths_decode_to_the_mask(mask: NDArray[np.bool_]) -> None:
    (rle,) = encode_rles(IdMap.of(mask.astype(np.int32)), [1])
    assert rle["size"] == list(mask.shape)
    assert isinstance(rle["counts"], str)
    np.testing.assert_array_equal(decode(rle), mask)


def test_runs_go_down_the_columns() -> None:
    (rle,) = encode_rles(IdMap.of(np.array([[0, 1], [1, 1]], dtype=np.int32)), [1])
    uncompressed = {"size": [2, 2], "counts": [1, 3]}
    assert rle["counts"].encode() == pycocotools.mask.frPyObjects(uncompressed, 2, 2)["counts"]


@given(ID_MAPS)
def test_all_segments_at_once_are_the_same_as_each_alone(ids: IdMap) -> None:
    numbers = [3, 0, 1, 4, 2, 99]
    assert encode_rles(ids, numbers) == [encode_rle(ids.array() == number) for number in numbers]


@given(arrays(np.int32, SIZES, elements=st.integers(0, 2)))
def test_run_lengths_of_an_array_that_is_not_enlarged_are_those_of_its_masks(array: NDArray[np.int32]) -> None:
    assert encode_rles(IdMap.of(array), [0, 1, 2]) == [encode_rle(array == number) for number in range(3)]


def test_run_lengths_of_a_large_image_take_little_time_and_memory() -> None:
    small = np.zeros((750, 1000), dtype=np.int32)
    small[125:625, 250:750] = 1
    small[:, 875:] = 2
    ids = IdMap(small, np.full(750, 4), np.full(1000, 4))
    tracemalloc.start()
    start = time.process_time()
    try:
        encode_rles(ids, range(30))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # It takes about 10 ms on an idle core; a pass for each of thirty segments would take more than this.
    assert time.process_time() - start < 1
    assert peak < 12e6  # its pixels, were there one byte of each


@given(arrays(np.int32, SIZES, elements=st.integers(0, 256**3 - 1)))
def test_a_png_of_ids_reads_back(id_map: NDArray[np.int32]) -> None:
    data = id_png(IdMap.of(id_map))
    found = read_id_png(data)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, id_map)


def test_the_png_is_rgb_with_the_low_byte_in_red() -> None:
    with Image.open(io.BytesIO(id_png(IdMap.of(np.array([[0x030201, 7]], dtype=np.int32))))) as image:
        assert image.format == "PNG"
        assert image.mode == "RGB"
        assert [image.getpixel((x, 0)) for x in range(2)] == [(1, 2, 3), (7, 0, 0)]


@pytest.mark.parametrize("number", [-1, 256**3])
def test_an_id_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 16777215"):
        id_png(IdMap.of(np.array([[number]], dtype=np.int32)))


def test_a_map_in_any_memory_order_is_taken() -> None:
    id_map = np.arange(12, dtype=np.int32).reshape(3, 4)
    for view in (np.asfortranarray(id_map), id_map[::-1].T):
        np.testing.assert_array_equal(read_id_png(id_png(IdMap.of(view))), view)
        np.testing.assert_array_equal(decode(encode_rles(IdMap.of(view), [5])[0]), view == 5)
