"""A box that is turned with its image still holds the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.runtime.upright import turn_of


def lying(orientation: object, size: tuple[int, int] = (9, 7)) -> Image.Image:
    image = Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint8).reshape(size[::-1]))
    image.getexif()[0x0112] = orientation
    return image


@given(st.integers(1, 8), st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(5, 9), st.integers(4, 7)))
def test_a_turned_box_holds_what_it_held(orientation: int, box: tuple[int, int, int, int]) -> None:
    image = lying(orientation)
    turn = turn_of(image)
    upright = turn.apply(image)
    assert upright.size == turn.apply_to_size(image.size)
    turned = turn.apply_to_box(box, *upright.size)
    np.testing.assert_array_equal(
        np.asarray(upright.crop(turned)),
        np.asarray(turn.apply(image.crop(box))),
    )


@pytest.mark.parametrize("orientation", [0, 1, 9, 65535, "6", None])
def test_without_a_usable_orientation_an_image_stays_as_it_is(orientation: object) -> None:
    image = lying(orientation)
    assert turn_of(image).apply(image) is image
