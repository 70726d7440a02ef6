"""The quality of one picture's boxes: what is matched, missed and wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.evaluation.average_precision import NOTHING
from model.evaluation.panoptic_quality import MatchCounts
from model.evaluation.ranking import count_boxes
from tests.model.evaluation.scenes import instance


def found(*rows: tuple[float, ...]) -> NDArray[np.float64]:
    """Left, top, width, height, score, category id."""
    return np.array(rows, np.float64).reshape(-1, 6)


def true(category: int, *box: float, crowd: int = 0) -> dict[str, Any]:
    return instance(1, category, box, crowd)


def test_the_truth_has_a_quality_of_1() -> None:
    annotated = [true(1, 0, 0, 10, 10), true(1, 20, 0, 10, 10), true(2, 0, 0, 10, 10)]
    counts = count_boxes(found(*[(*entry["bbox"], 0.9, entry["category_id"]) for entry in annotated]), annotated)
    assert counts == MatchCounts(iou=3.0, matched=3)
    assert counts.quality == 1


def test_an_object_is_matched_once_and_by_the_best_detection() -> None:
    annotated = [true(1, 0, 0, 10, 10)]
    counts = count_boxes(found((0, 0, 10, 9, 0.5, 1), (0, 0, 10, 8, 0.9, 1)), annotated)
    assert counts == MatchCounts(iou=0.8, matched=1, wrong=1)


def test_a_detection_takes_the_free_object_that_it_fits_best() -> None:
    annotated = [true(1, 0, 0, 10, 10), true(1, 1, 0, 10, 10)]
    counts = count_boxes(found((1, 0, 10, 10, 0.9, 1), (1, 0, 10, 10, 0.8, 1)), annotated)
    assert (counts.matched, counts.wrong) == (2, 0)
    assert counts.iou == pytest.approx(1 + 9 / 11)


def test_another_class_and_too_small_an_overlap_are_wrong_and_missed() -> None:
    annotated = [true(1, 0, 0, 10, 10), true(2, 50, 50, 10, 10)]
    counts = count_boxes(found((0, 0, 10, 10, 0.9, 3), (50, 50, 10, 4.9, 0.9, 2)), annotated)
    assert counts == MatchCounts(missed=2, wrong=2)
    assert counts.quality == 0


def test_half_of_the_union_is_a_match() -> None:
    assert count_boxes(found((0, 0, 10, 5, 0.9, 1)), [true(1, 0, 0, 10, 10)]).matched == 1


def test_what_lies_in_a_crowd_of_its_class_is_not_wrong_and_a_crowd_is_not_missed() -> None:
    crowd = [true(1, 0, 0, 100, 100, crowd=1)]
    inside = found((10, 10, 5, 5, 0.9, 1), (40, 10, 5, 5, 0.9, 1))
    assert count_boxes(inside, crowd) == MatchCounts()
    assert count_boxes(found((97, 0, 10, 10, 0.9, 1)), crowd) == MatchCounts(wrong=1), "most of it is outside"
    assert count_boxes(found((10, 10, 5, 5, 0.9, 2)), crowd) == MatchCounts(wrong=1), "another class"
    both = count_boxes(inside, [*crowd, true(1, 10, 10, 5, 5)])
    assert both == MatchCounts(iou=1.0, matched=1), "an object in a crowd is an object"


def test_nothing_annotated_and_nothing_found_has_no_quality() -> None:
    assert count_boxes(found(), []).quality == NOTHING


box = st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(1, 8)] * 2)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(box, st.integers(1, 2), st.booleans())),
    st.lists(st.tuples(box, st.sampled_from([0.3, 0.6]), st.integers(1, 3))),
)
def test_every_object_and_detection_is_counted_once(annotated: Any, detections: Any) -> None:
    entries = [true(category, *xywh, crowd=int(crowd)) for xywh, category, crowd in annotated]
    counts = count_boxes(found(*[(*xywh, score, category) for xywh, score, category in detections]), entries)
    assert counts.matched + counts.missed == sum(not crowd for *_, crowd in annotated)
    excused = len(detections) - counts.matched - counts.wrong
    assert 0 <= excused <= (len(detections) if any(crowd for *_, crowd in annotated) else 0)
    assert counts.matched / 2 <= counts.iou <= counts.matched + 1e-9
