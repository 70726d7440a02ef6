"""Activation checkpointing: nothing changes but how much is kept for the backward pass."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from weakref import WeakSet

import pytest
import torch
from torch import Tensor

from model.network.build import build_model, detector_of
from model.network.config import ModelConfig
from model.network.detr import DETR, Predictions
from model.network.nested_tensor import NestedTensor, normalize, pad_images
from model.network.segmentation import DETRsegm
from model.training.activation_checkpointing import checkpoint_activations
from tests.model.networks import SMALL

DROPOUT = replace(SMALL, dropout=0.2)
CONFIGS = {
    "live batch norm": DROPOUT,
    "frozen batch norm": replace(DROPOUT, frozen_batch_norm=True),
    "published padding": replace(DROPOUT, padding="published"),
    "pre-norm, boxes only": replace(DROPOUT, pre_norm=True, masks=False),
    "bottlenecks": replace(DROPOUT, backbone="resnet50", stages=4, hidden_dim=128, dilation=True),
    # Squeeze and excitation, depthwise convolutions, and blocks that are dropped at random.
    "another family": replace(DROPOUT, backbone="efficientnet_b0"),
}


def inputs(seed: int = 0, sizes: tuple[tuple[int, int], ...] = ((64, 90), (50, 96))) -> NestedTensor:
    generator = torch.Generator().manual_seed(seed)
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return normalize(*pad_images(pictures))


def pair(config: ModelConfig) -> tuple[DETR | DETRsegm, DETR | DETRsegm]:
    """The same network without and with activation checkpointing, in training mode."""
    torch.manual_seed(0)
    plain = build_model(config).train()
    checkpointed = copy.deepcopy(plain)
    checkpoint_activations(checkpointed)
    return plain, checkpointed


def loss_of(outputs: Predictions) -> Tensor:
    layers = (outputs, *outputs["aux_outputs"])
    answers = [layer[name] for layer in layers for name in ("pred_logits", "pred_boxes")]
    answers += [outputs["pred_masks"]] if "pred_masks" in outputs else []
    return torch.stack([answer.float().square().mean() for answer in answers]).sum()


def learn(network: DETR | DETRsegm, *batches: NestedTensor) -> Tensor:
    """The loss of the batches, all of which run before the gradients of any are computed."""
    network.zero_grad()
    torch.manual_seed(3)
    loss = torch.stack([loss_of(network(batch)) for batch in batches]).sum()
    loss.backward()
    return loss.detach()


def assert_same(network: DETR | DETRsegm, other: DETR | DETRsegm) -> None:
    """Gradients and buffers are equal, to the last bit: it is the same arithmetic."""
    others = dict(other.named_parameters())
    assert any(parameter.grad is not None for parameter in others.values())
    for name, parameter in network.named_parameters():
        grad, other_grad = parameter.grad, others[name].grad
        assert (grad is None) == (other_grad is None), name
        assert grad is None or other_grad is None or torch.equal(grad, other_grad), name
    buffers = dict(other.named_buffers())
    assert buffers.keys() == {name for name, _ in network.named_buffers()}
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_gradients_and_batch_statistics_are_those_without_it(name: str) -> None:
    plain, checkpointed = pair(CONFIGS[name])
    for seed in (0, 1):  # the second step sees what the first left behind
        expected, after = learn(plain, inputs(seed)), torch.rand(1)
        assert torch.equal(learn(checkpointed, inputs(seed)), expected)
        assert torch.equal(torch.rand(1), after), "random numbers went on from another place"
        assert_same(plain, checkpointed)


def test_batch_statistics_do_move_and_dropout_does_drop() -> None:
    """Or that they are the same would show nothing."""
    plain, _ = pair(DROPOUT)
    before = {name: buffer.clone() for name, buffer in plain.named_buffers() if "running_mean" in name}
    plain(inputs())
    assert before
    assert not any(torch.equal(plain.get_buffer(name), buffer) for name, buffer in before.items())
    with torch.no_grad():
        assert not torch.equal(plain(inputs())["pred_logits"], plain(inputs())["pred_logits"])


def test_gradients_are_the_same_where_another_batch_has_been_seen_since() -> None:
    """The padding of the first batch is not that of the second, which the backbone saw last."""
    plain, checkpointed = pair(DROPOUT)
    batches = inputs(0, ((64, 40), (33, 64))), inputs(1, ((40, 64), (64, 64)))
    assert torch.equal(learn(plain, *batches), learn(checkpointed, *batches))
    assert_same(plain, checkpointed)


def test_gradients_are_the_same_in_bfloat16() -> None:
    plain, checkpointed = pair(DROPOUT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [learn(network, inputs()) for network in (plain, checkpointed)]
    assert torch.equal(*losses)
    assert_same(plain, checkpointed)


def test_gradients_are_the_same_with_a_frozen_backbone_in_evaluation_mode() -> None:
    plain, checkpointed = pair(DROPOUT)
    for network in (plain, checkpointed):
        body = detector_of(network).body.eval()
        for name, parameter in body.named_parameters():
            parameter.requires_grad_("layer3" in name)
    assert torch.equal(learn(plain, inputs()), learn(checkpointed, inputs()))
    assert_same(plain, checkpointed)


def test_gradients_can_be_computed_twice() -> None:
    plain, checkpointed = pair(DROPOUT)
    for network in (plain, checkpointed):
        torch.manual_seed(3)
        loss = loss_of(network(inputs()))
        loss.backward(retain_graph=True)
        loss.backward()
    assert_same(plain, checkpointed)


def test_the_names_of_the_state_dict_are_those_without_it() -> None:
    plain, checkpointed = pair(DROPOUT)
    assert list(checkpointed.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in checkpointed.named_modules()] == [name for name, _ in plain.named_modules()]
    checkpointed.load_state_dict(plain.state_dict(), strict=True)


def test_answers_are_those_without_it_in_evaluation() -> None:
    plain, checkpointed = (network.eval() for network in pair(DROPOUT))
    with torch.no_grad():
        expected, found = plain(inputs()), checkpointed(inputs())
    for name in ("pred_logits", "pred_boxes", "pred_masks"):
        assert torch.equal(found[name], expected[name])


def test_a_deep_copy_has_weights_of_its_own() -> None:
    plain, checkpointed = pair(DROPOUT)
    copied = copy.deepcopy(checkpointed)
    with torch.no_grad():
        for parameter in checkpointed.parameters():
            parameter.zero_()
        for buffer in checkpointed.buffers():
            buffer.zero_()
    assert torch.equal(learn(plain, inputs()), learn(copied, inputs()))
    assert_same(plain, copied)


class Kept:
    """A tensor that the graph of an answer holds on to."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@contextmanager
