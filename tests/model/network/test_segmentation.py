"""The mask head: masks of exactly the pairs that were asked for, each as if all had been."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from math import log
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.loss.criterion import SetCriterion, weighted_sum
from model.loss.matcher import HungarianMatcher
from model.network.build import build_model
from model.network.detr import DecoderOutputs, Predictions, masks_above
from model.network.nested_tensor import NestedTensor, normalize, pad_images
from model.network.segmentation import DETRsegm, MHAttentionMap
from tests.model.networks import SMALL, filled

QUERIES = SMALL.num_queries
SIZES = ((40, 64), (64, 30))
EVERY_PAIR = torch.cartesian_prod(torch.arange(2), torch.arange(QUERIES))


@cache
def network_with_masks(padding: str = "exact") -> DETRsegm:
    network = filled(replace(SMALL, padding=padding))  # type: ignore[arg-type]
    assert isinstance(network, DETRsegm)
    return network


def batch() -> NestedTensor:
    generator = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]
    return normalize(*pad_images(pictures))


@cache
def decoded() -> DecoderOutputs:
    with torch.no_grad():
        return network_with_masks().detr.decode(batch())


@cache
def every_mask() -> Tensor:
    with torch.no_grad():
        return network_with_masks().masks(decoded(), EVERY_PAIR)


@cache
def predictions() -> Predictions:
    with torch.no_grad():
        return network_with_masks().detr.predict(decoded().hs)


@settings(max_examples=15)
@given(rows=st.lists(st.integers(0, 2 * QUERIES - 1), max_size=8))
def test_masks_of_some_pairs_are_those_of_all_in_whatever_order(rows: list[int]) -> None:
    with torch.no_grad():
        found = network_with_masks().masks(decoded(), EVERY_PAIR[rows])
    assert found.shape == (len(rows), 16, 16)
    torch.testing.assert_close(found, every_mask()[rows], rtol=0, atol=1e-5 * float(every_mask().abs().max()))


@pytest.mark.parametrize("padding", ["exact", "published"])
def test_no_pairs_have_no_masks_of_the_usual_size(padding: str) -> None:
    network = network_with_masks(padding)
    with torch.no_grad():
        found = network.masks(decoded(), EVERY_PAIR[:0])
    assert found.shape == (0, 16, 16)


def answer(threshold: list[float] | None) -> Predictions:
    with torch.no_grad():
        outputs: Predictions = network_with_masks()(batch(), None if threshold is None else torch.tensor(threshold))
    return outputs


@pytest.mark.parametrize("threshold", [None, [-1.0, -0.001]])
def test_no_threshold_or_a_negative_one_gives_every_query_a_mask_in_order(threshold: list[float] | None) -> None:
    outputs = answer(threshold)
    assert outputs["mask_index"].dtype == torch.int64
    assert torch.equal(outputs["mask_index"], EVERY_PAIR)
    torch.testing.assert_close(outputs["pred_masks"], every_mask())


def test_a_threshold_above_one_gives_no_masks_and_the_same_boxes() -> None:
    outputs = answer([1.001, 2.0])
    assert outputs["pred_masks"].shape == (0, 16, 16)
    assert outputs["mask_index"].shape == (0, 2)
    torch.testing.assert_close(outputs["pred_boxes"], predictions()["pred_boxes"])
    torch.testing.assert_close(outputs["pred_logits"], predictions()["pred_logits"])


def test_each_image_of_a_batch_has_its_own_threshold() -> None:
    best = predictions()["pred_logits"].softmax(-1)[..., :-1].amax(-1)
    middle = float(best[1].sort().values[QUERIES // 2 - 1 : QUERIES // 2 + 1].mean())
    assert answer([-1.0, 2.0])["mask_index"].tolist() == [[0, q] for q in range(QUERIES)]
    outputs = answer([2.0, middle])
    expected = [[1, q] for q in range(QUERIES) if best[1, q] > middle]
    assert 0 < len(expected) < QUERIES
    assert outputs["mask_index"].tolist() == expected
    rows = [QUERIES + q for _, q in expected]
    torch.testing.assert_close(
        outputs["pred_masks"], every_mask()[rows], rtol=0, atol=1e-5 * float(every_mask().abs().max())
    )


def test_a_query_needs_a_real_class_more_probable_than_the_threshold() -> None:
    probabilities = torch.tensor(
        [
            [0.5, 0.25, 0.25],  # exactly the threshold is not above it
            [0.25, 0.625, 0.125],
            [0.125, 0.125, 0.75],  # no-object does not count
        ]
    )
    logits = probabilities.log()[None]
    assert masks_above(logits, torch.tensor([0.5])).tolist() == [[0, 1]]
    assert masks_above(logits, torch.tensor([0.49])).tolist() == [[0, 0], [0, 1]]
    assert masks_above(logits, torch.tensor([0.1])).tolist() == [[0, 0], [0, 1], [0, 2]]
    assert masks_above(logits, torch.tensor([0.7])).tolist() == []


@pytest.mark.parametrize("stages", [2, 3])
def test_masks_have_stride_four_whatever_the_number_of_stages(stages: int) -> None:
    network = build_model(replace(SMALL, stages=stages)).eval()
    with torch.no_grad():
        outputs = network(batch(), torch.tensor([-1.0, 2.0]))
    assert outputs["pred_masks"].shape == (QUERIES, 16, 16)


def test_with_three_stages_the_mask_head_has_the_published_names_less_those_of_the_fourth() -> None:
    published = json.loads((Path(__file__).parents[2] / "parity" / "checkpoint_keys.json").read_text(encoding="utf-8"))
    missing = ("mask_head.lay5.", "mask_head.gn5.", "mask_head.adapter3.")
    heads = ("mask_head.", "bbox_attention.")
    expected = {
        key for key in published["detr-resnet-50-panoptic"] if key.startswith(heads) and not key.startswith(missing)
    }
    assert {key for key in network_with_masks().state_dict() if key.startswith(heads)} == expected


def test_an_attention_map_is_one_softmax_over_the_heads_and_cells_inside_its_image() -> None:
    torch.manual_seed(0)
    heads, dim = 2, 6
    attention = MHAttentionMap(dim, heads)
    queries, memory, image = torch.randn(3, dim), torch.randn(2, dim, 2, 3), torch.tensor([1, 0, 1])
    padding_mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    padding_mask[1, :, 2] = True
    with torch.no_grad():
        found = attention(queries, memory, padding_mask, image)
        for n in range(3):
            i, q = int(image[n]), attention.q_linear(queries[n])
            cells = [(y, x) for y in range(2) for x in range(3) if not bool(padding_mask[i, y, x])]
            places = [(h, y, x) for h in range(heads) for y, x in cells]
            logits = torch.tensor(
                [
                    float(q[3 * h : 3 * h + 3] @ attention.k_linear(memory[i, :, y, x])[3 * h : 3 * h + 3]) / 3**0.5
                    for h, y, x in places
                ]
            )
            expected = torch.zeros(heads, 2, 3)
            for (h, y, x), weight in zip(places, logits.softmax(0), strict=True):
                expected[h, y, x] = weight
            torch.testing.assert_close(found[n], expected, rtol=1e-4, atol=1e-6)


def targets(counts: tuple[int, int]) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        {
            "labels": torch.randint(0, SMALL.num_classes, (count,), generator=generator),
            "boxes": 0.25 + 0.5 * torch.rand(count, 4, generator=generator),
            "masks": torch.rand(count, *size, generator=generator) < 0.5,
        }
        for count, size in zip(counts, SIZES, strict=True)
    ]


def gradients(network: DETRsegm, mask_index: Tensor, wanted: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of the mask losses, for every parameter outside the detector; only the pairs of `mask_index` are computed."""
    network.zero_grad()
    criterion = SetCriterion(SMALL.num_classes, HungarianMatcher())
    masks = network.masks(decoded(), mask_index)
    outputs: Predictions = {**predictions(), "pred_masks": masks, "mask_index": mask_index}
    match = criterion.matcher(outputs, wanted)
    weighted_sum(criterion.mask_losses(outputs, wanted, match, batch().padding_mask)).backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    assert found.keys() == {name for name, _ in network.named_parameters() if not name.startswith("detr.")}
    return found


