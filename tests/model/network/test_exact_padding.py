"""Batching never changes an answer: the network, alone and in any batch on any canvas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.network.backbone import Backbone
from model.network.config import ModelConfig
from model.network.nested_tensor import NestedTensor, normalize, pad_images
from model.network.segmentation import DETRsegm
from tests.model.networks import SMALL, filled, sharpen_masks

TOLERANCE = 1e-4

WIDE = replace(SMALL, hidden_dim=128)
CONFIGS = {
    "demo": SMALL,
    "learned positions, pre-norm": replace(SMALL, position_embedding="learned", pre_norm=True),
    "four stages, frozen batch norm": replace(WIDE, stages=4, frozen_batch_norm=True),
    "DC5": replace(WIDE, backbone="resnet50", stages=4, dilation=True),
    "squeeze and excitation": replace(WIDE, backbone="mobilenet_v3_small", stages=4),
}
NETWORKS = {name: filled(config) for name, config in CONFIGS.items()}
for network in NETWORKS.values():
    assert isinstance(network, DETRsegm)
    sharpen_masks(network)

sizes = st.tuples(st.integers(1, 130), st.integers(1, 130))


def picture(height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def on_canvas(inputs: NestedTensor, extra: tuple[int, int]) -> NestedTensor:
    """The same batch with more padding, in multiples of 32."""
    rows, cols = 32 * extra[0], 32 * extra[1]
    tensors = torch.nn.functional.pad(inputs.tensors, (0, cols, 0, rows))
    return NestedTensor(tensors, torch.nn.functional.pad(inputs.padding_mask, (0, cols, 0, rows), value=True))


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=10)
@given(
    image=sizes,
    neighbours=st.lists(sizes, max_size=3),
    place=st.integers(0, 3),
    extra=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_an_image_answers_in_any_batch_as_alone(
    name: str, image: tuple[int, int], neighbours: list[tuple[int, int]], place: int, extra: tuple[int, int]
) -> None:
    network, wanted = NETWORKS[name], picture(*image, seed=1)
    place = min(place, len(neighbours))
    images = [picture(*size, seed=2 + i) for i, size in enumerate(neighbours)]
    images.insert(place, wanted)
    with torch.no_grad():
        alone = network(normalize(*pad_images([wanted])))
        batched = network(on_canvas(normalize(*pad_images(images)), extra))
    queries = CONFIGS[name].num_queries
    masks = batched["pred_masks"].unflatten(0, (len(images), queries))[place]
    rows, cols = (-(-side // 4) for side in image)
    for found, expected in (
        (batched["pred_logits"][place], alone["pred_logits"][0]),
        (batched["pred_boxes"][place], alone["pred_boxes"][0]),
        (masks[:, :rows, :cols], alone["pred_masks"][:, :rows, :cols]),
    ):
        assert float((found - expected).abs().max()) <= TOLERANCE * max(1.0, float(expected.abs().max()))


def test_published_padding_does_change_the_answer() -> None:
    network = filled(replace(SMALL, padding="published"))
    wanted = picture(60, 40, seed=1)
    with torch.no_grad():
        alone = network(normalize(*pad_images([wanted])))
        batched = network(normalize(*pad_images([wanted, picture(128, 128, seed=2)])))
    assert float((batched["pred_logits"][0] - alone["pred_logits"][0]).abs().max()) > 100 * TOLERANCE


@pytest.mark.parametrize("name", ["resnet34", "regnet_x_400mf", "efficientnet_b0", "convnext_tiny", "densenet121"])
def test_any_torchvision_pyramid_sees_only_its_image(name: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone(name, stages=4, dilation=False, frozen_batch_norm=False, exact=True).eval()
    # Statistics and shifts that are not zero, or padding would leak nothing.
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias)
    wanted = normalize(*pad_images([picture(70, 45, seed=1)]))
    with torch.no_grad():
        alone = backbone(wanted)
        batched = backbone(on_canvas(wanted, (2, 1)))
    for level, (a, b) in enumerate(zip(alone, batched, strict=True)):
        rows, cols = (-(-side // 4 // 2**level) for side in (70, 45))
        expected = a.tensors[..., :rows, :cols]
        assert float((b.tensors[..., :rows, :cols] - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(WIDE, backbone="vit_b_16", stages=4), "pyramid"),
        (replace(WIDE, backbone="resnet18", stages=4, dilation=True), "bottleneck"),
        (replace(SMALL, backbone="no_such_network"), "no torchvision network"),
    ],
)
def test_a_backbone_that_cannot_serve_is_refused_by_name(config: ModelConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filled(config)
