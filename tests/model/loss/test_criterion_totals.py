"""What losses are divided by: a batch learnt from in parts, on one process or several, is learnt from as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from model.loss.criterion import SetCriterion, Totals, weighted_sum, world_totals
from model.loss.matcher import HungarianMatcher
from model.network.detr import Predictions
from model.network.nested_tensor import NestedTensor, normalize, pad_images
from model.network.segmentation import DETRsegm
from tests.model.loss.test_criterion import CLASSES, QUERIES, Size, Targets, canvas, padding_mask, predictions, scene
from tests.model.networks import SMALL, filled, sharpen_masks

LAYERS = 2  # auxiliary outputs

images = st.tuples(st.integers(0, QUERIES + 3), st.tuples(st.integers(1, 70), st.integers(1, 70)))
seeds = st.integers(0, 2**31)


def part_of(outputs: Predictions, begin: int, end: int, sizes: list[Size]) -> Predictions:
    """What the network would answer for the images from `begin` to `end`, of these sizes, on their own canvas."""
    rows = (outputs["mask_index"][:, 0] >= begin) & (outputs["mask_index"][:, 0] < end)
    height, width = canvas(sizes)
    aux: list[Predictions] = [
        {"pred_logits": layer["pred_logits"][begin:end], "pred_boxes": layer["pred_boxes"][begin:end]}
        for layer in outputs["aux_outputs"]
    ]
    return {
        "pred_logits": outputs["pred_logits"][begin:end],
        "pred_boxes": outputs["pred_boxes"][begin:end],
        "pred_masks": outputs["pred_masks"][rows, : height // 4, : width // 4],
        "mask_index": outputs["mask_index"][rows] - torch.tensor([begin, 0]),
        "aux_outputs": aux,
    }


def leaves(outputs: Predictions) -> list[Tensor]:
    layers = (outputs, *outputs["aux_outputs"])
    return [outputs["pred_masks"], *[layer[name] for layer in layers for name in ("pred_logits", "pred_boxes")]]


def gradients(outputs: Predictions, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves(outputs)))


@settings(max_examples=25)
@given(batch=st.lists(images, min_size=1, max_size=5), cuts=st.sets(st.integers(1, 4)), seed=seeds)
def test_the_losses_of_parts_sum_to_those_of_the_whole_batch_and_so_do_their_gradients(
    batch: list[tuple[int, Size]], cuts: set[int], seed: int
) -> None:
    counts, sizes = [count for count, _ in batch], [size for _, size in batch]
    outputs, targets = scene(seed, counts, sizes)
    generator = torch.Generator().manual_seed(seed)
    outputs["aux_outputs"] = [predictions(generator, len(batch)) for _ in range(LAYERS)]
    for leaf in leaves(outputs):
        leaf.requires_grad_()
    criterion = SetCriterion(CLASSES, HungarianMatcher())
    whole = criterion(outputs, targets, padding_mask(sizes))
    ends = [0, *sorted(cut for cut in cuts if cut < len(batch)), len(batch)]
    parts = [slice(begin, end) for begin, end in pairwise(ends)]
    totals = world_totals([criterion.totals(targets[part], QUERIES) for part in parts])
    losses = [
        criterion(
            part_of(outputs, part.start, part.stop, sizes[part]), targets[part], padding_mask(sizes[part]), totals
        )
        for part in parts
    ]
    for name in (name for name in whole if name.startswith("loss_")):
        summed = torch.stack([loss[name] for loss in losses]).sum()
        torch.testing.assert_close(summed, whole[name], rtol=1e-5, atol=1e-6)
    expected = gradients(outputs, weighted_sum(whole))
    found = gradients(outputs, torch.stack([weighted_sum(loss) for loss in losses]).sum())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * max(1.0, float(other.abs().max())))


@settings(max_examples=25)
@given(counts=st.lists(st.integers(0, QUERIES + 3), min_size=1, max_size=4), eos_coef=st.floats(0.01, 1.0), seed=seeds)
def test_the_total_of_the_class_loss_is_the_weight_of_the_classes_that_queries_are_matched_to(
    counts: list[int], eos_coef: float, seed: int
) -> None:
    outputs, targets = scene(seed, counts)
    criterion = SetCriterion(CLASSES, HungarianMatcher(), eos_coef)
    boxes, class_weight = criterion.totals(targets, QUERIES)
    matched = sum(len(query) for query, _ in criterion.matcher(outputs, targets))
    assert float(boxes) == sum(counts)
    expected = matched + eos_coef * (QUERIES * len(counts) - matched)
    assert float(class_weight) == pytest.approx(expected, rel=1e-5)


def test_classes_weigh_in_the_loss_as_they_do_in_torchs_weighted_cross_entropy() -> None:
    outputs, targets = scene(5, [2, 0, QUERIES])
    weights = [0.5 + index for index in range(CLASSES)]
    criterion = SetCriterion(CLASSES, HungarianMatcher(), 0.2, weights)
    labels = torch.full((3, QUERIES), CLASSES)
    for row, target, (query, matched) in zip(labels, targets, criterion.matcher(outputs, targets), strict=True):
        row[query] = target["labels"][matched]
    expected = torch.nn.functional.cross_entropy(
        outputs["pred_logits"].transpose(1, 2), labels, torch.tensor([*weights, 0.2])
    )
    torch.testing.assert_close(criterion(outputs, targets)["loss_ce"], expected)


def test_no_target_at_all_counts_as_one_so_that_losses_are_finite() -> None:
    nothing = Totals(torch.tensor(0.0), torch.tensor(0.5))
    assert [float(total) for total in world_totals([nothing, nothing])] == [1.0, 1.0]


# Four pictures on two processes, each of which takes them one at a time. The first set has a process with hardly any
# target, the second fewer targets than processes, the third none.
WORLDS = ((3, 12, 0, 1), (0, 0, 1, 0), (0, 0, 0, 0))
SIZES: tuple[Size, ...] = ((64, 64), (40, 64), (50, 34), (64, 33))
FROZEN = replace(SMALL, frozen_batch_norm=True, dropout=0.0)


def network_to_train() -> DETRsegm:
    """In double precision: what single precision rounds off grows a thousandfold on its way back to the images."""
    network = filled(FROZEN)
    assert isinstance(network, DETRsegm)
    sharpen_masks(network)
    return network.train().double()


def learnt_from(counts: Sequence[int], chosen: Sequence[int]) -> tuple[NestedTensor, Targets]:
    """The chosen pictures of four with so many objects, on their own canvas."""
    pictures, targets = [], []
    for i in chosen:
        generator = torch.Generator().manual_seed(i)
        pictures.append(torch.randint(0, 256, (3, *SIZES[i]), dtype=torch.uint8, generator=generator))
        targets.append(
            {
                "labels": torch.randint(0, FROZEN.num_classes, (counts[i],), generator=generator),
                "boxes": 0.25 + 0.25 * torch.rand(counts[i], 4, generator=generator),
                "masks": torch.rand(counts[i], *SIZES[i], generator=generator) < 0.4,
            }
        )
    inputs = normalize(*pad_images(pictures))
    return inputs._replace(tensors=inputs.tensors.double()), targets


def criterion_of_network() -> SetCriterion:
    return SetCriterion(FROZEN.num_classes, HungarianMatcher())


def one_of_two_processes(rank: int, folder: Path) -> None:
    """Learn from half of each world's pictures, in two parts; what all processes make of it is saved by the first."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2, timeout=timedelta(minutes=4)
    )
    criterion = criterion_of_network()
    network = DistributedDataParallel(network_to_train())
    found = []
    for counts in WORLDS:
        network.zero_grad()
        parts = [learnt_from(counts, [i]) for i in range(rank, 4, 2)]
        totals = world_totals([criterion.totals(targets, FROZEN.num_queries) for _, targets in parts])
        for inputs, targets in parts:
            # As in training, gradients travel with the last part only.
            with nullcontext() if targets is parts[-1][1] else network.no_sync():
                weighted_sum(criterion(network(inputs), targets, inputs.padding_mask, totals)).backward()
        found.append({name: parameter.grad.clone() for name, parameter in network.module.named_parameters()})
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_average_to_the_gradients_of_one_on_the_joined_batch(tmp_path: Path) -> None:
    spawn(one_of_two_processes, args=(tmp_path,), nprocs=2)
    network = network_to_train()
    for counts, found in zip(WORLDS, torch.load(tmp_path / "gradients.pt"), strict=True):
        network.zero_grad()
        inputs, targets = learnt_from(counts, range(4))
        weighted_sum(criterion_of_network()(network(inputs), targets, inputs.padding_mask)).backward()
        largest = max(float(gradient.abs().max()) for gradient in found.values())
        assert largest > 0.1, "there is nothing to learn"
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            # Some gradients are zero but for rounding: that of a shift before a norm, of what is softmaxed.
            size = max(float(parameter.grad.abs().max()), 1e-6 * largest)
            torch.testing.assert_close(found[name], parameter.grad, rtol=0.0, atol=1e-5 * size)
