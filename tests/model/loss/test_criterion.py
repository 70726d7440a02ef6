"""The set criterion: every loss against plain arithmetic, and where its gradients go."""

from __future__ import annotations

from math import exp, log, log1p

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from model.loss.criterion import LOSS_WEIGHTS, SetCriterion, cardinality_error, class_error, weighted_sum
from model.loss.matcher import HungarianMatcher, Match
from model.network.detr import Predictions
from tests.model.plain_boxes import corners, giou_xyxy, random_boxes_cxcywh

CLASSES = 3
QUERIES = 5

Targets = list[dict[str, Tensor]]
Size = tuple[int, int]

seeds = st.integers(0, 2**31)
objects = st.lists(st.integers(0, QUERIES), min_size=1, max_size=3)


def criterion(eos_coef: float = 0.1) -> SetCriterion:
    return SetCriterion(CLASSES, HungarianMatcher(), eos_coef)


def predictions(generator: torch.Generator, batch: int) -> Predictions:
    return {
        "pred_logits": 2 * torch.randn(batch, QUERIES, CLASSES + 1, generator=generator),
        "pred_boxes": torch.stack([random_boxes_cxcywh(QUERIES, generator) for _ in range(batch)]),
    }


def scene(seed: int, counts: list[int], sizes: list[Size] | None = None) -> tuple[Predictions, Targets]:
    """Random predictions and targets, `counts` objects an image; with `sizes` they have masks at stride 4."""
    generator = torch.Generator().manual_seed(seed)
    outputs = predictions(generator, len(counts))
    targets = [
        {
            "labels": torch.randint(0, CLASSES, (count,), generator=generator),
            "boxes": random_boxes_cxcywh(count, generator),
        }
        for count in counts
    ]
    if sizes is not None:
        height, width = canvas(sizes)
        pairs = torch.cartesian_prod(torch.arange(len(counts)), torch.arange(QUERIES))
        outputs["mask_index"] = pairs
        outputs["pred_masks"] = 2 * torch.randn(len(pairs), height // 4, width // 4, generator=generator)
        for target, size in zip(targets, sizes, strict=True):
            target["masks"] = torch.rand(len(target["labels"]), *size, generator=generator) < 0.4
    return outputs, targets


def canvas(sizes: list[Size]) -> Size:
    height, width = (-(-max(sides) // 32) * 32 for sides in zip(*sizes, strict=True))
    return height, width


def padding_mask(sizes: list[Size]) -> Tensor:
    mask = torch.ones(len(sizes), *canvas(sizes), dtype=torch.bool)
    for i, (height, width) in enumerate(sizes):
        mask[i, :height, :width] = False
    return mask


def of_image(outputs: Predictions, i: int, size: Size) -> Predictions:
    """What the network would answer for the i-th image alone, on its own canvas."""
    rows = outputs["mask_index"][:, 0] == i
    height, width = canvas([size])
    return {
        "pred_logits": outputs["pred_logits"][i : i + 1],
        "pred_boxes": outputs["pred_boxes"][i : i + 1],
        "pred_masks": outputs["pred_masks"][rows, : height // 4, : width // 4],
        "mask_index": outputs["mask_index"][rows] - torch.tensor([i, 0]),
    }


def matched(match: list[Match], targets: Targets) -> list[tuple[int, int, dict[str, Tensor]]]:
    """Image, query and target of each pair."""
    return [
        (i, q, {name: value[t] for name, value in targets[i].items()})
        for i, (query, target) in enumerate(match)
        for q, t in zip(query.tolist(), target.tolist(), strict=True)
    ]


def minus_log_probability(logits: list[float], label: int) -> float:
    return log(sum(map(exp, logits))) - logits[label]


@settings(max_examples=15)
@given(counts=objects, seed=seeds, eos_coef=st.floats(0.01, 1.0))
def test_class_and_box_losses_are_those_of_plain_arithmetic(counts: list[int], seed: int, eos_coef: float) -> None:
    outputs, targets = scene(seed, counts)
    pairs = matched(HungarianMatcher()(outputs, targets), targets)
    label_of = {(i, q): int(target["labels"]) for i, q, target in pairs}
    weighted = total_weight = l1 = giou = 0.0
    for i in range(len(counts)):
        for q in range(QUERIES):
            label = label_of.get((i, q), CLASSES)
            weight = eos_coef if label == CLASSES else 1.0
            weighted += weight * minus_log_probability(outputs["pred_logits"][i, q].tolist(), label)
            total_weight += weight
    for i, q, target in pairs:
        box, wanted = outputs["pred_boxes"][i, q].tolist(), target["boxes"].tolist()
        l1 += sum(abs(a - b) for a, b in zip(box, wanted, strict=True))
        giou += 1 - giou_xyxy(corners(box), corners(wanted))
    losses = criterion(eos_coef)(outputs, targets)
    count = max(1, sum(counts))
    assert float(losses["loss_ce"]) == pytest.approx(weighted / total_weight, rel=1e-4)
    assert float(losses["loss_bbox"]) == pytest.approx(l1 / count, rel=1e-4)
    assert float(losses["loss_giou"]) == pytest.approx(giou / count, rel=1e-4)


def test_mask_losses_are_those_of_plain_arithmetic() -> None:
    """Constant masks, which resizing does not change: every pixel has the same logit."""
    outputs, targets = scene(0, [2], [(32, 32)])
    outputs["pred_masks"] = torch.tensor([-2.0, -1.0, 0.5, 1.0, 3.0])[:, None, None].expand(-1, 8, 8)
    focal = dice = 0.0
    for _, q, target in matched(HungarianMatcher()(outputs, targets), targets):
        logit, share = float(outputs["pred_masks"][q, 0, 0]), float(target["masks"].float().mean())
        p = 1 / (1 + exp(-logit))
        focal += share * 0.25 * (1 - p) ** 2 * log1p(exp(-logit)) + (1 - share) * 0.75 * p**2 * log1p(exp(logit))
        inside = 32 * 32
        dice += 1 - (2 * p * share * inside + 1) / (p * inside + share * inside + 1)
    losses = criterion()(outputs, targets)
    assert float(losses["loss_mask"]) == pytest.approx(focal / 2, rel=1e-4)
    assert float(losses["loss_dice"]) == pytest.approx(dice / 2, rel=1e-4)


@settings(max_examples=10)
@given(size=st.tuples(st.integers(1, 70), st.integers(1, 70)), seed=seeds)
def test_a_mask_is_cropped_to_its_image_before_it_is_resized(size: Size, seed: int) -> None:
    outputs, targets = scene(seed, [2], [size])
    losses = criterion()(outputs, targets, padding_mask([size]))
    rows, cols = (-(-side // 4) for side in size)
    expected = 0.0
    for _, q, target in matched(HungarianMatcher()(outputs, targets), targets):
        cells = outputs["pred_masks"][None, None, q, :rows, :cols]
        pixels = functional.interpolate(cells, size=size, mode="bilinear")[0, 0]
        expected += float(sigmoid_focal_loss(pixels, target["masks"].float(), alpha=0.25, gamma=2).mean())
    assert float(losses["loss_mask"]) == pytest.approx(expected / 2, rel=1e-4)


@settings(max_examples=10)
@given(
    images=st.lists(
        st.tuples(st.tuples(st.integers(1, 70), st.integers(1, 70)), st.integers(0, 3)), min_size=2, max_size=3
    ),
    seed=seeds,
)
def test_the_mask_losses_of_a_padded_batch_are_those_of_its_images_alone(
    images: list[tuple[Size, int]], seed: int
) -> None:
    sizes, counts = [size for size, _ in images], [count for _, count in images]
    outputs, targets = scene(seed, counts, sizes)
    together = criterion()(outputs, targets, padding_mask(sizes))
    for name in ("loss_mask", "loss_dice"):
        alone = sum(
            float(criterion()(of_image(outputs, i, size), [targets[i]], padding_mask([size]))[name]) * counts[i]
            for i, size in enumerate(sizes)
        )
        assert float(together[name]) == pytest.approx(alone / max(1, sum(counts)), rel=1e-4, abs=1e-6)


def test_mask_logits_on_padding_have_no_gradient() -> None:
    sizes = [(32, 32), (30, 64)]
    outputs, targets = scene(0, [2, 3], sizes)
    masks = outputs["pred_masks"].requires_grad_()
    weighted_sum(criterion()(outputs, targets, padding_mask(sizes))).backward()
    assert masks.grad is not None
    of_first, of_second = masks.grad.split(QUERIES)
    assert bool((of_first[:, :, 8:] == 0).all())
    assert bool(of_first[:, :, :8].any())
    assert bool(of_second[:, 7, :].any())


def test_without_a_padding_mask_the_padding_counts_as_image() -> None:
    sizes = [(32, 32), (64, 64)]
    outputs, targets = scene(0, [2, 2], sizes)
    reference, exact = criterion()(outputs, targets), criterion()(outputs, targets, padding_mask(sizes))
    assert float(reference["loss_mask"]) != pytest.approx(float(exact["loss_mask"]), rel=1e-3)
    padded = [{**targets[0], "masks": functional.pad(targets[0]["masks"], (0, 32, 0, 32))}, targets[1]]
    full = criterion()(outputs, padded, torch.zeros(2, 64, 64, dtype=torch.bool))
    assert float(reference["loss_mask"]) == pytest.approx(float(full["loss_mask"]), rel=1e-5)
    assert float(reference["loss_dice"]) == pytest.approx(float(full["loss_dice"]), rel=1e-5)


@pytest.mark.parametrize("padded", [True, False])
def test_masks_of_only_the_matched_pairs_give_the_losses_and_gradients_of_all(padded: bool) -> None:
    sizes = [(32, 48), (40, 32), (20, 20)]
    outputs, targets = scene(1, [2, 3, 0], sizes)
    mask = padding_mask(sizes) if padded else None
    pairs = {(i, q) for i, q, _ in matched(HungarianMatcher()(outputs, targets), targets)}
    rows = [r for r, pair in enumerate(outputs["mask_index"].tolist()) if tuple(pair) in pairs]
    rows.reverse()  # in whatever order
    every = outputs["pred_masks"].clone().requires_grad_()
    some = outputs["pred_masks"].clone().requires_grad_()
    of_all = criterion()({**outputs, "pred_masks": every}, targets, mask)
    of_some = criterion()(
        {**outputs, "pred_masks": some[rows], "mask_index": outputs["mask_index"][rows]}, targets, mask
    )
    assert of_some.keys() == of_all.keys()
    for name, loss in of_all.items():
        torch.testing.assert_close(of_some[name], loss, rtol=1e-6, atol=0.0)
    weighted_sum(of_all).backward()
    weighted_sum(of_some).backward()
    assert every.grad is not None
    assert some.grad is not None
    torch.testing.assert_close(some.grad, every.grad)
    assert set(torch.nonzero(every.grad.flatten(1).any(1))[:, 0].tolist()) == set(rows)


def test_a_matched_query_without_a_mask_is_an_error() -> None:
    outputs, targets = scene(0, [2], [(32, 32)])
    _, query, _ = matched(HungarianMatcher()(outputs, targets), targets)[0]
    rest = outputs["mask_index"][:, 1] != query
    outputs["mask_index"], outputs["pred_masks"] = outputs["mask_index"][rest], outputs["pred_masks"][rest]
    with pytest.raises(ValueError, match="matched query has no mask"):
        criterion()(outputs, targets)


@pytest.mark.parametrize("padded", [True, False])
def test_a_batch_without_any_target_has_finite_losses_and_no_box_loss(padded: bool) -> None:
    sizes = [(32, 32), (20, 40)]
    outputs, targets = scene(0, [0, 0], sizes)
    outputs["aux_outputs"] = [predictions(torch.Generator().manual_seed(1), 2)]
    outputs["mask_index"], outputs["pred_masks"] = outputs["mask_index"][:0], outputs["pred_masks"][:0]
    leaves = (outputs["pred_logits"], outputs["pred_boxes"], outputs["pred_masks"])
    for leaf in leaves:
        leaf.requires_grad_()
    losses = criterion()(outputs, targets, padding_mask(sizes) if padded else None)
    weighted_sum(losses).backward()
    assert all(bool(loss.isfinite()) for loss in losses.values())
    for name in ("loss_bbox", "loss_giou", "loss_bbox_0", "loss_giou_0", "loss_mask", "loss_dice", "class_error"):
        assert bool(losses[name] == 0), name
    logits_grad, boxes_grad = leaves[0].grad, leaves[1].grad
    assert logits_grad is not None
    assert bool(logits_grad.isfinite().all())
    assert bool(logits_grad.any())
    assert boxes_grad is None or not bool(boxes_grad.any())


def test_gradients_reach_the_matched_boxes_only_and_the_class_of_every_query() -> None:
    outputs, targets = scene(0, [2, 0, 1])
    logits, boxes = outputs["pred_logits"].requires_grad_(), outputs["pred_boxes"].requires_grad_()
    weighted_sum(criterion()(outputs, targets)).backward()
    assert boxes.grad is not None
    assert logits.grad is not None
    pairs = {(i, q) for i, q, _ in matched(HungarianMatcher()(outputs, targets), targets)}
    assert {(i, q) for i, q in torch.nonzero(boxes.grad.any(-1)).tolist()} == pairs
    assert bool(logits.grad.any(-1).all())


def test_no_object_weighs_as_much_as_eos_coef_says() -> None:
    """Two queries, one of which is matched: logits are such that their losses are 1 and 3."""
    box = torch.tensor([0.5, 0.5, 0.2, 0.2])

    def of_loss(loss: float, label: int) -> Tensor:
        logits = torch.full((CLASSES + 1,), log((1 - exp(-loss)) / CLASSES))
        logits[label] = -loss
        return logits

    outputs: Predictions = {
        "pred_logits": torch.stack([of_loss(1.0, 0), of_loss(3.0, CLASSES)])[None],
        "pred_boxes": torch.stack([box, 0.5 * box])[None],
    }
    targets = [{"labels": torch.tensor([0]), "boxes": box[None]}]
    for eos_coef in (0.0, 0.1, 1.0):
        expected = (1.0 + 3.0 * eos_coef) / (1 + eos_coef)
        assert float(criterion(eos_coef)(outputs, targets)["loss_ce"]) == pytest.approx(expected, rel=1e-5)


def test_the_weight_of_no_object_is_not_part_of_a_checkpoint() -> None:
    assert criterion().state_dict() == {}


def test_each_decoder_layer_is_matched_and_scored_on_its_own() -> None:
    outputs, targets = scene(0, [3, 1])
    generator = torch.Generator().manual_seed(5)
    outputs["aux_outputs"] = [predictions(generator, 2), predictions(generator, 2)]
    losses = criterion()(outputs, targets)
    for k, aux in enumerate(outputs["aux_outputs"]):
        of_layer = criterion()(aux, targets)
        for name in ("loss_ce", "loss_bbox", "loss_giou", "cardinality_error"):
            assert torch.equal(losses[f"{name}_{k}"], of_layer[name])
        assert f"class_error_{k}" not in losses
    layers = [HungarianMatcher()(layer, targets)[0][0].tolist() for layer in (outputs, *outputs["aux_outputs"])]
    assert layers[0] != layers[1]  # or one match for all would do


def test_a_match_that_is_known_is_that_of_the_last_layer_only() -> None:
    outputs, targets = scene(0, [1])
    outputs["aux_outputs"] = [predictions(torch.Generator().manual_seed(5), 1)]
    best = int(HungarianMatcher()(outputs, targets)[0][0])
    other = (best + 1) % QUERIES
    sought = criterion()(outputs, targets)
    given = criterion()(outputs, targets, match=[(torch.tensor([other]), torch.tensor([0]))])
    l1 = (outputs["pred_boxes"][0, other] - targets[0]["boxes"][0]).abs().sum()
    assert float(given["loss_bbox"]) == pytest.approx(float(l1), rel=1e-5)
    assert float(given["loss_bbox"]) != pytest.approx(float(sought["loss_bbox"]), rel=1e-3)
    assert torch.equal(given["loss_bbox_0"], sought["loss_bbox_0"])


def test_the_total_counts_every_loss_by_its_coefficient_and_no_other_figure() -> None:
    losses = {
        "loss_ce": torch.tensor(1.0),
        "loss_bbox": torch.tensor(10.0),
        "loss_giou_0": torch.tensor(100.0),
        "loss_bbox_11": torch.tensor(1000.0),
        "loss_dice": torch.tensor(10_000.0),
        "class_error": torch.tensor(7.0),
        "cardinality_error_0": torch.tensor(7.0),
    }
    assert float(weighted_sum(losses)) == 1 + 5 * 10 + 2 * 100 + 5 * 1000 + 10_000
    assert LOSS_WEIGHTS["loss_mask"] == 1.0


def test_class_error_is_the_percentage_of_matched_queries_with_another_class() -> None:
    logits = torch.eye(CLASSES + 1)[[0, 1, 2, 3, 3]][None]  # the classes that five queries answer
    targets = [{"labels": torch.tensor([0, 0, 2, 2])}]
    match = [(torch.tensor([0, 1, 2, 4]), torch.tensor([0, 1, 2, 3]))]
    assert float(class_error({"pred_logits": logits}, targets, match)) == 50.0


def test_cardinality_error_is_the_mean_difference_in_the_number_of_objects() -> None:
    logits = torch.eye(CLASSES + 1)[torch.tensor([[0, 1, 2, 3, 3], [3, 3, 3, 3, 0]])]  # three objects, and one
    targets = [{"labels": torch.zeros(1)}, {"labels": torch.zeros(4)}]
    assert float(cardinality_error({"pred_logits": logits}, targets)) == (2 + 3) / 2


def test_predictions_in_half_precision_are_scored_in_single() -> None:
    outputs, targets = scene(0, [2], [(32, 32)])
    half: Predictions = {
        "pred_logits": outputs["pred_logits"].bfloat16(),
        "pred_boxes": outputs["pred_boxes"].bfloat16(),
        "pred_masks": outputs["pred_masks"].bfloat16(),
        "mask_index": outputs["mask_index"],
    }
    whole: Predictions = {
        "pred_logits": half["pred_logits"].float(),
        "pred_boxes": half["pred_boxes"].float(),
        "pred_masks": half["pred_masks"].float(),
        "mask_index": outputs["mask_index"],
    }
    of_half, of_whole = criterion()(half, targets), criterion()(whole, targets)
    for name in ("loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice"):
        assert of_half[name].dtype == torch.float32
        assert torch.equal(of_half[name], of_whole[name]), name


def test_targets_beyond_the_number_of_queries_go_without_one_but_count_as_targets() -> None:
    outputs, targets = scene(0, [QUERIES + 2], [(32, 32)])
    pairs = matched(HungarianMatcher()(outputs, targets), targets)
    assert len(pairs) == QUERIES
    losses = criterion()(outputs, targets, padding_mask([(32, 32)]))
    l1 = sum(float((outputs["pred_boxes"][0, q] - target["boxes"]).abs().sum()) for _, q, target in pairs)
    assert float(losses["loss_bbox"]) == pytest.approx(l1 / (QUERIES + 2), rel=1e-5)
    no_loss_for_no_object = criterion(1e-9)(outputs, targets)["loss_ce"]
    assert float(losses["loss_ce"]) == pytest.approx(float(no_loss_for_no_object), rel=1e-5)


def mask_gradient(outputs: Predictions, targets: Targets, sizes: list[Size]) -> tuple[dict[str, Tensor], Tensor]:
    masks = outputs["pred_masks"].clone().requires_grad_()
    match = HungarianMatcher()(outputs, targets)
    losses = criterion().mask_losses({**outputs, "pred_masks": masks}, targets, match, padding_mask(sizes))
    weighted_sum(losses).backward()
    assert masks.grad is not None
    return losses, masks.grad


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_masks_scored_a_few_at_a_time_have_the_losses_and_gradients_of_all_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(32, 48), (40, 32), (20, 20)]
    outputs, targets = scene(1, [5, 0, 2], sizes)
    expected, expected_gradient = mask_gradient(outputs, targets, sizes)
    monkeypatch.setattr("model.loss.criterion.MASKS_AT_ONCE", at_once)
    found, gradient = mask_gradient(outputs, targets, sizes)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=0.0)


def test_mask_losses_keep_less_for_the_gradient_than_one_array_of_logits_at_the_size_of_the_image() -> None:
    sizes = [(256, 192)]
    outputs, targets = scene(0, [QUERIES], sizes)
    outputs["pred_masks"].requires_grad_()
    match = HungarianMatcher()(outputs, targets)
    kept: dict[int, int] = {}  # bytes by address: one array may be kept more than once

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = criterion().mask_losses(outputs, targets, match, padding_mask(sizes))
    at_the_stride, pixels = outputs["pred_masks"].numel(), targets[0]["masks"].numel()
    assert weighted_sum(losses).requires_grad
    assert sum(kept.values()) >= 4 * at_the_stride, "what is kept was not seen"
    assert sum(kept.values()) < 4 * pixels
