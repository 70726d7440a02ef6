"""The boxes of a whole file in arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.data.formats.objects import BoxXywh, Objects, boxes_xywh_to_xyxy, clipped_xyxy, read_box

SIDE = st.floats(0, 50, width=32)
PAIR = st.tuples(st.integers(0, 9), st.tuples(SIDE, SIDE, SIDE, SIDE))


@given(found=st.lists(st.lists(PAIR, max_size=4), min_size=1, max_size=6))
def test_every_picture_gets_its_own_objects_back(found: list[list[tuple[int, BoxXywh]]]) -> None:
    objects = Objects.gather(found, crowds=3)
    assert objects.crowds == 3
    for index, expected in enumerate(found):
        here = objects.of(index)
        assert objects.labels[here].tolist() == [label for label, _ in expected]
        assert objects.boxes_xywh[here].tolist() == [list(box) for _, box in expected]
    assert objects.pictures.tolist() == [index for index, pairs in enumerate(found) for _ in pairs]


@pytest.mark.parametrize(
    "box",
    [
        {},
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, 3, float("nan")],
        [1, float("inf"), 3, 4],
        [1, 2, 10**400, 4],
        [1, 2, "three", 4],
        [1, 2, True, 4],
    ],
)
def test_a_box_that_is_not_four_numbers_is_named(box: Any) -> None:
    with pytest.raises(ValueError, match=r"^f\.json: annotation 9 has bbox .* must be four numbers of pixels"):
        read_box({"bbox": box}, "f.json: annotation 9")


@pytest.mark.parametrize("box", [[1, 2, -3, 4], [1, 2, 3, -0.5]])
def test_a_box_of_negative_size_is_named(box: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^f\.json: annotation 9 has bbox .* must not be negative"):
        read_box({"bbox": box}, "f.json: annotation 9")


def test_an_annotation_without_a_box_is_named() -> None:
    with pytest.raises(ValueError, match=r"^f\.json: annotation 9 has no bbox"):
        read_box({}, "f.json: annotation 9")


def test_a_box_may_be_written_as_text_or_left_to_the_polygons() -> None:
    assert read_box({"bbox": ["1", "2.5", " 3", 4]}, "") == (1, 2.5, 3, 4)
    polygons = [[1, 2, 9, 2, 9, 7], ["3", 0, 4, 1, 5, 3]]
    boxes: list[dict[str, Any]] = [{}, {"bbox": None}, {"bbox": []}]
    for box in boxes:
        assert read_box({**box, "segmentation": polygons}, "") == (1, 0, 8, 7)
    with pytest.raises(ValueError, match="has no bbox"):
        read_box({"segmentation": [[1, 2, 3, 4]]}, "an annotation")


def test_clipping_says_which_boxes_keep_an_area() -> None:
    boxes = boxes_xywh_to_xyxy(np.array([[-2, 3, 20, 20], [9, 1, 2, 2], [2, 2, 0, 3], [1, 1, 3, 2]], dtype=np.float64))
    clipped, kept = clipped_xyxy(boxes, torch.tensor([6, 8]))
    assert clipped[kept].tolist() == [[0, 3, 8, 6], [1, 1, 4, 3]]
    assert kept.tolist() == [True, False, False, True]
    each = torch.tensor([[6, 8], [6, 12], [6, 8], [6, 3]])
    clipped, kept = clipped_xyxy(boxes, each)
    assert clipped[kept].tolist() == [[0, 3, 8, 6], [9, 1, 11, 3], [1, 1, 3, 3]]
