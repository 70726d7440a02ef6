from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from model.runtime.answers.detections import OutputError, boxes_cxcywh_to_xyxy, detections_of, scored_boxes, softmax

Floats = NDArray[np.float32]

LOGITS = arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(2, 6)), elements=st.floats(-50, 50, width=32))


def boxes_for(logits: Floats, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((len(logits), 4), dtype=np.float32)


@pytest.mark.parametrize("image", [0, 1])
def test_scores_labels_and_boxes_equal_the_published_implementations(
    image: int, parity: dict[str, NDArray[Any]]
) -> None:
    height, width = parity[f"image_{image}"].shape[:2]
    found = scored_boxes(
        parity[f"solo_{image}_pred_logits"], parity[f"solo_{image}_pred_boxes"], (2 * height, 2 * width)
    )
    np.testing.assert_array_equal(found.labels, parity[f"solo_{image}_post_labels"])
    for name, array in (("scores", found.scores), ("boxes", found.boxes_xyxy)):
        expected = parity[f"solo_{image}_post_{name}"]
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-4 * np.ptp(expected))


@pytest.mark.parametrize("image", [0, 1])
def test_the_published_queries_are_kept(image: int, parity: dict[str, NDArray[Any]]) -> None:
    probabilities = softmax(parity[f"solo_{image}_pred_logits"])
    best = probabilities.argmax(axis=1)
    kept = np.flatnonzero((best < probabilities.shape[1] - 1) & (probabilities.max(axis=1) > 0.5))
    np.testing.assert_array_equal(kept, parity[f"solo_{image}_kept"])


@given(LOGITS, st.floats(0, 1), st.integers(0, 5))
def test_detections_are_those_above_the_threshold_best_first(logits: Floats, threshold: float, seed: int) -> None:
    boxes = boxes_for(logits, seed)
    every = scored_boxes(logits, boxes, (300, 400))
    found = detections_of(logits, boxes, (300, 400), threshold)
    assert len(found.scores) == (every.scores > threshold).sum()
    assert (np.diff(found.scores) <= 0).all()
    assert (found.labels < logits.shape[1] - 1).all()
    # Every detection is one query's score, label and box together.
    clipped = np.clip(every.boxes_xyxy, 0, np.array([400, 300, 400, 300]))
    rows = {
        (*box, score, label) for box, score, label in zip(clipped.tolist(), every.scores, every.labels, strict=True)
    }
    for box, score, label in zip(found.boxes_xyxy.tolist(), found.scores, found.labels, strict=True):
        assert (*box, score, label) in rows


@given(LOGITS)
def test_boxes_are_clipped_to_the_image(logits: Floats) -> None:
    found = detections_of(logits, boxes_for(logits), (30, 40), 0.0)
    x1, y1, x2, y2 = found.boxes_xyxy.T
    assert ((x1 >= 0) & (x1 <= x2) & (x2 <= 40)).all()
    assert ((y1 >= 0) & (y1 <= y2) & (y2 <= 30)).all()


def test_equal_scores_keep_the_order_of_the_queries() -> None:
    logits = np.zeros((4, 3), dtype=np.float32)
    boxes = np.array([[0.1 * n, 0.5, 0.1, 0.1] for n in range(1, 5)], dtype=np.float32)
    assert (np.diff(detections_of(logits, boxes, (10, 10), 0.1).boxes_xyxy[:, 0]) > 0).all()


def test_the_score_is_among_all_classes_and_the_label_among_the_real_ones() -> None:
    logits = np.log(np.array([[0.2, 0.1, 0.7]], dtype=np.float32))
    found = scored_boxes(logits, np.array([[0.5, 0.5, 1, 1]], dtype=np.float32), (10, 20))
    assert found.scores == pytest.approx([0.2])
    assert found.labels.tolist() == [0]
    assert found.boxes_xyxy.tolist() == [[0, 0, 20, 10]]


def test_no_detection_is_an_empty_result_with_the_right_shapes() -> None:
    found = detections_of(np.zeros((5, 3), np.float32), np.full((5, 4), 0.5, np.float32), (10, 10), 0.9)
    assert found.scores.shape == (0,)
    assert found.labels.shape == (0,)
    assert found.boxes_xyxy.shape == (0, 4)


def test_results_have_the_promised_types() -> None:
    found = detections_of(np.zeros((5, 3), np.float32), np.full((5, 4), 0.5, np.float32), (10, 10), 0.1)
    types = [array.dtype.name for array in (found.scores, found.labels, found.boxes_xyxy)]
    assert types == ["float32", "int64", "float32"]


@given(LOGITS)
def test_softmax_equals_torchs(logits: Floats) -> None:
    expected = torch.from_numpy(logits).softmax(-1).numpy()
    np.testing.assert_allclose(softmax(logits), expected, rtol=1e-5, atol=1e-7)


def test_softmax_does_not_overflow() -> None:
    extreme = np.array([[3e38, -3e38], [1000, 999]], dtype=np.float32)
    assert np.isfinite(softmax(extreme)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_are_an_error_and_not_an_answer(bad: float) -> None:
    logits, boxes = np.zeros((3, 4), np.float32), np.full((3, 4), 0.5, np.float32)
    for array in (logits, boxes):
        spoiled = [part.copy() for part in (logits, boxes)]
        spoiled[0 if array is logits else 1][1, 1] = bad
        with pytest.raises(OutputError, match="not finite"):
            detections_of(spoiled[0], spoiled[1], (10, 10), 0.5)


@given(arrays(np.float32, (5, 4), elements=st.floats(0, 1, width=32)))
def test_centres_and_sizes_are_recovered_from_corners(boxes: Floats) -> None:
    corners = boxes_cxcywh_to_xyxy(boxes)
    np.testing.assert_allclose((corners[:, :2] + corners[:, 2:]) / 2, boxes[:, :2], atol=1e-6)
    np.testing.assert_allclose(corners[:, 2:] - corners[:, :2], boxes[:, 2:], atol=1e-6)
