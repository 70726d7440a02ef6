"""Memory that is kept for the next array is never that of one which is still looked at."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.runtime.decode import LARGEST, decode
from model.runtime.kept_blocks import PICTURE_BLOCKS, KeptBlocks
from model.runtime.picture_memory import picture_in
from tests.service.conftest import encode

MB = 10**6


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def megabytes() -> int:
    return round(tracemalloc.get_traced_memory()[0] / MB)


def address(array: NDArray[np.uint8]) -> int:
    return array.ctypes.data


def test_the_next_array_lies_where_the_last_one_did() -> None:
    blocks = KeptBlocks()
    blocks.keep(1)
    first = blocks.array(3, MB)
    first.fill(7)
    was = address(first)
    del first
    second = blocks.array(2, MB, zeroed=True)
    assert address(second) == was
    assert second.shape == (2, MB)
    assert not second.any()


@pytest.mark.usefixtures("traced")
def test_nothing_is_kept_unless_that_is_wanted() -> None:
    before = megabytes()
    blocks = KeptBlocks()
    array = blocks.array(30 * MB)
    assert megabytes() - before == 30
    del array
    assert megabytes() == before


@pytest.mark.usefixtures("traced")
def test_as_many_are_kept_as_is_wanted_and_no_more() -> None:
    before = megabytes()
    blocks = KeptBlocks()
    blocks.keep(2)
    arrays = [blocks.array(10 * MB) for _ in range(5)]
    assert megabytes() - before == 50
    arrays.clear()
    assert megabytes() - before == 20
    blocks.give_back()
    assert megabytes() == before


@pytest.mark.usefixtures("traced")
def test_the_smallest_that_is_large_enough_is_taken_and_a_larger_one_replaces_the_smallest() -> None:
    before = megabytes()
    blocks = KeptBlocks()
    blocks.keep(2)
    arrays = [blocks.array(size * MB) for size in (10, 20)]
    small, large = map(address, arrays)
    arrays.clear()
    assert [address(blocks.array(size * MB)) for size in (5, 15)] == [small, large]
    assert megabytes() - before == 30
    blocks.array(40 * MB)
    assert megabytes() - before == 60


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[1:],
        lambda array: array.view(np.uint32)[..., 0],
        lambda array: picture_in(array, "RGB"),
        memoryview,
    ],
)
def test_a_block_is_in_use_while_anything_looks_at_it(view: object) -> None:
    blocks = KeptBlocks()
    blocks.keep(2)
    array = blocks.array(50, 40, 4)
    was = address(array)
    looked_at = view(array)  # type: ignore[operator]
    del array
    gc.collect()
    assert address(blocks.array(50, 40, 4)) != was
    del looked_at
    gc.collect()
    two = [blocks.array(50, 40, 4) for _ in range(2)]
    assert was in map(address, two)


@given(st.lists(st.tuples(st.integers(1, 2000), st.booleans(), st.integers(0, 3)), max_size=40), st.integers(0, 3))
def test_no_two_arrays_share_memory(steps: list[tuple[int, bool, int]], count: int) -> None:
    blocks = KeptBlocks()
    blocks.keep(count)
    alive: list[tuple[int, NDArray[np.uint8]]] = []
    for number, (size, zeroed, ends) in enumerate(steps):
        array = blocks.array(size, zeroed=zeroed)
        assert len(array) == size
        assert not zeroed or not array.any()
        array.fill(number)
        alive.append((number, array))
        del array
        assert all((array == number).all() for number, array in alive)
        del alive[:ends]


def test_threads_do_not_get_the_same() -> None:
    blocks = KeptBlocks()
    blocks.keep(3)

    def use(number: int) -> bool:
        array = blocks.array(20_000 + number % 7)
        array.fill(number % 251)
        return bool((array == number % 251).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(3000)))


def test_where_memory_runs_out_what_is_kept_is_given_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = KeptBlocks()
    blocks.keep(2)
    arrays = [blocks.array(size) for size in (MB, MB)]
    arrays.clear()
    zeros, asked = np.zeros, []

    def zeros_of(size: int, dtype: type) -> NDArray[np.uint8]:
        asked.append((size, len(blocks._free)))
        if len(asked) == 1:
            raise MemoryError
        return zeros(size, dtype=dtype)

    monkeypatch.setattr("model.runtime.kept_blocks.np.zeros", zeros_of)
    assert len(blocks.array(2 * MB)) == 2 * MB
    assert asked == [(2 * MB, 1), (2 * MB, 0)]


@pytest.mark.usefixtures("traced")
def test_an_animation_finds_all_memory_that_a_picture_may_take() -> None:
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "green")]
    animation = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    before = megabytes()
    PICTURE_BLOCKS.keep(1)
    try:
        PICTURE_BLOCKS.array(30 * MB)
        assert megabytes() - before == 30
        decode(animation, LARGEST)
        assert megabytes() == before
    finally:
        PICTURE_BLOCKS.keep(0)
        PICTURE_BLOCKS.give_back()
