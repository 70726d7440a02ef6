"""Folded batch norms: the same function, with no batch norm left, and only where it is the same function."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FrozenBatchNorm2d

from model.exporting.batch_norm_folding import fold_batch_norm
from model.network.backbone import Backbone
from model.network.nested_tensor import NestedTensor, normalize, pad_images

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def shake(network: nn.Module) -> None:
    """Give every batch norm statistics, gains and shifts that matter, as training would."""
    generator = torch.Generator().manual_seed(0)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for norm in norms(network):
            for name, low, high in (
                ("running_mean", -0.3, 0.3),
                ("running_var", 0.5, 2.0),
                ("weight", 0.5, 1.5),
                ("bias", -0.3, 0.3),
            ):
                value = getattr(norm, name)
                value.copy_(uniform(value, low, high))


def norms(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, NORMS)]


def batch() -> NestedTensor:
    generator = torch.Generator().manual_seed(1)
    sizes = [(40, 64), (64, 30)]
    return normalize(
        *pad_images([torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes])
    )


@pytest.mark.parametrize(
    ("name", "stages", "dilation", "frozen"),
    [
        ("resnet18", 3, False, False),
        ("resnet18", 3, False, True),
        ("mobilenet_v3_small", 4, False, False),
        ("mobilenet_v3_small", 4, False, True),
        ("resnet50", 4, True, True),
    ],
    ids=["resnet18 live", "resnet18 frozen", "mobilenet live", "mobilenet frozen", "DC5 frozen"],
)
def test_a_folded_backbone_gives_the_same_pyramid_without_a_batch_norm(
    name: str, stages: int, dilation: bool, frozen: bool
) -> None:
    torch.manual_seed(0)
    backbone = Backbone(name, stages, dilation, frozen_batch_norm=frozen, exact=True).eval()
    shake(backbone)
    folded = copy.deepcopy(backbone)
    fold_batch_norm(folded.body)
    assert norms(backbone)
    assert not norms(folded)
    with torch.no_grad():
        for found, expected in zip(folded(batch()), backbone(batch()), strict=True):
            atol = 1e-4 * float(expected.tensors.abs().max())
            torch.testing.assert_close(found.tensors, expected.tensors, rtol=0, atol=atol)
            assert torch.equal(found.padding_mask, expected.padding_mask)


class SmallNetwork(nn.Module):
    """A convolution whose output is normalised, and a second one that is not followed by a norm at all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.bn(self.conv(x)).relu())


class SecondReader(SmallNetwork):
    """Another layer reads the convolution before it is normalised."""

    def forward(self, x: Tensor) -> Tensor:
        before = self.conv(x)
        return self.last(self.bn(before).relu() + before)


class SecondCall(SmallNetwork):
    """The same convolution runs twice, and only one of its outputs is normalised."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.bn(self.conv(x)).relu() + self.conv(2 * x))


class NormFirst(SmallNetwork):
    """The norm reads what no convolution has written."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.bn(self.conv(x).relu()))


def traced(network: nn.Module) -> nn.Module:
    shake(network)
    return create_feature_extractor(network.eval(), {"last": "0"})


@pytest.mark.parametrize(("kind", "left"), [(SmallNetwork, 0), (SecondReader, 1), (SecondCall, 1), (NormFirst, 1)])
def test_a_norm_is_folded_only_where_it_is_the_only_reader_of_a_convolution(
    kind: type[SmallNetwork], left: int
) -> None:
    torch.manual_seed(0)
    body, image = traced(kind()), torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        expected = body(image)["0"]
        fold_batch_norm(body)
        found = body(image)["0"]
    assert len(norms(body)) == left
    torch.testing.assert_close(found, expected)


def test_what_is_folded_is_no_longer_trained() -> None:
    body = traced(SmallNetwork())
    fold_batch_norm(body)
    assert {name for name, parameter in body.named_parameters() if parameter.requires_grad} == {
        "last.weight",
        "last.bias",
    }
