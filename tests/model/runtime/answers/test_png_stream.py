import io
import struct
import tracemalloc
import zlib
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.runtime.answers import png_stream
from model.runtime.answers.id_map import IdMap
from model.runtime.answers.png_stream import write_png
from tests.model.runtime.answers.id_maps import ID_MAPS, id_maps


def pixels(data: bytes) -> NDArray[np.int32]:
    """Ids of a PNG as Pillow reads it; a broken checksum is an error."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.verify()
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        assert image.mode == "RGB"
        rgb = np.asarray(image).astype(np.int32)
    return rgb @ np.array([1, 256, 65536], dtype=np.int32)


def chunks(data: bytes) -> dict[bytes, bytes]:
    """The PNG's chunks by their names, with their checksums checked."""
    found, place = {}, 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, place + 8 + length)
        assert checksum == zlib.crc32(kind + body)
        found[kind] = body
        place += 12 + length
    return found


@given(ID_MAPS)
def test_every_pixel_reads_back(ids: IdMap) -> None:
    np.testing.assert_array_equal(pixels(write_png(ids)), ids.array())


@given(ID_MAPS, st.integers(1, 3))
def test_a_map_so_wide_that_few_rows_fit_into_a_block_reads_back(ids: IdMap, factor: int) -> None:
    wide = IdMap(ids.ids, ids.row_copies, ids.column_copies * 1000 * factor)
    np.testing.assert_array_equal(pixels(write_png(wide)), wide.array())


@given(id_maps(largest_id=256**3 - 1), st.integers(1, 30))
def test_a_map_whose_differences_are_found_in_turns_reads_back(ids: IdMap, together: int) -> None:
    with patch.object(png_stream, "_TOGETHER", together):
        np.testing.assert_array_equal(pixels(write_png(ids)), ids.array())


def test_a_map_with_many_rows_that_are_all_alike_reads_back() -> None:
    ids = IdMap.of(np.arange(2000).reshape(1, 2000).repeat(60, axis=0))
    with patch.object(png_stream, "_TOGETHER", 1):
        np.testing.assert_array_equal(pixels(write_png(ids)), ids.array())


@given(id_maps(largest_id=256**3 - 1))
def test_large_ids_read_back(ids: IdMap) -> None:
    np.testing.assert_array_equal(pixels(write_png(ids)), ids.array())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300)), min_size=1, max_size=5), st.integers(1, 9000))
@example([(1, 5)], 90_000)  # of which a single one is more than a block
def test_the_checksum_holds_however_often_rows_repeat(rows: list[tuple[int, int]], width: int) -> None:
    ids = IdMap(np.array([[n] for n, _ in rows]), np.array([copies for _, copies in rows]), np.array([width]))
    data = chunks(write_png(ids))
    assert list(data) == [b"IHDR", b"IDAT", b"IEND"]
    # zlib refuses a stream whose checksum is wrong; Pillow would not notice.
    decompressor = zlib.decompressobj()
    raw = decompressor.decompress(data[b"IDAT"])
    assert decompressor.eof
    assert not decompressor.unused_data
    assert len(raw) == ids.shape[0] * (1 + 3 * width)


def regions(height: int, width: int) -> NDArray[np.int32]:
    """Fifteen wavy regions."""
    ys, xs = np.mgrid[:height, :width] / height
    waves: NDArray[np.int32] = (np.sin(6 * xs + np.sin(4 * ys)) * 3 + np.cos(7 * ys + 2 * xs) * 4 + 7).astype(np.int32)
    return waves


def smallest(ids: IdMap) -> int:
    """Bytes of the PNG when Pillow takes all its time."""
    buffer = io.BytesIO()
    red = ids.array().astype(np.uint8)
    Image.fromarray(np.stack([red, 0 * red, 0 * red], axis=-1)).save(buffer, format="PNG", optimize=True)
    return len(buffer.getvalue())


@pytest.mark.parametrize("copies", [1, 2, 4, 8])
def test_the_png_is_not_much_larger_than_the_smallest(copies: int) -> None:
    small = regions(240, 320)
    ids = IdMap(small, np.full(240, copies), np.full(320, copies))
    assert len(write_png(ids)) < 1.5 * smallest(ids)


def test_memory_is_a_block_of_rows_and_the_file() -> None:
    ids = IdMap(regions(400, 500), np.full(400, 4), np.full(500, 4))
    tracemalloc.start()
    try:
        write_png(ids)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6  # the picture has 9.6 MB
