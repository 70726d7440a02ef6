from __future__ import annotations

import numpy as np
from PIL import ImageDraw

from model.runtime.answers.canvas import Canvas

IMAGE = np.random.default_rng(1).integers(0, 256, (30, 41, 3), dtype=np.uint8)


def test_what_is_drawn_on_a_canvas_is_in_its_pixels_and_not_in_the_image() -> None:
    before = IMAGE.copy()
    canvas = Canvas.of(IMAGE)
    assert canvas.shape == (30, 41)
    np.testing.assert_array_equal(canvas.rgb(), IMAGE)
    ImageDraw.Draw(canvas.picture).rectangle((2, 3, 5, 8), fill=(1, 2, 3))
    canvas.picture.paste((9, 8, 7), (0, 0, 1, 1))
    canvas.words[29, 40] = np.frombuffer(bytes((4, 5, 6, 0)), dtype=np.uint32)[0]
    expected = before.copy()
    expected[3:9, 2:6], expected[0, 0], expected[29, 40] = (1, 2, 3), (9, 8, 7), (4, 5, 6)
    np.testing.assert_array_equal(canvas.rgb(), expected)
    np.testing.assert_array_equal(canvas.pixels[..., :3], expected)
    np.testing.assert_array_equal(IMAGE, before)


def test_an_image_that_is_turned_is_copied_as_well() -> None:
    np.testing.assert_array_equal(Canvas.of(IMAGE.transpose(1, 0, 2)).rgb(), IMAGE.transpose(1, 0, 2))