@pytest.mark.parametrize("padding", ["exact", "published"])
def test_the_mask_head_learns_the_same_from_the_matched_pairs_as_from_all(padding: str) -> None:
    network, wanted = network_with_masks(padding), targets((3, 1))
    match = HungarianMatcher()(predictions(), wanted)
    matched = torch.tensor([[i, q] for i, (query, _) in enumerate(match) for q in query.tolist()])
    assert len(matched) == 4
    of_all, of_matched = gradients(network, EVERY_PAIR, wanted), gradients(network, matched, wanted)
    for name, expected in of_all.items():
        atol = 1e-5 * max(1e-3, float(expected.abs().max()))
        torch.testing.assert_close(of_matched[name], expected, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("padding", ["exact", "published"])
def test_a_batch_without_targets_teaches_the_mask_head_nothing_and_breaks_nothing(padding: str) -> None:
    none = gradients(network_with_masks(padding), EVERY_PAIR[:0], targets((0, 0)))
    assert all(not bool(gradient.any()) for gradient in none.values())


def test_thresholds_and_logits_speak_of_the_same_probability() -> None:
    logits = torch.tensor([[[log(0.7), log(0.2), log(0.1)]]])
    assert len(masks_above(logits, torch.tensor([0.699]))) == 1
    assert len(masks_above(logits, torch.tensor([0.701]))) == 0
