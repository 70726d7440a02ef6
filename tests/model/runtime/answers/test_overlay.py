import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.answers.detections import Detections
from model.runtime.answers.id_map import IdMap
from model.runtime.answers.overlay import draw_detections, draw_panoptic
from model.runtime.answers.panoptic import PanopticResult, Segment
from model.runtime.categories import Category

CATEGORIES = (
    Category(1, "person", True, (220, 20, 60)),
    Category(2, "sky", False, (70, 130, 180)),
    Category(3, "名前", True, (10, 200, 10)),
)


def gray(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def detections(*boxes: tuple[float, float, float, float], labels: list[int] | None = None) -> Detections:
    scores = np.linspace(0.99, 0.5, len(boxes), dtype=np.float32)
    return Detections(scores, np.array(labels or [0] * len(boxes)), np.array(boxes, dtype=np.float32).reshape(-1, 4))


def panoptic_of(id_map: NDArray[np.int32], labels: list[int]) -> PanopticResult:
    segments = tuple(
        Segment(number, label, CATEGORIES[label].isthing, 0.9, int((id_map == number).sum()), (0, 0, 1, 1))
        for number, label in enumerate(labels, start=1)
    )
    return PanopticResult(IdMap.of(id_map), segments)


def two_halves(height: int, width: int) -> NDArray[np.int32]:
    id_map = np.ones((height, width), dtype=np.int32)
    id_map[:, width // 2 :] = 2
    return id_map


def test_a_box_is_drawn_in_its_categorys_color_and_only_there() -> None:
    image = gray(300, 400)
    drawn = draw_detections(image, detections((100, 100, 300, 250)), CATEGORIES)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert tuple(drawn[150, 100]) == tuple(drawn[249, 200]) == (220, 20, 60)
    assert (drawn[120:230, 120:280] == 128).all()  # inside, nothing is hidden
    assert (drawn[260:] == 128).all()
    tag = drawn[:100, 100:200]
    assert (tag == (220, 20, 60)).all(axis=-1).any()
    assert (image == 128).all()  # the input is not drawn on


def test_no_detection_leaves_the_image_as_it_is() -> None:
    image = gray(50, 60)
    np.testing.assert_array_equal(draw_detections(image, detections(), CATEGORIES), image)


def test_the_best_detection_is_on_top() -> None:
    box = (20.0, 60.0, 180.0, 150.0)
    drawn = draw_detections(gray(200, 200), detections(box, box, labels=[0, 2]), CATEGORIES)
    assert tuple(drawn[150 - 1, 100]) == CATEGORIES[0].color


@settings(max_examples=30)
@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), max_size=4),
)
def test_any_box_on_any_image_can_be_drawn(
    height: int, width: int, corners: list[tuple[float, float, float, float]]
) -> None:
    boxes = [
        (min(x1, x2) * width, min(y1, y2) * height, max(x1, x2) * width, max(y1, y2) * height)
        for x1, y1, x2, y2 in corners
    ]
    assert draw_detections(gray(height, width), detections(*boxes), CATEGORIES).shape == (height, width, 3)


def test_segments_are_tinted_half_and_half_with_a_line_between_them() -> None:
    drawn = draw_panoptic(gray(200, 300), panoptic_of(two_halves(200, 300), [0, 1]), CATEGORIES)
    for x, category in ((10, CATEGORIES[0]), (290, CATEGORIES[1])):
        expected = (np.array(category.color) + 128) // 2
        np.testing.assert_allclose(drawn[5, x].astype(int), expected, atol=1)
    line = drawn[5, 149:151].astype(int).sum(axis=-1)
    assert (line < drawn[5, [10, 290]].astype(int).sum(axis=-1)).all()


def test_every_segment_has_a_label_on_it() -> None:
    drawn = draw_panoptic(gray(400, 600), panoptic_of(two_halves(400, 600), [0, 1]), CATEGORIES)
    for half, category in ((drawn[:, :300], CATEGORIES[0]), (drawn[:, 300:], CATEGORIES[1])):
        assert (half == category.color).all(axis=-1).sum() > 100  # the tag's ground, in the full colour


def test_instances_of_one_category_differ_slightly() -> None:
    drawn = draw_panoptic(gray(200, 300), panoptic_of(two_halves(200, 300), [0, 0]), CATEGORIES).astype(int)
    difference = np.abs(drawn[5, 10] - drawn[5, 290]).sum()
    assert 5 < difference < 120


def test_void_leaves_the_image_as_it_is() -> None:
    image = gray(50, 60)
    result = PanopticResult(IdMap.uniform((50, 60)), ())
    np.testing.assert_array_equal(draw_panoptic(image, result, CATEGORIES), image)


def test_void_beside_segments_stays_as_it_is() -> None:
    image = gray(200, 300)
    id_map = np.zeros((200, 300), dtype=np.int32)
    id_map[60:140, 100:200] = 1
    drawn = draw_panoptic(image, panoptic_of(id_map, [0]), CATEGORIES)
    np.testing.assert_array_equal(drawn[:55], image[:55])
    assert (drawn[65, 105] != 128).any()


def test_a_result_of_another_image_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        draw_panoptic(gray(50, 61), panoptic_of(two_halves(50, 60), [0, 1]), CATEGORIES)


@settings(max_examples=30)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 100))
def test_any_segmentation_of_any_image_can_be_drawn(height: int, width: int, seed: int) -> None:
    id_map = np.random.default_rng(seed).integers(1, 4, (height, width)).astype(np.int32)
    _, id_map_from_one = np.unique(id_map, return_inverse=True)
    id_map = id_map_from_one.reshape(height, width).astype(np.int32) + 1
    result = panoptic_of(id_map, [0, 1, 2][: id_map.max()])
    assert draw_panoptic(gray(height, width), result, CATEGORIES).shape == (height, width, 3)


def test_a_segment_thinner_than_the_grid_of_labels_is_labelled_too() -> None:
    id_map = np.ones((1000, 1200), dtype=np.int32)
    id_map[:, 601] = 2
    drawn = draw_panoptic(gray(1000, 1200), panoptic_of(id_map, [1, 0]), CATEGORIES)
    assert (drawn == CATEGORIES[0].color).all(axis=-1).sum() > 100


def test_an_ordinary_photo_takes_a_fraction_of_a_second() -> None:
    image, result = gray(800, 1066), panoptic_of(two_halves(800, 1066), [0, 1])
    start = time.process_time()
    draw_panoptic(image, result, CATEGORIES)
    assert time.process_time() - start < 0.5  # about 0.02 s on an idle core
