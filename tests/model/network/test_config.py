"""Configs: which can be built, and that what is built is what the config says."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model.network.build import build_model, detector_of
from model.network.config import PRESETS, ModelConfig
from model.network.detr import DETR
from model.network.nested_tensor import normalize, pad_images
from model.network.position_encoding import PositionEmbeddingLearned, PositionEmbeddingSine
from model.network.segmentation import DETRsegm, MaskHeadSmallConv
from tests.model.networks import SMALL


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_dim": 100}, "hidden_dim=100 must be a multiple of nheads=8"),
        ({"hidden_dim": 6, "nheads": 2}, "and of 4"),
        ({"stages": 1}, "stages=1 must be 2, 3 or 4"),
        ({"stages": 5}, "stages=5 must be 2, 3 or 4"),
        ({"stages": 3, "dilation": True}, "needs stages=4"),
        ({"masks": True, "hidden_dim": 64}, "multiple of 128"),
        ({"masks": True, "nheads": 4}, "nheads=4 added"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused_with_the_reason(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**values)


def test_a_changed_copy_of_a_config_is_checked_as_well() -> None:
    with pytest.raises(ValueError, match="hidden_dim=30"):
        replace(PRESETS["detr-demo"], hidden_dim=30)


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        PRESETS["detr-demo"].hidden_dim = 64  # type: ignore[misc]


@settings(max_examples=60)
@given(eighths=st.integers(1, 40), nheads=st.sampled_from([1, 2, 4, 8, 16]), stages=st.sampled_from([2, 3, 4]))
def test_a_config_with_masks_is_accepted_exactly_where_its_mask_head_can_be_built(
    eighths: int, nheads: int, stages: int
) -> None:
    hidden_dim = 8 * eighths
    if hidden_dim % nheads:
        return
    try:
        ModelConfig(masks=True, hidden_dim=hidden_dim, nheads=nheads, stages=stages)
        accepted = True
    except ValueError:
        accepted = False
    try:
        with torch.device("meta"):
            MaskHeadSmallConv(hidden_dim, nheads, [8] * (stages - 1))
        built = True
    except ValueError:
        built = False
    assert accepted == built


def test_the_presets_differ_as_their_names_say() -> None:
    for name, config in PRESETS.items():
        if name not in ("detr-demo", "table-transformer"):
            assert config.backbone == ("resnet101" if "101" in name else "resnet50")
            assert config.dilation == ("dc5" in name)
            assert config.masks == ("panoptic" in name)
            assert config.num_classes == (250 if "panoptic" in name else 91)
            assert config.padding == "exact"


@pytest.mark.parametrize("masks", [False, True])
def test_a_network_answers_with_as_many_queries_classes_and_layers_as_its_config_says(masks: bool) -> None:
    config = replace(SMALL, masks=masks, decoder_layers=3, num_queries=7, num_classes=5)
    network = build_model(config).eval()
    pictures = [torch.zeros(3, 40, 64, dtype=torch.uint8), torch.zeros(3, 20, 32, dtype=torch.uint8)]
    with torch.no_grad():
        outputs = network(normalize(*pad_images(pictures)))
    for layer in (outputs, *outputs["aux_outputs"]):
        assert layer["pred_logits"].shape == (2, 7, 6)
        assert layer["pred_boxes"].shape == (2, 7, 4)
        assert bool(((layer["pred_boxes"] >= 0) & (layer["pred_boxes"] <= 1)).all())
    assert len(outputs["aux_outputs"]) == 2
    assert ("pred_masks" in outputs) == ("mask_index" in outputs) == masks


def test_only_a_config_with_masks_gets_a_mask_head_and_either_has_a_detector() -> None:
    with torch.device("meta"):
        plain, with_masks = build_model(replace(SMALL, masks=False)), build_model(SMALL)
    assert isinstance(plain, DETR)
    assert detector_of(plain) is plain
    assert isinstance(with_masks, DETRsegm)
    assert detector_of(with_masks) is with_masks.detr


def test_anything_else_has_no_detector() -> None:
    with pytest.raises(AssertionError):
        detector_of(nn.Identity())


@pytest.mark.parametrize(
    ("position_embedding", "kind"), [("sine", PositionEmbeddingSine), ("learned", PositionEmbeddingLearned)]
)
def test_a_network_has_the_position_encoding_of_its_config(position_embedding: Any, kind: type[nn.Module]) -> None:
    with torch.device("meta"):
        network = build_model(replace(SMALL, masks=False, position_embedding=position_embedding))
    assert isinstance(detector_of(network).backbone[1], kind)