def counting_kept_bytes(network: torch.nn.Module) -> Iterator[Callable[[], int]]:
    """How many bytes are kept for the backward pass, beside weights and statistics, which are there in any case."""
    there = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    packed: WeakSet[Kept] = WeakSet()

    def pack(tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        packed.add(kept)
        return kept

    def count() -> int:
        gc.collect()
        storages = [kept.tensor.untyped_storage() for kept in packed]
        by_address = {storage.data_ptr(): storage.nbytes() for storage in storages}
        return sum(size for address, size in by_address.items() if address not in there)

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        yield count


@pytest.mark.parametrize("name", CONFIGS)
def test_a_fifth_of_the_bytes_or_less_are_kept_for_the_backward_pass(name: str) -> None:
    totals = []
    for network in pair(CONFIGS[name]):
        with counting_kept_bytes(network) as count:
            outputs = network(inputs())
            totals.append(count())
        assert outputs["pred_logits"].requires_grad
    assert 0 < totals[1] <= totals[0] / 5


@pytest.mark.parametrize("part", ["backbone", "transformer", "mask head"])
def test_every_part_keeps_less(part: str) -> None:
    totals = []
    for network in pair(replace(DROPOUT, frozen_batch_norm=True)):
        assert isinstance(network, DETRsegm)
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        detr = network.detr
        trained = {"backbone": detr.body, "transformer": detr.transformer, "mask head": network.mask_head}[part]
        trained.requires_grad_(True)
        batch = inputs()
        with counting_kept_bytes(network) as count:
            decoded = detr.decode(batch)
            if part == "mask head":
                answer = network.masks(decoded, torch.cartesian_prod(torch.arange(2), torch.arange(10)))
            else:
                answer = decoded.projected if part == "backbone" else decoded.hs
            totals.append(count())
        assert answer.requires_grad
    assert 0 < totals[1] <= totals[0] / 3
