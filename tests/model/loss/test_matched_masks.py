"""The mask head on the matched queries only: the losses and the gradients of running it on every query."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.loss.criterion import SetCriterion, weighted_sum
from model.loss.matcher import HungarianMatcher, matched_pairs
from model.network.detr import DecoderOutputs, Predictions
from model.network.nested_tensor import NestedTensor, normalize, pad_images
from model.network.segmentation import DETRsegm
from model.runtime.artifact.metadata import Padding
from tests.model.networks import SMALL, filled, sharpen_masks

QUERIES = SMALL.num_queries
SIZES = ((40, 64), (64, 30))
TOLERANCE = 1e-5  # of the largest gradient of a parameter

Targets = list[dict[str, Tensor]]


@cache
def network(padding: str) -> DETRsegm:
    """In double precision, so that what differs is not the rounding of sums over fewer masks."""
    made = filled(replace(SMALL, padding=cast(Padding, padding)))
    assert isinstance(made, DETRsegm)
    sharpen_masks(made)
    return made.double()


@cache
def inputs() -> NestedTensor:
    generator = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]
    images, padding_mask = normalize(*pad_images(pictures))
    return NestedTensor(images.double(), padding_mask)


def targets(counts: tuple[int, int], seed: int) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "labels": torch.randint(0, SMALL.num_classes, (count,), generator=generator),
            "boxes": 0.25 + 0.25 * torch.rand(count, 4, generator=generator),
            "masks": torch.rand(count, *size, generator=generator) < 0.5,
        }
        for count, size in zip(counts, SIZES, strict=True)
    ]


class Counted:
    """Counts the (image, query) pairs that the mask head runs on."""

    def __init__(self) -> None:
        self.pairs = 0

    def __call__(self, module: torch.nn.Module, args: tuple[object, ...], output: Tensor) -> None:
        self.pairs += len(output)


def answer(of: DETRsegm, decoded: DecoderOutputs, wanted: Targets | None) -> Predictions:
    """Predictions with the masks of the queries that are matched to the wanted targets, or of all queries (None)."""
    outputs = of.detr.predict(decoded.hs)
    if wanted is None:
        pairs = torch.cartesian_prod(torch.arange(len(SIZES)), torch.arange(QUERIES))
    else:
        pairs = matched_pairs(HungarianMatcher()(outputs, wanted))
    return {**outputs, "pred_masks": of.masks(decoded, pairs), "mask_index": pairs}


def learn(
    of: DETRsegm, wanted: Targets, *, matched_only: bool, stage: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """Losses, gradients by parameter, and the number of masks computed, of one step of joint training or of masks."""
    of.zero_grad()
    counted = Counted()
    handle = of.mask_head.register_forward_hook(counted)
    with torch.set_grad_enabled(stage == "joint"):
        decoded = of.detr.decode(inputs())
    outputs = answer(of, decoded, wanted if matched_only else None)
    handle.remove()
    criterion = SetCriterion(SMALL.num_classes, HungarianMatcher())
    padding_mask = inputs().padding_mask
    if stage == "joint":
        losses = criterion(outputs, wanted, padding_mask)
    else:
        losses = criterion.mask_losses(outputs, wanted, criterion.matcher(outputs, wanted), padding_mask)
    weighted_sum(losses).backward()
    gradients = {name: p.grad.clone() for name, p in of.named_parameters() if p.grad is not None}
    return losses, gradients, counted.pairs


def assert_matched_masks_are_enough(padding: str, wanted: Targets, stage: str) -> None:
    of_all, gradients_of_all, every = learn(network(padding), wanted, matched_only=False, stage=stage)
    found, gradients, some = learn(network(padding), wanted, matched_only=True, stage=stage)
    assert (every, some) == (2 * QUERIES, sum(min(len(t["labels"]), QUERIES) for t in wanted))
    assert found.keys() == of_all.keys()
    for name, loss in of_all.items():
        torch.testing.assert_close(found[name], loss, rtol=TOLERANCE, atol=0.0)
    assert gradients.keys() == gradients_of_all.keys()
    largest = max(float(gradient.abs().max()) for gradient in gradients_of_all.values())
    for name, gradient in gradients_of_all.items():
        # Some gradients are zero but for rounding: that of a shift before a norm, of what is softmaxed.
        size = max(float(gradient.abs().max()), 1e-6 * largest)
        torch.testing.assert_close(gradients[name], gradient, rtol=0.0, atol=TOLERANCE * size)


@settings(max_examples=5)
@given(counts=st.tuples(st.integers(0, 6), st.integers(0, 6)), seed=st.integers(0, 2**31))
def test_masks_of_matched_queries_teach_all_that_masks_of_all_queries_do(counts: tuple[int, int], seed: int) -> None:
    assert_matched_masks_are_enough("exact", targets(counts, seed), "joint")


@pytest.mark.parametrize("padding", ["exact", "published"])
@pytest.mark.parametrize("stage", ["joint", "masks"])
@pytest.mark.parametrize("counts", [(3, 1), (0, 4), (QUERIES + 2, 1), (0, 0)])
def test_so_they_do_with_either_padding_in_either_stage(padding: str, stage: str, counts: tuple[int, int]) -> None:
    assert_matched_masks_are_enough(padding, targets(counts, seed=2), stage)


def test_masks_teach_the_whole_network_in_joint_training_and_the_mask_head_alone_in_its_own_stage() -> None:
    """Or the comparison would be of gradients that are not there."""
    wanted = targets((3, 1), seed=2)
    names = {name for name, _ in network("exact").named_parameters()}
    _, joint, _ = learn(network("exact"), wanted, matched_only=True, stage="joint")
    _, masks, _ = learn(network("exact"), wanted, matched_only=True, stage="masks")
    assert joint.keys() == names
    assert masks.keys() == {name for name in names if not name.startswith("detr.")}
    assert all(bool(gradient.any()) for name, gradient in joint.items() if "in_proj_weight" not in name)
