"""Instances against the published post-processing, written in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.runtime.answers.detections import OutputError
from model.runtime.answers.instances import Instances, instances_of
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import ImageOutputs

Floats = NDArray[np.float32]
Size = tuple[int, int]

STRIDE = 4
CATEGORIES = [Category(10 + index, f"class {index}", index < 3, (index, 0, 0)) for index in range(5)]
SIZES = st.tuples(st.integers(1, 80), st.integers(1, 80))


def outputs_of(queries: int, size: Size, seed: int) -> ImageOutputs:
    """What a network may say about an image of one size on a larger canvas, of which every query but one has a mask."""
    rng = np.random.default_rng(seed)
    cells = (-(-size[0] // STRIDE) + seed % 3, -(-size[1] // STRIDE) + seed % 2)
    masks = rng.normal(-1, 3, (queries, *cells)).astype(np.float32)
    logits = rng.normal(0, 3, (queries, len(CATEGORIES) + 1)).astype(np.float32)
    return ImageOutputs(logits, np.zeros((queries, 4), np.float32), masks, np.arange(queries))


def published(
    outputs: ImageOutputs, size: Size, orig_size: Size
) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Scores, labels, masks [Q, H, W] of facebookresearch/detr's PostProcess and PostProcessSegm, for one image
    without padding, and where a mask is so near to zero that rounding decides.
    """
    assert outputs.mask_logits is not None
    scores, labels = torch.from_numpy(outputs.pred_logits).softmax(-1)[..., :-1].max(-1)
    cells = [-(-side // STRIDE) for side in size]
    masks = torch.from_numpy(outputs.mask_logits[:, None, : cells[0], : cells[1]].copy())
    wide = torch.nn.functional.interpolate(masks, size=size, mode="bilinear", align_corners=False)
    found = [
        torch.nn.functional.interpolate(one.float(), size=orig_size, mode="nearest")[:, 0].numpy() > 0.5
        for one in (wide.sigmoid() > 0.5, wide.abs() < 1e-4)
    ]
    return scores.numpy(), labels.numpy(), found[0], found[1]


def found_in(
    outputs: ImageOutputs, size: Size, orig_size: Size, threshold: float = 0.3, classes: set[int] | None = None
) -> Instances:
    return instances_of(outputs, size, orig_size, CATEGORIES, threshold, STRIDE, classes)


@settings(max_examples=200)
@given(st.integers(1, 6), SIZES, SIZES, st.integers(0, 1000))
def test_instances_are_those_of_the_published_post_processing(
    queries: int, size: Size, orig_size: Size, seed: int
) -> None:
    outputs = outputs_of(queries, size, seed)
    scores, labels, masks, unsure = published(outputs, size, orig_size)
    found = found_in(outputs, size, orig_size, 0.3, set(range(len(CATEGORIES))))
    order = [query for query in np.argsort(-scores, kind="stable") if scores[query] > 0.3]
    assert found.labels == labels[order].tolist()
    for place, query in enumerate(order):
        instance = found.at(place)
        mask = np.zeros(orig_size, dtype=bool) if instance is None else instance.mask.array() == 1
        np.testing.assert_array_equal(mask[~unsure[query]], masks[query][~unsure[query]])
        if instance is not None:
            ys, xs = np.nonzero(mask)
            assert instance.score == pytest.approx(scores[query], abs=1e-6)
            assert instance.area == mask.sum() > 0
            assert instance.box_xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_things_are_answered_unless_classes_are_asked_for() -> None:
    logits = np.full((3, 6), -9, dtype=np.float32)
    logits[[0, 1, 2], [1, 3, 5]] = 9  # a thing, stuff, nothing
    masks = np.ones((3, 4, 4), dtype=np.float32)
    outputs = ImageOutputs(logits, np.zeros((3, 4), np.float32), masks, np.arange(3))
    for classes, expected in ((None, [1]), ({3}, [3]), ({1, 3}, [1, 3]), ({0}, [])):
        assert [instance.label for instance in found_in(outputs, (16, 16), (9, 7), 0.5, classes)] == expected


def test_masks_may_overlap_and_one_without_a_pixel_is_no_instance() -> None:
    logits = np.full((3, 6), -9, dtype=np.float32)
    logits[[0, 1, 2], 0] = [-5, -4, -3]
    masks = np.ones((3, 4, 4), dtype=np.float32)
    masks[2] = -1
    outputs = ImageOutputs(logits, np.zeros((3, 4), np.float32), masks, np.arange(3))
    found = found_in(outputs, (16, 16), (20, 30), 0.5)
    assert len(found.labels) == 3
    assert [instance.area for instance in found] == [600, 600]
    scores = [instance.score for instance in found]
    assert scores == sorted(scores, reverse=True)


def test_a_query_without_a_mask_is_no_instance() -> None:
    logits = np.full((4, 6), -9, dtype=np.float32)
    logits[[0, 3], [0, 2]] = 9
    outputs = ImageOutputs(logits, np.zeros((4, 4), np.float32), np.ones((1, 4, 4), np.float32), np.array([3]))
    assert [instance.label for instance in found_in(outputs, (16, 16), (16, 16), 0.5)] == [2]


def test_masks_of_other_classes_are_not_looked_at() -> None:
    outputs = outputs_of(4, (40, 40), 7)
    assert outputs.mask_logits is not None
    outputs.mask_logits[1] = np.nan
    wanted = int(outputs.pred_logits[1, :-1].argmax())
    with pytest.raises(OutputError):
        found_in(outputs, (40, 40), (40, 40), -1.0, {wanted})
    found_in(outputs, (40, 40), (40, 40), -1.0, set(range(5)) - {wanted})


def test_of_those_that_overlap_the_best_is_on_top_and_what_is_hidden_is_left_out() -> None:
    logits = np.full((3, 6), -9, dtype=np.float32)
    logits[[0, 1, 2], [0, 1, 2]] = [-5, -4, -3]
    masks = np.full((3, 4, 4), -1, dtype=np.float32)
    masks[0, :2] = masks[1, :3] = masks[2, 1:] = 1  # the first is hidden by the second
    outputs = ImageOutputs(logits, np.zeros((3, 4), np.float32), masks, np.arange(3))
    found = found_in(outputs, (16, 16), (16, 16), 0.5)
    seen = found.on_top()
    best, second, _ = (instance.mask.array() == 1 for instance in found)
    assert [(segment.id, segment.label) for segment in seen.segments] == [(1, 2), (2, 1)]
    np.testing.assert_array_equal(seen.id_map, np.where(best, 1, np.where(second, 2, 0)))
    for segment in seen.segments:
        ys, xs = np.nonzero(seen.id_map == segment.id)
        assert segment.area == len(ys)
        assert segment.box_xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
