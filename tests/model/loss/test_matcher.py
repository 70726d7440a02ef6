"""The Hungarian matcher: the cheapest assignment, whatever the order, and no answer to nonsense."""

from __future__ import annotations

from itertools import permutations
from math import exp, inf, nan

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.loss.matcher import HungarianMatcher
from model.network.detr import Predictions
from tests.model.plain_boxes import corners, giou_xyxy, random_boxes_cxcywh

CLASSES = 3

seeds = st.integers(0, 2**31)
weights = st.tuples(*[st.floats(0.125, 5.0)] * 3)


def problem(seed: int, queries: int, objects: list[int]) -> tuple[Predictions, list[dict[str, Tensor]]]:
    """Random predictions, and one image's targets for each number of objects."""
    generator = torch.Generator().manual_seed(seed)
    outputs: Predictions = {
        "pred_logits": 2 * torch.randn(len(objects), queries, CLASSES + 1, generator=generator),
        "pred_boxes": torch.stack([random_boxes_cxcywh(queries, generator) for _ in objects]),
    }
    targets = [
        {
            "labels": torch.randint(0, CLASSES, (count,), generator=generator),
            "boxes": random_boxes_cxcywh(count, generator),
        }
        for count in objects
    ]
    return outputs, targets


def plain_costs(
    outputs: Predictions, target: dict[str, Tensor], cost_class: float, cost_bbox: float, cost_giou: float
) -> list[list[float]]:
    """The cost of each query (row) of the only image for each target."""

    def cost(logits: list[float], box: list[float], label: int, wanted: list[float]) -> float:
        probability = exp(logits[label]) / sum(map(exp, logits))
        distance = sum(abs(a - b) for a, b in zip(box, wanted, strict=True))
        return -cost_class * probability + cost_bbox * distance - cost_giou * giou_xyxy(corners(box), corners(wanted))

    return [
        [cost(*query, *t) for t in zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True)]
        for query in zip(outputs["pred_logits"][0].tolist(), outputs["pred_boxes"][0].tolist(), strict=True)
    ]


def as_pairs(match: tuple[Tensor, Tensor]) -> set[tuple[int, int]]:
    return set(zip(match[0].tolist(), match[1].tolist(), strict=True))


@settings(max_examples=40)
@given(queries=st.integers(1, 5), objects=st.integers(0, 5), seed=seeds, weight=weights)
def test_no_other_assignment_is_cheaper(
    queries: int, objects: int, seed: int, weight: tuple[float, float, float]
) -> None:
    assume(objects <= queries)
    outputs, targets = problem(seed, queries, [objects])
    costs = plain_costs(outputs, targets[0], *weight)
    cheapest = min(sum(costs[q][t] for t, q in enumerate(chosen)) for chosen in permutations(range(queries), objects))
    pairs = as_pairs(HungarianMatcher(*weight)(outputs, targets)[0])
    assert sum(costs[q][t] for q, t in pairs) == pytest.approx(cheapest, abs=1e-4)


@settings(max_examples=30)
@given(objects=st.lists(st.integers(0, 7), min_size=1, max_size=4), seed=seeds)
def test_every_target_has_exactly_one_query_and_queries_come_in_order(objects: list[int], seed: int) -> None:
    outputs, targets = problem(seed, 7, objects)
    matches = HungarianMatcher()(outputs, targets)
    assert len(matches) == len(objects)
    for (query, target), count in zip(matches, objects, strict=True):
        assert query.dtype == target.dtype == torch.int64
        assert sorted(target.tolist()) == list(range(count))
        assert query.tolist() == sorted(set(query.tolist()))
        assert set(query.tolist()) <= set(range(7))


@settings(max_examples=30)
@given(data=st.data(), seed=seeds)
def test_neither_the_order_of_targets_nor_of_queries_matters(data: st.DataObject, seed: int) -> None:
    outputs, targets = problem(seed, 6, [4])
    of_query = data.draw(st.permutations(range(6)))
    of_target = data.draw(st.permutations(range(4)))
    shuffled: Predictions = {
        "pred_logits": outputs["pred_logits"][:, of_query],
        "pred_boxes": outputs["pred_boxes"][:, of_query],
    }
    found = HungarianMatcher()(shuffled, [{name: value[of_target] for name, value in targets[0].items()}])
    back = {(of_query[q], of_target[t]) for q, t in as_pairs(found[0])}
    assert back == as_pairs(HungarianMatcher()(outputs, targets)[0])


def test_an_image_is_matched_in_a_batch_as_alone() -> None:
    outputs, targets = problem(0, 5, [3, 0, 5, 1])
    together = HungarianMatcher()(outputs, targets)
    for i, target in enumerate(targets):
        alone: Predictions = {
            "pred_logits": outputs["pred_logits"][i : i + 1],
            "pred_boxes": outputs["pred_boxes"][i : i + 1],
        }
        assert as_pairs(HungarianMatcher()(alone, [target])[0]) == as_pairs(together[i])


def test_an_image_without_targets_leaves_every_query_free() -> None:
    outputs, targets = problem(0, 5, [0])
    query, target = HungarianMatcher()(outputs, targets)[0]
    assert query.shape == target.shape == (0,)
    assert query.dtype == target.dtype == torch.int64


def test_matching_has_no_gradient() -> None:
    outputs, targets = problem(0, 5, [2])
    outputs["pred_logits"].requires_grad_()
    outputs["pred_boxes"].requires_grad_()
    assert not any(x.requires_grad for x in HungarianMatcher()(outputs, targets)[0])


def test_predictions_in_half_precision_are_matched_in_single() -> None:
    outputs, targets = problem(0, 5, [3])
    half: Predictions = {
        "pred_logits": outputs["pred_logits"].bfloat16(),
        "pred_boxes": outputs["pred_boxes"].bfloat16(),
    }
    whole: Predictions = {"pred_logits": half["pred_logits"].float(), "pred_boxes": half["pred_boxes"].float()}
    assert as_pairs(HungarianMatcher()(half, targets)[0]) == as_pairs(HungarianMatcher()(whole, targets)[0])


def test_of_more_targets_than_queries_each_query_gets_one() -> None:
    outputs, targets = problem(0, 3, [5])
    query, target = HungarianMatcher()(outputs, targets)[0]
    assert query.tolist() == [0, 1, 2]
    assert len(set(target.tolist())) == 3


@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes"])
@pytest.mark.parametrize("number", [nan, inf])
def test_predictions_that_are_no_numbers_are_refused_with_the_likely_cause(name: str, number: float) -> None:
    outputs, targets = problem(0, 4, [2])
    broken: Predictions = {"pred_logits": outputs["pred_logits"], "pred_boxes": outputs["pred_boxes"]}
    (broken["pred_logits"] if name == "pred_logits" else broken["pred_boxes"])[0, 1, 0] = number
    with pytest.raises(ValueError, match="is the training diverging"):
        HungarianMatcher()(broken, targets)


def test_a_target_box_that_is_no_number_is_refused() -> None:
    outputs, targets = problem(0, 4, [2])
    targets[0]["boxes"][1, 2] = nan
    with pytest.raises(ValueError, match="boxes must"):
        HungarianMatcher()(outputs, targets)


def test_images_and_targets_must_be_as_many() -> None:
    outputs, targets = problem(0, 4, [2, 1])
    with pytest.raises(ValueError, match="zip"):
        HungarianMatcher()(outputs, targets[:1])
