"""Frozen parts: no gradients, and neither weights nor batch statistics nor dropout move."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.network.build import build_model, detector_of
from model.network.config import ModelConfig
from model.network.detr import DETR
from model.network.nested_tensor import NestedTensor, pad_images
from model.network.segmentation import DETRsegm
from model.training.settings.config import FreezablePart
from model.training.start.freezing import DETECTOR, FREEZABLE_PARTS, freeze
from tests.model.networks import SMALL, filled

# Live batch norm and dropout, so that both could move.
CONFIG = replace(SMALL, stages=2, dropout=0.5)
WHOLE = tuple(part for part in FREEZABLE_PARTS if part != "stem")


def step(network: DETR | DETRsegm) -> None:
    """One optimizer step, in training mode, that changes everything that can change."""
    network.train()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    predictions = network(images())
    answers = (predictions["pred_logits"], predictions["pred_boxes"], predictions["pred_masks"])
    torch.stack([answer.square().mean() for answer in answers]).sum().backward()
    optimizer.step()


def images() -> NestedTensor:
    generator = torch.Generator().manual_seed(1)
    return pad_images([torch.randn(3, 64, 32, generator=generator), torch.randn(3, 32, 64, generator=generator)])


def keys_of(network: DETR | DETRsegm, parts: Sequence[FreezablePart]) -> set[str]:
    """Keys of the state dict that belong to these parts."""
    prefix = "detr." if isinstance(network, DETRsegm) else ""
    names = [f"{'' if part == 'mask_head' else prefix}{name}." for part in parts for name in FREEZABLE_PARTS[part]]
    return {key for key in network.state_dict() if key.startswith(tuple(names))}


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in network.state_dict().items()}


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, masks=False, position_embedding="learned", pre_norm=True)])
def test_every_weight_belongs_to_exactly_one_part(config: ModelConfig) -> None:
    network = build_model(config)
    keys = [keys_of(network, [part]) for part in WHOLE]
    assert set().union(*keys) == network.state_dict().keys()
    assert sum(map(len, keys)) == len(network.state_dict())
    assert keys_of(network, ["stem"]) < keys_of(network, ["backbone"])


@given(st.lists(st.sampled_from(list(FREEZABLE_PARTS)), min_size=1, unique=True))
@settings(max_examples=8)
def test_a_step_changes_every_part_that_is_not_frozen_and_no_bit_of_those_that_are(parts: list[FreezablePart]) -> None:
    network = filled(CONFIG)
    if set(WHOLE) <= set(parts):
        with pytest.raises(ValueError, match="nothing left to train"):
            freeze(network, parts)
        return
    freeze(network, parts)
    frozen, before = keys_of(network, parts), snapshot(network)
    step(network)
    changed = {key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])}
    assert not changed & frozen
    assert {name for name, p in network.named_parameters() if not p.requires_grad} <= frozen
    assert all(p.grad is None for name, p in network.named_parameters() if name in frozen)
    for part in set(WHOLE) - set(parts):
        assert changed & keys_of(network, [part]), f"{part} did not learn"
    assert ("detr.backbone.0.body.bn1.running_mean" in changed) == (not {"stem", "backbone"} & set(parts))


def test_dropout_of_frozen_parts_does_not_drop_and_that_of_the_others_does() -> None:
    network = filled(replace(CONFIG, masks=False))
    freeze(network, ["backbone", "encoder"])
    network.train()
    detector = detector_of(network)
    first, second = (detector.decode(images()) for _ in range(2))
    assert torch.equal(first.memory, second.memory)
    assert not torch.equal(first.hs, second.hs)
    assert {m.training for m in detector.transformer.encoder.modules()} == {False}
    assert {m.training for m in detector.transformer.decoder.modules()} == {True}


def test_over_a_frozen_detector_only_the_mask_head_is_in_training_mode() -> None:
    network = filled(CONFIG)
    assert isinstance(network, DETRsegm)
    freeze(network, DETECTOR)
    network.train()
    with torch.no_grad():
        first, second = (network(images()) for _ in range(2))
    assert torch.equal(first["pred_logits"], second["pred_logits"])
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == {
        "bbox_attention",
        "mask_head",
    }


@pytest.mark.parametrize("parts", [["stem"], ["backbone", "decoder"]])
@pytest.mark.parametrize("how", ["copied", "pickled"])
def test_a_copy_of_a_network_stays_frozen_by_itself(parts: list[FreezablePart], how: str) -> None:
    network = filled(CONFIG)
    freeze(network, parts)
    other = copy.deepcopy(network) if how == "copied" else pickle.loads(pickle.dumps(network))  # noqa: S301
    before, others = snapshot(network), snapshot(other)
    step(other)
    frozen = keys_of(other, parts)
    assert all(torch.equal(tensor, others[key]) for key, tensor in other.state_dict().items() if key in frozen)
    assert not torch.equal(other.state_dict()["detr.class_embed.bias"], others["detr.class_embed.bias"])
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert not network.training, "training the copy put the original into training mode"


def test_the_published_stem_is_all_that_a_frozen_stem_freezes() -> None:
    network = filled(replace(CONFIG, masks=False))
    freeze(network, ["stem"])
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert {name.removeprefix("backbone.0.body.").split(".")[0] for name in frozen} == {"conv1", "bn1", "layer1"}


def test_what_cannot_be_frozen_is_refused_and_leaves_the_network_as_it_was() -> None:
    network = filled(replace(CONFIG, masks=False))
    cases: tuple[tuple[tuple[FreezablePart, ...], str], ...] = (
        (("backbone", "mask_head"), "this network has no mask_head to freeze"),
        (DETECTOR, "nothing left to train"),
    )
    for parts, reason in cases:
        with pytest.raises(ValueError, match=reason):
            freeze(network, parts)
    assert all(p.requires_grad for p in network.parameters())
    assert all(module.training for module in network.train().modules())


def test_freezing_nothing_changes_nothing() -> None:
    network = filled(CONFIG)
    freeze(network, [])
    assert all(p.requires_grad for p in network.parameters())
