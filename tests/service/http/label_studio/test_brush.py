"""The brush's run lengths, read bit by bit as their format is described."""

from __future__ import annotations

from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from service.http.label_studio.brush import brush_rle


def decoded(rle: list[int]) -> NDArray[np.uint8]:
    """All bytes, as the decoder of @thi.ng/rle-pack reads them."""
    bits = iter("".join(f"{byte:08b}" for byte in rle))

    def read(count: int) -> int:
        return int("".join(islice(bits, count)), 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        out += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    return np.array(out, dtype=np.uint8)


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30)))
def test_a_mask_comes_back(mask: NDArray[np.bool_]) -> None:
    assert (decoded(brush_rle(mask)).reshape(*mask.shape, 4) == np.where(mask, 255, 0)[..., None]).all()


@given(st.sampled_from([2**14 - 1, 2**14, 2**14 + 1, 5 * 2**14, 64, 65, 2, 4, 5]), st.booleans())
def test_runs_of_every_length_come_back(pixels: int, inside: bool) -> None:
    mask = np.full((1, pixels), inside)
    assert (decoded(brush_rle(mask)) == 255 * inside).all()
    assert len(brush_rle(mask)) < 30
